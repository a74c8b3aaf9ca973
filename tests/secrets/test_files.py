"""Which names of files mean that they hold secrets."""

from __future__ import annotations

import pytest

from mentra_nb.secrets.files import is_secret_name, is_secret_path


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        ".ENV",
        ".env.local",
        "prod.env",
        "id_ed25519",
        "server.pem",
        "server.key",
        "credentials",
        ".netrc",
        ".pypirc",
        "client_secret_1.json",
        "terraform.tfstate",
        "secrets.toml",
        "store.kdbx",
        ".git-credentials",
    ],
)
def test_a_secret_file_is_known_by_its_name(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [".env.example", "id_rsa.pub", "cacert.pem", "data.csv", "env", "environment.yml", "keys.py", "tokenizer.json", ""],
)
def test_another_file_is_not(name: str) -> None:
    assert not is_secret_name(name)


def test_all_files_in_a_folder_of_secrets_are_secret() -> None:
    assert is_secret_path(("work", ".ssh", "config"))
    assert not is_secret_path(("work", "ssh", "config"))
    assert not is_secret_path(())

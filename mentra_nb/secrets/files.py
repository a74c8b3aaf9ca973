"""Files that hold keys and passwords, known by their names: the one list that reading, hiding and asking go by."""

from __future__ import annotations

import re
from fnmatch import translate
from functools import cache

SECRET_FILES = (
    # settings of programs, with their passwords
    *(".env", ".env.*", "*.env", ".envrc", "secrets.toml", "secrets.yaml", "secrets.yml", "secrets.json"),
    *(".netrc", "_netrc", ".pgpass", "pgpass.conf", ".my.cnf", ".mylogin.cnf", ".pypirc", ".npmrc", ".yarnrc.yml"),
    *(".git-credentials", ".htpasswd", ".dockercfg", ".boto", ".s3cfg", ".vault-token", "kubeconfig", "*.kubeconfig"),
    # keys and stores of keys
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "*.pem", "*.key", "*.ppk"),
    *("*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.gpg-key", "*.asc.key", "*.agekey", "keyrings.alt"),
    # credentials of cloud services
    *("credentials", "credentials.json", "credentials.toml", "client_secret*.json", "service-account*.json"),
    *("service_account*.json", "application_default_credentials.json", "token.json", ".databrickscfg"),
    *("terraform.tfstate", "terraform.tfstate.backup", "*.auto.tfvars", "terraform.tfvars"),
)
"""Patterns for names of files, in any case. Examples, such as `.env.example`, are not meant: see `EXAMPLES`."""
SECRET_FOLDERS = (".ssh", ".gnupg", ".aws", ".azure", ".gcloud", ".kube", ".docker", ".password-store", ".keyrings")
"""Folders all of whose files are secret."""
EXAMPLES = ("*.example", "*.sample", "*.template", "*.dist", "*.pub", "cacert*.pem", "ca-*.pem")
"""Patterns for names of files that only look so: examples, public keys, and certificates of authorities."""


@cache
def _expression(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)), re.IGNORECASE | re.DOTALL)


def is_secret_name(name: str, *, folder: bool = False) -> bool:
    """Return whether a file or folder of this name, the last part of its path, holds secrets.

    Example:
        >>> from mentra_nb.secrets.files import is_secret_name
        >>> [is_secret_name(name) for name in (".env", ".env.example", "id_rsa", "id_rsa.pub", "data.csv")]
        [True, False, True, False, False]
        >>> is_secret_name(".ssh", folder=True)
        True
    """
    if folder:
        return name.lower() in SECRET_FOLDERS
    return bool(_expression(SECRET_FILES).match(name)) and not _expression(EXAMPLES).match(name)


def is_secret_path(parts: tuple[str, ...]) -> bool:
    """Return whether a file is secret by its name or by a folder it is in, given the parts of its path.

    Example:
        >>> from mentra_nb.secrets.files import is_secret_path
        >>> is_secret_path(("project", ".aws", "config"))
        True
    """
    return bool(parts) and (is_secret_name(parts[-1]) or any(is_secret_name(part, folder=True) for part in parts))

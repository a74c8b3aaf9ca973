"""Files that no wildcard covers: mentra's own, secrets, and what programs run by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from mentra_nb.authorization import PermissionRule, Subject
from mentra_nb.permission.policy import PolicyViolation, RuntimePolicy
from mentra_nb.permission.protected import guard, guard_of
from mentra_nb.permission.rules import find_rule

WORK = Path("/srv/project")
SECRET = [".env", ".env.local", "id_ed25519", "deploy/server.key", ".aws/config", "credentials.json"]
RUN_BY_OTHERS = [
    *(".git/hooks/pre-commit", ".git", "sub/.git/config", ".gitmodules", "notes.ipynb", "Notes.IPYNB", ".bashrc"),
    *(".zshenv", ".vscode/tasks.json", "venv/lib/x.pth", "sitecustomize.py", ".ipython/profile_default/startup/a.py"),
    *(".jupyter/jupyter_config.py", ".local/share/jupyter/kernels/x/kernel.json", ".config/fish/config.fish"),
]


@pytest.mark.parametrize("name", SECRET)
def test_a_secret_is_asked_about_also_when_it_is_only_read(name: str) -> None:
    for access in ("read", "write"):
        found = guard(WORK / name, access)
        assert found is not None
        assert not found.refused


@pytest.mark.parametrize("name", RUN_BY_OTHERS)
def test_what_others_run_is_asked_about_by_name_when_it_is_written(name: str) -> None:
    found = guard(WORK / name, "write")
    assert found is not None
    assert not found.refused


@pytest.mark.parametrize("name", ["data.csv", "src/git.py", "environment.yml", "share/jupyterlab.md", ".gitignore"])
def test_an_ordinary_file_is_not_protected(name: str) -> None:
    assert guard(WORK / name, "write") is None
    assert guard(WORK / name, "read") is None


def test_a_notebook_is_read_like_any_file_and_the_folders_of_jupyter_are_not() -> None:
    assert guard(WORK / "notes.ipynb", "read") is None
    assert guard(WORK / ".local/share/jupyter/runtime/kernel-1.json", "read") is not None


def test_folders_named_by_the_environment_are_protected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", "/run/mine")
    assert guard(Path("/run/mine/kernel.json"), "read") is not None


def test_mentras_own_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "link").symlink_to(home)
    for variable, value in {
        "MENTRA_HOME": home,
        "MENTRA_STATE": tmp_path / "s",
        "MENTRA_CONFIG": tmp_path / "c",
    }.items():
        monkeypatch.setenv(variable, str(value))
    policy = RuntimePolicy()
    for path in ("home/state.sqlite", "home", "s", "s-wal", "c", "link/effects/x", "none/../home/x"):
        with pytest.raises(PolicyViolation, match="cannot be read: it belongs to mentra itself"):
            policy.readable(tmp_path, path)
        with pytest.raises(PolicyViolation, match="cannot be written: it belongs to mentra itself"):
            policy.writable(tmp_path, path)
    with pytest.raises(PolicyViolation, match="settings of mentra"):
        policy.writable(tmp_path, "sub/mentra.toml")
    assert policy.readable(tmp_path, "sub/mentra.toml")


def test_the_strictest_of_several_paths_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path))
    found = guard_of([WORK / ".env", tmp_path / "x"], "read")
    assert found is not None
    assert found.refused
    assert guard_of([WORK / "a", WORK / "b"], "read") is None


def allow(pattern: str) -> PermissionRule:
    return PermissionRule(id=pattern, tool="read", pattern=pattern, allow=True)


def test_only_its_exact_name_in_a_rule_covers_a_protected_file() -> None:
    subject = Subject.path(".env", "a.txt", absolute=("/w/.env", "/w/a.txt"), protected=(".env",))
    assert find_rule([allow("*")], "read", subject) is None
    assert find_rule([allow("*"), allow("/w/*"), allow(".en?")], "read", subject) is None
    assert find_rule([allow("*"), allow(".env")], "read", subject) is not None
    assert find_rule([allow("*"), allow("/w/.env")], "read", subject) is not None
    assert find_rule([allow(".env")], "read", subject) is None
    assert find_rule([allow("*")], "read", Subject.path("a.txt", absolute=("/w/a.txt",))) is not None

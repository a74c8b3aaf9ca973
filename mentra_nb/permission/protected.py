"""Files that no wildcard covers: the one table of what is refused, and of what a person is asked about by name.

A path is judged as it was given and as it is with its links resolved. The names of secret files are in
`secrets/files.py`. A rule covers a call that touches a protected file only if its pattern is exactly that file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from fnmatch import translate
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from mentra_nb import paths
from mentra_nb.secrets.files import is_secret_path

Access = Literal["read", "write"]


class Guard(NamedTuple):
    """Why a file is protected. `refused`: nobody can allow it; otherwise a person is asked about exactly this file."""

    refused: bool
    why: str


class _Row(NamedTuple):
    """One row of the table: what is protected, against what, and why."""

    access: tuple[Access, ...]
    why: str
    names: tuple[str, ...] = ()
    """Patterns for the last part of a path."""
    folders: tuple[str, ...] = ()
    """Parts of a path, `/` between them; everything in such a folder, and itself, is meant."""
    variables: tuple[str, ...] = ()
    """Environment variables that name such folders."""
    refused: bool = False


BOTH: tuple[Access, ...] = ("read", "write")
TABLE: tuple[_Row, ...] = (
    _Row(("write",), "it has settings of mentra", names=("mentra.toml",), refused=True),
    _Row(
        BOTH,
        "it belongs to Jupyter or IPython, which run what is in it",
        folders=(".ipython", ".jupyter", "share/jupyter", "Library/Jupyter", "AppData/Roaming/jupyter"),
        variables=("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"),
    ),
    _Row(("write",), "it belongs to Git, which runs what is in it", (".gitconfig", ".gitmodules"), (".git", ".husky")),
    _Row(("write",), "it is a notebook, which may be open", names=("*.ipynb",)),
    _Row(
        ("write",),
        "it runs when a shell, an editor or Python starts",
        names=(
            *(".bashrc", ".bash_profile", ".bash_login", ".bash_logout", ".bash_aliases", ".profile", ".inputrc"),
            *(".zshrc", ".zprofile", ".zshenv", ".zlogin", ".zlogout", ".kshrc", ".cshrc", ".tcshrc", ".login"),
            *(".xprofile", ".xinitrc", ".xsession", ".pythonrc", ".pythonstartup", ".pdbrc", ".vimrc", ".exrc"),
            *("sitecustomize.py", "usercustomize.py", "*.pth", "*_profile.ps1", "profile.ps1"),
        ),
        folders=(
            *(".config/fish", ".config/autostart", ".config/systemd", ".config/git", ".config/nvim", ".vscode"),
            *(".idea", "Library/LaunchAgents"),
        ),
    ),
)


def guard(path: Path, access: Access) -> Guard | None:
    """Return why a file may not be used like any other; `None` if it may.

    Args:
        path: Absolute. Of a link, judge both the link and where it leads.

    Example:
        >>> from pathlib import Path
        >>> from mentra_nb.permission.protected import guard
        >>> guard(Path("/srv/app/.git/hooks/pre-commit"), "write").refused
        False
        >>> guard(Path("/srv/app/data.csv"), "write") is None
        True
    """
    if any(path.is_relative_to(own) for own in _ours()):
        return Guard(refused=True, why="it belongs to mentra itself")
    parts = tuple(part.casefold() for part in path.parts)
    for row in TABLE:
        if access in row.access and (_named(parts, row) or any(path.is_relative_to(each) for each in _variables(row))):
            return Guard(row.refused, row.why)
    return Guard(refused=False, why="it may hold keys or passwords") if is_secret_path(path.parts) else None


def guard_of(forms: Iterable[Path], access: Access) -> Guard | None:
    """Return the strictest guard of a file that has several paths, as given and resolved; `None` if it has none."""
    found = [each for each in (guard(path, access) for path in forms) if each is not None]
    return next((each for each in found if each.refused), found[0] if found else None)


def _ours() -> tuple[Path, ...]:
    """Return the files and folders of mentra, as they are named and with links resolved."""
    return _forms(*paths.own_places())


@lru_cache(maxsize=64)
def _forms(*named: Path) -> tuple[Path, ...]:
    return tuple({form: None for path in named for form in (path.absolute(), path.resolve())})


@cache
def _expression(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(translate(pattern.casefold()) for pattern in patterns), re.DOTALL)


def _named(parts: tuple[str, ...], row: _Row) -> bool:
    if parts and row.names and _expression(row.names).match(parts[-1]):
        return True
    joined = "/".join(("", *parts, ""))
    return any(f"/{folder.casefold()}/" in joined for folder in row.folders)


def _variables(row: _Row) -> tuple[Path, ...]:
    return _forms(*(Path(os.environ[name]).expanduser() for name in row.variables if os.environ.get(name)))

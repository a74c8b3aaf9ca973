"""Where the paths of a call are: as given, resolved, as shown, and whether they are protected."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mentra_nb.authorization import Subject
from mentra_nb.permission.policy import as_given, resolved
from mentra_nb.permission.protected import Access, guard_of


@dataclass(frozen=True)
class Place:
    """A file that a call names."""

    given: Path
    target: Path
    """With links resolved: what is read or changed."""
    shown: str
    """Relative to the working folder if it is inside, with `/`."""

    @property
    def path(self) -> str:
        """The resolved path as text."""
        return str(self.target)


def place(folder: Path, path: str) -> Place:
    """Return where a path is, relative to a folder. Raises `OSError`, `ValueError`."""
    target = resolved(folder, path)
    return Place(as_given(folder, path), target, shown(folder, target))


def shown(folder: Path, target: Path) -> str:
    """Return a resolved path as a person would name it in a folder."""
    base = folder.resolve()
    return target.relative_to(base).as_posix() if target.is_relative_to(base) else str(target)


def in_folder(folder: str | None, path: str) -> str:
    """Return a path that is relative to a folder of the call's own, relative to the working folder."""
    return path if folder is None else os.path.join(folder, os.path.expanduser(path))  # noqa: PTH111, PTH118


def subject_of(places: Iterable[tuple[Place, Access]]) -> Subject:
    """Return the subject of a call on these files, each once."""
    found: dict[str, Place] = {}
    protected, written = {}, set[str]()
    for one, access in places:
        found.setdefault(one.shown, one)
        if guard_of((one.given, one.target), access) is not None:
            protected[one.shown] = True
        if access == "write":
            written.add(one.shown)
    absolute = tuple(each.target.as_posix() for each in found.values())
    only_read = tuple(each for each in found if each not in written)
    return Subject.path(*found, absolute=absolute, protected=tuple(protected), only_read=only_read)

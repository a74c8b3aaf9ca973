"""Which files of a workspace a fenced command may not see: secret files, sockets, pipes and devices."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from stat import S_ISREG

from mentra_nb.secrets.files import is_secret_name

SETTLED_NS = 2_000_000_000
"""How long ago, in nanoseconds, a folder must have changed for its listing to be believed later on."""


@dataclass(frozen=True)
class _Listing:
    """What a folder had when its time was `changed`: names to hide, and its folders."""

    changed: tuple[int, int, int]
    hidden: tuple[str, ...]
    folders: tuple[str, ...]


@dataclass
class Hidden:
    """Finds the paths to hide. Remembers each folder until it changes, so that the next search only looks for that."""

    _known: dict[str, _Listing] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def within(self, top: str) -> list[str]:
        """Return the paths to hide in a folder, by absolute path.

        No folder is entered by a link, but of a link with the name of a secret file what it leads to is hidden, and of
        a secret file with several names all of them.

        Raises:
            OSError: The folder cannot be read.
        """
        with self._lock:
            seen: dict[str, _Listing] = {}
            found = list(self._search(top, seen))
            found += _other_names(top, found)
            self._known = {**{path: each for path, each in self._known.items() if not _is_in(path, top)}, **seen}
            return found

    def _search(self, top: str, seen: dict[str, _Listing]) -> Iterator[str]:
        left = [top]
        while left:
            path = left.pop()
            try:
                listing = self._listing(path)
            except OSError:
                if path == top:
                    raise
                yield path  # what we cannot look into, the command need not see
                continue
            if time.time_ns() - max(listing.changed[1:]) > SETTLED_NS:
                seen[path] = listing
            for name in listing.hidden:
                found = os.path.realpath(f"{path}/{name}")
                if _is_in(found, top) and found != top and os.path.lexists(found):
                    yield found
            left.extend(f"{path}/{name}" for name in listing.folders)

    def _listing(self, path: str) -> _Listing:
        found = os.lstat(path)
        changed = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
        known = self._known.get(path)
        if known is not None and known.changed == changed:
            return known
        hidden: list[str] = []
        folders: list[str] = []
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_symlink():
                    hidden += [entry.name] * is_secret_name(entry.name, folder=entry.is_dir())
                    continue
                if entry.is_dir(follow_symlinks=False):
                    (hidden if is_secret_name(entry.name, folder=True) else folders).append(entry.name)
                elif is_secret_name(entry.name) or not entry.is_file(follow_symlinks=False):
                    hidden.append(entry.name)
        return _Listing(changed, tuple(hidden), tuple(folders))


def _other_names(top: str, hidden: list[str]) -> list[str]:
    """Return the other names in a folder, by hard links, of the hidden files. Searches only if one has several."""
    several: set[tuple[int, int]] = set()
    inside = (f"{path}/{name}" for folder in hidden for path, _, names in os.walk(folder) for name in names)
    for path in (*hidden, *inside):
        with suppress(FileNotFoundError):
            state = os.lstat(path)
            if S_ISREG(state.st_mode) and state.st_nlink > 1:
                several.add((state.st_dev, state.st_ino))
    if not several:
        return []
    files = (f"{path}/{name}" for path, _, names in os.walk(top) for name in names)
    return [file for file in files if _identity(file) in several and not any(_is_in(file, path) for path in hidden)]


def _identity(file: str) -> tuple[int, int] | None:
    try:
        state = os.lstat(file)
    except FileNotFoundError:
        return None
    return state.st_dev, state.st_ino


def covered_within(top: str, covers: Callable[[str], bool]) -> list[str]:
    """Return the outermost files and folders in a folder that `covers` says yes to, by absolute path."""
    found: list[str] = []
    for path, folders, names in os.walk(top):
        found += [f"{path}/{name}" for name in names if covers(f"{path}/{name}")]
        covered = {name for name in folders if covers(f"{path}/{name}")}
        found += [f"{path}/{name}" for name in covered]
        folders[:] = [name for name in folders if name not in covered]
    return found


def _is_in(path: str, top: str) -> bool:
    return path == top or path.startswith(f"{top}/")

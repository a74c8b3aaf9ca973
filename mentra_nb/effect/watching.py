"""Files that Python code of this process writes, deletes or moves: kept as they were, and entered in the undo journal.

They are heard of by an audit hook of Python, before anything is done to them. What other libraries write without
Python, and what programs write that the code starts, is not heard of.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mentra_nb.effect.handles import parent, state
from mentra_nb.effect.journal import Journal, JournalEntry
from mentra_nb.effect.types import FileChange, FileState
from mentra_nb.paths import home

log: logging.Logger = logging.getLogger(__name__)

MAX_FILE = 64 * 2**20
"""Bytes of a file that is kept."""
MAX_KEPT = 256 * 2**20
"""Bytes of all files that are kept of one call."""
MAX_PATHS = 2_000
_LEFT_OUT = frozenset({".git", "__pycache__", ".ipynb_checkpoints"})
"""Folders whose files are not kept."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class FileWatch:
    """What code does to the files of one folder while it runs."""

    def __init__(self, root: Path, images: Path) -> None:
        self.root: Path = root
        self.images: Path = images
        self.before: dict[str, FileState | None] = {}
        """Path → what was there before the code touched it."""
        self.beyond: list[str] = []
        """Files that were too large to keep."""
        self._left = MAX_KEPT
        self._busy = threading.local()
        self._lock = threading.Lock()

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        """Take in an audit event, on whichever thread it comes."""
        named = _EVENTS.get(event)
        if named is None or getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            with self._lock:
                for path in named(args):
                    self._keep(path)
        except Exception:  # the code itself must go on
            log.debug("what %s does to files is not known", event, exc_info=True)
        finally:
            self._busy.now = False

    def _keep(self, path: str) -> None:
        """Keep what is at a path, and below it, unless it is kept already or outside the folder."""
        above, name = os.path.split(os.path.abspath(path))  # noqa: PTH100 - links are resolved in the folder only
        path = os.path.join(os.path.realpath(above), name)  # noqa: PTH118
        if path in self.before or len(self.before) >= MAX_PATHS or not self._is_inside(path):
            return
        with suppress(FileNotFoundError, NotADirectoryError):
            if stat.S_ISDIR(os.lstat(path).st_mode):
                for child in os.listdir(path):  # noqa: PTH208
                    self._keep(os.path.join(path, child))  # noqa: PTH118
            elif os.lstat(path).st_size > min(MAX_FILE, self._left):
                self.beyond.append(path)
                return
        found = state(path)
        if found is not None and found.has_content:
            self._left -= found.size
            with parent(path) as (folder, name), (self.images / str(len(self.before))).open("xb") as file:
                if found.type == "link":
                    file.write(folder.target(name))
                else:
                    with folder.open(name) as source:
                        while piece := source.read(2**20):
                            file.write(piece)
        self.before[path] = found

    def _is_inside(self, path: str) -> bool:
        found = Path(path)
        if not found.is_relative_to(self.root) or any(map(found.is_relative_to, (home(), self.images))):
            return False
        return not _LEFT_OUT & set(found.relative_to(self.root).parts)

    def enter(self, journal: Journal, turn: str, call: str, tool: str) -> JournalEntry | None:
        """Enter in the journal what is another now, and return the entry; `None` if nothing is."""
        found = [(path, before, state(path)) for path, before in self.before.items()]
        numbers = {path: number for number, path in enumerate(self.before)}
        changes = [FileChange(path, before, after) for path, before, after in found if before != after]
        if not changes:
            return None
        kept = {change.path: self.images / str(numbers[change.path]) for change in changes}
        return journal.enter(changes, kept, turn=turn, call=call, tool=tool)


@contextmanager
def watching_files(root: Path) -> Iterator[FileWatch]:
    """Inside, keep the files of a folder as they were before Python code of this process touched them."""
    global _watch
    _add_hook()
    with tempfile.TemporaryDirectory(prefix="mentra-") as images:
        watch, before = FileWatch(root.resolve(), Path(images)), _watch
        _watch = watch
        try:
            yield watch
        finally:
            _watch = before


_watch: FileWatch | None = None
_hooked = False


def _add_hook() -> None:
    """Add the audit hook, once: it cannot be removed, and does nothing while no code is watched."""
    global _hooked
    if not _hooked:
        _hooked = True
        sys.addaudithook(_hear)


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if (watch := _watch) is not None:
        watch.hear(event, args)


def _path(path: Any, folder: Any = -1) -> list[str]:
    """Return the path that a function was given, in the folder that a descriptor stands for."""
    if isinstance(path, int):
        return []
    name = os.fsdecode(path)
    if isinstance(folder, int) and folder >= 0 and not os.path.isabs(name):  # noqa: PTH117
        name = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)  # noqa: PTH115, PTH118
    return [name]


def _opened(args: tuple[Any, ...]) -> list[str]:
    path, mode, flags = args
    writes = any(sign in mode for sign in "wax+") if isinstance(mode, str) else bool(flags & _WRITES)
    return [os.path.realpath(each) for each in _path(path)] if writes else []


_EVENTS: dict[str, Callable[[tuple[Any, ...]], list[str]]] = {
    "open": _opened,
    "os.remove": lambda args: _path(*args[:2]),
    "os.rmdir": lambda args: _path(*args[:2]),
    "os.mkdir": lambda args: _path(args[0], args[2]),
    "os.rename": lambda args: _path(args[0], args[2]) + _path(args[1], args[3]) + _moved(args),
    "os.link": lambda args: _path(args[1], args[3]),
    "os.symlink": lambda args: _path(args[1], args[2]),
    "os.truncate": lambda args: _path(args[0]),
    "os.chmod": lambda args: _path(args[0], args[2]),
}


def _moved(args: tuple[Any, ...]) -> list[str]:
    """Return where all that is in a folder will be once the folder is moved."""
    (source,), (to,) = _path(args[0], args[2]), _path(args[1], args[3])
    found = [os.path.join(above, name) for above, folders, files in os.walk(source) for name in (*folders, *files)]  # noqa: PTH118
    return [os.path.join(to, os.path.relpath(each, source)) for each in found[:MAX_PATHS]]  # noqa: PTH118

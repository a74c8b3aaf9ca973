"""Files as they would be after the operations of a batch: in memory, over what is on disk. Nothing is written here."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from mentra_nb.effect.handles import Folder, copied, folder, parent, state
from mentra_nb.effect.types import FileChange, FileState, FileType
from mentra_nb.tools.schema import ToolError

MAX_BYTES = 64 << 20
"""Bytes of the largest file that is changed."""


_TYPES: dict[int, FileType] = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


@dataclass(frozen=True)
class Node:
    """A file, or a folder, as it would be. The content is `raw`, or else that of the file at `source` on disk."""

    state: FileState
    raw: bytes | None = None
    source: str | None = None


class Overlay:
    """A tree of files by absolute path, without links in any part of a path. Methods raise `OSError`, `ToolError`."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node | None] = {}
        self._before: dict[str, FileState | None] = {}

    def snapshot(self) -> Overlay:
        """Return a copy that later operations do not change."""
        copy = Overlay()
        copy._nodes, copy._before = dict(self._nodes), dict(self._before)
        return copy

    def type(self, path: str) -> FileType | None:
        """Return what is at a path; `None` if nothing is."""
        if path in self._nodes:
            node = self._nodes[path]
            return node.state.type if node is not None else None
        try:
            with parent(path) as (above, name):
                return _type_at(above, name)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def open(self, path: str) -> BinaryIO:
        """Open a file for reading. Raises `OSError` also if there is none."""
        node = self._nodes.get(path)
        if node is not None and node.raw is not None:
            return io.BytesIO(node.raw)
        if path in self._nodes and node is None:
            raise FileNotFoundError(2, "No such file or directory")
        with parent(node.source if node is not None and node.source else path) as (above, name):
            return above.open(name)

    def size(self, path: str) -> int:
        """Return the bytes of a file."""
        with self.open(path) as file:
            return file.seek(0, os.SEEK_END)

    def names(self, path: str) -> dict[str, FileType]:
        """Return what is directly in a folder, sorted by name."""
        found: dict[str, FileType] = {}
        if self._nodes.get(path) is None:
            with folder(path) as here:
                for name in here.names():
                    if os.path.join(path, name) not in self._nodes:  # noqa: PTH118
                        with suppress(FileNotFoundError):  # it was deleted meanwhile
                            found[name] = _type_at(here, name)
        for other, node in self._nodes.items():
            if node is not None and os.path.dirname(other) == path:  # noqa: PTH120
                found[os.path.basename(other)] = node.state.type  # noqa: PTH119
        return dict(sorted(found.items()))

    def read(self, path: str) -> bytes:
        """Return the content of a file that is to be changed. Raises `ToolError` for one over `MAX_BYTES`."""
        with self.open(path) as file:
            if path not in self._nodes and os.fstat(file.fileno()).st_size > MAX_BYTES:
                raise ToolError(f"'{path}' has more than {MAX_BYTES >> 20} MiB: change it with a command")
            into = io.BytesIO()
            found = copied(file, into)
        if path not in self._nodes and self._before.setdefault(path, found) != found:
            raise ToolError(f"'{path}' changed while the operations were prepared; call the tool again")
        return into.getvalue()

    # ---- changing ----------------------------------------------------------------------------------------------------

    def write(self, path: str, raw: bytes) -> None:
        """Create a file with the folders above it, or replace its content."""
        before = self._state(path)
        self._make_folders(os.path.dirname(path))  # noqa: PTH120
        mode = before.mode if before is not None else 0o666 & ~umask()
        self._put(path, Node(FileState("file", mode, len(raw), hashlib.sha256(raw).hexdigest()), raw))

    def make_folder(self, path: str) -> None:
        """Create a folder with those above it."""
        self._make_folders(path)

    def delete(self, path: str) -> None:
        """Delete a file or an empty folder."""
        self._put(path, None)

    def move(self, path: str, to: str) -> None:
        """Move a file to a path that is free."""
        found, node = self._state(path), self._nodes.get(path)
        if found is None:
            raise ToolError(f"'{path}' changed while the operations were prepared; call the tool again")
        self._make_folders(os.path.dirname(to))  # noqa: PTH120
        self._put(to, Node(found, node.raw if node else None, node.source if node else path))
        self._put(path, None)

    def _state(self, path: str) -> FileState | None:
        """Return what is at a path, read as a whole."""
        if path in self._nodes:
            node = self._nodes[path]
            return node.state if node is not None else None
        return self._before.setdefault(path, state(path))

    def _put(self, path: str, node: Node | None) -> None:
        if path not in self._before:
            self._before[path] = state(path)
        self._nodes[path] = node

    def _make_folders(self, path: str) -> None:
        kind = self.type(path)
        if kind == "folder":
            return
        if kind is not None:
            raise ToolError(f"nothing in '{path}' can be written: it is not a folder")
        self._make_folders(os.path.dirname(path))  # noqa: PTH120
        self._put(path, Node(FileState("folder", 0o777 & ~umask())))

    # ---- the outcome -------------------------------------------------------------------------------------------------

    def changes(self) -> list[FileChange]:
        """Return what is different from what is on disk, or was when it was read, in the order of paths."""
        made = []
        for path, node in sorted(self._nodes.items()):
            after = node.state if node is not None else None
            if self._before[path] != after:
                made.append(FileChange(path, self._before[path], after))
        return made


def _type_at(above: Folder, name: str) -> FileType:
    return _TYPES.get(stat.S_IFMT(above.stat(name).st_mode), "other")


@cache
def _status() -> Path | None:
    path = Path("/proc/self/status")
    return path if path.exists() else None


def umask() -> int:
    """Return the permission bits that new files do not get."""
    file = _status()
    if file is not None:
        for line in file.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask

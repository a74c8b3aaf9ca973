"""Trees of files for tests: what is in a folder as a plain mapping, and changes from one such mapping to another."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from mentra_nb.effect.types import FileChange, FileState

Node = tuple[str, int, bytes]
"""`file`, `folder` or `link`; mode; content, or a link's target."""
Tree = dict[str, Node]
"""Of relative paths with `/`."""


def tree_in(root: Path) -> Tree:
    """Return everything below a folder."""
    found: Tree = {}
    for above, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(above) / name
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                node = ("link", 0, os.fsencode(path.readlink()))
            elif stat.S_ISDIR(mode):
                node = ("folder", stat.S_IMODE(mode), b"")
            else:
                node = ("file", stat.S_IMODE(mode), path.read_bytes())
            found[path.relative_to(root).as_posix()] = node
    return found


def make_tree(root: Path, tree: Mapping[str, Node]) -> None:
    """Make a folder hold exactly this."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    for name in sorted(tree):
        kind, mode, content = tree[name]
        path = root / name
        if kind == "link":
            path.symlink_to(os.fsdecode(content))
            continue
        if kind == "folder":
            path.mkdir()
        else:
            path.write_bytes(content)
        path.chmod(mode)


def state_of(node: Node | None) -> FileState | None:
    """Return what is at a node."""
    if node is None:
        return None
    kind, mode, content = node
    if kind == "folder":
        return FileState("folder", mode)
    return FileState("file" if kind == "file" else "link", mode, len(content), hashlib.sha256(content).hexdigest())


def changes_between(root: Path, old: Mapping[str, Node], new: Mapping[str, Node]) -> list[FileChange]:
    """Return what differs between two trees, in the order of their paths."""
    return [
        FileChange(str(root / name), state_of(old.get(name)), state_of(new.get(name)))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def contents_of(root: Path, tree: Mapping[str, Node]) -> Callable[[str], BinaryIO]:
    """Return what gives the content of each path of a tree."""
    return lambda path: io.BytesIO(tree[Path(path).relative_to(root).as_posix()][2])


OLD: Tree = {
    "kept.txt": ("file", 0o644, b"kept"),
    "changed.txt": ("file", 0o640, b"before"),
    "deleted.txt": ("file", 0o644, b"gone"),
    "link": ("link", 0, b"kept.txt"),
    "folder": ("folder", 0o755, b""),
    "folder/inner.txt": ("file", 0o600, b"inner"),
    "becomes-folder": ("file", 0o644, b"file"),
}
NEW: Tree = {
    "kept.txt": ("file", 0o644, b"kept"),
    "changed.txt": ("file", 0o640, b"after"),
    "link": ("link", 0, b"changed.txt"),
    "folder": ("file", 0o644, b"now a file"),
    "becomes-folder": ("folder", 0o700, b""),
    "becomes-folder/new.txt": ("file", 0o644, b"new"),
    "made": ("folder", 0o755, b""),
    "made/deep": ("folder", 0o755, b""),
    "made/deep/new.txt": ("file", 0o755, b"deep"),
}

"""A program that says what a command changed: the difference of the upper layer of an overlay from what is below it.

    python difference.py UPPER LOWER BEGAN_NS MAX_FILES MAX_BYTES FOLDER

It runs after the command, beside the upper layer, and imports nothing but the standard library. New content is copied
into `FOLDER/content`, named by its digest; what was found is written to `FOLDER/difference.json`. No link is followed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

PIECE = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
State = dict[str, Any]


class TooMuch(Exception):
    """The difference is larger than may be kept."""


class Difference:
    """Walks both trees together and collects the changes, by path relative to the top.

    `special` are pipes and sockets the command made, which are not kept; `moved` the paths that something else changed
    while the command ran; `lost` those whose old content could not be brought back.
    """

    def __init__(self, began: int, max_files: int, max_bytes: int, folder: str) -> None:
        self.began = began
        self.max_files = max_files
        self.bytes_left = max_bytes
        self.folder = folder
        self.changes: list[dict[str, Any]] = []
        self.special: list[str] = []
        self.moved: list[str] = []
        self.lost: list[str] = []

    def compare_top(self, upper: int, lower: int) -> None:
        """Compare both trees."""
        before, after = (
            {"type": "folder", "mode": stat.S_IMODE(os.fstat(each).st_mode), "size": 0, "digest": ""}
            for each in (lower, upper)
        )
        self._add("", before, after)
        self.compare(upper, lower, "", replaced=False)
        changed = {each["path"] for each in self.changes}
        self.moved = [path for path in self.moved if path in changed]

    def compare(self, upper: int, lower: int | None, path: str, *, replaced: bool) -> None:
        """Compare two folders. `replaced` says that the upper one took the place of the lower, and hides it all."""
        names = sorted(os.listdir(upper))
        for name in names:
            self._compare_entry(upper, lower, name, f"{path}{name}")
        if replaced and lower is not None:
            for name in sorted(set(os.listdir(lower)) - set(names)):  # noqa: PTH208 - a handle
                self._removed(lower, name, f"{path}{name}")

    def _compare_entry(self, upper: int, lower: int | None, name: str, path: str) -> None:
        found = os.stat(name, dir_fd=upper, follow_symlinks=False)
        below = _stat(lower, name)
        if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
            if below is not None:
                self._removed(lower, name, path)
        elif stat.S_ISDIR(found.st_mode):
            self._compare_folder(upper, lower, name, path)
        else:
            self._compare_file(upper, lower, name, path)

    def _compare_folder(self, upper: int, lower: int | None, name: str, path: str) -> None:
        mode, below = stat.S_IMODE(os.stat(name, dir_fd=upper, follow_symlinks=False).st_mode), _stat(lower, name)
        was_folder = below is not None and stat.S_ISDIR(below.st_mode)
        before = None if below is None else self._before(lower, name, path)
        self._add(path, before, {"type": "folder", "mode": mode, "size": 0, "digest": ""})
        os.chmod(name, 0o700, dir_fd=upper)  # the command may have closed it, and it is ours
        with _opened(upper, name) as inner:
            if not was_folder or lower is None:
                self._check_origin(inner, path, gone=below is None)
                self.compare(inner, None, f"{path}/", replaced=False)
                return
            with _opened(lower, name) as inner_lower:
                opaque = _attribute(inner, "user.overlay.opaque") == b"y"
                self.compare(inner, inner_lower, f"{path}/", replaced=opaque)

    def _compare_file(self, upper: int, lower: int | None, name: str, path: str) -> None:
        found, below = os.stat(name, dir_fd=upper, follow_symlinks=False), _stat(lower, name)
        after = self._after(upper, name, found)
        if after is None:
            (self.special if below is None else self.lost).append(path)
        before = None
        if below is not None and lower is not None:
            if stat.S_ISDIR(below.st_mode):
                with _opened(lower, name) as inner:
                    self._removed_within(inner, f"{path}/")
            before = self._before(lower, name, path)
        elif after is not None and after["type"] == "file":
            with _opened(upper, name, _FILE) as file:
                self._check_origin(file, path, gone=True)
        if before is not None or after is not None:
            self._add(path, before, after)

    def _removed(self, lower: int | None, name: str, path: str) -> None:
        assert lower is not None
        found = _stat(lower, name)
        if found is None:
            return
        if stat.S_ISDIR(found.st_mode):
            with _opened(lower, name) as inner:
                self._removed_within(inner, f"{path}/")
        self._add(path, self._before(lower, name, path), None)

    def _removed_within(self, folder: int, path: str) -> None:
        for name in sorted(os.listdir(folder)):
            self._removed(folder, name, f"{path}{name}")

    def _before(self, lower: int | None, name: str, path: str) -> State | None:
        """Return what is below now; note it as moved if it was changed since the command began."""
        found = _stat(lower, name)
        if found is None or lower is None:
            return None
        if found.st_ctime_ns > self.began and not stat.S_ISDIR(found.st_mode):
            self.moved.append(path)
        try:
            state = self._read(lower, name, found, None)
        except OSError:
            state = None
        if state is None:
            self.lost.append(path)
            return {"type": "other", "mode": stat.S_IMODE(found.st_mode), "size": 0, "digest": ""}
        return state

    def _after(self, upper: int, name: str, found: os.stat_result) -> State | None:
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISREG(found.st_mode) and not mode & stat.S_IRUSR:
            os.chmod(name, mode | stat.S_IRUSR, dir_fd=upper)
        return self._read(upper, name, found, os.path.join(self.folder, "content"))  # noqa: PTH118

    def _read(self, folder: int, name: str, found: os.stat_result, copy_to: str | None) -> State | None:
        """Return the state of a file, folder or link, keeping the content if asked to; `None` for anything else."""
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISDIR(found.st_mode):
            return {"type": "folder", "mode": mode, "size": 0, "digest": ""}
        if stat.S_ISLNK(found.st_mode):
            target = os.fsencode(os.readlink(name, dir_fd=folder))
            digest = hashlib.sha256(target).hexdigest()
            if copy_to is not None:
                self._keep([target], copy_to, digest)
            return {"type": "link", "mode": 0, "size": len(target), "digest": digest}
        if not stat.S_ISREG(found.st_mode):
            return None
        with _opened(folder, name, _FILE) as file:
            total, size = hashlib.sha256(), 0
            for piece in self._pieces(file):
                total.update(piece)
                size += len(piece)
            digest = total.hexdigest()
            if copy_to is not None:
                os.lseek(file, 0, os.SEEK_SET)
                self._keep(_pieces(file), copy_to, digest)
        return {"type": "file", "mode": mode, "size": size, "digest": digest}

    def _pieces(self, file: int) -> Iterator[bytes]:
        for piece in _pieces(file):
            self.bytes_left -= len(piece)
            if self.bytes_left < 0:
                raise TooMuch("its changes are too large to be kept and taken back")
            yield piece

    def _keep(self, pieces: Any, folder: str, digest: str) -> None:
        with suppress(FileExistsError):
            target = os.open(os.path.join(folder, digest), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # noqa: PTH118
            with os.fdopen(target, "wb") as file:
                file.writelines(pieces)

    def _check_origin(self, handle: int, path: str, *, gone: bool) -> None:
        """Note as moved what the command found here and nobody finds now."""
        if gone and _attribute(handle, "user.overlay.origin") is not None:
            self.moved.append(path)

    def _add(self, path: str, before: State | None, after: State | None) -> None:
        if before == after:
            return
        if len(self.changes) >= self.max_files:
            raise TooMuch(f"it changes more than {self.max_files} files")
        self.changes.append({"path": path, "before": before, "after": after})


def _stat(folder: int | None, name: str) -> os.stat_result | None:
    if folder is None:
        return None
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


@contextmanager
def _opened(folder: int, name: str, flags: int = _FOLDER) -> Iterator[int]:
    handle = os.open(name, flags, dir_fd=folder)
    try:
        yield handle
    finally:
        os.close(handle)


def _attribute(handle: int, name: str) -> bytes | None:
    try:
        return os.getxattr(handle, name)
    except OSError:
        return None


def _pieces(file: int) -> Iterator[bytes]:
    while piece := os.read(file, PIECE):
        yield piece


def main(upper: str, lower: str, began: str, max_files: str, max_bytes: str, folder: str) -> None:
    """Write `difference.json`. With a `problem` in it, the rest is not whole."""
    found = Difference(int(began), int(max_files), int(max_bytes), folder)
    problem = None
    try:
        with _opened(os.open("/", _FOLDER), upper) as top, _opened(os.open("/", _FOLDER), lower) as below:
            found.compare_top(top, below)
    except TooMuch as error:
        problem = str(error)
    except (OSError, RecursionError) as error:
        problem = f"its changes cannot be read: {error}"
    said = {
        "changes": found.changes,
        "special": found.special,
        "moved": found.moved,
        "lost": found.lost,
        "problem": problem,
    }
    with open(os.path.join(folder, "difference.json"), "w", encoding="ascii") as file:  # noqa: PTH118, PTH123
        json.dump(said, file)


if __name__ == "__main__":
    main(*sys.argv[1:])

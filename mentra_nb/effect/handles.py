"""Files by way of directory handles: no link is ever followed, in any part of a path.

A path is walked from the root of the file system, one handle after the other, and what is done is done relative to the
last one. A folder that is replaced by a link meanwhile makes the operation fail; it cannot lead it elsewhere. Where the
system has no directory handles (Windows), paths are used as they are.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from typing import Any, BinaryIO

from mentra_nb.effect.types import FileState

HAS_HANDLES: bool = os.open in os.supports_dir_fd
_ENTER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_PATH", 0)
_READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_LIST = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
PIECE = 1 << 20
"""Bytes read at a time."""
JUST_MADE = FileState("folder", 0o700)
"""A folder that was made and has not got its mode yet."""
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_NO_REPLACE = 1 if sys.platform != "darwin" else 4
_EXCHANGE = 2


@dataclass(frozen=True)
class Folder:
    """An open folder. Names are those of what is directly in it. Every method raises `OSError`."""

    fd: int | None
    path: str

    def at(self, name: str) -> str:
        """Return the name for a call with `dir_fd`, or the whole path where there are no handles."""
        return name if self.fd is not None else os.path.join(self.path, name)  # noqa: PTH118

    def stat(self, name: str) -> os.stat_result:
        """Return what `lstat` says."""
        return os.stat(self.at(name), dir_fd=self.fd, follow_symlinks=False)

    def open(self, name: str) -> BinaryIO:
        """Open a regular file for reading. Raises `OSError` for anything else; it never waits."""
        handle = os.open(self.at(name), _READ, dir_fd=self.fd)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError(errno.EINVAL, "it is not a regular file")
        return os.fdopen(handle, "rb")

    def create(self, name: str, mode: int) -> BinaryIO:
        """Create a file that must not exist, with exactly this mode."""
        handle = os.open(self.at(name), _CREATE, 0o600, dir_fd=self.fd)
        if hasattr(os, "fchmod"):
            os.fchmod(handle, mode)
        return os.fdopen(handle, "wb")

    def link(self, name: str, target: bytes) -> None:
        """Create a symbolic link."""
        os.symlink(os.fsdecode(target), self.at(name), dir_fd=self.fd)

    def target(self, name: str) -> bytes:
        """Return where a symbolic link points."""
        return os.fsencode(os.readlink(self.at(name), dir_fd=self.fd))

    def remove(self, name: str) -> None:
        """Delete a file or link."""
        os.unlink(self.at(name), dir_fd=self.fd)

    def make_folder(self, name: str, mode: int) -> None:
        """Create a folder with exactly this mode."""
        os.mkdir(self.at(name), JUST_MADE.mode, dir_fd=self.fd)
        self.set_folder_mode(name, mode)

    def remove_folder(self, name: str) -> None:
        """Delete an empty folder."""
        os.rmdir(self.at(name), dir_fd=self.fd)

    def set_folder_mode(self, name: str, mode: int) -> None:
        """Set the mode of a folder."""
        if HAS_HANDLES:
            with self.opened(name) as handle:
                os.fchmod(handle, mode)

    def names(self) -> list[str]:
        """Return the names of what is in this folder, sorted."""
        if self.fd is None:
            return sorted(os.listdir(self.path))  # noqa: PTH208
        with self.opened(".") as handle:
            return sorted(os.listdir(handle))  # noqa: PTH208 - of a handle

    @contextmanager
    def opened(self, name: str) -> Iterator[int]:
        """Give a handle of a folder in this one that can be listed and synced, unlike the one that leads to it."""
        handle = os.open(name, _LIST, dir_fd=self.fd)
        try:
            yield handle
        finally:
            os.close(handle)

    def sync(self) -> None:
        """Write the names in this folder to disk, where the system can."""
        if self.fd is not None:
            try:
                with self.opened(".") as handle:
                    os.fsync(handle)
            except OSError:  # a folder that may be written but not read, or a file system without it
                return

    def state(self, name: str) -> FileState | None:
        """Return what is at a name; `None` if nothing is. A file is read as a whole."""
        try:
            found = self.stat(name)
            kind = stat.S_IFMT(found.st_mode)
            if kind == stat.S_IFDIR:
                return FileState("folder", stat.S_IMODE(found.st_mode))
            if kind == stat.S_IFLNK:
                target = self.target(name)
                return FileState("link", 0, len(target), hashlib.sha256(target).hexdigest())
            if kind != stat.S_IFREG:
                return FileState("other", stat.S_IMODE(found.st_mode))
            with self.open(name) as file:
                return copied(file, None)
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise


def copied(source: BinaryIO, to: BinaryIO | None) -> FileState:
    """Read a file to its end, write it to another if one is given, and return what was read.

    The mode is that of `source` if it is a file of the system, else 0.
    """
    digest, size = hashlib.sha256(), 0
    while piece := source.read(PIECE):
        digest.update(piece)
        size += len(piece)
        if to is not None:
            to.write(piece)
    try:
        mode = stat.S_IMODE(os.fstat(source.fileno()).st_mode)
    except OSError:  # it is in memory
        mode = 0
    return FileState("file", mode, size, digest.hexdigest())


@contextmanager
def folder(path: str) -> Iterator[Folder]:
    """Open a folder by its absolute path. Raises `OSError`, also if any part of the path is a link."""
    parts = PurePath(path).parts
    if not os.path.isabs(path) or not {".", ".."}.isdisjoint(parts):  # noqa: PTH117
        raise OSError(errno.EINVAL, f"'{path}' is not an absolute path in normal form")
    if not HAS_HANDLES:
        if not os.path.isdir(path):  # noqa: PTH112
            raise NotADirectoryError(errno.ENOTDIR, "it is not a folder")
        yield Folder(None, path)
        return
    handle = os.open(parts[0], _ENTER)
    try:
        for part in parts[1:]:
            inner = os.open(part, _ENTER, dir_fd=handle)
            os.close(handle)
            handle = inner
        yield Folder(handle, path)
    finally:
        os.close(handle)


@contextmanager
def parent(path: str) -> Iterator[tuple[Folder, str]]:
    """Open the folder that a path is in, and give it with the last part of the path. Raises `OSError`."""
    above, name = os.path.split(path)
    with folder(above) as found:
        yield found, name


def state(path: str) -> FileState | None:
    """Return what is at an absolute path; `None` if nothing is, or if the way there is a link. Raises `OSError`.

    Example:
        >>> from mentra_nb.effect.handles import state
        >>> state("/no/such/file") is None
        True
    """
    try:
        with parent(path) as (found, name):
            return found.state(name)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise


@cache
def _rename_with_flags() -> Any:
    """Return `renameat2`, which macOS calls `renameatx_np`; `None` where there is neither."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        call = library.renameatx_np if sys.platform == "darwin" else library.renameat2
    except (OSError, AttributeError, TypeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return call


def _renamed(source: tuple[Folder, str], to: tuple[Folder, str], flags: int) -> bool:
    """Rename with flags. Returns `False` where that is not supported; raises `OSError`."""
    call = _rename_with_flags()
    (old, old_name), (new, new_name) = source, to
    if call is None or old.fd is None or new.fd is None:
        return False
    if call(old.fd, os.fsencode(old_name), new.fd, os.fsencode(new_name), flags) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code))


@cache
def _sync_of_file_system() -> Any:
    """Return `syncfs`; `None` where there is none."""
    try:
        call = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError, TypeError):
        return None
    call.argtypes = [ctypes.c_int]
    return call


def syncs_together() -> bool:
    """Return whether all of a file system can be written to disk at once, which is faster than many files by turns."""
    return HAS_HANDLES and _sync_of_file_system() is not None


def sync_together(folders: Iterable[str]) -> None:
    """Write all of the file systems that folders are in to disk. Raises `OSError`."""
    done = set[int]()
    for path in folders:
        with parent(os.path.join(path, "x")) as (found, _):  # noqa: PTH118
            device = found.stat(".").st_dev
            if device not in done:
                _sync_file_system_of(found)
            done.add(device)


def _sync_file_system_of(found: Folder) -> None:
    try:
        with found.opened(".") as handle:
            if _sync_of_file_system()(handle) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
    except PermissionError:  # a folder that may be written but not read
        os.sync()


def move_to_free(source: tuple[Folder, str], to: tuple[Folder, str]) -> None:
    """Rename a file or link to a name that must be free. Raises `FileExistsError` if it is not, and `OSError`."""
    if _renamed(source, to, _NO_REPLACE):
        return
    (old, old_name), (new, new_name) = source, to
    if old.fd is None:  # on Windows, renaming never replaces
        os.rename(old.at(old_name), new.at(new_name))  # noqa: PTH104
        return
    os.link(old_name, new_name, src_dir_fd=old.fd, dst_dir_fd=new.fd, follow_symlinks=False)
    os.unlink(old_name, dir_fd=old.fd)


def exchange(one: tuple[Folder, str], other: tuple[Folder, str]) -> bool:
    """Exchange two files or links in one step. Returns `False` where the system cannot; raises `OSError`."""
    return _renamed(one, other, _EXCHANGE)


def replace(source: tuple[Folder, str], to: tuple[Folder, str]) -> None:
    """Rename a file or link over another. Raises `OSError`."""
    (old, old_name), (new, new_name) = source, to
    os.replace(old.at(old_name), new.at(new_name), src_dir_fd=old.fd, dst_dir_fd=new.fd)

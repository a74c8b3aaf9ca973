"""The record's folder: its files, the locks on them, and atomic changes of the set of files.

chain.jsonl              a line per sealed segment: `write/chain.py`
record.duckdb            views for other clients, with prices.parquet beside it: `read/views.py`
events/<uuid7>.jsonl     a segment: being written, or left by a process that has ended
events/<uuid7>.lock      held by the segment's writer; if it is free, the segment is complete
events/<uuid7>.parquet   one or more complete segments with typed columns; replaces their text
events/.commit           lock: shared by readers, exclusive for a change of the set of files
events/.change           the plan of a change in progress; any process that finds it finishes it
events/.compact          lock: held by the process that compacts, merges or prunes
events/.known            a line per segment that was begun and per link of the chain: `write/known.py`
events/.pruning          exists while pruned segments may still have to be removed
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

import portalocker

from mentra_nb import paths
from mentra_nb.errors import StoreError

log: logging.Logger = logging.getLogger(__name__)

NAME = "????????-????-7???-????-????????????"
"""A glob for the names of our files. Other files in the folder are never read, changed or removed."""
EMPTY = "ffffffff-ffff-7fff-bfff-ffffffffffff"
"""The name of a segment without events. It exists so that a glob over each kind of file has a match."""

LOCK_TIMEOUT = 5.0
"""Seconds to wait for a lock. Only a slow query holds one for longer than a moment."""

_OWN = {".commit", ".change", ".change.tmp", ".compact", ".chain", ".schema", ".pruning", ".known", ".known.tmp"}
_BINARY = getattr(os, "O_BINARY", 0)
_fdatasync = getattr(os, "fdatasync", os.fsync)  # macOS and Windows have no fdatasync


def make_folder(folder: Path) -> Path:
    """Return the segments' folder. It is created, private to the user, if it is missing.

    Raises:
        StoreError: it would be on a network file system, where locks are not reliable, or others can write to it.
    """
    events = folder / "events"
    if problem := paths.folder_problem(folder) or paths.sharing_problem(events):
        raise StoreError(problem)
    if not events.is_dir():
        paths.make_private(events)
    return events


def open_segment(folder: Path, name: str) -> tuple[IO[bytes], int]:
    """Create a segment. Returns its lock, held until the file object is closed, and a descriptor that appends to it.

    The file survives a power cut only after `sync_folder`.
    """
    events = folder / "events"
    owner = open_lock(events / f"{name}.lock")
    try:
        portalocker.lock(owner, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | _BINARY
        fd = os.open(events / f"{name}.jsonl", flags, 0o600)
    except BaseException:
        owner.close()
        raise
    return owner, fd


def named(folder: Path, kind: str) -> list[Path]:
    """Return our files of a kind (`jsonl`, `parquet`, …), oldest first."""
    return sorted(path for path in (folder / "events").glob(f"{NAME}.{kind}") if path.stem != EMPTY)


def foreign(folder: Path) -> tuple[str, ...]:
    """Return the names of files in the segments' folder that are not ours."""
    events = folder / "events"
    known = {path.name for kind in ("jsonl", "parquet", "lock", "tmp") for path in events.glob(f"{NAME}.{kind}")}
    found = events.iterdir() if events.is_dir() else ()
    return tuple(sorted(path.name for path in found if path.name not in known and path.name not in _OWN))


# ---- locks -------------------------------------------------------------------------------------------------------


def open_lock(path: Path) -> IO[bytes]:
    """Open a lock file, without locking it."""
    return open(path, "ab", opener=private)


@contextlib.contextmanager
def held(path: Path, *, wait: float) -> Iterator[bool]:
    """Hold an exclusive lock. Yields False if it was not free within `wait` seconds."""
    end = time.monotonic() + wait
    with open_lock(path) as file:
        while True:
            try:
                portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
                break
            except portalocker.LockException:
                if time.monotonic() >= end:
                    yield False
                    return
            time.sleep(0.002)
        yield True


@contextlib.contextmanager
def required(path: Path) -> Iterator[None]:
    """Hold an exclusive lock. Raises `StoreError` if it is not free within `LOCK_TIMEOUT`."""
    with held(path, wait=LOCK_TIMEOUT) as free:
        if not free:
            raise StoreError(f"another process has been using the record in {path.parent} for {LOCK_TIMEOUT:g} seconds")
        yield


def sealed(segment: Path) -> bool:
    """Return whether the segment is complete: its writer has closed it or has ended."""
    with held(segment.with_suffix(".lock"), wait=0) as free:
        return free


@contextlib.contextmanager
def commit_lock(folder: Path) -> Iterator[None]:
    """Hold the readers' lock: no file is added or removed meanwhile. An interrupted change is finished first."""
    with contextlib.ExitStack() as stack:
        try:
            while True:
                file = stack.enter_context(open_lock(folder / "events" / ".commit"))
                portalocker.lock(file, portalocker.LockFlags.SHARED)
                if not (folder / "events" / ".change").exists():
                    break
                file.close()
                finish_change(folder)
        except OSError:  # no record yet, or a read-only copy, which does not change
            pass
        yield


# ---- changes -----------------------------------------------------------------------------------------------------


def change(folder: Path, *, put: Mapping[Path, Path] | None = None, remove: Iterable[Path] = ()) -> None:
    """Rename files (new: target) and remove others, in one step as seen by holders of the commit lock.

    The plan is written first, so a change that is killed at any moment is finished or has not begun.

    Raises:
        StoreError: a slow query holds the commit lock; nothing was changed.
    """
    events = folder / "events"
    plan = {
        "put": {new.name: target.name for new, target in (put or {}).items()},
        "remove": [path.name for path in remove],
    }
    with required(events / ".commit"):
        _finish(events)
        new = events / ".change.tmp"
        with open(new, "wb", opener=private) as file:
            file.write(json.dumps(plan).encode())
            file.flush()
            sync(file.fileno())
        new.replace(events / ".change")
        sync_folder(events)
        _finish(events)


def finish_change(folder: Path) -> None:
    """Finish an interrupted change, if there is one."""
    with required(folder / "events" / ".commit"):
        _finish(folder / "events")


def _finish(events: Path) -> None:
    try:
        put, removed = _plan((events / ".change").read_bytes())
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # it is written whole: a person did this
        (events / ".change").replace(events / ".change.damaged")
        log.warning("%s was damaged and is set aside: mn.verify() says whether events are missing", events / ".change")
        return
    for new, target in put.items():
        with contextlib.suppress(FileNotFoundError):  # done before
            (events / new).replace(events / target)
    for name in removed:
        (events / name).unlink(missing_ok=True)
    sync_folder(events)
    (events / ".change").unlink()


def _plan(text: bytes) -> tuple[dict[str, str], list[str]]:
    """Return which files to rename and which to remove. Raises an error unless these are files of this folder."""
    plan = json.loads(text)
    put, removed = dict(plan["put"].items()), list(plan["remove"])
    if any(Path(name).name != name or name.startswith(".") for name in (*put, *put.values(), *removed)):
        raise ValueError(text)
    return put, removed


# ---- files -------------------------------------------------------------------------------------------------------


def size(path: Path) -> int:
    """Return the size in bytes, 0 if the file does not exist."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def sync(fd: int, *, folder: bool = False) -> None:
    """Wait until what was written to a file, or the entries of a folder, are on the disk and survive a power cut."""
    (os.fsync if folder else _fdatasync)(fd)


def sync_folder(folder: Path) -> None:
    """Wait until a folder's entries are on the disk, so that new and renamed files in it survive a power cut."""
    if os.name == "nt":  # Windows cannot sync a folder
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        sync(fd, folder=True)
    finally:
        os.close(fd)


def private(name: str, flags: int) -> int:
    """Open a file that only the user can read: an `opener` for `open`."""
    return os.open(name, flags | _BINARY, 0o600)

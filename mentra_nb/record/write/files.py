"""The record's folder: which files are in it, the locks that say who may do what, and changes that happen whole.

chain.jsonl              what was sealed, link by link: `chain.py`
record.duckdb            views for other clients, and prices.parquet beside it: `segments.py`
events/<uuid7>.jsonl     a segment: being written, or left by a process that is gone
events/<uuid7>.lock      held by the segment's writer: a free lock means that the segment is complete
events/<uuid7>.parquet   one complete segment, or several, with typed columns; takes the place of their text
events/.commit           readers share it, a change of the set of files takes it alone
events/.change           a change that has been decided on; whoever finds it finishes it
events/.compact          held by the one process that compacts, merges or prunes
events/.pruning          pruned segments may still be there: they are removed first of all
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

import portalocker

from mentra_nb import paths
from mentra_nb.errors import StoreError

NAME = "????????-????-7???-????-????????????"
"""A glob for the names we give. Other files in the folder are somebody else's, and are left alone."""
EMPTY = "ffffffff-ffff-7fff-bfff-ffffffffffff"
"""The name of a segment that never has an event: globs over each kind of file then always find one."""

PATIENCE = 5.0
"""Seconds to wait for a lock that is held for moments only, but for readers with a long question."""

_OWN = {".commit", ".change", ".change.tmp", ".compact", ".chain", ".schema", ".pruning"}
_BINARY = getattr(os, "O_BINARY", 0)


def make_folder(folder: Path) -> Path:
    """The segments' folder, made private to the user if it is not there.

    Raises `StoreError` if it would be on a network file system, where locks cannot be relied upon.
    """
    if problem := paths.problem_with(folder):
        raise StoreError(problem)
    events = folder / "events"
    if not events.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        events.mkdir(mode=0o700, exist_ok=True)
    return events


def open_segment(folder: Path, name: str) -> tuple[IO[bytes], int]:
    """A new segment: its lock, held until the file object is closed, and a descriptor that appends to it.

    It outlives a power cut once `sync_folder` was called.
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
    """Our files of a kind (`jsonl`, `parquet`, …) in the order of their names, which is that of their beginning."""
    return sorted(path for path in (folder / "events").glob(f"{NAME}.{kind}") if path.stem != EMPTY)


def foreign(folder: Path) -> tuple[str, ...]:
    """The names in the segments' folder that are not ours."""
    events = folder / "events"
    known = {path.name for kind in ("jsonl", "parquet", "lock", "tmp") for path in events.glob(f"{NAME}.{kind}")}
    found = events.iterdir() if events.is_dir() else ()
    return tuple(sorted(path.name for path in found if path.name not in known and path.name not in _OWN))


# ---- locks -------------------------------------------------------------------------------------------------------


def open_lock(path: Path) -> IO[bytes]:
    return open(path, "ab", opener=private)


@contextlib.contextmanager
def held(path: Path, *, wait: float) -> Iterator[bool]:
    """Hold a lock file alone. Yields whether it could be had within so many seconds."""
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
    """Hold a lock file alone. Raises `StoreError` if somebody else keeps it for long: nobody waits for ever."""
    with held(path, wait=PATIENCE) as free:
        if not free:
            raise StoreError(f"another process has been using the record in {path.parent} for {PATIENCE:g} seconds")
        yield


def sealed(segment: Path) -> bool:
    """Whether the segment's writer is gone."""
    with held(segment.with_suffix(".lock"), wait=0) as free:
        return free


@contextlib.contextmanager
def commit_lock(folder: Path) -> Iterator[None]:
    """Read the set of files: nothing is put in place or removed meanwhile, and a change cut short is finished first."""
    with contextlib.ExitStack() as stack:
        try:
            while True:
                file = stack.enter_context(open_lock(folder / "events" / ".commit"))
                portalocker.lock(file, portalocker.LockFlags.SHARED)
                if not (folder / "events" / ".change").exists():
                    break
                file.close()
                finish_change(folder)
        except OSError:  # no record yet, or a read-only copy of one: nobody changes it
            pass
        yield


# ---- changes -----------------------------------------------------------------------------------------------------


def change(folder: Path, *, put: Mapping[Path, Path] | None = None, remove: Iterable[Path] = ()) -> None:
    """Put files (new: target) in place and remove others, in one step for whoever holds the commit lock.

    Killed at any moment it has happened wholly or not at all: what is to be done is written down first. Raises
    `StoreError`, and has changed nothing, while a reader's question takes long.
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
            os.fsync(file.fileno())
        new.replace(events / ".change")
        sync_folder(events)
        _finish(events)


def finish_change(folder: Path) -> None:
    """Finish a change that was cut short."""
    with required(folder / "events" / ".commit"):
        _finish(folder / "events")


def _finish(events: Path) -> None:
    try:
        plan = json.loads((events / ".change").read_bytes())
    except FileNotFoundError:
        return
    for new, target in plan["put"].items():
        with contextlib.suppress(FileNotFoundError):  # done before
            (events / new).replace(events / target)
    for name in plan["remove"]:
        (events / name).unlink(missing_ok=True)
    sync_folder(events)
    (events / ".change").unlink()


# ---- small steps -------------------------------------------------------------------------------------------------


def size(path: Path) -> int:
    """In bytes; 0 if it is gone."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def sync_folder(folder: Path) -> None:
    """A new or renamed file outlives a power cut only once its folder is synced."""
    if os.name == "nt":  # no such thing there
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def private(name: str, flags: int) -> int:
    """An `opener` for files that are the user's alone."""
    return os.open(name, flags | _BINARY, 0o600)

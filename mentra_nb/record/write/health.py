"""How the record is doing: counts and sizes, from the folder's listing alone. No file of events is opened."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from mentra_nb.record.write import chain, files


@dataclass(frozen=True)
class RecordHealth:
    """What is in the record's folder."""

    folder: Path
    writing: int
    """Segments with a writer, in this process or another."""
    writing_bytes: int
    waiting: int
    """Complete segments that are not Parquet yet."""
    waiting_bytes: int
    parquet: int
    """Parquet files."""
    parquet_bytes: int
    foreign: tuple[str, ...]
    """Names in the segments' folder that are not ours; they are not read."""
    disk_free: int | None
    """Bytes left to this user on the disk; `None` if it cannot be told."""
    chain_links: int
    chain_head: str | None
    """The digest of the last link."""
    chain_sound: bool
    """Whether the chain holds together. Whether the segments are as it says is what `verify` looks at."""


@dataclass(frozen=True)
class JournalHealth(RecordHealth):
    """The record, and this process's journal."""

    alive: bool
    """Whether the last event could be stored, and the thread that makes events safe from a power cut runs."""
    written: int
    """Events stored by this process."""
    lost: int
    """Events that could not be stored."""
    last_error: str | None
    segment: str | None
    """The name (a UUIDv7) of the segment being written, if any."""


def record_health(folder: Path) -> RecordHealth:
    """How a record's folder is doing; also of one that is not there yet."""
    text, parquet = files.named(folder, "jsonl"), files.named(folder, "parquet")
    done = {path.stem for path in parquet}
    complete = [path for path in text if path.stem not in done and files.sealed(path)]
    writing = [path for path in text if path.stem not in done and path not in complete]
    links, problems = chain.read(folder)
    return RecordHealth(
        folder=folder,
        writing=len(writing),
        writing_bytes=sum(map(files.size, writing)),
        waiting=len(complete),
        waiting_bytes=sum(map(files.size, complete)),
        parquet=len(parquet),
        parquet_bytes=sum(map(files.size, parquet)),
        foreign=files.foreign(folder),
        disk_free=_free(folder),
        chain_links=len(links),
        chain_head=links[-1].digest if links else None,
        chain_sound=not problems,
    )


def _free(folder: Path) -> int | None:
    for path in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(path).free
    return None

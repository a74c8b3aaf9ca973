"""The health of the record: counts and sizes from the folder's listing. No file of events is opened."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from mentra_nb.record.write import chain, files


@dataclass(frozen=True)
class RecordHealth:
    """The state of the record's folder."""

    folder: Path
    writing: int
    """Segments being written, by this process or another."""
    writing_bytes: int
    waiting: int
    """Complete segments that are not compacted yet."""
    waiting_bytes: int
    parquet: int
    """Parquet files."""
    parquet_bytes: int
    foreign: tuple[str, ...]
    """Names of files in the segments' folder that are not ours; they are not read."""
    disk_free: int | None
    """Free bytes on the disk, or `None` if unknown."""
    chain_links: int
    chain_head: str | None
    """The digest of the last link."""
    chain_sound: bool
    """Whether the chain is unbroken. `verify` also compares it with the segments."""


@dataclass(frozen=True)
class JournalHealth(RecordHealth):
    """The state of the record's folder and of this process's journal."""

    alive: bool
    """Whether the last event was stored and the thread that syncs the segment runs."""
    written: int
    """Events stored by this process."""
    lost: int
    """Events that could not be stored."""
    last_error: str | None
    segment: str | None
    """The name (a UUIDv7) of the segment being written, if any."""


def record_health(folder: Path) -> RecordHealth:
    """Return the state of a record's folder, which may be missing."""
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

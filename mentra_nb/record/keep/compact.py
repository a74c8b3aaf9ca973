# ruff: noqa: S608  # the SQL is made of quoted paths
"""Compaction: complete segments become Parquet files, and small Parquet files are merged into larger ones.

Any process may do it, one at a time. Killing it at any moment is safe, since the set of files changes in one step.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mentra_nb.errors import StoreError
from mentra_nb.ids import uuid7
from mentra_nb.record import schema
from mentra_nb.record.keep.change import Links, alone, in_thread, links, remove, rewrite
from mentra_nb.record.parquet import connection, copy
from mentra_nb.record.write import chain, files
from mentra_nb.record.write.known import read as known_segments

if TYPE_CHECKING:
    import duckdb

log: logging.Logger = logging.getLogger(__name__)

MANY_FILES = 40
"""How many small Parquet files there must be to merge them."""
SMALL_FILE = 2 << 20
"""Bytes below which a Parquet file is merged with others."""
MERGED_FILE = 16 << 20
"""Bytes at which a merged file is complete. Verification reads each file whole, so this bounds its memory."""
_MERGED_AT_ONCE = 500  # files; readers wait while they are replaced
_MANY_SEGMENTS, _MANY_BYTES = 20, 256 << 20  # from which on text is compacted in the background
_MAX_SECONDS = 2.0  # of a compaction in the background
_INTERVAL = 60.0  # seconds between two of them
_compacted_at: dict[Path, float] = {}
_warned: set[str] = set()


def compact(folder: Path, grace: float = 60, *, seconds: float | None = None, many: int = MANY_FILES) -> int:
    """Convert complete segments to Parquet, and merge small Parquet files.

    A segment that is not in the chain, because its writer was killed, is added to it.

    Args:
        folder: the record's folder.
        grace: seconds after which the text of a converted segment is removed; other clients may still read it.
        seconds: about how long to work; the next call continues.
        many: the number of small Parquet files from which on they are merged.

    Returns:
        How many segments were converted.

    Raises:
        StoreError: a slow query holds the commit lock; the next call continues.
    """
    folder, done = folder.resolve(), 0
    if not (folder / "events").is_dir():
        return 0
    end = time.monotonic() + seconds if seconds is not None else float("inf")
    with alone(folder) as free:
        if not free:
            return 0
        known, _ = links(folder)
        for segment in files.named(folder, "jsonl"):
            if time.monotonic() > end:
                return done
            done += _compact_one(folder, segment, grace, known)
        _merge(folder, known, many, end)
    return done


def compact_later(folder: Path) -> threading.Thread | None:
    """Compact in a background thread, at most once a minute and for two seconds, if many segments are waiting.

    Returns:
        The thread, or `None` if there is not enough to do.
    """
    folder = folder.resolve()
    now = time.monotonic()
    if now - _compacted_at.get(folder, float("-inf")) < _INTERVAL:
        return None
    waiting = files.named(folder, "jsonl")
    small = [file for file in files.named(folder, "parquet") if files.size(file) < SMALL_FILE]
    if len(waiting) <= _MANY_SEGMENTS and sum(map(files.size, waiting)) <= _MANY_BYTES and len(small) < MANY_FILES:
        return None
    _compacted_at[folder] = now

    def work() -> None:
        with contextlib.suppress(StoreError):  # a slow query; the next call continues
            compact(folder, seconds=_MAX_SECONDS)

    return in_thread("mentra-record-compaction", work)


# ---- one segment ----------------------------------------------------------------------------------------------------


def _compact_one(folder: Path, segment: Path, grace: float, known: Links) -> bool:
    target = segment.with_suffix(".parquet")
    if target.exists():
        if time.time() - target.stat().st_mtime > grace:
            remove(folder, segment)
        return False
    with files.held(segment.with_suffix(".lock"), wait=0) as complete:
        if not complete:
            return False
        if files.size(segment) == 0:
            remove(folder, segment)
            return False
        if segment.stem not in known:  # it may have been sealed since the chain was read
            known |= links(folder)[0]
        return _convert(folder, segment, target, known)


def _convert(folder: Path, segment: Path, target: Path, known: Links) -> bool:
    """Write a segment as Parquet if it matches its link in the chain; add the link if it has none."""
    import duckdb

    new = segment.with_suffix(".tmp")
    try:
        with connection() as con:
            copy(con, chain.lines(segment), new)
            contents = chain.contents(con, new)
    except duckdb.Error as error:
        return _kept(segment, f"it cannot be read: {error}")
    if [content.segment for content in contents] != [segment.stem]:
        return _kept(segment, "it holds events that were written elsewhere" if contents else "it holds no event")
    if segment.stem not in known:
        if why := known_segments(folder).stranger(segment.stem):
            return _kept(segment, f"it {why}")
        known[segment.stem] = contents[0].link()
        chain.append(folder, [known[segment.stem]])
    elif known[segment.stem].sha256 != contents[0].sha256:
        return _kept(segment, "it was altered since it was sealed")
    files.change(folder, put={new: target})
    return True


def _kept(segment: Path, reason: str) -> bool:
    """Leave the segment untouched and log this once. Returns False."""
    segment.with_suffix(".tmp").unlink(missing_ok=True)
    if segment.name not in _warned:
        _warned.add(segment.name)
        log.warning("The segment %s is not compacted and stays as it is: %s", segment.name, reason)
    return False


# ---- merging --------------------------------------------------------------------------------------------------------


def _merge(folder: Path, known: Links, many: int, end: float) -> None:
    """Merge small files, and give large ones of earlier versions the current columns, which makes queries faster.

    Files whose text still exists, or that differ from their link, are left untouched.
    """
    text = {segment.stem for segment in files.named(folder, "jsonl")}
    complete = [file for file in files.named(folder, "parquet") if file.stem not in text]
    small = [file for file in complete if files.size(file) < SMALL_FILE]
    old = [file for file in complete if file not in small and _is_old(file)]
    for group in [*(groups(small) if len(small) >= many else ()), *([file] for file in old)]:
        if time.monotonic() > end:
            return
        with connection() as con:
            sound = [file for file in group if _as_sealed(con, file, known)]
            new = folder / "events" / f"{uuid7()}.tmp"
            if (len(sound) > 1 or set(sound) & set(old)) and rewrite(con, sound, new) and _as_sealed(con, new, known):
                files.change(folder, put={new: new.with_suffix(".parquet")}, remove=sound)


def groups(small: Sequence[Path]) -> Iterator[list[Path]]:
    """Split files into groups of about `MERGED_FILE` bytes."""
    group: list[Path] = []
    bytes_ = 0
    for file in small:
        group.append(file)
        bytes_ += files.size(file)
        if bytes_ >= MERGED_FILE or len(group) >= _MERGED_AT_ONCE:
            yield group
            group, bytes_ = [], 0
    yield group


def _is_old(file: Path) -> bool:
    """Return whether a file that can be read lacks the columns of the current version."""
    import duckdb

    with contextlib.suppress(duckdb.Error), connection() as con:
        names = con.execute(f"SELECT name FROM parquet_schema({schema.quoted(file)})").fetchall()
        return ("columns_v",) not in names
    return False


def _as_sealed(con: duckdb.DuckDBPyConnection, file: Path, known: Links) -> bool:
    import duckdb

    try:
        contents = chain.contents(con, file)
    except duckdb.Error:
        return False
    return all(content.segment in known and known[content.segment].sha256 == content.sha256 for content in contents)

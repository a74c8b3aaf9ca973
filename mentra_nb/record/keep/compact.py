# the SQL is made of our own constants and quoted paths
"""What happens to segments once they are complete: they become Parquet, small Parquet files larger ones, old ones go.

One process at a time does it, any may, and it may be killed at any moment: a set of files changes in one step.
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
from mentra_nb.record.keep.change import Links, alone, in_thread, links, remove, rewrite
from mentra_nb.record.parquet import connection, copy
from mentra_nb.record.write import chain, files

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

MANY_FILES = 40
"""So many small Parquet files are merged: a query opens each file."""
_SMALL, _LARGE = 2 << 20, 16 << 20  # bytes; a merged file is read whole when it is verified, so not larger
_FILES_AT_ONCE = 500  # readers wait while so many are replaced
_MANY_SEGMENTS, _MUCH_TEXT = 20, 256 << 20
_SECONDS_OF_UPKEEP = 2.0
_UPKEEP_EVERY = 60.0
_compacted_at: dict[Path, float] = {}
_told: set[str] = set()


def compact(folder: Path, grace: float = 60, *, seconds: float | None = None, many: int = MANY_FILES) -> int:
    """Turn complete segments into Parquet, for at most about `seconds`. Returns how many were turned.

    A segment that is not in the chain, because its writer was killed, is added to it. A segment's text goes `grace`
    seconds later, for the sake of clients that read it without our lock. From `many` small Parquet files on, those are
    merged. Raises `StoreError` when a reader's long question is in the way, and goes on the next time.
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
    """Compact in a thread if there may be much to do; looked at once a minute, and for two seconds."""
    folder = folder.resolve()
    now = time.monotonic()
    if now - _compacted_at.get(folder, float("-inf")) < _UPKEEP_EVERY:
        return None
    waiting, small = files.named(folder, "jsonl"), [p for p in files.named(folder, "parquet") if files.size(p) < _SMALL]
    if len(waiting) <= _MANY_SEGMENTS and sum(map(files.size, waiting)) <= _MUCH_TEXT and len(small) < MANY_FILES:
        return None
    _compacted_at[folder] = now

    def work() -> None:
        with contextlib.suppress(StoreError):  # somebody reads for long; there is time
            compact(folder, seconds=_SECONDS_OF_UPKEEP)

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
        if segment.stem not in known:  # sealed since, or never
            known |= links(folder)[0]
        return _turn(folder, segment, target, known)


def _turn(folder: Path, segment: Path, target: Path, known: Links) -> bool:
    """Put a segment's Parquet in place, if it holds what the chain says; add it to the chain if it is not there."""
    import duckdb

    new = segment.with_suffix(".tmp")
    try:
        with connection() as con:
            copy(con, chain.lines(segment), new)
            contents = chain.contents(con, new)
    except duckdb.Error as error:  # it stays readable as text
        return _kept(segment, f"it cannot be read: {error}")
    if [content.segment for content in contents] != [segment.stem]:
        return _kept(segment, "it holds events that were written elsewhere" if contents else "it holds no event")
    if segment.stem not in known:
        known[segment.stem] = contents[0].link()
        chain.append(folder, [known[segment.stem]])
    elif known[segment.stem].sha256 != contents[0].sha256:
        return _kept(segment, "it was altered since it was sealed")
    files.change(folder, put={new: target})
    return True


def _kept(segment: Path, reason: str) -> bool:
    """It stays as it is, and is said to do so once."""
    segment.with_suffix(".tmp").unlink(missing_ok=True)
    if segment.name not in _told:
        _told.add(segment.name)
        log.warning("The segment %s is not compacted and kept as it is: %s", segment.name, reason)
    return False


# ---- several --------------------------------------------------------------------------------------------------------


def _merge(folder: Path, known: Links, many: int, end: float) -> None:
    """Make larger files of small ones. One whose text is still there or that is not as it was sealed is left alone."""
    text = {segment.stem for segment in files.named(folder, "jsonl")}
    small = [file for file in files.named(folder, "parquet") if files.size(file) < _SMALL and file.stem not in text]
    for group in groups(small) if len(small) >= many else ():
        if time.monotonic() > end:
            return
        with connection() as con:
            sound = [file for file in group if _as_sealed(con, file, known)]
            new = folder / "events" / f"{uuid7()}.tmp"
            if len(sound) > 1 and rewrite(con, sound, new) and _as_sealed(con, new, known):
                files.change(folder, put={new: new.with_suffix(".parquet")}, remove=sound)


def groups(small: Sequence[Path]) -> Iterator[list[Path]]:
    group: list[Path] = []
    bytes_ = 0
    for file in small:
        group.append(file)
        bytes_ += files.size(file)
        if bytes_ >= _LARGE or len(group) >= _FILES_AT_ONCE:
            yield group
            group, bytes_ = [], 0
    yield group


def _as_sealed(con: duckdb.DuckDBPyConnection, file: Path, known: Links) -> bool:
    import duckdb

    try:
        contents = chain.contents(con, file)
    except duckdb.Error:
        return False
    return all(content.segment in known and known[content.segment].sha256 == content.sha256 for content in contents)

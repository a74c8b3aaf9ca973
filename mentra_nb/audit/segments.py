# ruff: noqa: S608  # the SQL is made of our own constants and quoted paths
"""The record on disk: segment files, the locks that say who writes them, their compaction to Parquet, and `record.duckdb`.

events/<uuid7>.jsonl     being written, or left by a process that is gone
events/<uuid7>.lock      held by its writer for life: a free lock means that the segment is complete
events/<uuid7>.parquet   a complete segment with typed columns; takes the place of its .jsonl
"""  # noqa: E501

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import portalocker

from mentra_nb.audit import schema
from mentra_nb.identity import uuid7

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

log = logging.getLogger(__name__)

_NAME = "????????-????-7???-????-????????????"
_BINARY = getattr(os, "O_BINARY", 0)
_MANY_SEGMENTS, _MUCH_TEXT = 20, 256 << 20
_SECONDS_OF_UPKEEP = 2.0
_UPKEEP_EVERY = 60.0
_compacted_at: dict[Path, float] = {}


def make_folder(folder: Path) -> Path:
    """The segments' folder, made private to the user if it is not there."""
    events = folder / "events"
    if not events.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        events.mkdir(mode=0o700, exist_ok=True)
    return events


def open_segment(folder: Path, name: str) -> tuple[IO[bytes], int]:
    """A new segment: its lock, held until the file object is closed, and a descriptor that appends to it."""
    events = folder / "events"
    owner = _open_lock(events / f"{name}.lock")
    try:
        portalocker.lock(owner, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | _BINARY
        fd = os.open(events / f"{name}.jsonl", flags, 0o600)
    except BaseException:
        owner.close()
        raise
    _sync_folder(events)
    return owner, fd


@contextlib.contextmanager
def commit_lock(folder: Path, *, alone: bool = False) -> Iterator[None]:
    """Readers share it; a compaction takes it alone for the moment in which a file is put in place or removed."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(_open_lock(folder / "events" / ".commit"))
            portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE if alone else portalocker.LockFlags.SHARED)
        except OSError:  # no record yet, or a read-only copy of one: nobody compacts it
            if alone:
                raise
        yield


def sealed(segment: Path) -> bool:
    """Whether the segment's writer is gone."""
    with _open_lock(segment.with_suffix(".lock")) as lock:
        try:
            portalocker.lock(lock, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.LockException:
            return False
    return True


def has_any(folder: Path, suffix: str) -> bool:
    return next((folder / "events").glob(f"*.{suffix}"), None) is not None


# ---- record.duckdb ----------------------------------------------------------------------------------------------


def create_events(
    con: duckdb.DuckDBPyConnection, folder: Path, *, jsonl: bool, parquet: bool, temp: bool = False
) -> None:
    """The view `events` over this folder; the flags say which sorts of file there are."""
    body = schema.events_sql(folder / "events", jsonl=jsonl, parquet=parquet)
    con.execute(f"CREATE {'TEMP ' if temp else ''}VIEW events AS {body}")


def create_views(con: duckdb.DuckDBPyConnection, *, temp: bool = False) -> None:
    """The other views of `schema`; `events` and `prices` must be there."""
    for name, body in schema.VIEWS.items():
        con.execute(f"CREATE {'TEMP ' if temp else ''}VIEW {name} AS {body}")


def write_database(folder: Path) -> Path:
    """Write `record.duckdb`: no data, only the views, for any DuckDB client. Returns its path.

    Open it read-only; it shows live events. Costs are as of the last query through `tables`.
    """
    import duckdb

    folder = folder.resolve()
    events = make_folder(folder)
    (events / "empty.jsonl").touch(mode=0o600)  # a glob that matches nothing would be an error
    with duckdb.connect() as con:
        _write_if_missing(con, f"{schema.TYPED} FROM ({schema.empty(schema.ENVELOPE)})", events / "empty.parquet")
        _write_if_missing(con, schema.empty(schema.PRICES), folder / "prices.parquet")
    new, target = folder / f"record-{uuid7()}.tmp", folder / "record.duckdb"
    with duckdb.connect(str(new)) as con:
        con.execute(f"CREATE VIEW prices AS SELECT * FROM read_parquet({schema.quoted(folder / 'prices.parquet')})")
        create_events(con, folder, jsonl=True, parquet=True)
        create_views(con)
    new.chmod(0o600)
    new.replace(target)
    (events / ".schema").write_text(_schema_mark(folder), encoding="utf-8")
    return target


def refresh_database_later(folder: Path) -> threading.Thread | None:
    """Write `record.duckdb` in a thread if it is missing, of another schema, or for another place.

    Not a daemon thread: DuckDB must not be at work while the interpreter goes away.
    """
    folder = folder.resolve()
    if not (folder / "events").is_dir():  # no record yet
        return None
    with contextlib.suppress(OSError):
        mark = (folder / "events" / ".schema").read_text(encoding="utf-8")
        if mark == _schema_mark(folder) and (folder / "record.duckdb").exists():
            return None
    return _in_thread("mentra-record-views", lambda: write_database(folder))


def write_parquet(con: duckdb.DuckDBPyConnection, select: str, target: Path) -> None:
    """The rows of a SELECT as a Parquet file that is there whole or not at all."""
    new = target.with_name(f"{target.stem}-{uuid7()}.tmp")
    _copy(con, select, new)
    new.replace(target)
    _sync_folder(target.parent)


# ---- compaction -------------------------------------------------------------------------------------------------


def compact(folder: Path, grace: float = 60, *, seconds: float | None = None) -> int:
    """Turn complete segments into Parquet, for at most about `seconds`. Returns how many were turned.

    The rename is the commit, so it may be killed at any moment and run from any process, one at a time. A segment's
    text goes `grace` seconds later, for the sake of clients that read it without our lock.
    """
    folder, done = folder.resolve(), 0
    events = folder / "events"
    if not events.is_dir():
        return 0
    end = time.monotonic() + seconds if seconds is not None else float("inf")
    with _open_lock(events / ".compact") as one:
        try:
            portalocker.lock(one, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.LockException:
            return 0
        for leftover in events.glob(f"{_NAME}.tmp"):
            leftover.unlink(missing_ok=True)
        for segment in sorted(events.glob(f"{_NAME}.jsonl")):
            if time.monotonic() > end:
                break
            done += _compact_one(folder, segment, grace)
    return done


def compact_later(folder: Path) -> threading.Thread | None:
    """Compact in a thread if many complete segments may be waiting; looked at once a minute, and for two seconds."""
    folder = folder.resolve()
    now = time.monotonic()
    if now - _compacted_at.get(folder, float("-inf")) < _UPKEEP_EVERY:
        return None
    waiting = list((folder / "events").glob(f"{_NAME}.jsonl"))
    if len(waiting) <= _MANY_SEGMENTS and sum(_size(path) for path in waiting) <= _MUCH_TEXT:
        return None
    _compacted_at[folder] = now
    return _in_thread("mentra-record-compaction", lambda: compact(folder, seconds=_SECONDS_OF_UPKEEP))


def _compact_one(folder: Path, segment: Path, grace: float) -> bool:
    import duckdb

    target = segment.with_suffix(".parquet")
    if target.exists():
        if time.time() - target.stat().st_mtime > grace:
            _remove(folder, segment)
        return False
    if not sealed(segment):
        return False
    if _size(segment) == 0:
        _remove(folder, segment)
        return False
    new = segment.with_suffix(".tmp")
    try:
        with duckdb.connect() as con:
            rows = f"{schema.TYPED} FROM {schema.read_lines(segment)} WHERE id IS NOT NULL ORDER BY seq"
            _copy(con, rows, new)
    except duckdb.Error as error:  # it stays readable as text
        log.warning("The segment %s could not be compacted (%s); it is kept as it is.", segment.name, error)
        return False
    with commit_lock(folder, alone=True):
        new.replace(target)
    _sync_folder(target.parent)
    return True


def _remove(folder: Path, segment: Path) -> None:
    with commit_lock(folder, alone=True):
        segment.unlink(missing_ok=True)
    segment.with_suffix(".lock").unlink(missing_ok=True)


def verify(folder: Path) -> pd.DataFrame:
    """What is missing. A row is a segment: `segment`, `state` (writing, complete, compacted), `events`, `missing`
    (holes in `seq`), `bad_lines` (torn or no JSON; known until compaction), `lost` (events a `journal_gap` tells of).
    """
    import duckdb
    import pandas as pd

    folder = folder.resolve()
    rows = []
    with duckdb.connect() as con, commit_lock(folder):
        names = {path.stem for kind in ("jsonl", "parquet") for path in (folder / "events").glob(f"{_NAME}.{kind}")}
        for name in sorted(names):
            segment, compacted = folder / "events" / f"{name}.jsonl", folder / "events" / f"{name}.parquet"
            done = compacted.exists()
            source = f"FROM read_parquet({schema.quoted(compacted)})"
            if not done:
                source = f"FROM ({schema.TYPED} FROM {schema.read_lines(segment)})"
            query = f"""SELECT count(id), coalesce(max(seq) + 1, 0) - count(DISTINCT seq), count(*) - count(id),
                coalesce(sum(lost) FILTER (kind = 'journal_gap'), 0) {source}"""
            found = con.execute(query).fetchone() or (0, 0, 0, 0)
            state = "compacted" if done else "complete" if sealed(segment) else "writing"
            rows.append((name, state, *(int(number) for number in found)))
    return pd.DataFrame(rows, columns=["segment", "state", "events", "missing", "bad_lines", "lost"])


# ---- small steps -------------------------------------------------------------------------------------------------


def _open_lock(path: Path) -> IO[bytes]:
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags | _BINARY, 0o600))


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _sync_folder(folder: Path) -> None:
    """A new or renamed file outlives a power cut only once its folder is synced."""
    if os.name == "nt":  # no such thing there
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _copy(con: duckdb.DuckDBPyConnection, select: str, new: Path) -> None:
    """The rows as a Parquet file that a power cut does not take away."""
    con.execute(f"COPY ({select}) TO {schema.quoted(new)} (FORMAT parquet, COMPRESSION zstd)")
    new.chmod(0o600)
    with new.open("rb+") as file:
        os.fsync(file.fileno())


def _write_if_missing(con: duckdb.DuckDBPyConnection, select: str, target: Path) -> None:
    if not target.exists():
        write_parquet(con, select, target)


def _schema_mark(folder: Path) -> str:
    return f"{schema.SCHEMA_VERSION} {folder}"


def _in_thread(name: str, work: Callable[[], object]) -> threading.Thread:
    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  # upkeep is tried again by the next process or query
            log.warning("Upkeep of the record failed: %s", error)

    thread = threading.Thread(target=run, name=name)
    thread.start()
    return thread

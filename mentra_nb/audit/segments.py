# ruff: noqa: S608  # the SQL is made of our own constants and quoted paths
"""Upkeep of the record: complete segments become Parquet, small Parquet files larger ones; and `record.duckdb`."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mentra_nb.audit import chain, files, schema
from mentra_nb.audit.files import commit_lock as commit_lock
from mentra_nb.audit.files import make_folder as make_folder
from mentra_nb.audit.files import sealed as sealed
from mentra_nb.audit.verification import verify as verify
from mentra_nb.identity import uuid7

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

_MANY_SEGMENTS, _MUCH_TEXT = 20, 256 << 20
_SECONDS_OF_UPKEEP = 2.0
_UPKEEP_EVERY = 60.0
_compacted_at: dict[Path, float] = {}
_told: set[str] = set()


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
    with open(events / ".schema", "w", encoding="utf-8", opener=files.private) as mark:
        mark.write(_schema_mark(folder))
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
    files.sync_folder(target.parent)


# ---- compaction -------------------------------------------------------------------------------------------------


def compact(folder: Path, grace: float = 60, *, seconds: float | None = None) -> int:
    """Turn complete segments into Parquet, for at most about `seconds`. Returns how many were turned.

    A segment that nobody added to the chain, because its writer was killed, is added. It may be killed at any moment
    and run from any process, one at a time. A segment's text goes `grace` seconds later, for the sake of clients that
    read it without our lock.
    """
    folder, done = folder.resolve(), 0
    events = folder / "events"
    if not events.is_dir():
        return 0
    end = time.monotonic() + seconds if seconds is not None else float("inf")
    with files.held(events / ".compact", wait=False) as alone:
        if not alone:
            return 0
        files.finish_change(folder)
        for leftover in events.glob(f"{files.NAME}.tmp"):
            leftover.unlink(missing_ok=True)
        known = _sealed_links(folder)
        for segment in files.named(folder, "jsonl"):
            if time.monotonic() > end:
                break
            done += _compact_one(folder, segment, grace, known)
    return done


def compact_later(folder: Path) -> threading.Thread | None:
    """Compact in a thread if many complete segments may be waiting; looked at once a minute, and for two seconds."""
    folder = folder.resolve()
    now = time.monotonic()
    if now - _compacted_at.get(folder, float("-inf")) < _UPKEEP_EVERY:
        return None
    waiting = list((folder / "events").glob(f"{files.NAME}.jsonl"))
    if len(waiting) <= _MANY_SEGMENTS and sum(files.size(path) for path in waiting) <= _MUCH_TEXT:
        return None
    _compacted_at[folder] = now
    return _in_thread("mentra-record-compaction", lambda: compact(folder, seconds=_SECONDS_OF_UPKEEP))


def _compact_one(folder: Path, segment: Path, grace: float, known: dict[str, chain.Link]) -> bool:
    target = segment.with_suffix(".parquet")
    if target.exists():
        if time.time() - target.stat().st_mtime > grace:
            _remove(folder, segment)
        return False
    with files.held(segment.with_suffix(".lock"), wait=False) as complete:
        if not complete:
            return False
        if files.size(segment) == 0:
            _remove(folder, segment)
            return False
        if segment.stem not in known:  # sealed since, or never
            known |= _sealed_links(folder)
        return _turn(folder, segment, target, known.get(segment.stem))


def _turn(folder: Path, segment: Path, target: Path, link: chain.Link | None) -> bool:
    """Put a segment's Parquet in place, if it holds what the chain says; add it to the chain if it is not there."""
    import duckdb

    new = segment.with_suffix(".tmp")
    try:
        with _connection() as con:
            _copy(con, chain.lines(segment), new)
            contents = chain.contents(con, new)
    except duckdb.Error as error:  # it stays readable as text
        return _kept(segment, f"it cannot be read: {error}")
    if [content.segment for content in contents] != [segment.stem]:
        return _kept(segment, "it holds events that were written elsewhere" if contents else "it holds no event")
    if link is None:
        chain.append(folder, [contents[0].link()])
    elif link.sha256 != contents[0].sha256:
        return _kept(segment, "it was altered since it was sealed")
    files.change(folder, put={new: target})
    return True


def _sealed_links(folder: Path) -> dict[str, chain.Link]:
    return {link.segment: link for link in chain.read(folder)[0] if link.kind == "sealed"}


def _kept(segment: Path, reason: str) -> bool:
    """It stays as it is, and is said to do so once."""
    segment.with_suffix(".tmp").unlink(missing_ok=True)
    if segment.name not in _told:
        _told.add(segment.name)
        log.warning("The segment %s is not compacted and kept as it is: %s", segment.name, reason)
    return False


def _remove(folder: Path, segment: Path) -> None:
    files.change(folder, remove=[segment])
    with contextlib.suppress(OSError):
        segment.with_suffix(".lock").unlink(missing_ok=True)


# ---- small steps -------------------------------------------------------------------------------------------------


def _connection() -> duckdb.DuckDBPyConnection:
    """For upkeep, which happens beside a person's work."""
    import duckdb

    return duckdb.connect(config={"threads": 1, "autoinstall_known_extensions": "false"})


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

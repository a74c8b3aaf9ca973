# ruff: noqa: S608  # the SQL is made of our own constants and quoted texts
"""The record on several machines: sealed segments are shipped to a DuckLake, and `mn.*` reads them there.

Events are written to this machine's disk first and shipped as whole segments, each once: its name is committed together
with its events. A commit to the catalog takes about 0.3 s, so events are never shipped one by one.

Pruned events disappear from the tables at once, and from the disk later: files that also hold other segments are
rewritten, the snapshots with the old files expire an hour later, and the files are removed after another hour, by the
next `prune` or shipment. Readers are not blocked, and concurrent commits do not lose each other's bookkeeping.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mentra_nb.errors import StoreError
from mentra_nb.record import schema
from mentra_nb.record.keep.change import Links, alone, in_thread, links, remove
from mentra_nb.record.keep.compact import compact, groups
from mentra_nb.record.keep.lake_tables import (
    PRUNED,
    SEGMENTS,
    Lake,
    attach,
    attached,
    configured,
    mark,
    older,
    retried,
    transaction,
)
from mentra_nb.record.parquet import connection
from mentra_nb.record.write import chain, files
from mentra_nb.secrets.mask import mask_secrets
from mentra_nb.words import counted

if TYPE_CHECKING:
    import duckdb

log: logging.Logger = logging.getLogger(__name__)

SHIP_INTERVAL = 30.0
"""Seconds between two shipments in the background."""
GRACE = 3600
"""Seconds for which snapshots and files are kept: longer than any query or commit takes."""
_shipped_at: dict[Path, float] = {}


def ship(folder: Path, lake: Lake) -> int:
    """Move every complete segment into the lake.

    Killing it at any moment is safe, and any number of machines may ship at the same time. Segments that differ from
    their link in the chain stay on this machine.

    Returns:
        How many segments were added to the lake.

    Raises:
        StoreError: the lake cannot be reached; nothing is lost, and the next call continues.
    """
    import duckdb

    folder = folder.resolve()
    compact(folder, grace=0)
    with alone(folder) as free:
        waiting = files.named(folder, "parquet") if free else []
        if not waiting:
            return 0
        with attached(lake) as con:
            known, _ = links(folder)
            new = sum(_ship_files(con, folder, group, known) for group in groups(waiting))
            with contextlib.suppress(duckdb.Error):  # another machine may be doing it; the next call continues
                _clean(con)
            return new


def ship_later(folder: Path) -> threading.Thread | None:
    """Ship in a background thread, at most once per `SHIP_INTERVAL`.

    Returns:
        The thread, or `None` if no lake is configured or it is not due.
    """
    folder, now = folder.resolve(), time.monotonic()
    if now - _shipped_at.get(folder, float("-inf")) < SHIP_INTERVAL or (lake := configured(folder)) is None:
        return None
    _shipped_at[folder] = now
    return in_thread("mentra-record-lake", lambda: ship(folder, lake))


def use(con: duckdb.DuckDBPyConnection, lake: Lake, local: str) -> str:
    """Attach the lake and return the SELECT of `events` over it and the events in `local` that are not shipped yet.

    It begins a transaction. Until that ends no event is seen twice or missed, even if segments are shipped meanwhile.
    """
    attach(con, lake, read_only=True)
    con.execute("BEGIN")
    return (
        f"{schema.stored(f'FROM lake.events ANTI JOIN ({PRUNED}) USING (source)')} UNION ALL BY NAME "
        f"SELECT * FROM ({local}) WHERE source::VARCHAR NOT IN (SELECT segment FROM lake.shipped)"
    )


def prune(lake: Lake, cut: float, *, dry_run: bool) -> list[chain.Link]:
    """Remove the segments whose last event is before `cut` (Unix seconds), from any machine, and return them.

    Killing it at any moment is safe, and any number of machines may prune at the same time: the next call continues.

    Raises:
        StoreError: the lake cannot be reached.
    """
    import duckdb

    with attached(lake, read_only=dry_run) as con:
        if dry_run:
            return older(con, cut)
        gone: list[chain.Link] = []
        left = 1
        try:
            retried(lambda: _rewrite_one_row(con, cut))
            while left:  # a concurrent prune can bring back a row; it is marked as pruned, so queries skip it
                removed, left = retried(lambda: _delete(con, cut))
                gone += removed
            _call(con, "ducklake_flush_inlined_data('lake', table_name => 'events')")  # rows that are not in files yet
            _call(con, "ducklake_rewrite_data_files('lake', 'events', delete_threshold => 0)")
            _clean(con)
            _clean_orphans(con)
        except duckdb.Error as error:
            raise StoreError(f"pruning the lake was interrupted; try again: {mask_secrets(str(error))}") from None
        return gone


def check(lake: Lake) -> Iterator[tuple[chain.Content, str, str | None]]:
    """Yield each segment that was ever shipped, `in the lake` or `pruned`, and a message if it is not intact."""
    with connection() as con:
        attach(con, lake, read_only=True)
        con.execute("BEGIN")
        every = f"SELECT segment, events, sha256, pruned FROM ({SEGMENTS}) ORDER BY segment"
        shipped = con.execute(every).fetchall()
        for start in range(0, len(shipped), 50):  # their lines are held in memory
            some = shipped[start : start + 50]
            names = ", ".join(schema.quoted(segment) for segment, *_ in some)
            rows = f"(FROM lake.events WHERE source IN ({names}))"
            found = {content.segment: content for content in chain.contents_of(con, rows, "seq")}
            for segment, events, sha256, pruned in some:
                content = found.get(segment, chain.Content(segment, 0, 0, 0, "", 0, 0))
                problem = None
                if pruned:
                    if content.events:
                        problem = "was pruned and is still there; the next prune removes it"
                    content = content._replace(events=events, missing=0)
                elif content.events < events:
                    problem = f"lacks {events - content.events} of the {counted(events, 'event')} it was sealed with"
                elif content.sha256 != sha256:
                    problem = "was altered since it was sealed"
                yield content, "pruned" if pruned else "in the lake", problem


# ---- shipping ------------------------------------------------------------------------------------------------------


def _ship_files(con: duckdb.DuckDBPyConnection, folder: Path, group: list[Path], known: Links) -> int:
    """Commit a group of files to the lake, then remove them here and note it in the chain. Returns the new segments."""
    import duckdb

    contents: dict[Path, list[chain.Content]] = {}
    for file in group:
        with contextlib.suppress(duckdb.Error):  # the file stays, and `verify` reports it
            found = chain.contents(con, file)
            if all(each.segment in known and known[each.segment].sha256 == each.sha256 for each in found):
                contents[file] = found
    if not contents:
        return 0
    segments = [content for found in contents.values() for content in found]
    try:
        new = retried(lambda: _commit(con, list(contents), segments))
    except duckdb.Error as error:
        raise StoreError(f"shipping to the lake failed: {mask_secrets(str(error))}") from None
    chain.append(folder, [known[content.segment]._replace(kind="shipped") for content in segments])
    text = (file.with_suffix(".jsonl") for file in contents)
    remove(folder, *contents, *(file for file in text if file.exists()))
    return new


def _commit(con: duckdb.DuckDBPyConnection, of: Iterable[Path], segments: list[chain.Content]) -> int:
    """Insert the segments that are not in the lake yet, in one transaction. Returns how many there were."""
    with transaction(con):
        there = {str(name) for (name,) in con.execute("SELECT segment FROM lake.shipped").fetchall()}
        new = [content for content in segments if content.segment not in there]
        if new:
            names = ", ".join(schema.quoted(content.segment) for content in new)
            rows = f"read_parquet({schema.listed(of)}, union_by_name = true) WHERE source IN ({names})"
            con.execute(f"INSERT INTO lake.events BY NAME SELECT * FROM {rows} ORDER BY ts")
            mark(con, [content.link() for content in new])
    return len(new)


# ---- pruning -------------------------------------------------------------------------------------------------------


def _rewrite_one_row(con: duckdb.DuckDBPyConnection, cut: float) -> None:
    """Force a rewrite, because only a rewrite drops the minimum and maximum of columns from the catalog.

    Files whose rows all go are not rewritten, so one row to be pruned is updated to itself, which moves it elsewhere.
    """
    old = "source IN (SELECT segment::UUID FROM lake.shipped WHERE last < ?)"
    one = f"SELECT rowid FROM lake.events WHERE {old} LIMIT 1"
    con.execute(f"UPDATE lake.events SET scope = scope WHERE rowid IN ({one})", [cut])


def _delete(con: duckdb.DuckDBPyConnection, cut: float) -> tuple[list[chain.Link], int]:
    """Mark old segments as pruned and delete the rows of all marked ones, in one transaction.

    Returns:
        The segments that were newly marked, and the number of deleted rows.
    """
    with transaction(con):
        if gone := older(con, cut):
            mark(con, gone)
        row = con.execute(f"DELETE FROM lake.events WHERE source IN ({PRUNED})").fetchone()
    return gone, int(row[0]) if row else 0


def _call(con: duckdb.DuckDBPyConnection, function: str, column: str = "count(*)") -> list[tuple[Any, ...]]:
    """Call a table function of DuckLake and return its rows."""
    return retried(lambda: con.execute(f"SELECT {column} FROM {function}").fetchall())


def _clean(con: duckdb.DuckDBPyConnection) -> None:
    """Expire snapshots older than `GRACE` in a lake that was pruned, then remove files that expired as long ago.

    Not sooner, since a running commit needs the snapshots to find its conflicts.
    """
    if con.execute(f"{PRUNED} LIMIT 1").fetchone() is None:
        return
    then = f"now() - INTERVAL {GRACE} SECOND"
    last = f"SELECT max(snapshot_time)::VARCHAR FROM lake.snapshots() WHERE snapshot_time < {then}"
    if (row := con.execute(last).fetchone()) and row[0]:
        _call(con, f"ducklake_expire_snapshots('lake', older_than => TIMESTAMPTZ '{row[0]}')")
    _call(con, f"ducklake_cleanup_old_files('lake', older_than => {then})")


def _clean_orphans(con: duckdb.DuckDBPyConnection) -> None:
    """Remove files without a commit, which killed writers left, if all their events are in the lake or pruned."""
    import duckdb

    orphans = f"ducklake_delete_orphaned_files('lake', older_than => now() - INTERVAL {GRACE} SECOND, dry_run => "
    known = "coalesce(source IN (SELECT segment::UUID FROM lake.shipped), false)"
    found: list[str] = []
    with contextlib.suppress(duckdb.Error):  # files that change meanwhile, or are not ours
        found = [path for (path,) in _call(con, f"{orphans} true)", "path")]
        rows = ", ".join(schema.text(path) for path in found if not path.endswith("-delete.parquet"))
        if not rows or _call(con, f"read_parquet([{rows}])", f"bool_and({known})") == [(True,)]:
            if found:
                _call(con, f"{orphans} false)")
            return
    if found:
        log.warning("Found files that belong to no table of this lake; left in place: %s", ", ".join(found))

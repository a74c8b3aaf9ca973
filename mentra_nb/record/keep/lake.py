# ruff: noqa: S608  # the SQL is made of our own constants and quoted texts
"""The record beyond one machine: sealed segments are shipped to a DuckLake, and `mn.*` reads them there.

`MENTRA_RECORD="ducklake:postgres:host=… dbname=… data_path=s3://bucket/prefix"`: the catalog is a PostgreSQL database,
the data are Parquet files under `data_path`. Events are written to this machine's disk first, as always, and shipped
by whole segments, each once by its name in the transaction that brings its events. Costs of a shipment are those of a
commit in the catalog (about 0.3 s), so events are never shipped one by one.

What `prune` removes is gone from the tables at once, and its bytes later: files that hold others' events are written
anew, an hour later the snapshots that hold the old ones go, and after another the files, each by the next `prune` or
shipment. Who is reading them is not disturbed, and of commits at the same time none loses what it must know of others.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mentra_nb import paths
from mentra_nb.errors import ConfigurationError, StoreError
from mentra_nb.record import schema
from mentra_nb.record.keep.change import Links, alone, in_thread, links, remove
from mentra_nb.record.keep.compact import compact, groups
from mentra_nb.record.parquet import connection
from mentra_nb.record.write import chain, files
from mentra_nb.record.write.redact import redact_text

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")

log = logging.getLogger(__name__)

_EVERY = 30.0
_GRACE = 3600  # seconds; the longest question has its answer by then, and the longest commit is done
_TRIES = 12
_DATA_PATH = re.compile(r"\bdata_path=('[^']*'|\S+)\s*")
_AT_ONCE = re.compile(r"conflict|duplicate key|already exists|another transaction|serializ|deadlock|retry", re.I)
"""What PostgreSQL, DuckLake and DuckDB say when somebody else was first."""
_shipped_at: dict[Path, float] = {}

_SHIPPED = {
    "segment": "VARCHAR",
    "events": "BIGINT",
    "first": "DOUBLE",
    "last": "DOUBLE",
    "sha256": "VARCHAR",
    "shipped": "DOUBLE",
    "host": "VARCHAR",
}
"""The table `shipped`: a row for each segment in the lake, with the digest its writer took.

One that was pruned has a second row that says so, without a digest: it is not taken in again, and older versions of
this program can go on to ship.
"""
_SEGMENTS = """SELECT segment, max(events) AS events, max(first) AS first, max(last) AS last, max(sha256) AS sha256,
    bool_or(sha256 IS NULL) AS pruned FROM lake.shipped GROUP BY segment"""
_PRUNED = "SELECT segment::UUID AS source FROM lake.shipped WHERE sha256 IS NULL"


@dataclass(frozen=True)
class Lake:
    """Where the lake is."""

    catalog: str
    """What DuckLake calls its metadata: `postgres:` and a libpq connection string."""
    data_path: str
    """A folder or an object store's prefix."""

    def __str__(self) -> str:
        return f"{redact_text(self.catalog)} with its data in {self.data_path}"


def configured(folder: Path | None = None) -> Lake | None:
    """The lake that `MENTRA_RECORD` names, if it names one, and if `folder` is the one that is shipped from.

    Raises `ConfigurationError` for one that is not complete.
    """
    url = paths.record_lake()
    if url is None or (folder is not None and folder.resolve() != paths.record_folder().resolve()):
        return None
    found = _DATA_PATH.search(url)
    catalog = _DATA_PATH.sub("", url).removeprefix("ducklake:").strip()
    if not found or not catalog.startswith("postgres:"):
        raise ConfigurationError(
            "MENTRA_RECORD names a DuckLake; write it as 'ducklake:postgres:host=… dbname=… data_path=s3://bucket/prefix'"
        )
    if "connect_timeout" not in catalog and "://" not in catalog:
        catalog += " connect_timeout=10"
    data_path = found[1].strip("'")
    return Lake(catalog, data_path if "://" in data_path else f"{Path(data_path).absolute().as_posix()}/")


def ship(folder: Path, lake: Lake) -> int:
    """Move every complete segment into the lake. Returns how many are there now that were not.

    It may be killed at any moment, and any number of machines may do it at once. What the chain says was altered stays
    here. Raises `StoreError` if the lake cannot be reached; nothing is lost then, and the next call goes on.
    """
    import duckdb

    folder = folder.resolve()
    compact(folder, grace=0)
    with alone(folder) as free:
        waiting = files.named(folder, "parquet") if free else []
        if not waiting:
            return 0
        with _attached(lake) as con:
            known, _ = links(folder)
            new = sum(_ship_files(con, folder, group, known) for group in groups(waiting))
            with contextlib.suppress(duckdb.Error):  # another does it too, perhaps; the next one goes on
                _clean(con)
            return new


def ship_later(folder: Path) -> threading.Thread | None:
    """Ship in a thread, if there is a lake and it is time. Safe to call often."""
    folder, now = folder.resolve(), time.monotonic()
    if now - _shipped_at.get(folder, float("-inf")) < _EVERY or (lake := configured(folder)) is None:
        return None
    _shipped_at[folder] = now
    return in_thread("mentra-record-lake", lambda: ship(folder, lake))


def use(con: duckdb.DuckDBPyConnection, lake: Lake, local: str) -> str:
    """The body of `events` over the lake and what of this machine's is not there yet.

    A transaction is begun, so that until it ends nothing is seen twice or missed, whatever is shipped meanwhile.
    """
    _attach(con, lake, read_only=True)
    con.execute("BEGIN")
    return (
        f"SELECT * REPLACE (payload::JSON AS payload) FROM lake.events ANTI JOIN ({_PRUNED}) USING (source) "
        "UNION ALL BY NAME "
        f"SELECT * FROM ({local}) WHERE source::VARCHAR NOT IN (SELECT segment FROM lake.shipped)"
    )


def prune(lake: Lake, cut: float, *, dry_run: bool) -> list[chain.Link]:
    """Remove the segments whose last event is from before `cut` (Unix seconds), whoever shipped them; return them.

    It may be killed at any moment, and any number of machines may do it at once: what is left is done by the next call.
    Raises `StoreError` if the lake cannot be reached.
    """
    import duckdb

    with _attached(lake, read_only=dry_run) as con:
        if dry_run:
            return _older(con, cut)
        gone: list[chain.Link] = []
        left = 1
        try:
            _again(lambda: _set_one_apart(con, cut))
            while left:  # of two that prune at once one can bring back a row; it is marked, so nobody sees it
                removed, left = _again(lambda: _delete(con, cut))
                gone += removed
            _call(con, "ducklake_flush_inlined_data('lake', table_name => 'events')")  # what is not in files yet
            _call(con, "ducklake_rewrite_data_files('lake', 'events', delete_threshold => 0)")
            _clean(con)
            _clean_orphans(con)
        except duckdb.Error as error:
            raise StoreError(f"the lake was not pruned to the end; try again: {redact_text(str(error))}") from None
        return gone


def check(lake: Lake) -> Iterator[tuple[chain.Content, str, str | None]]:
    """Every segment the lake ever took, `in the lake` or `pruned`, and a sentence if it is not as it should be."""
    with connection() as con:
        _attach(con, lake, read_only=True)
        con.execute("BEGIN")
        every = f"SELECT segment, events, sha256, pruned FROM ({_SEGMENTS}) ORDER BY segment"
        shipped = con.execute(every).fetchall()
        for start in range(0, len(shipped), 50):  # the lines of so many are held in memory
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
                    content = replace(content, events=events, missing=0)
                elif content.events < events:
                    problem = f"lacks {events - content.events} of the {events} events it was sealed with"
                elif content.sha256 != sha256:
                    problem = "was altered since it was sealed"
                yield content, "pruned" if pruned else "in the lake", problem


# ---- shipping ------------------------------------------------------------------------------------------------------


def _ship_files(con: duckdb.DuckDBPyConnection, folder: Path, group: list[Path], known: Links) -> int:
    """One commit for a group of files; then they go from here, and the chain says where to."""
    import duckdb

    contents: dict[Path, list[chain.Content]] = {}
    for file in group:
        with contextlib.suppress(duckdb.Error):  # it stays, and `verify` tells of it
            found = chain.contents(con, file)
            if all(each.segment in known and known[each.segment].sha256 == each.sha256 for each in found):
                contents[file] = found
    if not contents:
        return 0
    segments = [content for found in contents.values() for content in found]
    try:
        new = _again(lambda: _commit(con, list(contents), segments))
    except duckdb.Error as error:
        raise StoreError(f"the lake took no shipment: {redact_text(str(error))}") from None
    chain.append(folder, [replace(known[content.segment], kind="shipped") for content in segments])
    text = (file.with_suffix(".jsonl") for file in contents)
    remove(folder, *contents, *(file for file in text if file.exists()))
    return new


def _commit(con: duckdb.DuckDBPyConnection, of: Iterable[Path], segments: list[chain.Content]) -> int:
    with _transaction(con):
        there = {str(name) for (name,) in con.execute("SELECT segment FROM lake.shipped").fetchall()}
        new = [content for content in segments if content.segment not in there]
        if new:
            names = ", ".join(schema.quoted(content.segment) for content in new)
            rows = f"read_parquet({schema.listed(of)}, union_by_name = true) WHERE source IN ({names})"
            con.execute(f"INSERT INTO lake.events BY NAME SELECT * FROM {rows} ORDER BY ts")
            _mark(con, [content.link() for content in new])
    return len(new)


def _mark(con: duckdb.DuckDBPyConnection, links: Sequence[chain.Link]) -> None:
    """Say of each segment that it is in the lake, or that it was pruned."""
    marks = ", ".join("?" * len(_SHIPPED))
    host, now = socket.gethostname(), time.time()
    con.executemany(
        f"INSERT INTO lake.shipped VALUES ({marks})",
        [[x.segment, x.events, x.first, x.last, x.sha256 or None, now, host] for x in links],
    )


@contextlib.contextmanager
def _transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    con.execute("BEGIN")
    try:
        yield
        con.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(Exception):
            con.execute("ROLLBACK")
        raise


def _again(work: Callable[[], T]) -> T:
    """Try until it works: of several commits to a lake at once one goes through, and the others are to try again."""
    import duckdb

    for attempt in range(_TRIES):
        try:
            return work()
        except duckdb.Error as error:
            if attempt == _TRIES - 1 or not _AT_ONCE.search(str(error)):
                raise
            time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))  # noqa: S311
    raise AssertionError


# ---- pruning -------------------------------------------------------------------------------------------------------


def _older(con: duckdb.DuckDBPyConnection, cut: float) -> list[chain.Link]:
    rows = con.execute(
        f"SELECT segment, events, first, last FROM ({_SEGMENTS}) WHERE NOT pruned AND last < ? ORDER BY segment", [cut]
    )
    return [chain.Link("pruned", name, events, first, last, "") for name, events, first, last in rows.fetchall()]


def _set_one_apart(con: duckdb.DuckDBPyConnection, cut: float) -> None:
    """Give the rewrite something to do: only then does the catalog forget the least and the greatest value of a column.

    Files that go whole are not rewritten. So one row of those that are to go is written anew, as it is.
    """
    old = "source IN (SELECT segment::UUID FROM lake.shipped WHERE last < ?)"
    one = f"SELECT rowid FROM lake.events WHERE {old} LIMIT 1"
    con.execute(f"UPDATE lake.events SET scope = scope WHERE rowid IN ({one})", [cut])


def _delete(con: duckdb.DuckDBPyConnection, cut: float) -> tuple[list[chain.Link], int]:
    """One commit: the rows of what is old, and of what was marked before. Returns what is new of it, and the rows."""
    with _transaction(con):
        if gone := _older(con, cut):
            _mark(con, gone)
        row = con.execute(f"DELETE FROM lake.events WHERE source IN ({_PRUNED})").fetchone()
    return gone, int(row[0]) if row else 0


def _call(con: duckdb.DuckDBPyConnection, function: str, column: str = "count(*)") -> list[tuple[Any, ...]]:
    return _again(lambda: con.execute(f"SELECT {column} FROM {function}").fetchall())


def _clean(con: duckdb.DuckDBPyConnection) -> None:
    """In a lake that was pruned: end the snapshots that nobody can have been given for an hour; then their files.

    Not at once: a commit that is under way could not see any more what it is in conflict with.
    """
    if con.execute(f"{_PRUNED} LIMIT 1").fetchone() is None:
        return
    then = f"now() - INTERVAL {_GRACE} SECOND"
    last = f"SELECT max(snapshot_time)::VARCHAR FROM lake.snapshots() WHERE snapshot_time < {then}"
    if (row := con.execute(last).fetchone()) and row[0]:
        _call(con, f"ducklake_expire_snapshots('lake', older_than => TIMESTAMPTZ '{row[0]}')")
    _call(con, f"ducklake_cleanup_old_files('lake', older_than => {then})")


def _clean_orphans(con: duckdb.DuckDBPyConnection) -> None:
    """Remove files of no commit, whose writers were killed, if all that is in them is in the lake too or pruned."""
    import duckdb

    orphans = f"ducklake_delete_orphaned_files('lake', older_than => now() - INTERVAL {_GRACE} SECOND, dry_run => "
    known = "coalesce(source IN (SELECT segment::UUID FROM lake.shipped), false)"
    found: list[str] = []
    with contextlib.suppress(duckdb.Error):  # files that come and go meanwhile, or are none of ours
        found = [path for (path,) in _call(con, f"{orphans} true)", "path")]
        rows = ", ".join(schema.text(path) for path in found if not path.endswith("-delete.parquet"))
        if not rows or _call(con, f"read_parquet([{rows}])", f"bool_and({known})") == [(True,)]:
            if found:
                _call(con, f"{orphans} false)")
            return
    if found:
        log.warning("Of no table of the lake, and kept since they may be somebody else's: %s", ", ".join(found))


# ---- connections ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _attached(lake: Lake, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of its own. Without the `DETACH` one that met a conflict keeps its connection to PostgreSQL open."""
    import duckdb

    with connection() as con:
        try:
            _attach(con, lake, read_only=read_only)
            yield con
        finally:
            with contextlib.suppress(duckdb.Error):
                con.execute("DETACH lake")


def _attach(con: duckdb.DuckDBPyConnection, lake: Lake, *, read_only: bool) -> None:
    """Attach the lake as `lake`; its tables are made if they are missing."""
    import duckdb

    for extension in ("postgres_scanner", "ducklake", *(["httpfs"] if "://" in lake.data_path else [])):
        _load(con, extension)
    target = schema.text(f"ducklake:{lake.catalog}")
    try:
        if read_only:
            with contextlib.suppress(duckdb.Error):  # not made yet, perhaps
                con.execute(f"ATTACH {target} AS lake (READ_ONLY)")
                con.execute("SELECT 1 FROM lake.shipped LIMIT 0")
                return
            with connection() as own:
                _attach(own, lake, read_only=False)
            con.execute("DETACH DATABASE IF EXISTS lake")
            con.execute(f"ATTACH {target} AS lake (READ_ONLY)")
            return
        _again(lambda: _make(con, f"ATTACH IF NOT EXISTS {target} AS lake (DATA_PATH {schema.text(lake.data_path)})"))
    except duckdb.Error as error:
        raise StoreError(f"the lake cannot be reached ({lake}): {redact_text(str(error))}") from None


def _make(con: duckdb.DuckDBPyConnection, attach: str) -> None:
    con.execute(attach)
    con.execute(f"CREATE TABLE IF NOT EXISTS lake.events AS {schema.TYPED} FROM ({schema.empty(schema.ENVELOPE)})")
    columns = ", ".join(f"{name} {type_}" for name, type_ in _SHIPPED.items())
    con.execute(f"CREATE TABLE IF NOT EXISTS lake.shipped ({columns})")
    there = {str(row[0]) for row in con.execute("DESCRIBE lake.events").fetchall()}
    wanted = con.execute(f"DESCRIBE {schema.TYPED} FROM ({schema.empty(schema.ENVELOPE)})").fetchall()
    for name, type_, *_ in wanted:
        if name not in there:  # older than this version
            con.execute(f"ALTER TABLE lake.events ADD COLUMN {name} {type_}")


def _load(con: duckdb.DuckDBPyConnection, extension: str) -> None:
    """From the packages of the extra `lake`, which hold it for one version of DuckDB, else as DuckDB itself gets it."""
    import duckdb

    if package := importlib.util.find_spec(f"duckdb_extension_{extension}"):
        for place in package.submodule_search_locations or ():
            for file in Path(place).glob(f"extensions/v{duckdb.__version__}/{extension}.duckdb_extension"):
                con.execute(f"LOAD {schema.quoted(file)}")
                return
    try:
        con.execute(f"INSTALL {extension}")
        con.execute(f"LOAD {extension}")
    except duckdb.Error as error:
        raise ConfigurationError(
            f"the record is to go to a DuckLake, and DuckDB {duckdb.__version__} has not its extension '{extension}': "
            f"pip install 'mentra-nb[lake]', which also takes the DuckDB it was made for ({str(error).splitlines()[0]})"
        ) from None

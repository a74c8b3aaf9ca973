# ruff: noqa: S608  # the SQL is made of our own constants and quoted texts
"""The DuckLake that the record is shipped to: where it is, its connections, transactions and tables.

`MENTRA_RECORD="ducklake:postgres:host=… dbname=… data_path=s3://bucket/prefix"`: the catalog is a PostgreSQL database,
the data are Parquet files under `data_path`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import random
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mentra_nb import paths
from mentra_nb.errors import ConfigurationError, StoreError
from mentra_nb.record import schema
from mentra_nb.record.parquet import connection
from mentra_nb.record.write import chain
from mentra_nb.secrets.mask import mask_secrets

if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")

_ATTEMPTS = 12
_DATA_PATH = re.compile(r"\bdata_path=('[^']*'|\S+)\s*")
_CONFLICT = re.compile(r"conflict|duplicate key|already exists|another transaction|serializ|deadlock|retry", re.I)
"""Errors of PostgreSQL, DuckLake and DuckDB when a concurrent transaction won."""

_SHIPPED = {
    "segment": "VARCHAR",
    "events": "BIGINT",
    "first": "DOUBLE",
    "last": "DOUBLE",
    "sha256": "VARCHAR",
    "shipped": "DOUBLE",
    "host": "VARCHAR",
}
"""The table `shipped`: a row per segment in the lake, with the digest that its writer computed.

A pruned segment has a second row, without a digest. It is not shipped again, and older versions can still ship others.
"""
SEGMENTS = """SELECT segment, max(events) AS events, max(first) AS first, max(last) AS last, max(sha256) AS sha256,
    bool_or(sha256 IS NULL) AS pruned FROM lake.shipped GROUP BY segment"""
"""A row per segment that was ever shipped."""
PRUNED = "SELECT segment::UUID AS source FROM lake.shipped WHERE sha256 IS NULL"
"""The `source` of each pruned segment."""


@dataclass(frozen=True)
class Lake:
    """Where the lake is."""

    catalog: str
    """What DuckLake calls its metadata: `postgres:` and a libpq connection string."""
    data_path: str
    """A folder, or the prefix of an object store."""

    def __str__(self) -> str:
        return f"{mask_secrets(self.catalog)} with its data in {self.data_path}"


def configured(folder: Path | None = None) -> Lake | None:
    """Return the lake that `MENTRA_RECORD` names, or `None` if it names none or `folder` is not shipped to it.

    Raises:
        ConfigurationError: the address is incomplete.
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


# ---- connections ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def attached(lake: Lake, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection with the lake attached, and detach it at the end.

    Without that, a connection that met a conflict would keep its connection to PostgreSQL open.
    """
    import duckdb

    with connection() as con:
        try:
            attach(con, lake, read_only=read_only)
            yield con
        finally:
            with contextlib.suppress(duckdb.Error):
                con.execute("DETACH lake")


def attach(con: duckdb.DuckDBPyConnection, lake: Lake, *, read_only: bool) -> None:
    """Attach the lake as `lake`, and create its tables if they are missing.

    Raises:
        StoreError: the lake cannot be reached.
        ConfigurationError: an extension of DuckDB is missing.
    """
    import duckdb

    for extension in ("postgres_scanner", "ducklake", *(["httpfs"] if "://" in lake.data_path else [])):
        load_extension(con, extension)
    target = schema.text(f"ducklake:{lake.catalog}")
    try:
        if read_only:
            with contextlib.suppress(duckdb.Error):  # the tables may be missing
                con.execute(f"ATTACH {target} AS lake (READ_ONLY)")
                con.execute("SELECT 1 FROM lake.shipped LIMIT 0")
                return
            with connection() as own:
                attach(own, lake, read_only=False)
            con.execute("DETACH DATABASE IF EXISTS lake")
            con.execute(f"ATTACH {target} AS lake (READ_ONLY)")
            return
        retried(lambda: _make(con, f"ATTACH IF NOT EXISTS {target} AS lake (DATA_PATH {schema.text(lake.data_path)})"))
    except duckdb.Error as error:
        raise StoreError(f"the lake cannot be reached ({lake}): {mask_secrets(str(error))}") from None


def _make(con: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Attach the lake with an ATTACH statement, and create its tables and the columns that it lacks."""
    con.execute(statement)
    con.execute(f"CREATE TABLE IF NOT EXISTS lake.events AS {schema.TYPED} FROM ({schema.empty(schema.ENVELOPE)})")
    columns = ", ".join(f"{name} {type_}" for name, type_ in _SHIPPED.items())
    con.execute(f"CREATE TABLE IF NOT EXISTS lake.shipped ({columns})")
    there = {str(row[0]) for row in con.execute("DESCRIBE lake.events").fetchall()}
    wanted = con.execute(f"DESCRIBE {schema.TYPED} FROM ({schema.empty(schema.ENVELOPE)})").fetchall()
    for name, type_, *_ in wanted:
        if name not in there:  # made by an older version
            con.execute(f"ALTER TABLE lake.events ADD COLUMN {name} {type_}")


def load_extension(con: duckdb.DuckDBPyConnection, extension: str) -> None:
    """Load an extension from the packages of the extra `lake`, or else from where DuckDB installs it.

    Raises:
        ConfigurationError: neither has it for this version of DuckDB.
    """
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
            f"DuckDB {duckdb.__version__} has no extension '{extension}', which a record in a DuckLake needs; run "
            f"pip install 'mentra-nb[lake]', which also installs a DuckDB that has it ({str(error).splitlines()[0]})"
        ) from None


# ---- transactions ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit what is done in the block, or roll it back if it raises."""
    con.execute("BEGIN")
    try:
        yield
        con.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(Exception):
            con.execute("ROLLBACK")
        raise


def retried(work: Callable[[], T]) -> T:
    """Return what `work` returns, repeating it after conflicts: of concurrent commits to a lake, one succeeds."""
    import duckdb

    for attempt in range(_ATTEMPTS):
        try:
            return work()
        except duckdb.Error as error:
            if attempt == _ATTEMPTS - 1 or not _CONFLICT.search(str(error)):
                raise
            time.sleep(random.uniform(0, min(2.0, 0.05 * 2**attempt)))  # noqa: S311
    raise AssertionError


# ---- tables ---------------------------------------------------------------------------------------------------------


def mark(con: duckdb.DuckDBPyConnection, links: Sequence[chain.Link]) -> None:
    """Add a row to `shipped` for each segment: it is in the lake, or if it has no digest, it was pruned."""
    marks = ", ".join("?" * len(_SHIPPED))
    host, now = socket.gethostname(), time.time()
    con.executemany(
        f"INSERT INTO lake.shipped VALUES ({marks})",
        [[each.segment, each.events, each.first, each.last, each.sha256 or None, now, host] for each in links],
    )


def older(con: duckdb.DuckDBPyConnection, cut: float) -> list[chain.Link]:
    """Return a link for each segment whose last event is before `cut` (Unix seconds) and that is not pruned."""
    rows = con.execute(
        f"SELECT segment, events, first, last FROM ({SEGMENTS}) WHERE NOT pruned AND last < ? ORDER BY segment", [cut]
    )
    return [chain.Link("pruned", name, events, first, last, "") for name, events, first, last in rows.fetchall()]

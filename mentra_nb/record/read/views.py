# ruff: noqa: S608  # the SQL is made of our own constants and quoted paths
"""The views over the record's files, for our own connections and, as `record.duckdb`, for any DuckDB client."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mentra_nb.ids import uuid7
from mentra_nb.record import schema
from mentra_nb.record.keep import lake
from mentra_nb.record.keep.change import in_thread
from mentra_nb.record.keep.compact import compact_later
from mentra_nb.record.parquet import connection, write_parquet
from mentra_nb.record.write import files

if TYPE_CHECKING:
    import duckdb


_damaged: dict[Path, tuple[tuple[int, int], str]] = {}
"""Files that cannot be read: their size and time when that was found, and why."""


def create_events(con: duckdb.DuckDBPyConnection, folder: Path) -> list[str]:
    """The temporary view `events` over the files that are there now and can be read; warns of any that cannot.

    Where a lake is configured, over that too. Hold the commit lock until the last query. Returns the places read from.
    """
    import duckdb

    shared = lake.configured(folder)
    while True:
        parquet = files.named(folder, "parquet")
        done = {file.stem for file in parquet}
        jsonl = [file for file in files.named(folder, "jsonl") if file.stem not in done]
        left_out = {file.name: reason for file in parquet if (reason := _why_damaged(file))}
        sound = [file for file in parquet if file.name not in left_out]
        rows = schema.events_sql(jsonl=jsonl, parquet=sound)
        try:
            con.execute(f"CREATE OR REPLACE TEMP VIEW events AS {rows}")
        except duckdb.Error:
            if find_damage(folder, deep=False):
                continue
            raise
        if left_out:
            warnings.warn(_sentence(folder, left_out), RuntimeWarning, stacklevel=2)
        if shared is None:
            return [str(folder)]
        con.execute(f"CREATE OR REPLACE TEMP VIEW events AS {lake.use(con, shared, rows)}")
        return [str(folder), shared.data_path]


def find_damage(folder: Path, *, deep: bool = True) -> str | None:
    """Leave out what cannot be read from now on: a sentence that names it, or `None` if there is nothing new.

    `deep` reads every byte of every Parquet file, else only what tells what is in it.
    """
    import duckdb

    found = {}
    for file in files.named(folder, "parquet"):
        if _why_damaged(file):
            continue
        try:
            with connection() as con:
                rows = con.execute(
                    f"SELECT * REPLACE (epoch_us(ts) AS ts) FROM read_parquet({schema.quoted(file)})"
                    + ("" if deep else " LIMIT 0")
                )
                while rows.fetchmany(10_000):
                    pass
        except (duckdb.Error, UnicodeDecodeError) as error:
            found[file.name] = str(error).splitlines()[0]
            _damaged[file] = _version(file), found[file.name]
    return _sentence(folder, found) if found else None


def may_be_damage(error: Exception) -> bool:
    """Whether DuckDB may have failed at a file. What it says of a damaged one is of no one class."""
    import duckdb

    kinds = (duckdb.IOException, duckdb.InvalidInputException, duckdb.InternalException, UnicodeDecodeError)
    return type(error) is duckdb.Error or isinstance(error, kinds)


def _sentence(folder: Path, found: dict[str, str]) -> str:
    names = "; ".join(f"{name} ({reason})" for name, reason in found.items())
    return (
        f"what is in these damaged files of {folder / 'events'} is left out, and mn.verify() says what that is: {names}"
    )


def _why_damaged(file: Path) -> str | None:
    version, reason = _damaged.get(file, (None, None))
    return reason if version == _version(file) else None


def _version(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


# ---- record.duckdb ----------------------------------------------------------------------------------------------


def create_views(
    con: duckdb.DuckDBPyConnection, *, temp: bool = False, names: Iterable[str] = tuple(schema.VIEWS)
) -> None:
    """The other views of `schema`, or those that are named; `events` and `prices` must be there."""
    for name in names:
        con.execute(f"CREATE {'TEMP ' if temp else ''}VIEW {name} AS {schema.VIEWS[name]}")


def write_database(folder: Path) -> Path:
    """Write `record.duckdb`: no data, only the views, for any DuckDB client. Returns its path.

    Open it read-only; it shows live events. Costs are as of the last query through `tables`.
    """
    import duckdb

    folder = folder.resolve()
    events = files.make_folder(folder)
    jsonl, parquet = (events / f"{files.NAME}.{kind}" for kind in ("jsonl", "parquet"))
    jsonl.with_stem(files.EMPTY).touch(mode=0o600)  # a glob that matches nothing would be an error
    with duckdb.connect() as con:
        rows = f"{schema.TYPED} FROM ({schema.empty(schema.ENVELOPE)})"
        _write_if_missing(con, rows, parquet.with_stem(files.EMPTY))
        _write_if_missing(con, schema.empty(schema.PRICES), folder / "prices.parquet")
    new, target = folder / f"record-{uuid7()}.tmp", folder / "record.duckdb"
    with duckdb.connect(str(new), config={"storage_compatibility_version": schema.STORAGE_VERSION}) as con:
        con.execute(f"CREATE VIEW prices AS SELECT * FROM read_parquet({schema.quoted(folder / 'prices.parquet')})")
        con.execute(f"CREATE VIEW events AS {schema.events_sql(jsonl=[jsonl], parquet=[parquet], live=True)}")
        create_views(con)
    new.chmod(0o600)
    new.replace(target)
    with open(events / ".schema", "w", encoding="utf-8", opener=files.private) as mark:
        mark.write(_schema_mark(folder))
    return target


def refresh_database_later(folder: Path) -> threading.Thread | None:
    """Write `record.duckdb` in a thread if it is missing, of another schema, or for another place.

    In other threads complete segments are compacted, and shipped where a lake is configured, if it is time for that.
    """
    folder = folder.resolve()
    if not (folder / "events").is_dir():  # no record yet
        return None
    compact_later(folder)
    lake.ship_later(folder)
    return in_thread("mentra-record-views", lambda: write_database(folder)) if _is_stale(folder) else None


def refresh_database(folder: Path) -> None:
    """Write `record.duckdb` if there is a record and the file is missing, of another schema, or for another place."""
    folder = folder.resolve()
    if (folder / "events").is_dir() and _is_stale(folder):
        write_database(folder)


def _is_stale(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        mark = (folder / "events" / ".schema").read_text(encoding="utf-8")
        return mark != _schema_mark(folder) or not (folder / "record.duckdb").exists()
    return True


# ---- small steps -------------------------------------------------------------------------------------------------


def _write_if_missing(con: duckdb.DuckDBPyConnection, select: str, target: Path) -> None:
    if not target.exists():
        write_parquet(con, select, target)


def _schema_mark(folder: Path) -> str:
    return f"{schema.SCHEMA_VERSION} {folder}"

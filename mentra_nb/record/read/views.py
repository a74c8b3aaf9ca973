# ruff: noqa: S608  # the SQL is made of our own constants and quoted paths
"""The views over the record's files, on our own connections and, as `record.duckdb`, for any DuckDB client."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mentra_nb.ids import uuid7
from mentra_nb.record import schema
from mentra_nb.record.keep import lake, lake_tables
from mentra_nb.record.keep.change import in_thread
from mentra_nb.record.keep.compact import compact_later
from mentra_nb.record.keep.damage import find_damage, message, why_damaged
from mentra_nb.record.parquet import connect, write_parquet
from mentra_nb.record.read import view_sql
from mentra_nb.record.write import files

if TYPE_CHECKING:
    import duckdb


def create_events(con: duckdb.DuckDBPyConnection, folder: Path) -> list[str]:
    """Create the temporary view `events` over the readable files that exist now, and over the configured lake, if any.

    Warns about damaged files. Hold the commit lock until the last query.

    Returns:
        The places the view reads from: the folder, and the lake's data path.
    """
    import duckdb

    shared = lake_tables.configured(folder)
    while True:
        parquet = files.named(folder, "parquet")
        done = {file.stem for file in parquet}
        jsonl = [file for file in files.named(folder, "jsonl") if file.stem not in done]
        left_out = {file.name: reason for file in parquet if (reason := why_damaged(file))}
        sound = [file for file in parquet if file.name not in left_out]
        rows = schema.events_sql(jsonl=jsonl, parquet=sound)
        try:
            con.execute(f"CREATE OR REPLACE TEMP VIEW events AS {rows}")
        except duckdb.Error:
            if find_damage(folder, deep=False):
                continue
            raise
        if left_out:
            warnings.warn(message(folder, left_out), RuntimeWarning, stacklevel=2)
        if shared is None:
            return [str(folder)]
        con.execute(f"CREATE OR REPLACE TEMP VIEW events AS {lake.use(con, shared, rows)}")
        return [str(folder), shared.data_path]


# ---- record.duckdb ----------------------------------------------------------------------------------------------


def create_views(
    con: duckdb.DuckDBPyConnection,
    *,
    temp: bool = False,
    names: Iterable[str] = tuple(view_sql.VIEWS),
    every: str = "events",
) -> None:
    """Create views of `view_sql`, by default all; `events` and `prices` must exist.

    `every` names the view of all events, where `events` has only some of them.
    """
    con.execute(f"CREATE {'TEMP ' if temp else ''}VIEW known_rules AS {view_sql.known_rules(every)}")
    for name in names:
        con.execute(f"CREATE {'TEMP ' if temp else ''}VIEW {name} AS {view_sql.VIEWS[name]}")


def write_database(folder: Path) -> Path:
    """Write `record.duckdb`, which holds only the views, and return its path.

    Open it read-only; it shows live events. Costs are as of the last query by this package.
    """
    folder = folder.resolve()
    events = files.make_folder(folder)
    jsonl, parquet = (events / f"{files.NAME}.{kind}" for kind in ("jsonl", "parquet"))
    jsonl.with_stem(files.EMPTY).touch(mode=0o600)  # DuckDB fails on a glob without matches
    with connect() as con:
        rows = f"{schema.TYPED} FROM ({schema.empty(schema.ENVELOPE)})"
        _write_if_missing(con, rows, parquet.with_stem(files.EMPTY))
        _write_if_missing(con, schema.empty(schema.PRICES), folder / "prices.parquet")
    new, target = folder / f"record-{uuid7()}.tmp", folder / "record.duckdb"
    with connect(str(new), storage_compatibility_version=schema.STORAGE_VERSION) as con:
        con.execute(f"CREATE VIEW prices AS SELECT * FROM read_parquet({schema.quoted(folder / 'prices.parquet')})")
        con.execute(f"CREATE VIEW events AS {schema.events_sql(jsonl=[jsonl], parquet=[parquet], live=True)}")
        create_views(con)
    new.chmod(0o600)
    new.replace(target)
    with open(events / ".schema", "w", encoding="utf-8", opener=files.private) as mark:
        mark.write(_schema_mark(folder))
    return target


def refresh_database_later(folder: Path) -> threading.Thread | None:
    """Start upkeep in background threads: compact and ship complete segments if due, and rewrite `record.duckdb`.

    The database is rewritten if it is missing, of another schema version, or of another folder.

    Returns:
        The thread that writes the database, or `None` if it is current.
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


def _write_if_missing(con: duckdb.DuckDBPyConnection, select: str, target: Path) -> None:
    if not target.exists():
        write_parquet(con, select, target, overwrite=False)  # a query may write its prices at this moment


def _schema_mark(folder: Path) -> str:
    return f"{schema.SCHEMA_VERSION} {folder}"

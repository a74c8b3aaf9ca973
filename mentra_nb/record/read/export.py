# ruff: noqa: S608  # the SQL is made of our own constants and quoted paths
"""Exports of the record: one DuckDB file, a folder that can be verified, or a single table."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Unpack

import duckdb

from mentra_nb import paths
from mentra_nb.arguments import check_path
from mentra_nb.errors import ConfigurationError, OperationDenied
from mentra_nb.ids import uuid7
from mentra_nb.record import schema
from mentra_nb.record.read import frames, query, view_sql
from mentra_nb.record.read.columns import documented
from mentra_nb.record.read.filters import Filters, filtered
from mentra_nb.record.write import chain, files

TABLES = ("events", *view_sql.VIEWS)
_LINK = {
    "kind": "VARCHAR",
    "segment": "VARCHAR",
    "events": "BIGINT",
    "first": "DOUBLE",
    "last": "DOUBLE",
    "sha256": "VARCHAR",
    "at": "DOUBLE",
    "previous": "VARCHAR",
    "digest": "VARCHAR",
}
"""The columns of `chain`, times in Unix seconds."""
_BATCH_ROWS = 100_000


@filtered
def export(path: str | Path, *, table: str = "events", overwrite: bool = False, **filters: Unpack[Filters]) -> Path:
    """Write the record, or the part of it that matches the filters, to a file or folder, whole or not at all.

    The suffix decides what is written:

    - `name.duckdb`: one file with the views as tables and the meaning of each column as its comment; for the whole
      record also `chain`, the digests that `verify` compares.
    - `name.parquet`, `name.arrow`, `name.csv`: one table (`table="turns"`). Arrow needs `pyarrow`. In CSV, a text that
      a spreadsheet would compute, because it begins with one of `= + - @` or a tab or line end, gets a `'` before it.
    - any other name: a folder that is a record itself, without filters only: `mn.sessions(folder=…)` reads it,
      `mn.verify(folder=…)` checks every event in it against the chain, and `tables/` has each view as Parquet.

    Returns:
        The absolute path that was written.

    Raises:
        OperationDenied: the path exists and `overwrite` is not set, or it is a folder that no export made.
        ConfigurationError: there is no such table, or the path cannot be written.

    Example:
        >>> mn.export("calls.parquet", table="tool_calls", session="sales").name
        'calls.parquet'
    """
    source = paths.record_folder(filters.get("folder")).resolve()
    target = _target(path, source, table, overwrite)
    part = any(value is not None for key, value in filters.items() if key != "folder")
    if table != "events" and target.suffix in (".parquet", ".csv", ".arrow"):
        table = f"(FROM {table} ORDER BY {'started' if table == 'sessions' else 'ts'})"
    with _replacing(target) as new, query.connection(**filters, locked=False) as con:
        match target.suffix:
            case ".duckdb":
                _database(con, new, None if part else source)
            case ".parquet":
                _copy(con, table, new, "parquet, COMPRESSION zstd")
            case ".csv":
                _copy(con, _without_formulas(con, table), new, "csv")
            case ".arrow":
                _arrow(con, table, new)
            case _ if part:
                raise ConfigurationError("a folder holds the whole record; for a part of it name a file, as x.duckdb")
            case _:
                _folder(con, new, source)
    return target


def _target(path: str | Path, source: Path, table: str, overwrite: bool) -> Path:
    """Return the absolute path to write to, after checking that it may be written."""
    check_path("mn.export('record.duckdb')", path)
    target = Path(path).expanduser().resolve()
    if table not in TABLES:
        raise ConfigurationError(f"there is no table {table!r}; there are {', '.join(TABLES)}")
    if target == source or source in target.parents:
        raise ConfigurationError(f"{target} is in the record's own folder; export to another place")
    if target.exists() and not overwrite:
        raise OperationDenied(f"{target} exists; pass overwrite=True to replace it")
    if target.is_dir() and any(target.iterdir()) and not (target / "tables" / "sessions.parquet").exists():
        raise OperationDenied(f"{target} is a folder that no export made; name another, or empty it")
    return target


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Yield a path for a new file or folder, which replaces the target on success and is deleted on failure."""
    new = target.with_name(f".{target.name}-{uuid7()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield new
        if not new.is_dir():
            new.chmod(0o600)
        elif target.is_dir():
            shutil.rmtree(target)
        new.replace(target)
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be written: {error}") from error
    finally:
        if new.is_dir():
            shutil.rmtree(new)
        new.unlink(missing_ok=True)


def _copy(con: duckdb.DuckDBPyConnection, table: str, new: Path, format_: str) -> None:
    con.execute(f"COPY (FROM {table}) TO {schema.quoted(new)} (FORMAT {format_})")


_FORMULA = r"^[=+\-@\t\r\n＝＋－＠]"


def _without_formulas(con: duckdb.DuckDBPyConnection, table: str) -> str:
    """Return the SELECT of a table with a quote before each text that a spreadsheet would take for a formula."""
    quote = schema.text("'")
    kept = [
        f"CASE WHEN regexp_matches({name}, '{_FORMULA}') THEN {quote} || {name} ELSE {name} END AS {name}"
        for name, type_, *_ in con.execute(f"DESCRIBE {table}").fetchall()
        if type_ in ("VARCHAR", "JSON")
    ]
    return f"(SELECT * REPLACE ({', '.join(kept)}) FROM {table})"


def _database(con: duckdb.DuckDBPyConnection, new: Path, of: Path | None) -> None:
    """Write the views as tables, and the chain of the record in the folder `of`."""
    con.execute(f"ATTACH {schema.quoted(new)} AS new (STORAGE_VERSION '{schema.STORAGE_VERSION}')")
    for name in (*TABLES, "prices"):
        con.execute(f"CREATE TABLE new.{name} AS FROM {name}")
    for name in TABLES:
        for column, _, unit, meaning in documented()[name]:
            comment = f"{unit}: {meaning}" if unit else meaning
            con.execute(f"COMMENT ON COLUMN new.{name}.{column} IS {schema.text(comment)}")
    if of is not None:
        con.execute(f"CREATE TABLE new.chain AS {schema.empty(_LINK)}")
        if rows := [[link[name] for name in _LINK] for link in chain.chain_rows(of)]:
            con.executemany(f"INSERT INTO new.chain VALUES ({', '.join('?' * len(_LINK))})", rows)
    con.execute("DETACH new")


def _arrow(con: duckdb.DuckDBPyConnection, table: str, new: Path) -> None:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ConfigurationError("Arrow files need pyarrow: pip install pyarrow") from error
    wanted = con.sql(f"FROM {frames.EVENTS if table == 'events' else table}")
    rows = wanted.to_arrow_reader(_BATCH_ROWS)
    with pa.OSFile(str(new), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
        for batch in rows:
            writer.write_batch(batch)


def _folder(con: duckdb.DuckDBPyConnection, new: Path, of: Path) -> None:
    """Write copies of the segments and the chain of the record in the folder `of`, and the views as Parquet."""
    for inner in (new, new / "events", new / "tables"):
        inner.mkdir(mode=0o700)
    done = files.named(of, "parquet")
    text = [file for file in files.named(of, "jsonl") if file.with_suffix(".parquet") not in done]
    for file in (*done, *text):
        shutil.copyfile(file, new / "events" / file.name)
    for name in ("events/.known", "chain.jsonl", "prices.csv"):  # in this order: what is known is in the chain
        if (of / name).exists():
            shutil.copyfile(of / name, new / name)
    for name in view_sql.VIEWS:
        _copy(con, name, new / "tables" / f"{name}.parquet", "parquet, COMPRESSION zstd")

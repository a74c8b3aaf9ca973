# ruff: noqa: S608  # the SQL is made of our own constants and quoted paths
"""The record as something to hand over: one DuckDB file, a folder that can be verified, or a single table."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from mentra_nb import paths
from mentra_nb.errors import ConfigurationError, OperationDenied
from mentra_nb.ids import uuid7
from mentra_nb.record import schema
from mentra_nb.record.read import frames, query
from mentra_nb.record.read.columns import documented
from mentra_nb.record.read.query import One, When
from mentra_nb.record.write import chain, files

TABLES = ("events", *schema.VIEWS)
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
_ROWS_AT_A_TIME = 100_000


def export(
    path: str | Path,
    *,
    table: str = "events",
    session: One = None,
    since: When = None,
    until: When = None,
    overwrite: bool = False,
    folder: Path | None = None,
) -> Path:
    """Write the record, or with filters a part of it, to one place; what it becomes depends on the name. Returns it.

    - `name.duckdb`: one file with the views as tables, each column with its meaning as a comment; and, of the whole
      record, `chain`, the digests that `verify` compares.
    - `name.parquet`, `name.arrow`, `name.csv`: one table (`table="turns"`). Arrow needs `pyarrow`.
    - any other name: a folder that is a record itself: `mn.sessions(folder=…)` reads it and `mn.verify(folder=…)`
      checks every event in it against the chain; `tables/` has each view as Parquet.

    It is there whole or not at all.

    Raises:
        OperationDenied: it is there already, and `overwrite` was not said; or it is no folder of our making.
        ConfigurationError: there is no such table, or it cannot be written there.
    """
    target, source = Path(path).expanduser().resolve(), (folder or paths.record_folder()).resolve()
    if table not in TABLES:
        raise ConfigurationError(f"there is no table {table!r}; there are {', '.join(TABLES)}")
    if target == source or source in target.parents:
        raise ConfigurationError(f"{target} is in the record's own folder; export to another place")
    if target.exists() and not overwrite:
        raise OperationDenied(f"{target} is there already; say overwrite=True to replace it")
    narrow = {"session": session, "since": since, "until": until}
    narrowed = any(value is not None for value in narrow.values())
    with (
        _replacing(target) as new,
        query.connection(source, session=session, since=since, until=until, locked=False) as con,
    ):
        match target.suffix:
            case ".duckdb":
                _database(con, new, None if narrowed else source)
            case ".parquet":
                con.execute(f"COPY (FROM {table}) TO {schema.quoted(new)} (FORMAT parquet, COMPRESSION zstd)")
            case ".csv":
                con.execute(f"COPY (FROM {table}) TO {schema.quoted(new)} (FORMAT csv)")
            case ".arrow":
                _arrow(con, table, new)
            case _ if narrowed:
                raise ConfigurationError("a folder holds the whole record; for a part of it name a file, as x.duckdb")
            case _:
                _folder(con, new, source)
    return target


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A new file or folder that takes the target's place when all went well, and is gone when not."""
    if target.is_dir() and any(target.iterdir()) and not (target / "tables" / "sessions.parquet").exists():
        raise OperationDenied(f"{target} is a folder that no export made; name another, or empty it")
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


def _database(con: duckdb.DuckDBPyConnection, new: Path, of: Path | None) -> None:
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
    wanted = con.sql(f"SELECT {frames.TEXT_IDS if table == 'events' else '*'} FROM {table}")
    rows = wanted.to_arrow_reader(_ROWS_AT_A_TIME)
    with pa.OSFile(str(new), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
        for batch in rows:
            writer.write_batch(batch)


def _folder(con: duckdb.DuckDBPyConnection, new: Path, of: Path) -> None:
    """The segments as they are, the chain, and the views."""
    for inner in (new, new / "events", new / "tables"):
        inner.mkdir(mode=0o700)
    done = files.named(of, "parquet")
    text = [file for file in files.named(of, "jsonl") if file.with_suffix(".parquet") not in done]
    for file in (*done, *text):
        shutil.copyfile(file, new / "events" / file.name)
    for name in ("chain.jsonl", "prices.csv"):
        if (of / name).exists():
            shutil.copyfile(of / name, new / name)
    for name in schema.VIEWS:
        target = schema.quoted(new / "tables" / f"{name}.parquet")
        con.execute(f"COPY (FROM {name}) TO {target} (FORMAT parquet, COMPRESSION zstd)")

"""Connections to DuckDB, and Parquet files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mentra_nb.ids import uuid7
from mentra_nb.record import schema
from mentra_nb.record.write import files

if TYPE_CHECKING:
    import duckdb


def connect(database: str = ":memory:", **config: Any) -> duckdb.DuckDBPyConnection:
    """Open a DuckDB connection that prints no progress bar, which it does in a notebook after two seconds."""
    import duckdb

    con = duckdb.connect(database, config=config)
    con.execute("SET enable_progress_bar = false")
    return con


def connection() -> duckdb.DuckDBPyConnection:
    """Open a DuckDB connection for background work: one thread, no extensions from the network."""
    return connect(threads=1, autoinstall_known_extensions="false")


def copy(con: duckdb.DuckDBPyConnection, select: str, new: Path) -> None:
    """Write the rows of a SELECT to a new Parquet file, private to the user, and sync it."""
    con.execute(f"COPY ({select}) TO {schema.quoted(new)} (FORMAT parquet, COMPRESSION zstd)")
    new.chmod(0o600)
    with new.open("rb+") as file:
        files.sync(file.fileno())


def write_parquet(con: duckdb.DuckDBPyConnection, select: str, target: Path, *, overwrite: bool = True) -> None:
    """Write the rows of a SELECT to `target`, in one step that survives a power cut.

    Without `overwrite`, a target that exists is left as it is, also if another thread or process made it meanwhile.
    """
    new = target.with_name(f"{target.stem}-{uuid7()}.tmp")
    copy(con, select, new)
    if overwrite:
        new.replace(target)
    else:
        try:
            os.link(new, target)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            new.replace(target)
        new.unlink(missing_ok=True)
    files.sync_folder(target.parent)

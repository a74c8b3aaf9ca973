"""Parquet files that are there whole or not at all, and the connection to make them with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mentra_nb.ids import uuid7
from mentra_nb.record import schema
from mentra_nb.record.write import files

if TYPE_CHECKING:
    import duckdb


def connection() -> duckdb.DuckDBPyConnection:
    """A DuckDB connection for background work: one thread, no extensions from the network."""
    import duckdb

    return duckdb.connect(config={"threads": 1, "autoinstall_known_extensions": "false"})


def copy(con: duckdb.DuckDBPyConnection, select: str, new: Path) -> None:
    """Write the rows of a SELECT to a new Parquet file, private to the user, and sync it to disk."""
    con.execute(f"COPY ({select}) TO {schema.quoted(new)} (FORMAT parquet, COMPRESSION zstd)")
    new.chmod(0o600)
    with new.open("rb+") as file:
        os.fsync(file.fileno())


def write_parquet(con: duckdb.DuckDBPyConnection, select: str, target: Path) -> None:
    """Replace `target` with the rows of a SELECT, in one step that survives a power cut."""
    new = target.with_name(f"{target.stem}-{uuid7()}.tmp")
    copy(con, select, new)
    new.replace(target)
    files.sync_folder(target.parent)

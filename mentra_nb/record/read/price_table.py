# ruff: noqa: S608  # the SQL is made of our own constants and quoted paths
"""The table `prices` that the views join: filled from `pricing`, and cached in `prices.parquet`."""

from __future__ import annotations

import contextlib
from pathlib import Path

import duckdb

from mentra_nb import pricing
from mentra_nb.record import schema
from mentra_nb.record.parquet import write_parquet


def fill(con: duckdb.DuckDBPyConnection, folder: Path, *, look_up: bool = True) -> None:
    """Create the table `prices` on this connection and fill it from `prices.parquet`.

    With `look_up`, models in `events` that are not in the file are looked up, and the file is rewritten.
    """
    own = pricing.own_prices(folder)
    file, source = folder / "prices.parquet", pricing.source_of(own)
    con.execute(f"CREATE TEMP TABLE prices AS {schema.empty(schema.PRICES)}")
    if file.exists():
        con.execute(
            f"INSERT INTO prices BY NAME SELECT * FROM read_parquet({schema.quoted(file)}) WHERE source = ?", [source]
        )
    if not look_up:
        return
    asked = """SELECT DISTINCT provider, model FROM events WHERE kind = 'model_response_finished'
        AND provider IS NOT NULL AND model IS NOT NULL EXCEPT SELECT provider, model FROM prices"""
    new = con.execute(asked).fetchall()
    if not new:
        return
    rows = [row for provider, model in new for row in pricing.price_rows(provider, model, own)]
    con.executemany(f"INSERT INTO prices VALUES ({', '.join('?' * len(schema.PRICES))})", rows)
    with contextlib.suppress(OSError, duckdb.Error):  # the prices are used even if the record is read-only
        write_parquet(con, "FROM prices", file)

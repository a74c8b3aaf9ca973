# ruff: noqa: S608  # the SQL is made of our own constants and quoted paths
"""Parquet files that cannot be read: queries leave them out and say so."""

from __future__ import annotations

from pathlib import Path

from mentra_nb.record import schema
from mentra_nb.record.parquet import connection
from mentra_nb.record.write import files

_damaged: dict[Path, tuple[tuple[int, int], str]] = {}
"""Files that cannot be read: their size and time when that was found, and why."""


def find_damage(folder: Path, *, deep: bool = True) -> str | None:
    """Exclude unreadable Parquet files from later queries.

    Args:
        folder: the record's folder.
        deep: read every byte of every file, and not only its metadata.

    Returns:
        A message that names the files, or `None` if no new ones were found.
    """
    import duckdb

    found = {}
    for file in files.named(folder, "parquet"):
        if why_damaged(file):
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
    return message(folder, found) if found else None


def may_be_damage(error: Exception) -> bool:
    """Return whether an error of DuckDB may come from a damaged file: it has no separate class for that."""
    import duckdb

    kinds = (duckdb.IOException, duckdb.InvalidInputException, duckdb.InternalException, UnicodeDecodeError)
    return type(error) is duckdb.Error or isinstance(error, kinds)


def message(folder: Path, found: dict[str, str]) -> str:
    """Return a message about damaged files, given as name and reason."""
    names = "; ".join(f"{name} ({reason})" for name, reason in found.items())
    return f"left out damaged files of {folder / 'events'}; mn.verify() lists what they held: {names}"


def why_damaged(file: Path) -> str | None:
    """Return why a file is left out, or `None` if it is not, or was changed since."""
    version, reason = _damaged.get(file, (None, None))
    return reason if version == _version(file) else None


def _version(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_size, found.st_mtime_ns

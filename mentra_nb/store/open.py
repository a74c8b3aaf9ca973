"""Open the state store: a file, or a database that several machines share."""

from __future__ import annotations

import os
from pathlib import Path

from mentra_nb import paths
from mentra_nb.errors import ConfigurationError
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.store.sqlite import SqliteStore

ADDRESSES = ("postgresql://", "postgres://")


def open_store(where: str | Path | None = None) -> RuntimeStore:
    """Return the store at `where`. It connects with its first call.

    Args:
        where: A file or a `postgresql://` address. Default: `MENTRA_STATE`, else `state.sqlite` in the home.

    Raises:
        ConfigurationError: The address is invalid, or the extra `lake` is not installed.
    """
    where = where or os.environ.get("MENTRA_STATE") or paths.state_file()
    if not str(where).startswith(ADDRESSES):
        return SqliteStore(where)
    try:
        from mentra_nb.store.postgres import PostgresStore
    except ImportError as error:
        raise ConfigurationError(
            "a state store in PostgreSQL needs the extra 'lake': pip install 'mentra-nb[lake]'"
        ) from error
    return PostgresStore(str(where))

"""The same store with nothing on disk: for tests, and for sessions that must leave no trace."""

from __future__ import annotations

from mentra_nb.store.sqlite import SqliteStore


class VolatileStore(SqliteStore):
    """Keeps everything in memory; closing it forgets."""

    def __init__(self) -> None:
        super().__init__(":memory:")

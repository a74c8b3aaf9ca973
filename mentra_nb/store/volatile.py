"""A state store in memory, for tests and for sessions that must leave no trace."""

from __future__ import annotations

from mentra_nb.store.sqlite import SqliteStore


class VolatileStore(SqliteStore):
    """A store in memory. Closing it discards everything.

    Example:
        >>> runtime = mn.Runtime(store=mn.VolatileStore())
        >>> await runtime.list_persisted_agents()
        []
    """

    def __init__(self) -> None:
        super().__init__(":memory:")

    async def _reach_disk(self) -> None:
        """Nothing to do: it is not on a disk."""

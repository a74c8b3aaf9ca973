"""The protocol of the part of a state store that keeps memories."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mentra_nb.store.records import MemoryHit, MemoryQuery, MemoryRecord


class MemoryStore(Protocol):
    """Long-term memories, by their owner: an agent, a project, or `global`."""

    async def save_memories(self, records: Sequence[MemoryRecord]) -> None:
        """Add or replace memories. One that was forgotten under the same id is found again."""
        ...

    async def add_memories(self, records: Sequence[MemoryRecord]) -> int:
        """Add those whose ids their owner never had, not even forgotten. Return how many."""
        ...

    async def load_memory(self, agent_id: str, record_id: str) -> MemoryRecord | None: ...
    async def list_memories(self, owners: Collection[str]) -> list[MemoryRecord]:
        """Return what is not forgotten, the newest first."""
        ...

    async def search_memories(self, query: MemoryQuery) -> list[MemoryHit]:
        """Return the best hits, best first; none for a text without words.

        Raises `StoreError` when nothing was found in the time that the search may take.
        """
        ...

    async def forget_memories(self, agent_id: str, record_ids: Collection[str]) -> int:
        """Erase the texts of memories and hide them from every read. Return how many were visible before."""
        ...

    async def delete_memories(self, agent_id: str, record_ids: Collection[str]) -> int:
        """Delete memories, forgotten ones too. Return how many there were."""
        ...

    async def delete_memories_of(self, agent_id: str) -> None:
        """Delete the memories of an agent, and what was kept of its turns for others. What it pinned for them stays."""
        ...

    async def load_memory_cursor(self, agent_id: str) -> int | None:
        """Return the revision up to which the agent's history has been stored as memories."""
        ...

    async def save_memory_cursor(self, agent_id: str, revision: int) -> None: ...

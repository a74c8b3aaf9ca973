"""A state store whose memories are in another one, such as one that several people share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from mentra_nb.store.memory_store import MemoryStore

if TYPE_CHECKING:
    from mentra_nb.store.protocols import RuntimeStore

OF_MEMORIES = frozenset(name for name in vars(MemoryStore) if not name.startswith("_"))
"""The operations that the other store does."""


class _Hybrid:
    def __init__(self, state: RuntimeStore, memories: RuntimeStore) -> None:
        self._state, self._memories = state, memories

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memories if name in OF_MEMORIES else self._state, name)

    async def delete_conversation(self, session_id: str) -> None:
        """Do what the state store does, and delete what was kept of the conversation."""
        stored = await self._state.load_conversation(session_id)
        await self._state.delete_conversation(session_id)
        if stored is not None:
            await self._memories.delete_memories_of(stored.agent.id)

    def close(self) -> None:
        self._memories.close()
        self._state.close()


def hybrid_store(state: RuntimeStore, memories: RuntimeStore) -> RuntimeStore:
    """Return a store that has its memories in `memories` and all else in `state`. Closing it closes both.

    Example:
        >>> store = mn.hybrid_store(mn.SqliteStore("state.sqlite"), mn.SqliteStore("memory.sqlite"))
        >>> await store.list_memories(["global"]), await store.list_agents()
        ([], [])
        >>> store.close()
    """
    return cast("RuntimeStore", _Hybrid(state, memories))

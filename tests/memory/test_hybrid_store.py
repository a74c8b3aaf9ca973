"""A state store whose memories are in another file: which of the two does what."""

from __future__ import annotations

from pathlib import Path

import pytest
from kits import stores
from kits.core import bench

from mentra_nb.memory.config import MemoryConfig
from mentra_nb.memory.tools import memory_tools
from mentra_nb.providers.scripted import text
from mentra_nb.store.hybrid import hybrid_store
from mentra_nb.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio
OWNER = "project:/data/sales"


async def test_wrapper_store_delegates_non_memory_runtime_operations(tmp_path: Path) -> None:
    state, memories = SqliteStore(tmp_path / "state.sqlite"), SqliteStore(tmp_path / "memory.sqlite")
    store = hybrid_store(state, memories)
    await store.create_agent(stores.agent())
    await store.save_memory_cursor("agent-1", 3)
    assert [each.id for each in await store.list_agents()] == ["agent-1"]
    assert ([each.id for each in await state.list_agents()], await memories.list_agents()) == (["agent-1"], [])
    assert (await state.load_memory_cursor("agent-1"), await memories.load_memory_cursor("agent-1")) == (None, 3)
    store.close()
    with pytest.raises(AttributeError):
        store.nothing_of_the_kind  # type: ignore[attr-defined]  # noqa: B018


async def test_turns_are_remembered_in_the_other_file_and_go_with_their_conversation(tmp_path: Path) -> None:
    memories = SqliteStore(tmp_path / "memory.sqlite")
    store = hybrid_store(SqliteStore(tmp_path / "state.sqlite"), memories)
    async with bench(text("Copper."), text("Iron."), tools=memory_tools(), store=store) as table:
        table.runtime.register_context(MemoryConfig(scope="project"))
        for name in ("one", "two"):
            session = await table.session(name, "/data/sales")
            await session.append_turn(f"What is kettle {name} made of?")
            await session.close()
    assert len(await memories.list_memories([OWNER])) == 2
    await store.delete_conversation(session.id)
    assert [each.content for each in await store.list_memories([OWNER])] == [
        "user: What is kettle one made of?\nassistant: Copper."
    ]
    store.close()

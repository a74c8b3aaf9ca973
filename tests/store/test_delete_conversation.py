"""Deleting a conversation from the state store, the same on every engine."""

from __future__ import annotations

import pytest
from kits.stores import agent, entry, holder, question, rule, run, session, tool_call

from mentra_nb.errors import LeaseUnavailable
from mentra_nb.store.records import SAID, MemoryRecord, TaskItem, TeamMember, TeamMessage, TeamRequest
from mentra_nb.store.sql_store import SqlStore

pytestmark = pytest.mark.anyio


async def fill(store: SqlStore, agent_id: str, session_id: str, at: float) -> None:
    """Store a conversation with something in each table."""
    await store.create_agent(agent(agent_id, at))
    await store.save_session(session(session_id, f"talk-{session_id}", "/p", agent_id=agent_id))
    first, second = entry(f"e1-{agent_id}", None, agent_id=agent_id), entry(f"e2-{agent_id}", f"e1-{agent_id}")
    entries = [each.model_copy(update={"agent_id": agent_id, "run_id": f"run-{agent_id}"}) for each in (first, second)]
    await store.start_run(run(f"run-{agent_id}", agent_id=agent_id), entries=entries)
    await store.set_leaf(agent_id, second.id)
    call = {"agent_id": agent_id, "run_id": f"run-{agent_id}"}
    await store.begin_tool_call(tool_call().model_copy(update=call))
    await store.keep_result(agent_id, f"run-{agent_id}", "call-1", "whole")
    await store.save_rule(rule(f"rule-{agent_id}", key=session_id))
    await store.open_question(question(f"q-{agent_id}", session_id, run_id=f"run-{agent_id}"))
    fields = {"record_id": "m1", "kind": "fact", "content": "walk", "source_revision": 1, "created_at": 1.0}
    await store.save_memories([MemoryRecord.model_validate({"agent_id": agent_id, **fields})])
    await store.save_memory_cursor(agent_id, 3)
    await store.mutate_tasks(agent_id, lambda tasks: tasks.append(TaskItem(id=1, subject="walk")))
    mate = TeamMember(id=f"mate-{agent_id}", name="ada", role="reads", model="m", status="idle")
    await store.save_member(agent_id, mate)
    await store.create_agent(agent(mate.id, at, kind="teammate", parent_id=agent_id))
    mail = TeamMessage(id="mail-1", sender="lead", content="read", timestamp=1.0)
    await store.post_message(agent_id, ["ada"], mail)
    await store.post_message(SAID, [agent_id], mail)
    asked = {
        "request_id": "r1",
        "protocol": "shutdown",
        "from": "lead",
        "to": "ada",
        "content": "go",
        "created_at": 1.0,
    }
    await store.save_request(agent_id, TeamRequest.model_validate(asked))


async def left(store: SqlStore, agent_id: str, session_id: str) -> list[object]:
    """Return what is stored of a conversation."""
    path = await store.load_path(agent_id, f"e2-{agent_id}")
    return [
        await store.load_session(session_id),
        await store.load_agent(agent_id),
        path,
        await store.list_runs(agent_id),
        await store.list_tool_calls(f"run-{agent_id}"),
        await store.load_result(agent_id, "call-1"),
        [each for each in await store.list_rules(session_id) if each.scope == "session"],
        await store.open_questions(session_id),
        await store.load_memory(agent_id, "m1"),
        await store.load_memory_cursor(agent_id),
        await store.load_tasks(agent_id),
        await store.list_members(agent_id),
        await store.load_agent(f"mate-{agent_id}"),
        await store.open_messages(agent_id, "ada"),
        await store.open_messages(SAID, agent_id),
        await store.list_requests(agent_id),
    ]


async def test_all_of_one_conversation_goes_and_nothing_of_another(store: SqlStore) -> None:
    await fill(store, "agent-1", "s1", 1.0)
    await fill(store, "agent-2", "s2", 2.0)
    child = agent("child", 3.0, kind="subagent", parent_id="agent-1")
    await store.create_agent(child)
    await store.append_entries([entry("e-child", None, run_id="run-agent-1", agent_id="child")])
    other = await left(store, "agent-2", "s2")
    assert all(await left(store, "agent-1", "s1"))
    await store.delete_conversation("s1")
    assert not any(await left(store, "agent-1", "s1"))
    assert await store.load_agent("child") is None
    assert await store.load_entry("child", "e-child") is None
    assert await left(store, "agent-2", "s2") == other
    await store.delete_conversation("s1")


async def test_nothing_of_a_conversation_that_is_held_goes(store: SqlStore) -> None:
    await fill(store, "agent-1", "s1", 1.0)
    assert await store.acquire_lease("agent:agent-1", holder(), 60.0) is None
    before = await left(store, "agent-1", "s1")
    with pytest.raises(LeaseUnavailable, match="conversation 's1' is in use"):
        await store.delete_conversation("s1")
    assert await left(store, "agent-1", "s1") == before

"""The state store: agents, sessions, transcripts, runs and tool calls, the same on every engine."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kits.stores import agent, entry, run, session, tool_call

from mentra_nb.content import Message, ToolResult
from mentra_nb.errors import StoreError, UnknownEntry
from mentra_nb.store.records import ToolCallEnd
from mentra_nb.store.sql_store import SqlStore
from mentra_nb.store.transactions import Transaction
from mentra_nb.store.volatile import VolatileStore

pytestmark = pytest.mark.anyio


# ---- agents, sessions -----------------------------------------------------------------------------------------


async def test_an_agent_comes_back_as_it_was(store: SqlStore) -> None:
    await store.create_agent(agent())
    assert await store.load_agent("agent-1") == agent()
    assert await store.load_agent("other") is None


async def test_an_agent_is_created_once(store: SqlStore) -> None:
    await store.create_agent(agent())
    with pytest.raises(StoreError, match="failed"):
        await store.create_agent(agent())


async def test_agents_are_listed_oldest_first_and_by_runtime(store: SqlStore) -> None:
    for made in (agent("b", 2.0), agent("a", 2.0), agent("c", 1.0, "other")):
        await store.create_agent(made)
    assert [a.id for a in await store.list_agents()] == ["c", "a", "b"]
    assert [a.id for a in await store.list_agents("default")] == ["a", "b"]
    assert await store.list_agents("none") == []


async def test_a_status_is_set_and_the_change_is_dated(store: SqlStore) -> None:
    await store.create_agent(agent())
    await store.set_status("agent-1", "Interrupted")
    loaded = await store.load_agent("agent-1")
    assert loaded is not None
    assert (loaded.status, loaded.created_at) == ("Interrupted", 1.0)
    assert loaded.updated_at > 1.0


async def test_the_newest_session_of_a_name_is_loaded_by_name_or_id(store: SqlStore) -> None:
    await store.create_agent(agent())
    for made in (session("s1"), session("s2", at=2.0), session("s3", project="/p"), session("s4", name="else", at=9.0)):
        await store.save_session(made)
    assert await store.load_session("talk") == session("s2", at=2.0)
    assert await store.load_session("s1") == session("s1")
    assert await store.load_session("talk", "/p") == session("s3", project="/p")
    assert await store.load_session("talk", "/q") is None
    assert [s.id for s in await store.list_sessions()] == ["s1", "s3", "s2", "s4"]
    await store.save_session(session("s1", name="renamed"))
    assert (await store.load_session("s1")) == session("s1", name="renamed")


async def test_the_last_session_of_a_notebook_is_the_one_used_last_of_exactly_its_project_and_notebook(
    store: SqlStore,
) -> None:
    made = [
        session("s1", agent_id="agent-1", project="/p", notebook="a.ipynb"),
        session("s2", agent_id="agent-2", project="/p", notebook="a.ipynb"),
        session("s3", agent_id="agent-3", project="/p", notebook="a.ipynb"),
        session("s4", agent_id="agent-4", project="/p", notebook="b.ipynb"),
        session("s5", agent_id="agent-5", project="/q", notebook="a.ipynb"),
        session("s6", agent_id="agent-6", project="/p"),
        session("s7", agent_id="agent-7"),
    ]
    for one, used in zip(made, (2.0, 2.0, 1.0, 8.0, 9.0, 7.0, 6.0), strict=True):
        await store.create_agent(agent(one.agent_id))
        await store.save_session(one)
        await store.start_run(run(f"run-{one.id}", agent_id=one.agent_id, at=used))
    await store.create_agent(agent("agent-8"))
    await store.save_session(session("s8", agent_id="agent-8", project="/p", notebook="a.ipynb", at=10.0))
    assert await store.last_session("/p", "a.ipynb") == made[1]
    assert (await store.list_conversations("/p", "a.ipynb"))[-1].session == made[1]
    assert await store.last_session("/p", None) == made[5]
    assert await store.last_session(None, None) == made[6]
    assert await store.last_session(None, "a.ipynb") is None
    assert await store.last_session("/r", "a.ipynb") is None


async def test_conversations_are_listed_with_their_turns_the_one_used_last_at_the_end(store: SqlStore) -> None:
    for n in (1, 2, 3, 4):
        await store.create_agent(agent(f"agent-{n}"))
    made = [
        session("s1", agent_id="agent-1", project="/p", notebook="a.ipynb", at=1.0),
        session("s2", agent_id="agent-2", project="/p", notebook="b.ipynb", at=2.0),
        session("s3", agent_id="agent-3", project="/q", at=3.0),
        session("s4", agent_id="agent-4", project="/p", notebook="a.ipynb", at=4.0),
    ]
    for one in made:
        await store.save_session(one)
    await store.start_run(run("run-1", agent_id="agent-1", at=5.0), entries=[entry("a", None, agent_id="agent-1")])
    await store.finish_run("run-1", "failed", leaf=None)
    await store.start_run(run("run-2", agent_id="agent-1", at=9.0, resumes="run-1"))
    await store.start_run(run("run-3", agent_id="agent-2", at=6.0))
    await store.finish_run("run-3", "finished", leaf=None)
    await store.start_run(run("run-4", agent_id="agent-3", at=7.0))
    first, second = await store.list_conversations("/p")
    assert (first.session, first.turns, first.used_at) == (made[1], 1, 6.0)
    assert (first.first_prompt, first.last_state) == (None, "finished")
    assert (second.session, second.turns, second.used_at) == (made[0], 1, 9.0)
    assert (second.first_prompt, second.last_state) == ("a", "running")
    assert await store.list_conversations("/p", "a.ipynb") == [second]
    assert [found.session.id for found in await store.list_conversations("/q")] == ["s3"]
    assert await store.list_conversations(None) == []


async def test_a_conversation_is_loaded_with_its_agent_its_runs_and_the_length_of_its_path(store: SqlStore) -> None:
    await store.create_agent(agent())
    await store.save_session(session("s1", project="/p"))
    await store.start_run(run("run-1", at=5.0))
    await store.finish_run("run-1", "finished", leaf="b", entries=[entry("a", None), entry("b", "a")])
    await store.append_entries([entry("x", "a")])
    await store.start_run(run("run-2", at=2.0))
    await store.start_run(run("run-3", at=4.0))
    await store.finish_run("run-3", "failed", leaf=None)
    found = await store.load_conversation("talk", "/p")
    assert found is not None
    assert found.session == await store.load_session("talk", "/p") == session("s1", project="/p")
    assert found.agent == await store.load_agent("agent-1")
    assert found.latest_run == await store.latest_run("agent-1")
    assert list(found.open_runs) == await store.open_runs("agent-1") == [run("run-2", at=2.0)]
    assert found.path_length == await store.path_length("agent-1", "b") == 2
    assert await store.load_conversation("s1") == await store.load_conversation("agent-1", "/p") == found


async def test_the_latest_run_of_a_conversation_may_be_open(store: SqlStore) -> None:
    await store.create_agent(agent())
    await store.save_session(session("s1"))
    new = await store.load_conversation("talk")
    await store.start_run(run())
    at_work = await store.load_conversation("talk")
    assert new is not None
    assert at_work is not None
    assert (new.latest_run, new.open_runs, new.path_length) == (None, (), 0)
    assert (at_work.latest_run, at_work.open_runs) == (run(), (run(),))


async def test_a_conversation_without_a_session_is_found_by_its_agent_only(store: SqlStore) -> None:
    await store.create_agent(agent())
    await store.create_agent(agent("agent-2"))
    await store.save_session(session("s1", project="/p"))
    elsewhere, alone = await store.load_conversation("agent-1", "/q"), await store.load_conversation("agent-2")
    assert elsewhere is not None
    assert alone is not None
    assert (elsewhere.session, elsewhere.agent.id, alone.session, alone.agent.id) == (None, "agent-1", None, "agent-2")
    assert await store.load_conversation("talk", "/q") is None
    assert await store.load_conversation("nowhere") is None


async def test_subagents_are_not_listed(store: SqlStore) -> None:
    lead, mate = agent("lead"), agent("mate", 2.0, kind="teammate", parent_id="lead")
    child = agent("child", 3.0, kind="subagent", parent_id="lead")
    for made in (lead, mate, child):
        await store.create_agent(made)
    assert await store.list_agents() == [lead, mate]
    assert await store.list_agents("default") == [lead, mate]
    assert await store.load_agent("child") == child


async def test_an_agent_is_changed_in_what_is_given_and_nothing_else(store: SqlStore) -> None:
    await store.create_agent(agent())
    await store.update_agent("agent-1", model="m2", config={"system": "b"})
    loaded = await store.load_agent("agent-1")
    assert loaded is not None
    assert loaded.model_dump(exclude={"updated_at"}) == agent(model="m2", config={"system": "b"}).model_dump(
        exclude={"updated_at"}
    )
    await store.update_agent("agent-1", provider_id="p2", status="Idle")
    loaded = await store.load_agent("agent-1")
    assert loaded is not None
    assert (loaded.provider_id, loaded.status, loaded.model) == ("p2", "Idle", "m2")
    with pytest.raises(StoreError, match="no stored agent 'agent-2'"):
        await store.update_agent("agent-2", model="m")


async def test_runtime_identifier_round_trips(store: SqlStore) -> None:
    """Identifiers are values, not file names: any text will do."""
    names = ["a/b", "../up", "ü ∕ 'x'; --", "a%20b", ""]
    for name in names:
        await store.create_agent(agent(f"agent-{name}", runtime=name))
    for name in names:
        assert [a.runtime_identifier for a in await store.list_agents(name)] == [name]


# ---- transcript -----------------------------------------------------------------------------------------------


async def test_the_path_to_a_leaf_is_read_from_the_root_and_branches_do_not_mix(store: SqlStore) -> None:
    await store.create_agent(agent())
    await store.append_entries([entry("a", None), entry("b", "a"), entry("c", "b")])
    await store.append_entries([entry("x", "a")])
    assert [e.id for e in await store.load_path("agent-1", "c")] == ["a", "b", "c"]
    assert [e.id for e in await store.load_path("agent-1", "x")] == ["a", "x"]
    assert await store.load_path("agent-1", None) == []
    assert await store.load_path("agent-2", "c") == []


async def test_entries_are_appended_together_or_not_at_all(store: SqlStore) -> None:
    await store.create_agent(agent())
    with pytest.raises(StoreError):
        await store.append_entries([entry("a", None), entry("b", "nowhere")])
    assert await store.load_path("agent-1", "a") == []


async def test_a_message_comes_back_as_it_was(store: SqlStore) -> None:
    await store.create_agent(agent())
    message = Message.user([ToolResult(tool_use_id="1", content={"a": [1, "ä", None]}, is_error=True)])
    await store.append_entries([entry("a", None, message)])
    assert (await store.load_path("agent-1", "a"))[0].message == message


parents = st.lists(st.integers(0, 30), max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=parents)
def test_any_tree_is_read_back_by_path_by_children_and_by_leaf(choices: list[int]) -> None:
    async def check() -> None:
        store, chain = VolatileStore(), {"e0": ["e0"]}
        following: dict[str | None, list[str]] = {None: ["e0"]}
        await store.create_agent(agent())
        await store.append_entries([entry("e0", None)])
        for number, choice in enumerate(choices, 1):
            id, parent = f"e{number}", f"e{choice % number}"
            await store.append_entries([entry(id, parent)])
            chain[id] = [*chain[parent], id]
            following.setdefault(parent, []).append(id)
        for leaf, expected in chain.items():
            await store.set_leaf("agent-1", leaf)
            moved = await store.load_agent("agent-1")
            assert moved is not None
            assert moved.leaf == leaf
            assert [e.id for e in await store.load_path("agent-1", moved.leaf)] == expected
            assert await store.path_length("agent-1", leaf) == len(expected)
            assert await store.load_entry("agent-1", leaf) == entry(leaf, ([None, *expected])[-2])
        for parent in [None, *chain]:
            found = [e.id for e in await store.children("agent-1", parent)]
            assert found == sorted(following.get(parent, []))
        run_order = [e.id for e in await store.run_entries("run-1")]
        assert sorted(run_order) == sorted(chain)
        for path in chain.values():
            assert [id for id in run_order if id in path] == path
        store.close()

    anyio.run(check)


async def test_the_leaf_can_be_moved_to_any_entry_of_the_agent_or_before_the_first(store: SqlStore) -> None:
    await store.create_agent(agent())
    await store.append_entries([entry("a", None), entry("b", "a")])
    await store.set_leaf("agent-1", "a")
    with pytest.raises(UnknownEntry, match="'nowhere'"):
        await store.set_leaf("agent-1", "nowhere")
    loaded = await store.load_agent("agent-1")
    assert loaded is not None
    assert loaded.leaf == "a"
    await store.set_leaf("agent-1", None)
    loaded = await store.load_agent("agent-1")
    assert loaded is not None
    assert loaded.leaf is None
    with pytest.raises(StoreError, match="no stored agent"):
        await store.set_leaf("agent-2", None)


async def test_entries_of_another_agent_are_not_found(store: SqlStore) -> None:
    await store.create_agent(agent())
    await store.append_entries([entry("a", None)])
    assert await store.load_entry("agent-2", "a") is None
    assert await store.load_entry("agent-1", "b") is None
    assert await store.path_length("agent-2", "a") == 0
    assert await store.path_length("agent-1", None) == 0
    assert await store.children("agent-2", None) == []


async def test_invalid_unicode_is_stored_with_question_marks(store: SqlStore) -> None:
    half = "caf\udce9 \ud83d"
    await store.create_agent(agent())
    await store.start_run(run())
    await store.append_entries([entry("a", None, Message.user(half)), entry("b", "a", Message.user("ä"))])
    await store.begin_tool_call(tool_call().model_copy(update={"arguments": {"path": half}}))
    await store.finish_tool_call("run-1", ToolCallEnd("call-1", half))
    await store.save_partial("run-1", half)
    [partial] = [r.partial for r in await store.list_runs("agent-1")]
    await store.finish_run("run-1", "failed", leaf=None, error=half)
    [call], [closed] = await store.list_tool_calls("run-1"), await store.list_runs("agent-1")
    [first, second] = await store.load_path("agent-1", "b")
    assert {first.message.text(), call.arguments["path"], call.result, partial, closed.error} == {"caf? ?"}
    assert second.message.text() == "ä"


# ---- runs and tool calls --------------------------------------------------------------------------------------


async def test_a_run_moves_the_leaf_when_it_ends_with_one(store: SqlStore) -> None:
    await store.create_agent(agent())
    await store.start_run(run())
    running = await store.load_agent("agent-1")
    await store.save_partial("run-1", "half")
    [open_run] = await store.list_runs("agent-1")
    await store.finish_run("run-1", "finished", leaf="leaf-1")
    [closed], loaded = await store.list_runs("agent-1"), await store.load_agent("agent-1")
    assert running is not None
    assert loaded is not None
    assert (running.status, open_run.state, open_run.partial, open_run.cell_id) == (
        "Running",
        "running",
        "half",
        "cell",
    )
    assert (closed.state, closed.partial, closed.leaf) == ("finished", "", "leaf-1")
    assert closed.finished_at is not None
    assert (loaded.status, loaded.leaf) == ("Finished", "leaf-1")


@pytest.mark.parametrize(("state", "status"), [("failed", "Failed"), ("interrupted", "Interrupted")])
async def test_a_run_that_ends_without_a_leaf_leaves_it_where_it_was(store: SqlStore, state: str, status: str) -> None:
    await store.create_agent(agent().model_copy(update={"leaf": "before"}))
    await store.start_run(run())
    await store.finish_run("run-1", state, leaf=None, error="why")  # type: ignore[arg-type]
    loaded, [closed] = await store.load_agent("agent-1"), await store.list_runs("agent-1")
    assert loaded is not None
    assert (loaded.leaf, loaded.status, closed.error) == ("before", status, "why")


async def test_runs_are_listed_in_order_and_by_agent(store: SqlStore) -> None:
    await store.create_agent(agent())
    for made in (run("run-2", 2.0), run("run-1", 1.0)):
        await store.start_run(made)
    assert [r.id for r in await store.list_runs("agent-1")] == ["run-1", "run-2"]
    assert await store.list_runs("agent-2") == []


async def test_the_first_entries_of_a_run_are_stored_with_its_start_or_not_at_all(store: SqlStore) -> None:
    await store.create_agent(agent())
    with pytest.raises(StoreError):
        await store.start_run(run(), entries=[entry("a", None), entry("b", "nowhere")])
    assert (await store.list_runs("agent-1"), await store.load_entry("agent-1", "a")) == ([], None)
    await store.start_run(run(), entries=[entry("a", None)])
    assert [e.id for e in await store.run_entries("run-1")] == ["a"]


async def test_the_last_entries_of_a_run_are_stored_with_its_end_or_not_at_all(store: SqlStore) -> None:
    await store.create_agent(agent())
    await store.start_run(run())
    await store.append_entries([entry("a", None)])
    with pytest.raises(StoreError):
        await store.finish_run("run-1", "interrupted", leaf="c", entries=[entry("b", "a"), entry("c", "nowhere")])
    [still] = await store.list_runs("agent-1")
    assert (still.state, await store.load_entry("agent-1", "b")) == ("running", None)
    await store.finish_run("run-1", "interrupted", leaf="c", entries=[entry("b", "a"), entry("c", "b")])
    [closed], loaded = await store.list_runs("agent-1"), await store.load_agent("agent-1")
    assert loaded is not None
    assert (closed.state, closed.leaf, loaded.leaf) == ("interrupted", "c", "c")
    assert [e.id for e in await store.run_entries("run-1")] == ["a", "b", "c"]


async def test_a_run_is_closed_once(store: SqlStore) -> None:
    await store.create_agent(agent())
    await store.start_run(run())
    await store.finish_run("run-1", "finished", leaf="x")
    with pytest.raises(StoreError, match="run 'run-1' is finished already"):
        await store.finish_run("run-1", "interrupted", leaf="y", entries=[entry("late", None)])
    with pytest.raises(StoreError, match="no run 'run-2'"):
        await store.finish_run("run-2", "failed", leaf=None)
    [closed], loaded = await store.list_runs("agent-1"), await store.load_agent("agent-1")
    assert loaded is not None
    assert (closed.state, closed.leaf, loaded.leaf, loaded.status) == ("finished", "x", "x", "Finished")
    assert await store.load_entry("agent-1", "late") is None


async def test_text_that_arrives_after_the_end_of_its_run_is_not_kept(store: SqlStore) -> None:
    await store.create_agent(agent())
    await store.start_run(run())
    await store.finish_run("run-1", "finished", leaf="x")
    await store.save_partial("run-1", "late")
    assert [r.partial for r in await store.list_runs("agent-1")] == [""]


async def test_open_runs_and_the_latest_one(store: SqlStore) -> None:
    await store.create_agent(agent())
    assert await store.latest_run("agent-1") is None
    one, two, three = run("run-1", 1.0), run("run-3", 2.0), run("run-2", 2.0, resumes="run-1")
    for made in (three, one, two):
        await store.start_run(made)
    assert await store.latest_run("agent-1") == two
    await store.finish_run("run-3", "failed", leaf=None)
    assert await store.open_runs("agent-1") == [one, three]
    assert await store.open_runs("agent-2") == []


async def test_the_latest_run_is_the_one_stored_last_regardless_of_the_clock(store: SqlStore) -> None:
    await store.create_agent(agent())
    for made in (run("run-1", 100.0), run("run-0", 50.0)):
        await store.start_run(made)
    latest = await store.latest_run("agent-1")
    assert latest is not None
    assert latest.id == "run-0"


async def test_a_tool_call_is_open_until_its_result_is_known(store: SqlStore) -> None:
    await store.create_agent(agent())
    await store.start_run(run())
    await store.begin_tool_call(tool_call())
    assert await store.list_tool_calls("run-1") == [tool_call()]
    await store.finish_tool_call("run-1", ToolCallEnd("call-1", {"n": 1}, is_error=True))
    [closed] = await store.list_tool_calls("run-1")
    assert (closed.result, closed.is_error, closed.ends_turn) == ({"n": 1}, True, False)
    assert closed.finished_at is not None


async def test_a_whole_result_is_kept_for_its_agent_and_the_latest_of_an_id_is_found(store: SqlStore) -> None:
    for id in ("agent-1", "agent-2"):
        await store.create_agent(agent(id))
    whole = "nul \0, half \ud83d, ä\n" * 100_000
    await store.keep_result("agent-1", "run-1", "call-1", whole)
    assert await store.load_result("agent-1", "call-1") == whole.replace("\ud83d", "?")
    await store.keep_result("agent-1", "run-2", "call-1", "later")
    assert await store.load_result("agent-1", "call-1") == "later"
    assert await store.load_result("agent-1", "call-2") is None
    assert await store.load_result("agent-2", "call-1") is None


async def test_a_result_that_ended_the_turn_is_marked(store: SqlStore) -> None:
    await store.create_agent(agent())
    await store.start_run(run())
    await store.begin_tool_call(tool_call())
    await store.finish_tool_call("run-1", ToolCallEnd("call-1", "bye", ends_turn=True))
    assert [call.ends_turn for call in await store.list_tool_calls("run-1")] == [True]


async def test_only_a_call_with_an_unknown_result_gets_a_decision_and_only_once(store: SqlStore) -> None:
    await store.create_agent(agent())
    await store.start_run(run())
    await store.begin_tool_call(tool_call())
    await store.begin_tool_call(tool_call("call-2"))
    await store.finish_tool_call("run-1", ToolCallEnd("call-2", "done"))
    assert await store.resolve_tool_call("run-1", "call-1", "skipped") is True
    assert await store.resolve_tool_call("run-1", "call-1", "run_again") is False
    assert await store.resolve_tool_call("run-1", "call-2", "done") is False
    assert await store.resolve_tool_call("run-1", "call-3", "done") is False
    assert [c.resolution for c in await store.list_tool_calls("run-1")] == ["skipped", None]


async def test_a_call_of_an_unknown_run_is_refused(store: SqlStore) -> None:
    with pytest.raises(StoreError):
        await store.begin_tool_call(tool_call())


# ---- concurrency ----------------------------------------------------------------------------------------------


async def test_many_calls_at_once_are_all_kept(store: SqlStore) -> None:
    await store.create_agent(agent())
    await store.append_entries([entry("root", None)])
    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(store.append_entries, [entry(f"e{number}", "root")])
    for number in range(50):
        assert len(await store.load_path("agent-1", f"e{number}")) == 2


async def test_a_write_that_began_commits_although_its_caller_was_cancelled(store: SqlStore) -> None:
    await store.create_agent(agent())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await store.append_entries([entry("a", None)])
    assert scope.cancelled_caught
    assert len(await store.load_path("agent-1", "a")) == 1


async def test_one_store_serves_several_event_loops(store: SqlStore) -> None:
    await store.create_agent(agent())
    loaded = await anyio.to_thread.run_sync(lambda: anyio.run(store.load_agent, "agent-1"))
    assert loaded == agent()


async def test_work_that_fails_changes_nothing(store: SqlStore) -> None:
    def work(db: Transaction) -> None:
        db.execute("UPDATE agents SET name = 'changed'")
        raise RuntimeError("half way")

    await store.create_agent(agent())
    with pytest.raises(RuntimeError, match="half way"):
        await store.write(work)
    assert await store.load_agent("agent-1") == agent()

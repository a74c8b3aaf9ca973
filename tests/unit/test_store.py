"""The state store: the same operations on disk and in memory, and what is on disk."""

from __future__ import annotations

import sqlite3
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mentra_nb.authorization import PermissionQuestion, PermissionRule, ToolAuthorizationPreview
from mentra_nb.content import Message, ToolResult
from mentra_nb.errors import StoreError
from mentra_nb.store.base import AgentRecord, Entry, RunRecord, SessionRecord, ToolCallRecord
from mentra_nb.store.migrations import STEPS
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.volatile import VolatileStore

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "volatile"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path / "state.sqlite") if request.param == "sqlite" else VolatileStore()
    yield made
    made.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "state.sqlite"


def agent(id: str = "agent-1", at: float = 1.0, runtime: str = "default") -> AgentRecord:
    return AgentRecord(
        id=id,
        runtime_identifier=runtime,
        name="n",
        model="m",
        provider_id="p",
        config={"system": "ä"},
        created_at=at,
        updated_at=at,
    )


def session(id: str, name: str = "talk", project: str | None = None, at: float = 1.0) -> SessionRecord:
    return SessionRecord(id=id, name=name, agent_id="agent-1", model="m", project=project, created_at=at, updated_at=at)


def entry(id: str, parent: str | None, message: Message | None = None) -> Entry:
    message = message or Message.user(id)
    return Entry(
        id=id, agent_id="agent-1", parent_id=parent, run_id="run-1", kind="user_turn", message=message, created_at=1.0
    )


def run(id: str = "run-1", at: float = 1.0) -> RunRecord:
    return RunRecord(id=id, agent_id="agent-1", cell_id="cell", started_at=at)


def tool_call(id: str = "call-1") -> ToolCallRecord:
    return ToolCallRecord(
        run_id="run-1",
        call_id=id,
        agent_id="agent-1",
        tool="t",
        arguments={"a": ["ä", None]},
        arguments_hash="h",
        effect="once",
        started_at=1.0,
    )


def rule(id: str, scope: str = "session", key: str = "s1", allow: bool = True, pattern: str = "*") -> PermissionRule:
    return PermissionRule.model_validate(
        {"id": id, "tool": "t", "pattern": pattern, "allow": allow, "scope": scope, "scope_key": key, "reason": "why"}
    )


def question(id: str, session_id: str = "s1") -> PermissionQuestion:
    return PermissionQuestion(
        request_id=id,
        session_id=session_id,
        agent_id="agent-1",
        agent_name="n",
        run_id="run-1",
        tool_call_id="c",
        tool_name="t",
        description="d",
        subject="s",
        arguments={"a": 1},
        preview=ToolAuthorizationPreview(working_directory="/w"),
        arguments_hash="h",
        asked_at=time.time(),
        deadline=time.time() + 60,
    )


# ---- agents, sessions -----------------------------------------------------------------------------------------


async def test_an_agent_comes_back_as_it_was(store: SqliteStore) -> None:
    await store.create_agent(agent())
    assert await store.load_agent("agent-1") == agent()
    assert await store.load_agent("other") is None


async def test_an_agent_is_created_once(store: SqliteStore) -> None:
    await store.create_agent(agent())
    with pytest.raises(StoreError, match="failed"):
        await store.create_agent(agent())


async def test_agents_are_listed_oldest_first_and_by_runtime(store: SqliteStore) -> None:
    for made in (agent("b", 2.0), agent("a", 2.0), agent("c", 1.0, "other")):
        await store.create_agent(made)
    assert [a.id for a in await store.list_agents()] == ["c", "a", "b"]
    assert [a.id for a in await store.list_agents("default")] == ["a", "b"]
    assert await store.list_agents("none") == []


async def test_a_status_is_set_and_the_change_is_dated(store: SqliteStore) -> None:
    await store.create_agent(agent())
    await store.set_status("agent-1", "Interrupted")
    loaded = await store.load_agent("agent-1")
    assert loaded is not None
    assert (loaded.status, loaded.created_at) == ("Interrupted", 1.0)
    assert loaded.updated_at > 1.0


async def test_the_newest_session_of_a_name_is_loaded_by_name_or_id(store: SqliteStore) -> None:
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


# ---- transcript -----------------------------------------------------------------------------------------------


async def test_the_path_to_a_leaf_is_read_from_the_root_and_branches_do_not_mix(store: SqliteStore) -> None:
    await store.create_agent(agent())
    await store.append_entries([entry("a", None), entry("b", "a"), entry("c", "b")])
    await store.append_entries([entry("x", "a")])
    assert [e.id for e in await store.load_path("agent-1", "c")] == ["a", "b", "c"]
    assert [e.id for e in await store.load_path("agent-1", "x")] == ["a", "x"]
    assert await store.load_path("agent-1", None) == []
    assert await store.load_path("agent-2", "c") == []


async def test_entries_are_appended_together_or_not_at_all(store: SqliteStore) -> None:
    await store.create_agent(agent())
    with pytest.raises(StoreError):
        await store.append_entries([entry("a", None), entry("b", "nowhere")])
    assert await store.load_path("agent-1", "a") == []


async def test_a_message_comes_back_as_it_was(store: SqliteStore) -> None:
    await store.create_agent(agent())
    message = Message.user([ToolResult(tool_use_id="1", content={"a": [1, "ä", None]}, is_error=True)])
    await store.append_entries([entry("a", None, message)])
    assert (await store.load_path("agent-1", "a"))[0].message == message


parents = st.lists(st.integers(0, 30), max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=parents)
def test_every_path_of_any_tree_is_the_chain_of_its_parents(choices: list[int]) -> None:
    async def check() -> None:
        store, chain = VolatileStore(), {"e0": ["e0"]}
        await store.create_agent(agent())
        await store.append_entries([entry("e0", None)])
        for number, choice in enumerate(choices, 1):
            parent = f"e{choice % number}"
            await store.append_entries([entry(f"e{number}", parent)])
            chain[f"e{number}"] = [*chain[parent], f"e{number}"]
        for leaf, expected in chain.items():
            assert [e.id for e in await store.load_path("agent-1", leaf)] == expected
        store.close()

    anyio.run(check)


# ---- runs and tool calls --------------------------------------------------------------------------------------


async def test_a_run_moves_the_leaf_when_it_ends_with_one(store: SqliteStore) -> None:
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
async def test_a_run_that_ends_without_a_leaf_leaves_it_where_it_was(
    store: SqliteStore, state: str, status: str
) -> None:
    await store.create_agent(agent().model_copy(update={"leaf": "before"}))
    await store.start_run(run())
    await store.finish_run("run-1", state, leaf=None, error="why")  # type: ignore[arg-type]
    loaded, [closed] = await store.load_agent("agent-1"), await store.list_runs("agent-1")
    assert loaded is not None
    assert (loaded.leaf, loaded.status, closed.error) == ("before", status, "why")


async def test_runs_are_listed_in_order_and_by_agent(store: SqliteStore) -> None:
    await store.create_agent(agent())
    for made in (run("run-2", 2.0), run("run-1", 1.0)):
        await store.start_run(made)
    assert [r.id for r in await store.list_runs("agent-1")] == ["run-1", "run-2"]
    assert await store.list_runs("agent-2") == []


async def test_a_tool_call_is_open_until_its_result_is_known(store: SqliteStore) -> None:
    await store.create_agent(agent())
    await store.start_run(run())
    await store.begin_tool_call(tool_call())
    assert await store.list_tool_calls("run-1") == [tool_call()]
    await store.finish_tool_call("run-1", "call-1", {"n": 1}, is_error=True)
    [closed] = await store.list_tool_calls("run-1")
    assert (closed.result, closed.is_error) == ({"n": 1}, True)
    assert closed.finished_at is not None


async def test_a_call_of_no_run_is_refused(store: SqliteStore) -> None:
    with pytest.raises(StoreError):
        await store.begin_tool_call(tool_call())


# ---- rules and questions --------------------------------------------------------------------------------------


async def test_permission_rules_save_and_load_round_trip(store: SqliteStore) -> None:
    assert await store.save_rule(rule("r1")) == rule("r1")
    assert await store.list_rules("s1") == [rule("r1")]


async def test_load_rules_with_project_id_returns_all_applicable_scopes(store: SqliteStore) -> None:
    for made in (rule("s"), rule("p", "project", "/p"), rule("g", "global", ""), rule("x", "session", "s2")):
        await store.save_rule(made)
    assert {r.id for r in await store.list_rules("s1", "/p")} == {"s", "p", "g"}
    assert {r.id for r in await store.list_rules("s1")} == {"s", "g"}
    assert {r.id for r in await store.list_rules(None)} == {"g"}


async def test_the_last_decision_replaces_the_earlier_one(store: SqliteStore) -> None:
    await store.save_rule(rule("r1", allow=True))
    await store.save_rule(rule("r2", allow=False))
    await store.save_rule(rule("r3", pattern="other"))
    assert [(r.id, r.allow) for r in await store.list_rules("s1")] == [("r2", False), ("r3", True)]


async def test_uses_are_counted_and_a_rule_can_be_revoked(store: SqliteStore) -> None:
    await store.save_rule(rule("r1"))
    await store.count_rule_use("r1")
    await store.count_rule_use("r1")
    assert [r.times_used for r in await store.list_rules("s1")] == [2]
    assert await store.revoke_rule("r1") is True
    assert await store.revoke_rule("r1") is False
    assert await store.list_rules("s1") == []


async def test_questions_are_open_until_closed_and_listed_by_session(store: SqliteStore) -> None:
    one, two = question("q1"), question("q2", "s2")
    await store.open_question(one)
    await store.open_question(two)
    assert await store.open_questions() == [one, two]
    assert await store.open_questions("s2") == [two]
    await store.close_question("q1", "denied", "timeout")
    assert await store.open_questions() == [two]


# ---- concurrency ----------------------------------------------------------------------------------------------


async def test_many_calls_at_once_are_all_kept(store: SqliteStore) -> None:
    await store.create_agent(agent())
    await store.append_entries([entry("root", None)])
    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(store.append_entries, [entry(f"e{number}", "root")])
    for number in range(50):
        assert len(await store.load_path("agent-1", f"e{number}")) == 2


async def test_a_write_that_was_begun_is_kept_although_its_caller_was_cancelled(store: SqliteStore) -> None:
    await store.create_agent(agent())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await store.append_entries([entry("a", None)])
    assert scope.cancelled_caught
    assert len(await store.load_path("agent-1", "a")) == 1


async def test_one_store_serves_several_event_loops(store: SqliteStore) -> None:
    await store.create_agent(agent())
    loaded = await anyio.to_thread.run_sync(lambda: anyio.run(store.load_agent, "agent-1"))
    assert loaded == agent()


async def test_two_stores_on_one_file_see_each_other(path: Path) -> None:
    one, two = SqliteStore(path), SqliteStore(path)
    await one.create_agent(agent())
    await two.append_entries([entry("a", None)])
    await one.append_entries([entry("b", "a")])
    assert [e.id for e in await two.load_path("agent-1", "b")] == ["a", "b"]
    one.close()
    two.close()


# ---- the file -------------------------------------------------------------------------------------------------


async def test_no_file_before_the_first_call(path: Path) -> None:
    store = SqliteStore(path)
    assert not path.parent.exists()
    await store.list_agents()
    assert path.exists()
    store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
async def test_only_the_user_may_read_it(path: Path) -> None:
    store = SqliteStore(path)
    await store.create_agent(agent())
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    store.close()


async def test_it_opens_again_after_closing(path: Path) -> None:
    store = SqliteStore(path)
    await store.create_agent(agent())
    store.close()
    assert len(await store.list_agents()) == 1
    store.close()


async def test_memory_forgets_when_it_is_closed() -> None:
    store = VolatileStore()
    await store.create_agent(agent())
    store.close()
    assert await store.list_agents() == []
    store.close()


async def test_volatile_run_leaves_no_durable_trace_on_disk() -> None:
    store = VolatileStore()
    await store.create_agent(agent())
    assert not Path(str(store.path)).exists()
    store.close()


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    store = SqliteStore(path)
    await store.create_agent(agent())
    store.close()
    with sqlite3.connect(path) as newer:
        newer.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    newer.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"written by a newer mentra-nb .*MENTRA_HOME"):
        await store.list_agents()
    store.close()
    assert path.read_bytes() == before


async def test_a_file_that_is_no_database_is_an_error_that_names_it(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("this is not a database, and it is long enough to be looked at" * 20)
    store = SqliteStore(path)
    with pytest.raises(StoreError, match=str(path)):
        await store.list_agents()
    store.close()


async def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = SqliteStore(tmp_path / "file" / "state.sqlite")
    with pytest.raises(StoreError, match="cannot be opened"):
        await store.list_agents()
    store.close()


async def test_a_store_that_is_locked_by_another_process_is_waited_for(path: Path) -> None:
    store = SqliteStore(path)
    await store.list_agents()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    async with anyio.create_task_group() as group:
        group.start_soon(store.create_agent, agent())
        await anyio.lowlevel.checkpoint()
        other.execute("COMMIT")
    assert len(await store.list_agents()) == 1
    other.close()
    store.close()

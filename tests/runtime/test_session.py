"""Sessions: the events that a screen gets, and that a stored conversation keeps its rules."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from kits import stores
from kits.core import MODEL, Bench, allow_all, bench, of

from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.content import Message
from mentra_nb.errors import Cancelled, FailedToStreamResponse, HttpError, InvalidRequest, ProviderNotFound, StoreError
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers.base import ModelInfo
from mentra_nb.providers.scripted import ControlledStream, ScriptedProvider, failure, stream_text, text, tool_calls
from mentra_nb.runtime.session import Session
from mentra_nb.store.records import SessionRecord
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.function import tool
from mentra_nb.tools.schema import ToolError

pytestmark = pytest.mark.anyio


@tool(asks=False)
def act() -> str:
    """Do it."""
    return "done"


async def listening(table: Bench) -> tuple[Session, list[shown.SessionEvent]]:
    session = await table.session()
    events: list[shown.SessionEvent] = []
    session.subscribe(events.append)
    return session, events


async def test_create_session_produces_valid_metadata() -> None:
    async with bench() as table:
        session = await table.session("talk", "/p", notebook="nb.ipynb")
    assert session.id.startswith("session-")
    assert (session.name, session.project, session.notebook, session.turn_count) == ("talk", "/p", "nb.ipynb", 0)
    [recorded] = table.recorder.of(e.SessionStarted)
    assert (recorded.session_id, recorded.title, recorded.model) == (session.id, "talk", "scripted/scripted")


async def test_create_session_emits_session_started_to_the_first_listener_only() -> None:
    async with bench() as table:
        session, first = await listening(table)
        second: list[shown.SessionEvent] = []
        session.subscribe(second.append)
    assert first == [shown.SessionStarted(session_id=session.id)]
    assert second == []


async def test_full_session_lifecycle_produces_correct_event_stream() -> None:
    async with bench(tool_calls([("act", {})], text="Let me."), stream_text(["A", "B"]), tools=[act]) as table:
        session, events = await listening(table)
        final = await session.append_turn("go")
    assert final.text() == "AB"
    assert [event.type for event in events] == [
        "session_started",
        "user_message",
        "assistant_token_delta",
        "tool_queued",
        "tool_started",
        "tool_decided",
        "tool_completed",
        "assistant_token_delta",
        "assistant_token_delta",
        "assistant_message_completed",
    ]
    (asked,) = of(events, shown.UserMessage)
    assert (asked.text, asked.model) == ("go", str(session.model))
    assert of(events, shown.AssistantMessageCompleted)[0].text == "AB"
    assert (session.turn_count, len(session.history())) == (1, 4)
    assert repr(session).endswith(f" on {session.model}, 1 turn>")


async def test_session_status_transitions_created_to_idle() -> None:
    stream = ControlledStream()
    async with bench(stream, failure(InvalidRequest("no")), text("fine")) as table:
        session = await table.session()
        states = [session.status]
        session.subscribe(lambda event: states.append(session.status))
        async with anyio.create_task_group() as group:
            group.start_soon(session.append_turn, "one")
            await stream.wait_opened()
            states.append(session.status)
            stream.send_answer(text("1"))
        states.append(session.status)
        with pytest.raises(FailedToStreamResponse):
            await session.append_turn("two")
        states.append(session.status)
        await session.append_turn("three")
        states.append(session.status)
    changes = [now for now, before in zip(states, ["", *states], strict=False) if now != before]
    assert changes == ["created", "active", "idle", "active", "failed", "active", "idle"]
    assert session.turn_count == 2


async def test_append_turn_returns_assistant_message() -> None:
    async with bench(text("hello")) as table:
        session = await table.session()
        answer = await session.append_turn("hi")
        [run] = await table.runtime.store.list_runs(session.agent.id)
    assert answer == Message.assistant("hello")
    assert session.history() == [Message.user("hi"), answer]
    assert [(entry.kind, entry.run_id) for entry in session.agent.transcript.tail] == [
        ("user_turn", run.id),
        ("assistant_turn", run.id),
    ]


async def test_concurrent_calls_do_not_borrow_each_others_names() -> None:
    second_done = asyncio.Event()

    @tool(reads_only=True)
    async def slow() -> None:
        await second_done.wait()

    @tool(reads_only=True)
    async def quick() -> None:
        second_done.set()

    async with bench(tool_calls([("slow", {}), ("quick", {})]), text("ok"), tools=[slow, quick]) as table:
        session, events = await listening(table)
        await session.append_turn("go")
    completed = [(c.tool_call_id, c.tool_name) for c in of(events, shown.ToolCompleted)]
    assert sorted(completed) == [("tool-1", "slow"), ("tool-2", "quick")]


async def test_full_scenario_prompt_shell_file_events_end_to_end(tmp_path: Path) -> None:
    script = [
        tool_calls([("shell", {"command": "echo hello"})]),
        text("It said hello."),
        tool_calls([("write", {"path": "a.txt", "content": "hello"})]),
        text("Written."),
    ]
    options = {"builtin_tools": True, "policy": RuntimePolicy.permissive(), "working_directory": tmp_path}
    async with bench(*script, **options) as table:
        session, events = await listening(table)
        allow_all(session)
        await session.append_turn("run it")
        await session.append_turn("write it")
    assert [len(of(events, kind)) for kind in (shown.UserMessage, shown.AssistantMessageCompleted)] == [2, 2]
    assert [(c.tool_name, c.summary, c.is_error) for c in of(events, shown.ToolCompleted)] == [
        ("shell", "hello", False),
        ("write", "Wrote 5 byte(s) to a.txt", False),
    ]
    assert [p.progress for p in of(events, shown.ToolProgress)] == ["stdout: hello"]
    assert [q.tool_name for q in of(events, shown.QuestionAsked)] == ["shell", "write"]
    assert (tmp_path / "a.txt").read_text() == "hello"


async def test_a_cancelled_session_turn_fails_instead_of_running() -> None:
    token = CancellationToken()
    token.cancel("not now")
    async with bench(text("never")) as table:
        session, events = await listening(table)
        with pytest.raises(Cancelled):
            await session.append_turn("go", RunOptions(cancellation=token))
    assert (table.provider.recorded_requests, session.history(), session.turn_count) == ([], [], 0)
    assert events[-1] == shown.SessionError(message="not now", recoverable=False)


def test_session_metadata_serialization_roundtrip() -> None:
    record = stores.session("session-1", "talk", "/p")
    assert SessionRecord.model_validate_json(record.model_dump_json()) == record


async def test_session_set_model_updates_active_and_persisted_model(tmp_path: Path) -> None:
    async with bench(text("one"), store=SqliteStore(tmp_path / "s")) as table:
        session = await table.session()
        other = ScriptedProvider([text("two")], id="other")
        with pytest.raises(ProviderNotFound):
            await table.runtime.set_model(session.agent, ModelInfo(id="m", provider="other"))
        table.runtime.register_provider_instance(other)
        await table.runtime.set_model(session.agent, ModelInfo(id="m", provider="other"))
        assert (await session.append_turn("hi")).text() == "two"
        stored = await table.runtime.store.load_agent(session.agent.id)
    assert other.recorded_requests[0].model == "m"
    assert stored is not None
    assert (stored.model, stored.provider_id) == ("m", "other")


async def test_all_session_events_from_turn_are_serializable_to_json() -> None:
    async with bench(tool_calls([("act", {})]), text("ok"), tools=[act]) as table:
        session, events = await listening(table)
        await session.append_turn("go")
    assert [shown.session_event_from_json(json.loads(event.model_dump_json())) for event in events] == events


async def test_session_preserves_tool_events_after_many_token_deltas() -> None:
    async with bench(tool_calls([("act", {})], text="x"), stream_text(["y"] * 300), tools=[act]) as table:
        session, events = await listening(table)
        await session.append_turn("go")
    assert len(of(events, shown.AssistantTokenDelta)) == 301
    assert [c.tool_name for c in of(events, shown.ToolCompleted)] == ["act"]


async def test_tool_completion_names_the_tool_that_was_queued() -> None:
    async with bench(tool_calls([("act", {}), ("nope", {})]), text("ok"), tools=[act]) as table:
        session, events = await listening(table)
        await session.append_turn("go")
    assert [(c.tool_call_id, c.tool_name) for c in of(events, shown.ToolCompleted)] == [
        ("tool-1", "act"),
        ("tool-2", "nope"),
    ]


async def test_tool_execution_error_emits_tool_completed_with_is_error() -> None:
    def fail() -> None:
        raise ToolError("it broke")

    async with bench(tool_calls([("fail", {})]), text("ok"), tools=[tool(asks=False)(fail)]) as table:
        session, events = await listening(table)
        await session.append_turn("go")
    [completed] = of(events, shown.ToolCompleted)
    assert (completed.is_error, completed.summary) == (True, "it broke")
    assert session.turn_count == 1


async def test_failed_turn_emits_error_event() -> None:
    async with bench(failure(InvalidRequest("no"))) as table:
        session, events = await listening(table)
        with pytest.raises(FailedToStreamResponse):
            await session.append_turn("go")
    assert events[-1] == shown.SessionError(message="scripted/scripted failed: no", recoverable=False)


async def test_error_recovery_session_accepts_turn_after_failure() -> None:
    async with bench(failure(InvalidRequest("no")), text("fine")) as table:
        session = await table.session()
        with pytest.raises(FailedToStreamResponse):
            await session.append_turn("one")
        await session.append_turn("two")
    assert session.turn_count == 1
    assert [m.text() for m in session.history()] == ["two", "fine"]


async def test_a_retry_is_announced() -> None:
    async with bench(failure(HttpError(503)), text("ok")) as table:
        session, events = await listening(table)
        await session.append_turn("go")
    [retry] = of(events, shown.RetryNotice)
    assert (retry.attempt, retry.max_attempts) == (1, 5)
    assert retry.next_delay_ms <= 500


async def test_a_listener_that_left_hears_nothing_more() -> None:
    async with bench(text("ok")) as table:
        session = await table.session()
        events: list[shown.SessionEvent] = []
        leave = session.subscribe(events.append)
        leave()
        leave()
        await session.append_turn("go")
    assert [x.type for x in events] == ["session_started"]


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(3), KeyboardInterrupt()])
async def test_a_listener_that_fails_does_not_stop_the_turn_nor_the_others(error: BaseException) -> None:
    async with bench(text("ok")) as table:
        session = await table.session()
        events: list[shown.SessionEvent] = []

        def broken(event: shown.SessionEvent) -> None:
            if not isinstance(event, shown.SessionStarted):
                raise error

        session.subscribe(broken)
        session.subscribe(events.append)
        assert (await session.append_turn("go")).text() == "ok"
    assert events[-1].type == "assistant_message_completed"


async def test_sessions_do_not_hear_each_other() -> None:
    async with bench(text("ok")) as table:
        _, other = await listening(table)
        session = await table.session()
        await session.append_turn("go")
    assert [x.type for x in other] == ["session_started"]


# ---- resuming -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["name", "id"])
async def test_resume_session_restores_state_and_rules(tmp_path: Path, by: str) -> None:
    async with bench(text("first"), store=SqliteStore(tmp_path / "s")) as table:
        session = await table.session("talk", "/p")
        await session.append_turn("one")
        await session.permissions.add_rule("act", "*", allow=True)
        key = session.name if by == "name" else session.id
    async with bench(text("second"), store=SqliteStore(tmp_path / "s")) as table:
        again = await table.runtime.resume_session(key, "/p")
        assert again.id == session.id
        assert [m.text() for m in again.history()] == ["one", "first"]
        assert [rule.tool for rule in await again.remembered_rules()] == ["act"]
        await again.append_turn("two")
        assert [m.text() for m in table.provider.recorded_requests[0].messages] == ["one", "first", "two"]
        assert table.recorder.of(e.SessionStarted) == []


async def test_a_session_is_resumed_by_its_agent_and_an_agent_without_one_gets_one(tmp_path: Path) -> None:
    async with bench(text("one"), text("two"), store=SqliteStore(tmp_path / "s")) as table:
        session, lonely = await table.session("talk", "/p"), await table.agent()
        await session.append_turn("hi")
        await lonely.send("hi")
    async with bench(store=SqliteStore(tmp_path / "s")) as table:
        again = await table.runtime.resume_session(session.agent.id)
        assert (again.id, again.project, len(again.history())) == (session.id, "/p", 2)
        made = await table.runtime.resume_session(lonely.id, "/q")
        assert (made.name, made.project, len(made.history())) == ("tester", "/q", 2)
        assert [s.session_id for s in table.recorder.of(e.SessionStarted)] == [made.id]
        assert (await table.runtime.resume_session(lonely.id)).id == made.id


async def test_the_newest_session_of_a_name_in_the_project_is_resumed(tmp_path: Path) -> None:
    async with bench(store=SqliteStore(tmp_path / "s")) as table:
        await table.session("talk", "/p")
        newest = await table.session("talk", "/p")
        await table.session("talk", "/q")
        assert (await table.runtime.resume_session("talk", "/p")).id == newest.id


async def test_a_session_that_is_not_stored_cannot_be_resumed() -> None:
    async with bench() as table:
        with pytest.raises(StoreError, match="there is no stored session 'nothing'"):
            await table.runtime.resume_session("nothing")


async def test_a_session_can_be_resumed_on_another_model() -> None:
    async with bench(text("one")) as table:
        session = await table.session()
        await session.append_turn("hi")
        other = ScriptedProvider([text("two")], id="other")
        table.runtime.register_provider_instance(other)
        again = await table.runtime.resume_session(session.id, model=ModelInfo(id="m", provider="other"))
        assert (await again.append_turn("and?")).text() == "two"
    assert other.recorded_requests[0].model == "m"


async def test_a_session_needs_the_provider_of_its_model(tmp_path: Path) -> None:
    async with bench(store=SqliteStore(tmp_path / "s")) as table:
        await table.session("talk")
        with pytest.raises(ProviderNotFound):
            await table.runtime.create_session("x", MODEL.model_copy(update={"provider": "none"}))


class Stopping(VolatileStore):
    """Cancels `scope` in the middle of the write of that name, when the row is there."""

    at: str
    scope: anyio.CancelScope

    async def _stopped(self, name: str) -> None:
        if name == self.at:
            self.scope.cancel()
            await anyio.lowlevel.checkpoint()

    async def acquire_lease(self, *args: Any) -> Any:
        taken = await super().acquire_lease(*args)
        await self._stopped("acquire_lease")
        return taken

    async def create_agent(self, *args: Any) -> None:
        await super().create_agent(*args)
        await self._stopped("create_agent")

    async def save_session(self, *args: Any) -> None:
        await super().save_session(*args)
        await self._stopped("save_session")


@pytest.mark.parametrize("at", ["acquire_lease", "create_agent", "save_session"])
async def test_a_session_whose_opening_is_stopped_leaves_no_lease(at: str) -> None:
    store = Stopping()
    store.at = at
    async with bench(store=store) as table:
        with anyio.CancelScope() as store.scope:
            await table.session()
        assert store.scope.cancelled_caught
        assert await store.list_leases() == []

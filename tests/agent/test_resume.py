"""Resuming a turn that failed, was stopped, or whose process died."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from kits.core import Bench, Judge, bench

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.agent.transcript import Transcript
from mentra_nb.authorization import PermissionDecision, ToolAuthorizationDecision
from mentra_nb.content import Message, Text, ToolResult, ToolUse
from mentra_nb.errors import (
    Cancelled,
    EmptyAssistantResponse,
    FailedToStreamResponse,
    HttpError,
    LeaseUnavailable,
    NoResumableTurn,
    OperationDenied,
    StoreError,
    ToolBudgetExceeded,
    UnknownEntry,
)
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e
from mentra_nb.permission.binding import arguments_hash, effective_hash
from mentra_nb.providers.scripted import ControlledStream, ScriptedCall, failure, text, tool_calls
from mentra_nb.runtime.session import Session
from mentra_nb.store.records import AgentRecord, Entry, LeaseHolder, RunRecord, ToolCallEnd, ToolCallRecord
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.function import tool

pytestmark = pytest.mark.anyio

NOW = time.time()
ran: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


@tool
def act(what: str = "") -> str:
    """Do it, for good."""
    ran.append(what)
    return f"did {what}"


@tool(reads_only=True)
def look(what: str = "") -> str:
    """See."""
    ran.append(what)
    return f"saw {what}"


@tool
def keep(what: str = "") -> str:
    """Put it there; a second time changes nothing."""
    ran.append(what)
    return f"kept {what}"


keep.spec = keep.spec.model_copy(update={"effect": "idempotent"})


def said(agent: Agent) -> list[str]:
    """Return the conversation, a line for each block."""
    lines = []
    for message in agent.history():
        for block in message.content:
            match block:
                case Text():
                    lines.append(f"{message.role}: {block.text}")
                case ToolUse():
                    lines.append(f"call {block.name}")
                case _:
                    lines.append(f"result {getattr(block, 'content', '')}")
    return lines


class Left:
    """What a process that was killed during a turn left in the store."""

    def __init__(self, store: VolatileStore | SqliteStore) -> None:
        self.store = store
        self.agent = AgentRecord(
            id="agent-1",
            runtime_identifier="default",
            name="tester",
            model="scripted",
            provider_id="scripted",
            created_at=NOW,
            updated_at=NOW,
        )
        self.transcript = Transcript("agent-1", store)

    async def run(self, *messages: Message, partial: str = "") -> None:
        await self.store.create_agent(self.agent)
        await self.store.start_run(RunRecord(id="run-1", agent_id="agent-1", started_at=NOW))
        for message in messages:
            await self.store.append_entries([self.transcript.append(message, "run-1")])
        if partial:
            await self.store.save_partial("run-1", partial)

    async def go_on(self) -> None:
        """Begin the turn by which another process continued this one, before it was killed too."""
        await self.store.start_run(
            RunRecord(id="run-2", agent_id="agent-1", base=self.transcript.leaf, resumes="run-1", started_at=NOW + 1)
        )

    async def call(
        self,
        use: ToolUse,
        *,
        effect: Any = "once",
        result: str | None = None,
        ends_turn: bool = False,
        run_id: str = "run-1",
    ) -> None:
        await self.store.begin_tool_call(
            ToolCallRecord(
                run_id=run_id,
                call_id=use.id,
                agent_id="agent-1",
                tool=use.name,
                arguments=use.input,
                arguments_hash=arguments_hash(use.name, use.input),
                effect=effect,
                started_at=time.time(),
            )
        )
        if result is not None:
            await self.store.finish_tool_call(run_id, ToolCallEnd(use.id, result, ends_turn=ends_turn))


def calling(*uses: ToolUse) -> Message:
    return Message.assistant(uses)


ACT = ToolUse(id="call-1", name="act", input={"what": "a"})
ACT_TOO = ToolUse(id="call-2", name="act", input={"what": "b"})
LOOK = ToolUse(id="call-3", name="look", input={"what": "c"})
KEEP = ToolUse(id="call-4", name="keep", input={"what": "d"})
GO = Message.user("go")


# ---- after a failure ------------------------------------------------------------------------------------------


async def test_resume_replays_last_failed_turn() -> None:
    async with bench(failure(HttpError(400)), text("there")) as table:
        agent = await table.agent()
        with pytest.raises(FailedToStreamResponse):
            await agent.send("go")
        assert agent.history() == []
        assert (await agent.resume()).text() == "there"
        assert said(agent) == ["user: go", "assistant: there"]
        with pytest.raises(NoResumableTurn):
            await agent.resume()


async def test_resume_keeps_complete_rounds_and_runs_no_tool_twice() -> None:
    script = tool_calls([("act", {"what": "a"})]), failure(HttpError(400)), failure(HttpError(400)), text("there")
    async with bench(*script, tools=[act]) as table:
        agent = await table.agent()
        for again in (agent.send("go"), agent.resume()):
            with pytest.raises(FailedToStreamResponse):
                await again
            assert agent.history() == []
        await agent.resume()
        assert said(agent) == ["user: go", "call act", "result did a", "assistant: there"]
        assert ran == ["a"]
        assert [r.resumes is not None for r in await table.runtime.store.list_runs(agent.id)] == [False, True, True]
        assert [s.resumes is not None for s in table.recorder.of(e.TurnStarted)] == [False, True, True]


async def test_resume_runs_the_calls_that_a_budget_kept_from_running() -> None:
    async with bench(tool_calls([("act", {"what": "a"})]), text("there"), tools=[act]) as table:
        agent = await table.agent()
        with pytest.raises(ToolBudgetExceeded):
            await agent.run("go", RunOptions(tool_budget=0))
        assert (await agent.resume()).text() == "there"
        assert ran == ["a"]
        assert len(table.provider.recorded_requests) == 2


async def test_nothing_to_resume_at_first_after_success_and_after_the_conversation_continued() -> None:
    async with bench(failure(HttpError(400)), text("one"), text("two")) as table:
        agent = await table.agent()
        with pytest.raises(NoResumableTurn):
            await agent.resume()
        with pytest.raises(FailedToStreamResponse):
            await agent.send("go")
        await agent.send("something else")
        with pytest.raises(NoResumableTurn):
            await agent.resume()


async def test_a_failed_turn_can_be_resumed_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    async with bench(failure(HttpError(400)), store=SqliteStore(path)) as table:
        session = await table.session(project="/p")
        with pytest.raises(FailedToStreamResponse):
            await session.append_turn("go")
    async with bench(text("there"), store=SqliteStore(path)) as table:
        session = await table.runtime.resume_session("talk", "/p")
        assert session.status == "failed"
        assert (await session.resume_turn()).text() == "there"
        assert (session.status, session.turn_count) == ("idle", 1)


# ---- after a stop ---------------------------------------------------------------------------------------------


async def test_a_stopped_turn_is_resumed_without_its_partial_answer() -> None:
    token, stream = CancellationToken(), ControlledStream()
    async with bench(stream, text("whole")) as table:
        agent = await table.agent()
        agent.environment.bus.tap(lambda event: token.cancel() if isinstance(event, e.TextDelta) else None)
        stream.send(*text("half").events[:3])
        with pytest.raises(Cancelled):
            await agent.run("go", RunOptions(cancellation=token))
        assert said(agent) == ["user: go", "assistant: half"]
        await agent.resume()
        assert said(agent) == ["user: go", "assistant: whole"]


async def test_resume_runs_the_calls_a_stop_kept_from_running_but_not_the_one_it_interrupted() -> None:
    token = CancellationToken()

    @tool
    async def hang() -> str:
        """Never end."""
        token.cancel()
        import anyio

        await anyio.sleep_forever()
        return ""

    script = tool_calls([("hang", {}), ("act", {"what": "b"})]), text("there")
    async with bench(*script, tools=[hang, act]) as table:
        agent = await table.agent()
        with pytest.raises(Cancelled):
            await agent.run("go", RunOptions(cancellation=token))
        assert ran == []
        await agent.resume()
    broken = "result stopped before it finished; it may have taken effect"
    assert said(agent) == ["user: go", "call hang", "call act", broken, "result did b", "assistant: there"]


# ---- after a crash --------------------------------------------------------------------------------------------


async def test_runtime_startup_preserves_memory_until_resume_and_resume_rolls_back_pending_turn() -> None:
    left = Left(VolatileStore())
    await left.run(GO, partial="hal")
    async with bench(text("whole"), store=left.store) as table:
        assert [r.state for r in await left.store.list_runs("agent-1")] == ["running"]
        agent = await table.runtime.resume_agent("agent-1")
        assert (agent.status, said(agent)) == ("Interrupted", ["user: go", "assistant: hal"])
        assert [r.state for r in await left.store.list_runs("agent-1")] == ["interrupted"]
        assert [x.stop_reason for x in table.recorder.of(e.TurnFinished)] == ["interrupted"]
        assert len(table.recorder.of(e.RunAborted)) == 1
        await agent.resume()
        assert said(agent) == ["user: go", "assistant: whole"]


async def test_saved_text_of_an_earlier_round_is_not_appended_again() -> None:
    left = Left(VolatileStore())
    await left.run(GO, partial="Let me see.")
    await left.store.append_entries(
        [
            left.transcript.append(Message.assistant([Text(text="Let me see."), ACT]), "run-1"),
        ]
    )
    await left.call(ACT, result="did a")
    results = Message.user([ToolResult(tool_use_id="call-1", content="did a")])
    await left.store.append_entries([left.transcript.append(results, "run-1")])
    async with bench(text("there"), store=left.store) as table:
        agent = await table.runtime.resume_agent("agent-1")
        assert said(agent)[-1] == "result did a"


async def test_resume_agent_keeps_committed_transcript_when_tool_execution_was_interrupted() -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(ACT, ACT_TOO, LOOK))
    await left.call(ACT, result="did a")
    await left.call(ACT_TOO)
    async with bench(text("there"), store=left.store, tools=[act, look]) as table:
        agent = await table.runtime.resume_agent("agent-1")
        assert said(agent)[4:] == [
            "result did a",
            "result interrupted while it ran: it is not known whether it took effect",
            "result not executed: the process ended before it ran",
        ]
        assert [call.call_id for call in await agent.unknown_calls()] == ["call-2"]
        await agent.resume()
        assert said(agent)[4:] == [
            "result did a",
            "result interrupted while it ran: it may have taken effect, and was not run again: nobody could be asked",
            "result saw c",
            "assistant: there",
        ]
        assert ran == ["c"]
        assert await agent.unknown_calls() == []
        assert len(table.provider.recorded_requests) == 1


async def test_a_result_that_ended_the_turn_ends_it_even_if_the_process_died() -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(ACT, ACT_TOO, LOOK))
    await left.call(ACT, result="did a")
    await left.call(ACT_TOO, result="bye", ends_turn=True)
    async with bench(text("never"), store=left.store, tools=[act, look]) as table:
        agent = await table.runtime.resume_agent("agent-1")
        with pytest.raises(EmptyAssistantResponse):
            await agent.resume()
        assert said(agent)[4:] == ["result did a", "result bye", "result not executed: the turn was ended by 'act'"]
        assert (ran, table.provider.recorded_requests) == ([], [])
        assert [d.decided_by for d in table.recorder.of(e.ToolAuthorizationFinished)] == ["runtime"]
        assert [t.stop_reason for t in table.recorder.of(e.TurnFinished)] == ["interrupted", "ended_by_tool"]


async def test_a_turn_that_a_tool_ended_is_over_even_if_its_end_was_not_stored() -> None:
    left = Left(VolatileStore())
    results = Message.user([ToolResult(tool_use_id="call-1", content="bye")])
    await left.run(GO, calling(ACT), results)
    await left.call(ACT, result="bye", ends_turn=True)
    async with bench(text("never"), text("there"), store=left.store, tools=[act]) as table:
        agent = await table.runtime.resume_agent("agent-1")
        with pytest.raises(EmptyAssistantResponse):
            await agent.resume()
        assert said(agent) == ["user: go", "call act", "result bye"]
        assert table.provider.recorded_requests == []
        with pytest.raises(NoResumableTurn):
            await agent.resume()


async def test_text_that_was_streaming_after_a_paused_answer_is_kept() -> None:
    left = Left(VolatileStore())
    await left.run(GO)
    paused = Message.assistant([Text(text="One ")])
    await left.store.append_entries([left.transcript.append(paused, "run-1", "assistant_part")])
    await left.store.save_partial("run-1", "mom")
    async with bench(text("moment."), store=left.store) as table:
        agent = await table.runtime.resume_agent("agent-1")
        assert said(agent) == ["user: go", "assistant: One ", "assistant: mom"]
        await agent.resume()
        assert said(agent) == ["user: go", "assistant: One ", "assistant: moment."]


async def test_a_stored_result_that_may_be_missing_in_the_record_is_recorded() -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(ACT, ACT_TOO))
    await left.call(ACT, result="did a")
    await left.call(ACT_TOO, result="did b")
    async with bench(store=left.store) as table:
        await table.runtime.resume_agent("agent-1")
        [finished] = table.recorder.of(e.ToolExecutionFinished)  # the first was recorded before the second began
    assert (finished.tool_call_id, finished.output_preview, finished.is_error) == ("call-2", "did b", False)


async def test_the_end_of_a_dead_turn_is_recorded_again_if_the_process_that_settles_it_dies_too() -> None:
    class Dying(VolatileStore):
        async def finish_run(self, *args: Any, **kwargs: Any) -> None:
            raise StoreError("died")

    left = Left(Dying())
    await left.run(GO)
    async with bench(store=left.store) as table:
        for _ in range(2):
            with pytest.raises(StoreError):
                await table.runtime.resume_agent("agent-1")
        assert [x.stop_reason for x in table.recorder.of(e.TurnFinished)] == ["interrupted"] * 2


async def test_ids_of_calls_stay_unique_across_a_death() -> None:
    left = Left(VolatileStore())
    results = Message.user([ToolResult(tool_use_id="call-1", content="did a")])
    await left.run(GO, calling(ACT), results)
    await left.call(ACT, result="did a")
    again = ScriptedCall("act", {"what": "b"}, id="call-1")
    async with bench(
        tool_calls([again]), failure(HttpError(400)), text("there"), store=left.store, tools=[act]
    ) as table:
        agent = await table.runtime.resume_agent("agent-1")
        with pytest.raises(FailedToStreamResponse):
            await agent.resume()
        await agent.resume()
        assert [use.id for message in agent.history() for use in message.tool_uses()] == ["call-1", "call-1-2"]
        assert said(agent)[2:] == ["result did a", "call act", "result did b", "assistant: there"]


@pytest.mark.parametrize(("use", "effect"), [(LOOK, "none"), (KEEP, "idempotent")])
async def test_an_interrupted_call_that_is_safe_to_repeat_runs_again_without_a_question(
    use: ToolUse, effect: str
) -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(use))
    await left.call(use, effect=effect)
    async with bench(text("there"), store=left.store, tools=[look, keep]) as table:
        agent = await table.runtime.resume_agent("agent-1")
        await agent.resume()
    assert ran == [use.input["what"]]


async def test_a_rule_is_enough_for_an_interrupted_call_that_is_safe_to_repeat() -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(KEEP))
    await left.call(KEEP, effect="idempotent")
    async with bench(text("there"), store=left.store, tools=[keep]) as table:
        session = await died_in_session(left, table)
        await session.permissions.add_rule("keep", "*", allow=True)
        await session.resume_turn()
        assert table.recorder.of(e.QuestionAsked) == []
    assert ran == ["d"]


@pytest.mark.parametrize("known", ["to the turn that continued it", "to the first turn only"])
async def test_the_newest_turn_decides_what_is_known_of_an_interrupted_call(known: str) -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(ACT))
    newest_knows = known == "to the turn that continued it"
    await left.call(ACT, result=None if newest_knows else "did a, long ago")
    await left.go_on()
    await left.call(ACT, run_id="run-2", result="did a" if newest_knows else None)
    async with bench(text("there"), store=left.store, tools=[act]) as table:
        agent = await table.runtime.resume_agent("agent-1")
        unknown = [(call.run_id, call.call_id) for call in await agent.unknown_calls()]
        assert unknown == ([] if newest_knows else [("run-2", "call-1")])
        await agent.resume()
        skipped = "interrupted while it ran: it may have taken effect, and was not run again: nobody could be asked"
        assert said(agent)[2] == f"result {'did a' if newest_knows else skipped}"
    assert ran == []


@pytest.mark.parametrize(
    ("resolution", "result", "runs"),
    [
        ("run_again", "result did a", ["a"]),
        ("done", "result interrupted while it ran; the user says that it was carried out", []),
        ("skipped", "result interrupted while it ran: it may have taken effect, and was not run again", []),
    ],
)
async def test_a_person_resolves_an_unknown_call_before_the_turn_is_resumed(
    resolution: Any, result: str, runs: list[str]
) -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(ACT))
    await left.call(ACT)
    async with bench(text("there"), store=left.store, tools=[act]) as table:
        agent = await table.runtime.resume_agent("agent-1")
        await agent.resolve_unknown("call-1", resolution)
        with pytest.raises(OperationDenied):
            await agent.resolve_unknown("call-1", "run_again")
        await agent.resume()
        assert said(agent)[2:] == [result, "assistant: there"]
    assert ran == runs


async def test_an_authorizer_alone_cannot_allow_an_unknown_call_to_run_again() -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(ACT))
    await left.call(ACT)
    judge = Judge(ToolAuthorizationDecision.allow())
    async with bench(text("there"), store=left.store, tools=[act], authorizer=judge) as table:
        agent = await table.runtime.resume_agent("agent-1")
        await agent.resume()
    assert ([request.again for request in judge.asked], ran) == ([True], [])


def allowing(session: Session) -> Callable[[shown.SessionEvent], None]:
    """Return a subscriber that allows whatever the session asks."""

    def answer(event: shown.SessionEvent) -> None:
        if isinstance(event, shown.QuestionAsked):
            session.resolve_permission(event.request_id, PermissionDecision(allow=True))

    return answer


async def died_in_session(left: Left, table: Bench) -> Session:
    from mentra_nb.store.records import SessionRecord

    await left.store.save_session(
        SessionRecord(id="session-1", name="talk", agent_id="agent-1", model="scripted", created_at=NOW, updated_at=NOW)
    )
    return await table.runtime.resume_session("talk")


@pytest.mark.parametrize("allow", [True, False])
async def test_a_person_is_asked_before_an_unknown_call_runs_again_whatever_the_rules(allow: bool) -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(ACT))
    await left.call(ACT)
    async with bench(text("there"), store=left.store, tools=[act]) as table:
        session = await died_in_session(left, table)
        await session.permissions.add_rule("act", "*", allow=True)
        asked: list[shown.QuestionAsked] = []

        def answer(event: shown.SessionEvent) -> None:
            if isinstance(event, shown.QuestionAsked):
                asked.append(event)
                session.resolve_permission(event.request_id, PermissionDecision(allow=allow))

        session.subscribe(answer)
        await session.resume_turn()
        assert [event.description for event in asked] == [
            "it was interrupted while it ran and may have taken effect: run it again?"
        ]
        [call] = await left.store.list_tool_calls("run-1")
        assert call.resolution == ("run_again" if allow else "skipped")
    assert ran == (["a"] if allow else [])


async def test_a_person_is_asked_about_an_unknown_call_that_the_authorizer_allows() -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(ACT))
    await left.call(ACT)
    judge = Judge(ToolAuthorizationDecision.allow())
    async with bench(text("there"), store=left.store, tools=[act], authorizer=judge) as table:
        session = await died_in_session(left, table)
        session.subscribe(allowing(session))
        await session.resume_turn()
        assert [event.decided_by for event in table.recorder.of(e.QuestionAnswered)] == ["user"]
    assert (len(judge.asked), ran) == (1, ["a"])


async def test_a_denial_refuses_an_unknown_call_without_asking() -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(ACT))
    await left.call(ACT)
    async with bench(text("there"), store=left.store, tools=[act]) as table:
        session = await died_in_session(left, table)
        await session.permissions.add_rule("act", "*", allow=False)
        await session.resume_turn()
        [decision] = table.recorder.of(e.ToolAuthorizationFinished)
        assert decision.outcome == "deny"
        assert (decision.decided_by or "").startswith("rule")
        assert table.recorder.of(e.QuestionAsked) == []
    assert ran == []


@pytest.mark.parametrize("allow", [True, False])
async def test_an_answer_given_after_the_turn_died_counts(allow: bool) -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(ACT))
    async with bench(text("there"), store=left.store, tools=[act]) as table:
        session = await died_in_session(left, table)
        await left.store.open_question(_question())
        await session.answer("perm-1", PermissionDecision(allow=allow, reason="why not"))
        with pytest.raises(OperationDenied):
            await session.answer("perm-1", PermissionDecision(allow=allow))
        await session.resume_turn()
        [decision] = table.recorder.of(e.ToolAuthorizationFinished)
        assert (decision.decided_by, decision.request_id) == ("user", "perm-1")
        assert table.recorder.of(e.QuestionAsked) == []
    assert ran == (["a"] if allow else [])


async def test_an_answer_given_after_the_turn_died_is_remembered_and_recorded() -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(ACT))
    async with bench(text("there"), store=left.store, tools=[act]) as table:
        session = await died_in_session(left, table)
        await left.store.open_question(_question())
        await session.answer("perm-1", PermissionDecision(allow=True, remember="session", pattern="*"))
        [resolved] = table.recorder.of(e.QuestionAnswered)
        assert (resolved.request_id, resolved.outcome, resolved.rule_scope) == ("perm-1", "allowed", "session")
        assert [(rule.tool, rule.pattern) for rule in await session.remembered_rules()] == [("act", "*")]


async def test_an_answer_given_after_the_turn_died_is_refused_with_a_pattern_that_does_not_cover_the_call() -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(ACT))
    async with bench(text("there"), store=left.store, tools=[act]) as table:
        session = await died_in_session(left, table)
        await left.store.open_question(_question())
        with pytest.raises(OperationDenied, match="does not cover this call"):
            await session.answer("perm-1", PermissionDecision(allow=True, remember="session", pattern="other"))
        assert [question.request_id for question in await left.store.open_questions()] == ["perm-1"]
        assert await session.remembered_rules() == []


async def test_a_new_question_closes_the_one_of_the_turn_that_died() -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(ACT))
    async with bench(text("there"), store=left.store, tools=[act]) as table:
        session = await died_in_session(left, table)
        await left.store.open_question(_question())
        of_another_turn = _question(id="perm-2").model_copy(update={"run_id": "run-9"})
        await left.store.open_question(of_another_turn)
        session.subscribe(allowing(session))
        await session.resume_turn()
        with pytest.raises(OperationDenied):
            await session.answer("perm-1", PermissionDecision(allow=True))
        assert [question.request_id for question in await left.store.open_questions()] == ["perm-2"]
        assert [(r.request_id == "perm-1", r.decided_by) for r in table.recorder.of(e.QuestionAnswered)] == [
            (True, "cancelled"),
            (False, "user"),
        ]
    assert ran == ["a"]


async def test_an_open_question_about_a_call_that_a_rule_decides_now_is_closed() -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(ACT))
    async with bench(text("there"), store=left.store, tools=[act]) as table:
        session = await died_in_session(left, table)
        await left.store.open_question(_question())
        await session.permissions.add_rule("act", "*", allow=True)
        await session.resume_turn()
        assert await left.store.open_questions() == []
        assert [(r.request_id, r.decided_by) for r in table.recorder.of(e.QuestionAnswered)] == [
            ("perm-1", "cancelled")
        ]
    assert ran == ["a"]


async def test_an_answer_about_other_arguments_or_after_the_deadline_does_not_count() -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(ACT))
    async with bench(text("there"), store=left.store, tools=[act]) as table:
        session = await died_in_session(left, table)
        await left.store.open_question(_question(deadline=NOW - 1))
        with pytest.raises(OperationDenied):
            await session.answer("perm-1", PermissionDecision(allow=True))
        await left.store.open_question(_question(id="perm-2", bound_to="other"))
        await session.answer("perm-2", PermissionDecision(allow=True))
        session.permissions.can_ask = lambda: False
        await session.resume_turn()
    assert ran == []


def _question(id: str = "perm-1", deadline: float = NOW + 600, bound_to: str | None = None) -> Any:
    from mentra_nb.authorization import PermissionQuestion, ToolAuthorizationPreview, ToolAuthorizationRequest

    where = str(Path.cwd().resolve())
    preview = ToolAuthorizationPreview(working_directory=where, raw_input={}, structured_input=ACT.input)
    request = ToolAuthorizationRequest(
        agent_id="agent-1",
        agent_name="tester",
        tool_call_id="call-1",
        tool_name="act",
        preview=preview,
        arguments=ACT.input,
    )
    return PermissionQuestion(
        request_id=id,
        session_id="session-1",
        agent_id="agent-1",
        agent_name="tester",
        run_id="run-1",
        tool_call_id="call-1",
        tool_name="act",
        description="",
        subject="",
        arguments=ACT.input,
        preview=preview,
        arguments_hash=bound_to or effective_hash(request),
        asked_at=NOW,
        deadline=deadline,
    )


async def test_an_answer_no_longer_holds_after_its_deadline() -> None:
    left = Left(VolatileStore())
    await left.run(GO, calling(ACT))
    async with bench(text("there"), store=left.store, tools=[act]) as table:
        session = await died_in_session(left, table)
        await left.store.open_question(_question(deadline=time.time() + 0.5))
        await session.answer("perm-1", PermissionDecision(allow=True))
        session.permissions.can_ask = lambda: False
        answer = await left.store.answered_question("run-1", "call-1", _question().arguments_hash)
        assert answer is not None
        await anyio.sleep(max(0.0, answer.deadline - time.time()) + 0.01)
        await session.resume_turn()
        [decision] = table.recorder.of(e.ToolAuthorizationFinished)
        assert (str(decision.outcome), decision.decided_by) == ("deny", "headless")
    assert ran == []


# ---- leases ---------------------------------------------------------------------------------------------------


OTHER = LeaseHolder(runtime_id="runtime-other", host="elsewhere", pid=1, process_started=1.0)


async def test_lease_refused_and_the_other_owners_memory_untouched() -> None:
    left = Left(VolatileStore())
    await left.run(GO, partial="hal")
    await left.store.acquire_lease("agent:agent-1", OTHER, 60)
    async with bench(store=left.store) as table:
        with pytest.raises(LeaseUnavailable, match="process 1 on elsewhere"):
            await table.runtime.resume_agent("agent-1")
        assert [r.state for r in await left.store.list_runs("agent-1")] == ["running"]
        assert len(await left.store.list_leases()) == 1


async def test_an_agent_that_was_taken_over_writes_nothing_more() -> None:
    store = VolatileStore()
    async with bench(text("never"), store=store) as table:
        agent = await table.agent()
        [lease] = await store.list_leases()
        await store.release_lease(lease.key, lease.holder)
        await store.acquire_lease(lease.key, OTHER, 60)
        with pytest.raises(LeaseUnavailable):
            await agent.send("go")
        assert await store.list_runs(agent.id) == []


async def test_an_agent_taken_over_while_it_streams_saves_no_partial_text() -> None:
    store, stream = VolatileStore(), ControlledStream()
    async with bench(stream, store=store) as table:
        agent = await table.agent()

        async def turn() -> None:
            with pytest.raises(LeaseUnavailable, match="taken over by process 1 on elsewhere"):
                await agent.send("go")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(turn)
            await stream.wait_opened()
            [lease] = await store.list_leases()
            await store.release_lease(lease.key, lease.holder)
            await store.acquire_lease(lease.key, OTHER, 60)
            stream.send_answer(text("half a sentence"))
        assert [(run.state, run.partial) for run in await store.list_runs(agent.id)] == [("running", "")]


async def test_resuming_again_in_the_same_runtime_and_after_closing() -> None:
    async with bench(text("one"), text("two")) as table:
        agent = await table.agent()
        again = await table.runtime.resume_agent(agent.id)
        with pytest.raises(OperationDenied, match="resumed again"):
            await agent.send("go")
        await again.send("go")
        await again.close()
        with pytest.raises(OperationDenied, match="closed"):
            await again.send("go")
        assert await table.runtime.store.list_leases() == []
        third = await table.runtime.resume_agent(agent.id)
        assert (await third.send("and?")).text() == "two"


async def test_dropping_runtime_releases_agent_lease_for_next_resume(tmp_path: Path) -> None:
    async with bench(store=SqliteStore(tmp_path / "s.sqlite")) as table:
        agent = await table.agent()
    async with bench(store=SqliteStore(tmp_path / "s.sqlite")) as table:
        assert (await table.runtime.resume_agent(agent.id)).id == agent.id


async def test_a_resume_that_fails_half_way_releases_its_leases(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.sqlite")
    async with bench(store=store) as table:
        _, second = await table.agent(), await table.agent()
    await store.acquire_lease(f"agent:{second.id}", OTHER, 60)
    async with bench(store=store) as table:
        with pytest.raises(LeaseUnavailable):
            await table.runtime.resume_all()
        assert [lease.holder for lease in await store.list_leases()] == [OTHER]


async def test_leases_are_renewed_while_the_runtime_lives() -> None:
    import asyncio

    from mentra_nb.runtime.leases import Leases

    store = VolatileStore()
    renewed = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Watched(VolatileStore):
        async def renew_leases(self, *args: Any, **kwargs: Any) -> list[str]:
            lost = await super().renew_leases(*args, **kwargs)
            loop.call_soon_threadsafe(renewed.set)
            return lost

    store = Watched()
    leases = Leases(store, "runtime-1", ttl=0.3)
    await leases.take("agent-1")
    [before] = await store.list_leases()
    await asyncio.wait_for(renewed.wait(), 10)
    [after] = await store.list_leases()
    assert after.expires_at > before.expires_at
    await leases.close()
    assert await store.list_leases() == []


# ---- branches -------------------------------------------------------------------------------------------------


async def test_branching_rewinds_the_active_path_without_deleting_anything() -> None:
    async with bench(text("one"), text("two"), text("other")) as table:
        agent = await table.agent()
        await agent.send("first")
        fork = agent.leaf
        await agent.send("second")
        left = agent.leaf
        assert await agent.branch_from(fork) == 2
        assert said(agent) == ["user: first", "assistant: one"]
        await agent.send("instead")
        assert said(agent)[2:] == ["user: instead", "assistant: other"]
        assert [child.message.text() for child in await agent.children(fork)] == ["second", "instead"]
        assert await agent.branch_from(left) == 2
        assert said(agent)[2:] == ["user: second", "assistant: two"]
        assert await agent.branch_from(None) == 4
        assert said(agent) == []
        assert [child.message.text() for child in await agent.children(None)] == ["first"]
        assert [b.abandoned_entries for b in table.recorder.events if isinstance(b, e.Branched)] == []


async def test_an_abandoned_branch_can_be_returned_to(tmp_path: Path) -> None:
    async with bench(text("one"), text("two"), store=SqliteStore(tmp_path / "s")) as table:
        agent = await table.agent()
        await agent.send("first")
        leaf = agent.leaf
        await agent.branch_from(None)
        await agent.send("again")
    async with bench(store=SqliteStore(tmp_path / "s")) as table:
        again = await table.runtime.resume_agent(agent.id)
        assert said(again) == ["user: again", "assistant: two"]
        await again.branch_from(leaf)
        assert said(again) == ["user: first", "assistant: one"]


async def test_a_branch_from_an_unknown_entry_or_from_open_calls_is_refused() -> None:
    async with bench(tool_calls([("act", {})]), text("ok"), tools=[act]) as table:
        agent = await table.agent()
        await agent.send("go")
        with pytest.raises(UnknownEntry):
            await agent.branch_from("entry-0")
        calls: list[Entry] = [x for x in agent.transcript.tail if x.message.tool_uses()]
        with pytest.raises(OperationDenied):
            await agent.branch_from(calls[0].id)
        assert len(agent.history()) == 4

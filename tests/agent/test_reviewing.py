"""A reviewer's advice on a question: beside the person's answer, never instead of it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import anyio
import pytest
from kits.core import MODEL, Bench, bench

from mentra_nb.agent import reviewing
from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.limits import RunOptions
from mentra_nb.agent.reviewing import MAX_REASON, advice
from mentra_nb.authorization import PermissionDecision
from mentra_nb.content import TokenUsage
from mentra_nb.errors import HttpError, MentraError
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e
from mentra_nb.providers.scripted import ControlledStream, ScriptedAnswer, ScriptedProvider, text, tool_calls
from mentra_nb.record.write.journal import Journal
from mentra_nb.tools.function import tool
from mentra_nb.tools.tool import Delegate, ToolContext

pytestmark = pytest.mark.anyio

TEN = TokenUsage(input_tokens=7, output_tokens=3)
KEY = "sk-ant-api03-" + "Ab3dEf6h" * 11 + "AA"


@tool
def act(what: str = "") -> str:
    """Change something."""
    return f"did {what}"


@tool
async def ask_another(question: str, context: ToolContext) -> str:
    """Give a task to a subagent."""
    return await context.service(Delegate)(question)


async def asked(
    table: Bench, judge: ScriptedProvider, on: type[shown.SessionEvent], *, allow: bool = True
) -> list[shown.SessionEvent]:
    """Take a turn with one call whose question is answered on an event of this kind. Returns what the screen saw."""
    seen: list[shown.SessionEvent] = []
    session = await table.session()
    table.runtime.register_provider_instance(judge)

    def hear(event: shown.SessionEvent) -> None:
        seen.append(event)
        if isinstance(event, on):
            session.resolve_permission(event.request_id, PermissionDecision(allow=allow))  # type: ignore[attr-defined]

    session.subscribe(hear)
    table.provider.push(tool_calls([("act", {"what": f"curl -H 'x-api-key: {KEY}'"})], usage=TEN), text("ok"))
    with anyio.fail_after(10):
        await session.append_turn("go", RunOptions(reviewer="judge/one"))
    return seen


def reviewer(*answers: Any) -> ScriptedProvider:
    return ScriptedProvider(answers, id="judge", models=("one",))


async def test_the_advice_is_shown_and_recorded_before_the_answer_and_counts_in_the_turn() -> None:
    judge = reviewer(text("HIGH\nIt sends <b>data</b> elsewhere.", usage=TEN))
    async with bench(tools=[act]) as table:
        seen = await asked(table, judge, shown.QuestionAdvised)
        kinds = table.recorder.kinds()
        [said] = table.recorder.of(e.QuestionAdvised)
        assert (said.risk, said.reason) == ("high", "It sends <b>data</b> elsewhere.")
        assert kinds.index("permission_requested") < kinds.index("permission_advised")
        assert kinds.index("permission_advised") < kinds.index("permission_resolved")
        assert [each.risk for each in seen if isinstance(each, shown.QuestionAdvised)] == ["high"]
        assert table.recorder.of(e.TurnFinished)[0].usage.input_tokens == 14
        assert [each.provider for each in table.recorder.of(e.ModelRequestStarted)] == ["scripted", "judge", "scripted"]


async def test_the_reviewer_reads_no_secrets_and_gets_no_tools() -> None:
    judge = reviewer(text("low\nHarmless."))
    async with bench(tools=[act]) as table:
        await asked(table, judge, shown.QuestionAdvised)
    [request] = judge.recorded_requests
    assert KEY not in request.messages[0].text()
    assert "[redacted]" in request.messages[0].text()
    assert "curl" in request.messages[0].text()
    assert not request.tools


async def test_low_risk_allows_nothing() -> None:
    async with bench(tools=[act]) as table:
        await asked(table, reviewer(text("low\nAllow it.")), shown.QuestionAdvised, allow=False)
        [answer] = table.recorder.of(e.QuestionAnswered)
        assert (answer.outcome, answer.decided_by) == ("denied", "user")
        assert not table.recorder.of(e.ToolExecutionStarted)


async def test_an_answer_does_not_wait_for_the_advice_and_cancels_its_request() -> None:
    stream = ControlledStream()
    async with bench(tools=[act]) as table, anyio.create_task_group() as group:
        session = await table.session()
        table.runtime.register_provider_instance(reviewer(stream))

        async def answer(request_id: str) -> None:
            await stream.wait_opened()
            session.resolve_permission(request_id, PermissionDecision(allow=True))

        def hear(event: shown.SessionEvent) -> None:
            if isinstance(event, shown.QuestionAsked):
                group.start_soon(answer, event.request_id)

        session.subscribe(hear)
        table.provider.push(tool_calls([("act", {})]), text("ok"))
        with anyio.fail_after(10):
            await session.append_turn("go", RunOptions(reviewer="judge/one"))
        assert stream.closed
        assert not table.recorder.of(e.QuestionAdvised)
        assert table.recorder.of(e.QuestionAnswered)[0].outcome == "allowed"


async def test_a_reviewer_that_fails_leaves_the_question_open() -> None:
    judge = reviewer(ScriptedAnswer(error=HttpError(500, "broken")))
    async with bench(tools=[act]) as table:
        await asked(table, judge, shown.QuestionAdvised)
        [said] = table.recorder.of(e.QuestionAdvised)
        assert said.risk == "unknown"
        assert "broken" in said.reason
        assert table.recorder.of(e.QuestionAnswered)[0].outcome == "allowed"


async def test_a_reviewer_that_takes_too_long_is_closed_and_the_question_stays_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reviewing, "SECONDS", 0.05)
    stream = ControlledStream()
    async with bench(tools=[act]) as table:
        await asked(table, reviewer(stream), shown.QuestionAdvised)
        [said] = table.recorder.of(e.QuestionAdvised)
        assert (said.risk, said.reason) == ("unknown", "no advice within 0 s")
        assert stream.closed
        assert table.recorder.of(e.QuestionAnswered)[0].outcome == "allowed"
        assert table.recorder.of(e.ToolExecutionFinished)[0].is_error is False


async def test_what_the_setting_redact_matches_is_not_sent_to_the_reviewer(tmp_path: Path) -> None:
    judge = reviewer(text("low\nHarmless."))
    with contextlib.closing(Journal(tmp_path, redact=[r"x-api-\w+"])) as journal:
        async with bench(tools=[act], audit=journal) as table:
            await asked(table, judge, shown.QuestionAdvised)
    sent = judge.recorded_requests[0].messages[0].text()
    assert "x-api-" not in sent
    assert "curl -H" in sent


async def test_a_used_up_budget_sends_nothing_to_the_reviewer_and_the_question_still_comes() -> None:
    judge = reviewer(text("low\nHarmless."))
    async with bench(tools=[act]) as table:
        session = await table.session()
        table.runtime.register_provider_instance(judge)
        table.provider.push(tool_calls([("act", {})], usage=TEN), text("never"))

        def hear(event: shown.SessionEvent) -> None:
            if isinstance(event, shown.QuestionAdvised):
                session.resolve_permission(event.request_id, PermissionDecision(allow=True))

        session.subscribe(hear)
        with anyio.fail_after(10), contextlib.suppress(MentraError):
            await session.append_turn("go", RunOptions(reviewer="judge/one", model_budget=1))
        [said] = table.recorder.of(e.QuestionAdvised)
        assert said.risk == "unknown"
        assert said.reason == "no advice: model budget exceeded at 1"
        assert not judge.recorded_requests
        assert table.recorder.of(e.ToolExecutionFinished)[0].is_error is False


async def test_no_budget_is_exceeded_for_advice() -> None:
    judge = ScriptedProvider([text("low\nHarmless.")], id="judge", models=("one",))
    async with bench(tools=[act]) as table:
        session = await table.runtime.create_session("talk", MODEL, AgentConfig(max_output_tokens=100))
        table.runtime.register_provider_instance(judge)
        table.provider.push(tool_calls([("act", {})], usage=TEN), text("ok", usage=TEN))
        questions: list[str] = []

        def hear(event: shown.SessionEvent) -> None:
            if isinstance(event, shown.QuestionAsked):
                questions.append(event.tool_name)
            if isinstance(event, shown.QuestionAdvised):
                session.resolve_permission(event.request_id, PermissionDecision(allow=True))

        session.subscribe(hear)
        with anyio.fail_after(10):
            await session.append_turn("go", RunOptions(reviewer="judge/one", budgets={"turn": "1800 tokens"}))
        [said] = table.recorder.of(e.QuestionAdvised)
        assert (said.risk, questions) == ("unknown", ["act"])  # nobody is asked for more for the sake of advice
        assert "budget" in said.reason
        assert not judge.recorded_requests


async def test_the_call_of_a_subagent_is_reviewed_too() -> None:
    judge = reviewer(text("low\nDelegates."), text("high\nChanges something."))
    async with bench(tools=[act, ask_another]) as table:
        session = await table.session()
        table.runtime.register_provider_instance(judge)
        table.provider.push(
            tool_calls([("ask_another", {"question": "act"})]),
            tool_calls([("act", {"what": "inside"})]),
            text("inner"),
            text("outer"),
        )

        def hear(event: shown.SessionEvent) -> None:
            if isinstance(event, shown.QuestionAdvised):
                session.resolve_permission(event.request_id, PermissionDecision(allow=True))

        session.subscribe(hear)
        with anyio.fail_after(10):
            await session.append_turn("go", RunOptions(reviewer="judge/one"))
        said = table.recorder.of(e.QuestionAdvised)
        assert [(each.tool_name, each.risk) for each in said] == [("ask_another", "low"), ("act", "high")]
        assert said[0].run_id != said[1].run_id
        assert "inside" in judge.recorded_requests[1].messages[0].text()


async def test_nobody_is_asked_for_advice_where_nobody_can_be_asked() -> None:
    judge = reviewer(text("low\nFine."))
    async with bench(tools=[act]) as table:
        session = await table.session()
        session.permissions.can_ask = lambda: False
        table.runtime.register_provider_instance(judge)
        table.provider.push(tool_calls([("act", {})]), text("ok"))
        await session.append_turn("go", RunOptions(reviewer="judge/one"))
    assert not judge.recorded_requests


@pytest.mark.parametrize(
    ("said", "risk", "reason"),
    [
        ("low\nReads only.", "low", "Reads only."),
        ("**Risk: Medium** - writes", "medium", "writes"),
        ("High", "high", "no reason given"),
        ("It is fine, allow it.", "unknown", "the reviewer's answer states no risk"),
        ("highly safe", "unknown", "the reviewer's answer states no risk"),
        ("", "unknown", "the reviewer's answer states no risk"),
    ],
)
def test_what_an_answer_states(said: str, risk: str, reason: str) -> None:
    assert advice(said) == (risk, reason)


def test_a_reason_is_bounded_and_has_no_secret() -> None:
    _, reason = advice(f"high\nkey {KEY} " + "x" * 10_000)
    assert len(reason) == MAX_REASON
    assert KEY not in reason

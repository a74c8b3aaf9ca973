"""The budgets of turns: what is reserved, what is asked at the limit, and what ends with it."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest
from kits.core import Bench, bench, of
from kits.core import heard as heard_by
from kits.stores import holder

from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.amounts import Period, Unit
from mentra_nb.authorization import PermissionDecision
from mentra_nb.budget.meter import Meter
from mentra_nb.content import TokenUsage
from mentra_nb.errors import (
    BudgetSpent,
    Cancelled,
    ConfigurationError,
    EmptyAssistantResponse,
    FailedToStreamResponse,
    HttpError,
    MalformedStream,
    OperationDenied,
    ToolBudgetExceeded,
    Unreachable,
)
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e
from mentra_nb.forms import Form
from mentra_nb.providers.base import ModelInfo
from mentra_nb.providers.scripted import ControlledStream, ScriptedProvider, erroring, failure, text, tool_calls
from mentra_nb.runtime.session import Session
from mentra_nb.store.records import BudgetCount
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.function import tool
from mentra_nb.tools.tool import Delegate, ToolContext

pytestmark = pytest.mark.anyio

GPT = ModelInfo(id="gpt-5", provider="openai")
TEN = TokenUsage(input_tokens=7, output_tokens=3)
CONFIG = AgentConfig(max_output_tokens=500)
USED = 40_000 - 1_250  # 7 tokens at 1.25 and 3 at 10 US dollars a million, in billionths of a dollar


@tool
def act() -> str:
    """Do it."""
    return "done"


@tool
async def ask_another(question: str, context: ToolContext) -> str:
    """Give a task to a subagent."""
    return await context.service(Delegate)(question)


def options(**budgets: str) -> RunOptions:
    return RunOptions(budgets=budgets, retry_base=0.001)  # type: ignore[arg-type]


async def priced(table: Bench, *answers: Any) -> tuple[Session, ScriptedProvider]:
    """A session on a model with a price, which answers from a script."""
    provider = ScriptedProvider(answers, id="openai")
    table.runtime.register_provider_instance(provider)
    session = await table.runtime.create_session("talk", GPT, CONFIG, "project-1")
    session.permissions.can_ask = lambda: False
    return session, provider


async def counted(table: Bench, unit: Unit = "tokens", period: Period = "day", key: str | None = None) -> BudgetCount:
    return await table.runtime.store.count_budget(period, key or time.strftime("%Y-%m-%d"), unit)


def answer(session: Session, *given: PermissionDecision) -> list[Any]:
    """Let a person be asked, and answer the questions in this order. Returns the questions."""
    asked: list[Any] = []
    answers = iter(given)

    def hear(event: shown.SessionEvent) -> None:
        if isinstance(event, shown.QuestionAsked):
            [question] = session.permissions.open_questions()
            asked.append(question)
            session.resolve_permission(event.request_id, next(answers))

    session.subscribe(hear)
    session.permissions.can_ask = lambda: True
    return asked


async def test_a_turn_counts_against_each_period_in_each_unit() -> None:
    both = "1usd, 100k tokens, 9 tools, 5min"
    async with bench(tools=[act]) as table:
        session, _ = await priced(table, tool_calls([("act", {})], usage=TEN), text("done", usage=TEN))
        await session.append_turn("go", options(turn=both, session=both, day=both, project=both, month=both))
        [turn] = [each.run_id for each in table.recorder.of(e.TurnFinished)]
        keys: dict[Period, str] = {
            "turn": str(turn),
            "session": session.id,
            "day": time.strftime("%Y-%m-%d"),
            "project": "project-1",
            "month": time.strftime("%Y-%m"),
        }
        for period, key in keys.items():
            assert await counted(table, "usd", period, key) == BudgetCount(spent=2 * USED)
            assert await counted(table, "tokens", period, key) == BudgetCount(spent=20)
            assert await counted(table, "calls", period, key) == BudgetCount(spent=1)
            minutes = await counted(table, "minutes", period, key)
            assert (minutes.reserved, 3 <= minutes.spent < 60_000) == (0, True)


async def test_without_budgets_nothing_is_counted_and_no_meter_is_made() -> None:
    async with bench(text("done", usage=TEN)) as table:
        agent, plain = await table.agent(), RunOptions()
        await agent.run("go", plain)
        assert plain.spent._meter is None
        assert await counted(table) == BudgetCount()


async def test_a_request_that_does_not_fit_is_not_sent_and_the_turn_ends_with_the_reason() -> None:
    async with bench() as table:
        session, provider = await priced(table, text("never"))
        limits = options(day="0.001usd")
        with pytest.raises(EmptyAssistantResponse, match=r"budget of today, 0\.001 usd, has 0\.001 usd left, and the"):
            await session.append_turn("go", limits)
        assert provider.recorded_requests == []
        assert limits.ended_early == "budget"
        [finished] = table.recorder.of(e.TurnFinished)
        assert (finished.stop_reason, finished.success) == ("budget", True)
        assert table.recorder.of(e.ModelRequestStarted) == []
        assert table.recorder.of(e.QuestionAsked) == []
        assert [message.text() for message in session.history()] == ["go"]


async def test_what_was_done_before_the_limit_is_kept() -> None:
    much = TokenUsage(input_tokens=3_000, output_tokens=3)
    async with bench(tool_calls([("act", {})], usage=much), text("never"), tools=[act]) as table:
        agent = await table.agent(CONFIG)
        with pytest.raises(EmptyAssistantResponse):
            await agent.run("go", options(turn="4k"))
        assert len(table.provider.recorded_requests) == 1
        assert [result.display() for result in agent.history()[-1].tool_results()] == ["done"]
        assert (await table.runtime.store.list_runs(agent.id))[0].state == "finished"


async def test_a_person_goes_on_with_more() -> None:
    more = PermissionDecision(allow=True, values={"more": "0.5"})
    async with bench() as table:
        session, provider = await priced(table, text("done", usage=TEN))
        asked = answer(session, more)
        await session.append_turn("go", options(day="0.001usd"))
        assert len(provider.recorded_requests) == 1
        [question] = asked
        assert question.form.message.startswith("The budget of today, 0.001 usd, has 0.001 usd left, and the next")
        [field] = question.form.fields
        assert field.default >= field.least > 0.001
        assert (question.form.yes, question.form.no, question.tool_name) == ("Go on", "Stop here", "budget")
        assert await counted(table, "usd") == BudgetCount(spent=USED, extra=500_000_000)
        [answered] = table.recorder.of(e.QuestionAnswered)
        assert (answered.outcome, answered.decided_by) == ("allowed", "user")


async def test_an_answer_of_less_than_is_needed_leaves_the_question_open() -> None:
    async with bench() as table:
        session, _ = await priced(table, text("done", usage=TEN))
        refused: list[str] = []

        def hear(event: shown.SessionEvent) -> None:
            if isinstance(event, shown.QuestionAsked):
                for more in ("0.0001", "nan", "1e300", "1e400", ""):
                    with pytest.raises(OperationDenied) as error:
                        session.resolve_permission(
                            event.request_id, PermissionDecision(allow=True, values={"more": more})
                        )
                    refused.append(str(error.value))
                session.resolve_permission(event.request_id, PermissionDecision(allow=False))

        session.subscribe(hear)
        session.permissions.can_ask = lambda: True
        with pytest.raises(EmptyAssistantResponse):
            await session.append_turn("go", options(day="0.001usd"))
        assert refused[0].startswith("'More, in usd' must be at least 0.00")
        assert refused[2:] == [
            "'More, in usd' must be at most 1e+06",
            "'More, in usd' must be a number",
            "'More, in usd' is needed: fill it in on the card, or type more=…",
        ]


async def test_a_person_who_declines_is_asked_once_and_the_turn_ends() -> None:
    async with bench() as table:
        session, provider = await priced(table, text("never"))
        asked = answer(session, PermissionDecision(allow=False))
        with pytest.raises(EmptyAssistantResponse, match="budget of this turn"):
            await session.append_turn("go", options(turn="0.001usd"))
        assert (len(asked), provider.recorded_requests) == (1, [])


async def test_calls_that_do_not_fit_are_refused_together_and_none_runs() -> None:
    ran: list[int] = []

    @tool
    def note(number: int) -> str:
        """Note a number."""
        ran.append(number)
        return "noted"

    async with bench(tool_calls([("note", {"number": n}) for n in range(3)]), text("never"), tools=[note]) as table:
        agent, limits = await table.agent(CONFIG), options(turn="2 tools")
        with pytest.raises(EmptyAssistantResponse, match=r"has 2 tool calls left, and the model asks for 3 tool calls"):
            await agent.run("go", limits)
        assert ran == []
        results = agent.history()[-1].tool_results()
        assert [result.is_error for result in results] == [True] * 3
        assert "not executed: the budget of this turn" in results[0].display()
        assert limits.ended_early == "budget"


async def test_a_person_may_let_the_calls_run() -> None:
    async with bench(tool_calls([("act", {})]), text("done"), tools=[act]) as table:
        session = await table.session()
        asked = answer(session, PermissionDecision(allow=True, values={"more": 2}), PermissionDecision(allow=True))
        await session.append_turn("go", options(session="0 tools"))
        assert [question.tool_name for question in asked] == ["budget", "act"]
        assert await counted(table, "calls", "session", session.id) == BudgetCount(spent=1, extra=2)


async def test_minutes_that_are_used_up_end_the_turn_before_the_next_request() -> None:
    async with bench(tool_calls([("act", {})]), text("never"), tools=[act]) as table:
        agent = await table.agent(CONFIG)
        with pytest.raises(EmptyAssistantResponse, match="active minutes, has 0 active minutes left"):
            await agent.run("go", options(turn=".00004min"))
        assert len(table.provider.recorded_requests) == 1


async def test_the_time_in_which_a_person_is_waited_for_does_not_count() -> None:
    async with bench(tool_calls([("act", {})]), text("done"), tools=[act]) as table:
        session = await table.session()

        async def later(request_id: str) -> None:
            await anyio.sleep(0.5)
            session.resolve_permission(request_id, PermissionDecision(allow=True))

        async with anyio.create_task_group() as group:

            def hear(event: shown.SessionEvent) -> None:
                if isinstance(event, shown.QuestionAsked):
                    group.start_soon(later, event.request_id)

            session.subscribe(hear)
            await session.append_turn("go", options(session="5min"))
        assert (await counted(table, "minutes", "session", session.id)).spent < 400


async def test_subagents_use_the_budgets_of_the_turn_they_work_for() -> None:
    script = (
        tool_calls([("ask_another", {"question": "sub"})], usage=TEN),
        text("answer", usage=TEN),
        text("done", usage=TEN),
    )
    async with bench(*script, tools=[ask_another]) as table:
        agent = await table.agent(CONFIG)
        await agent.run("go", options(turn="100k tokens", day="100k tokens, 5 tools, 5min"))
        [turn] = [each.run_id for each in table.recorder.of(e.TurnFinished) if each.agent_id == agent.id]
        assert await counted(table) == await counted(table, "tokens", "turn", turn) == BudgetCount(spent=30)
        assert await counted(table, "calls") == BudgetCount(spent=1)


async def test_a_subagent_that_reaches_a_limit_ends_the_turn_too() -> None:
    script = tool_calls([("ask_another", {"question": "x" * 5_000})], usage=TEN), text("never"), text("never")
    async with bench(*script, tools=[ask_another]) as table:
        agent = await table.agent(CONFIG)
        with pytest.raises(EmptyAssistantResponse, match="budget of this turn"):
            await agent.run("go", options(turn="5k tokens"))
        assert len(table.provider.recorded_requests) == 1


@pytest.mark.parametrize("budget", ["1usd", "1usd, 20k"])
async def test_a_model_without_a_price_is_refused_before_anything_is_sent(budget: str) -> None:
    async with bench() as table:
        lab = ScriptedProvider([text("never")], id="lab")
        table.runtime.register_provider_instance(lab)
        agent = await table.runtime.spawn("a", ModelInfo(id="m", provider="lab"), CONFIG)
        with pytest.raises(ConfigurationError, match="lab/m has no known price, so a budget in money cannot limit it"):
            await agent.run("go", options(month=budget))
        assert lab.recorded_requests == []
        assert await table.runtime.store.list_runs(agent.id) == []


async def test_a_budget_that_is_not_an_amount_is_refused_before_anything_is_sent() -> None:
    async with bench(text("never")) as table:
        agent = await table.agent(CONFIG)
        with pytest.raises(ConfigurationError, match="'much' is not an amount"):
            await agent.run("go", options(turn="much"))
        assert table.provider.recorded_requests == []


async def test_an_answer_that_broke_off_counts_as_the_most_and_a_refusal_as_nothing() -> None:
    broken = erroring(text("half").events[:3], MalformedStream("odd"))
    for first, is_charged in (
        (failure(HttpError(400)), False),
        (failure(MalformedStream("odd")), True),
        (failure(HttpError(504, should_retry=False)), True),
        (broken, True),
    ):
        async with bench() as table:
            session, _ = await priced(table, first)
            with pytest.raises(FailedToStreamResponse):
                await session.append_turn("go", options(day="1usd, 100k"))
            count = await counted(table)
            assert count.reserved == 0
            assert (count.spent > 1_000) is is_charged
            assert ((await counted(table, "usd")).spent > USED * 100) is is_charged


async def test_each_attempt_is_reserved_and_settled_by_itself() -> None:
    async with bench() as table:
        away = failure(Unreachable("example.org:443", "no route"))
        session, provider = await priced(table, away, failure(HttpError(503)), text("done", usage=TEN))
        await session.append_turn("go", options(day="100k"))
        assert len(provider.recorded_requests) == 3
        assert await counted(table) == BudgetCount(spent=10)


async def test_an_answer_without_usage_counts_as_the_most() -> None:
    async with bench() as table:
        session, _ = await priced(table, text("done"))
        await session.append_turn("go", options(day="100k"))
        assert (await counted(table)).spent > 1_500


async def test_a_turn_that_is_stopped_settles_its_request_at_the_most() -> None:
    stream, token = ControlledStream(), CancellationToken()
    async with bench() as table:
        session, _ = await priced(table, stream)
        limits = RunOptions(budgets={"day": "100k"}, cancellation=token)
        async with anyio.create_task_group() as group:

            async def stop() -> None:
                await stream.wait_opened()
                assert (await counted(table)).reserved > 1_500
                token.cancel()

            group.start_soon(stop)
            with pytest.raises(Cancelled):
                await session.append_turn("go", limits)
        count = await counted(table)
        assert (count.reserved, count.spent > 1_500) == (0, True)


async def test_a_request_is_reserved_by_the_count_of_its_beginning_once_that_is_known() -> None:
    async with bench() as table:
        words = "x" * 30_000
        session, provider = await priced(table, text("one", usage=TEN), text("two", usage=TEN))
        await session.append_turn(words, options(turn="40k"))
        await session.append_turn("again", options(turn="2k"))
        assert len(provider.recorded_requests) == 2
        with pytest.raises(EmptyAssistantResponse, match="budget of this turn"):  # what is new counts at its length
            await session.append_turn("y" * 3_000, options(turn="3k"))
        with session.speaking_as("z" * 3_000), pytest.raises(EmptyAssistantResponse, match="budget of this turn"):
            await session.append_turn("again", options(turn="6k"))
        other = ModelInfo(id="gpt-5-mini", provider="openai")
        session.use_model(other)
        with pytest.raises(EmptyAssistantResponse, match="budget of this turn"):
            await session.append_turn("again", options(turn="2k"))


async def test_requests_of_one_turn_wait_for_each_other_where_only_they_are_in_the_way() -> None:
    script = [tool_calls([("ask_beside", {"question": f"q{n}"}) for n in range(4)], usage=TEN)]

    @tool(reads_only=True, parallel=True)
    async def ask_beside(question: str, context: ToolContext) -> str:
        """Give a task to a subagent."""
        return await context.service(Delegate)(question)

    answers = [text("a", usage=TEN) for _ in range(4)]
    async with bench(*script, *answers, text("done", usage=TEN), tools=[ask_beside]) as table:
        agent = await table.agent(CONFIG)
        events = heard_by(agent)
        await agent.run("go", options(turn="6k"))
        assert len(table.provider.recorded_requests) == 6
        assert of(events, e.QuestionAsked) == []


async def test_a_meter_that_has_ended_refuses_all_that_comes_later_and_asks_no_more() -> None:
    asked: list[str] = []

    async def decline(form: Form) -> None:
        asked.append(form.message)

    keys: dict[Period, str] = {"turn": "t", "session": "s", "project": "p"}
    meter = Meter(VolatileStore(), holder(), {"turn": "10"}, keys, decline)
    for amount in (11, 11, 1):
        with pytest.raises(BudgetSpent, match="10 tokens left"):
            await meter.reserve({"tokens": amount})
    assert len(asked) == 1


async def test_of_several_that_reach_a_limit_together_one_asks_for_all() -> None:
    asked: list[str] = []

    async def go_on(form: Form) -> dict[str, Any]:
        asked.append(form.message)
        await anyio.sleep(0)
        return {"more": 1_000}

    keys: dict[Period, str] = {"turn": "t", "session": "s", "project": "p"}
    meter = Meter(VolatileStore(), holder(), {"turn": "10"}, keys, go_on)

    async def use() -> None:
        await (await meter.reserve({"tokens": 20})).settle({"tokens": 20})

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(use)
    assert len(asked) == 1


async def test_a_resumed_turn_whose_open_calls_do_not_fit_can_be_resumed_again() -> None:
    async with bench(tool_calls([("act", {})]), text("done"), tools=[act]) as table:
        agent = await table.agent(CONFIG)
        with pytest.raises(ToolBudgetExceeded):
            await agent.run("go", RunOptions(tool_budget=0))
        with pytest.raises(BudgetSpent, match=r"the model asks for 1 tool call$"):
            await agent.resume(options(turn="0 tools"))
        assert (await agent.resume()).text() == "done"

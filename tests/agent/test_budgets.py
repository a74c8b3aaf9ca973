"""The limits of a turn: hard ones, soft ones that let a round finish first, and what subagents share."""

from __future__ import annotations

from contextlib import suppress

import pytest
from kits.core import Bench, bench, heard, of

from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.content import TokenUsage
from mentra_nb.errors import (
    Cancelled,
    ConfigurationError,
    EmptyAssistantResponse,
    MaxRoundsExceeded,
    MentraError,
    ModelBudgetExceeded,
)
from mentra_nb.event import types as e
from mentra_nb.providers.base import ModelInfo
from mentra_nb.providers.scripted import ControlledStream, ScriptedProvider, text, tool_calls
from mentra_nb.tools.function import tool
from mentra_nb.tools.tool import Delegate, ToolContext

pytestmark = pytest.mark.anyio

TEN = TokenUsage(input_tokens=7, output_tokens=3, cache_read_input_tokens=1000)


@tool
def act() -> str:
    """Do it."""
    return "done"


@tool
async def ask_another(question: str, context: ToolContext) -> str:
    """Give a task to a subagent."""
    return await context.service(Delegate)(question)


async def turn(table: Bench, options: RunOptions) -> list[e.AgentEvent]:
    agent = await table.agent()
    events = heard(agent)
    with suppress(EmptyAssistantResponse):
        await agent.run("go", options)
    return events


async def test_token_budget_stops_gracefully_after_the_round_that_crosses_it() -> None:
    script = tool_calls([("act", {})], usage=TEN), text("never")
    async with bench(*script, tools=[act]) as table:
        agent, options = await table.agent(), RunOptions(token_budget=10)
        events = heard(agent)
        with pytest.raises(EmptyAssistantResponse):
            await agent.run("go", options)
        assert len(agent.history()) == 3
        assert len(table.provider.recorded_requests) == 1
    assert (options.ended_early, options.spent.tokens) == ("token_budget", 10)
    assert [x.stop_reason for x in of(events, e.TurnFinished)] == ["budget"]


async def test_a_budget_that_is_not_exceeded_does_not_end_the_turn() -> None:
    async with bench(tool_calls([("act", {})], usage=TEN), text("ok", usage=TEN), tools=[act]) as table:
        options = RunOptions(token_budget=11)
        await turn(table, options)
        assert len(table.provider.recorded_requests) == 2
    assert options.ended_early is None  # the last round exceeded it, but the model was done


async def test_absent_token_budget_ignores_reported_usage() -> None:
    async with bench(tool_calls([("act", {})], usage=TEN), text("ok"), tools=[act]) as table:
        options = RunOptions()
        await turn(table, options)
    assert (options.ended_early, options.spent.tokens) == (None, 10)


async def test_a_cost_budget_ends_the_turn_after_the_round_that_exceeds_it() -> None:
    usage = TokenUsage(input_tokens=1_000_000, output_tokens=10)
    provider = ScriptedProvider([tool_calls([("act", {})], usage=usage), text("never")], id="openai")
    async with bench(tools=[act]) as table:
        table.runtime.register_provider_instance(provider)
        agent = await table.runtime.spawn("rich", ModelInfo(id="gpt-4o", provider="openai"))
        options = RunOptions(cost_budget=0.01)
        with pytest.raises(EmptyAssistantResponse):
            await agent.run("go", options)
    assert options.ended_early == "cost_budget"
    assert options.spent.cost > 0.01


async def test_a_cost_budget_on_a_model_without_a_price_is_refused_before_anything_is_sent() -> None:
    async with bench() as table:
        lab = ScriptedProvider([text("never")], id="lab")
        table.runtime.register_provider_instance(lab)
        agent = await table.runtime.spawn("a", ModelInfo(id="m", provider="lab"))
        with pytest.raises(ConfigurationError, match="lab/m has no known price"):
            await agent.run("go", RunOptions(cost_budget=1.0))
        assert lab.recorded_requests == []
        assert await table.runtime.store.list_runs(agent.id) == []


async def test_run_options_stop_after_tool_round_commits_transcript_and_halts() -> None:
    stop = CancellationToken()

    @tool
    def enough() -> str:
        """Stop."""
        stop.cancel()
        return "done"

    async with bench(tool_calls([("enough", {})]), text("never"), tools=[enough]) as table:
        agent, options = await table.agent(), RunOptions(stop=stop)
        with pytest.raises(EmptyAssistantResponse):
            await agent.run("go", options)
        assert len(agent.history()) == 3
        [finished] = table.recorder.of(e.TurnFinished)
    assert (finished.stop_reason, finished.success) == ("stopped", True)
    assert options.ended_early == "stop_requested"


async def test_a_stop_and_a_crossed_budget_together_report_the_stop() -> None:
    stop = CancellationToken()

    @tool
    def enough() -> str:
        """Stop."""
        stop.cancel()
        return "done"

    async with bench(tool_calls([("enough", {})], usage=TEN), tools=[enough]) as table:
        options = RunOptions(stop=stop, token_budget=1)
        await turn(table, options)
    assert options.ended_early == "stop_requested"


async def test_a_turn_that_runs_to_completion_reports_nothing() -> None:
    async with bench(text("a", usage=TEN), text("b")) as table:
        options = RunOptions(token_budget=10, stop=CancellationToken())
        await turn(table, options)
        assert options.ended_early is None
        await turn(table, options)  # the same options count from zero
        assert (options.ended_early, options.spent.tokens) == (None, 0)


# ---- shared with delegated runs -------------------------------------------------------------------------------


async def test_parallel_tool_context_can_spawn_subagents_from_public_api() -> None:
    script = tool_calls([("ask_another", {"question": "well?"})]), text("inner"), text("outer")
    async with bench(*script, tools=[ask_another]) as table:
        agent = await table.agent()
        events = heard(agent)
        assert (await agent.send("go")).text() == "outer"
        [_, child, last] = table.provider.recorded_requests
        assert [m.text() for m in child.messages] == ["well?"]
        assert last.messages[-1].tool_results()[0].content == "inner"
        [spawned], [finished] = of(events, e.SubagentSpawned), of(events, e.SubagentFinished)
        assert (spawned.subagent_id, finished.error, spawned.name) == (finished.subagent_id, None, "tester::task")
        assert [a.id for a in await table.runtime.resume_all()] == [agent.id]
        assert [s.id for s in await table.runtime.list_persisted_agents()] == [agent.id]


async def test_delegated_subagent_usage_counts_against_the_parent_token_budget() -> None:
    script = tool_calls([("ask_another", {"question": "?"})]), text("inner", usage=TEN), text("never")
    async with bench(*script, tools=[ask_another]) as table:
        options = RunOptions(token_budget=10)
        events = await turn(table, options)
    assert (options.ended_early, options.spent.tokens) == ("token_budget", 10)
    assert [u.input_tokens for u in of(events, e.UsageReport)] == [7]


async def test_a_child_shares_the_budgets_of_requests_and_tools() -> None:
    script = tool_calls([("ask_another", {"question": "?"})]), text("inner"), text("never")
    async with bench(*script, tools=[ask_another]) as table:
        agent = await table.agent()
        with pytest.raises(ModelBudgetExceeded):
            await agent.run("go", RunOptions(model_budget=2))
        assert len(table.provider.recorded_requests) == 2


async def test_delegating_with_the_budget_already_spent_fails_the_delegation() -> None:
    script = tool_calls([("ask_another", {"question": "?"})], usage=TEN), text("never")
    async with bench(*script, tools=[ask_another]) as table:
        agent = await table.agent()
        events = heard(agent)
        with pytest.raises(EmptyAssistantResponse):
            await agent.run("go", RunOptions(token_budget=10))
        assert agent.history()[-1].tool_results()[0].is_error
    assert [f.error for f in of(events, e.SubagentFinished)] == ["run completed without a final assistant message"]


async def test_parent_cancellation_reaches_the_delegated_subagent() -> None:
    token, silent = CancellationToken(), ControlledStream()
    async with bench(tool_calls([("ask_another", {"question": "?"})]), silent, tools=[ask_another]) as table:
        agent = await table.agent()
        events = heard(agent)
        table.runtime.hooks.with_hook(StopAtSecondRequest(token))
        with pytest.raises(Cancelled):
            await agent.run("go", RunOptions(cancellation=token))
        assert silent.closed
    assert [f.error for f in of(events, e.SubagentFinished)] == ["it was stopped"]


class StopAtSecondRequest:
    def __init__(self, token: CancellationToken) -> None:
        self.token, self.seen = token, 0

    def on_event(self, store: object, event: e.RuntimeEvent) -> None:
        self.seen += isinstance(event, e.ModelRequestStarted)
        if self.seen == 2:
            self.token.cancel()


async def test_a_child_that_hits_its_round_limit_is_an_error_result() -> None:
    script = [tool_calls([("ask_another", {"question": "?"})])]
    script += [tool_calls([("act", {})]) for _ in range(30)]
    async with bench(*script, text("outer"), tools=[ask_another, act]) as table:
        agent = await table.agent()
        await agent.send("go")
        [result] = agent.history()[2].tool_results()
        assert (result.content, result.is_error) == ("max rounds exceeded at 30", True)
        assert len(table.provider.recorded_requests) == 32


def test_the_rounds_and_the_early_end_of_a_child_are_separate() -> None:
    parent = RunOptions(token_budget=5, max_rounds=2, deadline=1.0)
    child = parent.child(max_rounds=30)
    assert (child.max_rounds, child.token_budget, child.deadline) == (30, 5, 1.0)
    assert child.spent is parent.spent
    assert issubclass(MaxRoundsExceeded, MentraError)

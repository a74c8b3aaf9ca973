"""Strategies: when a turn asks one, what it receives, and what its decisions do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from kits.core import MODEL, Bench, bench

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.agent.strategy import (
    Adjustment,
    Continue,
    Decision,
    Inject,
    RoundContext,
    RoundStrategy,
    Stop,
    ToolSummary,
)
from mentra_nb.content import TokenUsage
from mentra_nb.errors import (
    ConfigurationError,
    EmptyAssistantResponse,
    MaxRoundsExceeded,
    ProviderNotFound,
    TransportError,
)
from mentra_nb.event import types as e
from mentra_nb.providers.base import ModelInfo
from mentra_nb.providers.scripted import ControlledStream, ScriptedAnswer, ScriptedProvider, failure, text, tool_calls
from mentra_nb.tools.function import tool
from mentra_nb.tools.tool import Delegate, ToolContext, ToolOutput

pytestmark = pytest.mark.anyio

OTHER = ModelInfo(id="m2", provider="other")
TEN = TokenUsage(input_tokens=7, output_tokens=3)


@tool
def act() -> str:
    """Do it."""
    return "done"


@dataclass
class Says:
    """A strategy that returns these decisions one after the other, and then none."""

    decisions: Iterable[Decision | None] = ()
    asked: list[RoundContext] = field(default_factory=list)

    async def __call__(self, context: RoundContext) -> Decision | None:
        self.asked.append(context)
        return dict(enumerate(self.decisions, 1)).get(len(self.asked))


def says(*decisions: Decision | None) -> Says:
    return Says(decisions)


def options(strategy: RoundStrategy, **rest: Any) -> RunOptions:
    return RunOptions(round_strategy=strategy, retry_base=0, **rest)


def sent(table: Bench, request: int) -> list[str]:
    return [m.text() for m in table.provider.recorded_requests[request].messages if m.text()]


def two_rounds() -> tuple[ScriptedAnswer, ScriptedAnswer]:
    return tool_calls([("act", {})]), text("ok")


# ---- where it is asked, and what it is given ------------------------------------------------------------------


async def test_a_strategy_is_asked_after_the_results_of_tools_and_after_an_answer() -> None:
    strategy = says()
    async with bench(tool_calls([("act", {}), ("nothing", {})]), text("ok"), tools=[act]) as table:
        agent = await table.agent()
        await agent.run("go", options(strategy))
        after_tools, after_answer = strategy.asked
        assert (after_tools.message, after_answer.message) == (agent.history()[2], agent.history()[3])
    assert [c.boundary for c in strategy.asked] == ["tool_results_committed", "assistant_message_committed"]
    assert after_tools.tools == (ToolSummary("tool-1", "act", False), ToolSummary("tool-2", "nothing", True))
    assert after_answer.tools == ()


async def test_retry_and_round_counters_are_reported_distinctly() -> None:
    strategy = says()
    script = failure(TransportError("lost")), tool_calls([("act", {})]), failure(TransportError("lost")), text("ok")
    async with bench(*script, tools=[act]) as table:
        await (await table.agent()).run("go", options(strategy))
    counts = [(c.rounds_completed, c.model_requests, c.transport_retries) for c in strategy.asked]
    assert counts == [(1, 2, 1), (2, 4, 2)]


async def test_none_strategy_matches_continue_strategy_byte_identical() -> None:
    async def always(context: RoundContext) -> Decision:
        return Continue()

    seen = []
    for strategy in (None, always):
        async with bench(tool_calls([("act", {})], usage=TEN), text("ok", usage=TEN), tools=[act]) as table:
            agent, run = await table.agent(), RunOptions(round_strategy=strategy, token_budget=20)
            await agent.run("go", run)
            entries = [(entry.kind, entry.message.model_dump_json()) for entry in agent.transcript.tail]
            requests = [repr(request) for request in table.provider.recorded_requests]
            seen.append((entries, requests, table.recorder.kinds(), run.ended_early))
    assert seen[0] == seen[1]


async def test_strategy_state_does_not_outlive_run() -> None:
    strategy = says(None, Inject("more"), Stop())
    async with bench(*two_rounds(), text("better"), text("next"), tools=[act]) as table:
        agent = await table.agent()
        await agent.run("go", options(strategy))
        again = RunOptions()
        await agent.run("again", again)
        assert (len(strategy.asked), again.ended_early) == (3, None)
        assert sent(table, 3) == ["go", "ok", "more", "better", "again"]


async def test_a_strategy_is_not_asked_after_a_tool_ended_the_turn() -> None:
    bye = tool(name="bye")(lambda: ToolOutput("bye", terminate=True))
    strategy = says(Inject("more"))
    async with bench(tool_calls([("bye", {})]), tools=[bye]) as table:
        with pytest.raises(EmptyAssistantResponse):
            await (await table.agent()).run("go", options(strategy))
    assert strategy.asked == []


async def test_a_strategy_is_not_asked_after_a_hard_limit() -> None:
    strategy = says(Inject("more"), Inject("more"))
    async with bench(*two_rounds(), tools=[act]) as table:
        agent = await table.agent()
        with pytest.raises(MaxRoundsExceeded):
            await agent.run("go", options(strategy, max_rounds=1))
        table.provider.push(text("ok"))
        assert (await agent.run("go", options(strategy, max_rounds=1))).text() == "ok"
    assert strategy.asked == []


async def test_a_strategy_is_not_asked_after_a_soft_limit() -> None:
    strategy, stop = says(Inject("more")), CancellationToken()
    async with bench(tool_calls([("act", {})], usage=TEN), text("ok", usage=TEN), tools=[act]) as table:
        agent, spent = await table.agent(), options(strategy, token_budget=10, stop=stop)
        with pytest.raises(EmptyAssistantResponse):
            await agent.run("go", spent)
        assert spent.ended_early == "token_budget"
        assert (await agent.run("go", spent)).text() == "ok"
        assert spent.ended_early is None  # the model was done
    assert strategy.asked == []


async def test_a_strategy_is_not_asked_at_a_boundary_where_a_steer_is_waiting() -> None:
    agents: list[Agent] = []
    steered = tool(name="act")(lambda: agents[0].steering.steer("shorter"))
    strategy = says()
    async with bench(*two_rounds(), tools=[steered]) as table:
        agents.append(await table.agent())
        await agents[0].run("go", options(strategy))
        assert sent(table, 1) == ["go", "shorter"]
    assert [c.boundary for c in strategy.asked] == ["assistant_message_committed"]


async def test_a_follow_up_keeps_a_strategy_from_being_asked_after_an_answer_only() -> None:
    strategy = says()
    async with bench(*two_rounds(), text("more"), tools=[act]) as table:
        agent = await table.agent()
        agent.steering.follow_up("and?")
        await agent.run("go", options(strategy))
        assert sent(table, 2) == ["go", "ok", "and?"]
    boundaries = [(c.boundary, c.rounds_completed) for c in strategy.asked]
    assert boundaries == [("tool_results_committed", 1), ("assistant_message_committed", 3)]


async def test_subagents_have_no_strategy() -> None:
    @tool
    async def ask_another(context: ToolContext) -> str:
        """Give a task to a subagent."""
        return await context.service(Delegate)("well?")

    strategy = says()
    script = tool_calls([("ask_another", {})]), tool_calls([("act", {})]), text("inner"), text("outer")
    async with bench(*script, tools=[act, ask_another]) as table:
        await (await table.agent()).run("go", options(strategy))
    assert [c.message.text() for c in strategy.asked] == ["", "outer"]
    assert [(c.rounds_completed, c.model_requests) for c in strategy.asked] == [(1, 1), (2, 2)]


async def test_a_strategy_is_asked_about_a_round_that_resume_finished() -> None:
    strategy = says(Inject("well?"))
    async with bench(*two_rounds(), tools=[act]) as table:
        agent = await table.agent()
        with pytest.raises(Exception, match="tool budget"):
            await agent.run("go", RunOptions(tool_budget=0))
        await agent.resume(options(strategy))
        assert sent(table, 1) == ["go", "well?"]


async def test_an_exception_of_a_strategy_fails_the_turn() -> None:
    async def breaks(context: RoundContext) -> Decision:
        raise ValueError("no idea")

    async with bench(*two_rounds(), tools=[act]) as table:
        agent = await table.agent()
        with pytest.raises(ValueError, match="no idea"):
            await agent.run("go", options(breaks))
        assert (agent.status, agent.history()) == ("Failed", [])
        assert (await agent.resume()).text() == "ok"


async def test_whatever_a_strategy_raises_fails_the_turn_only() -> None:
    async def breaks(context: RoundContext) -> Decision:
        raise KeyboardInterrupt

    async with bench(*two_rounds(), tools=[act]) as table:
        agent = await table.agent()
        with pytest.raises(RuntimeError, match="KeyboardInterrupt"):
            await agent.run("go", options(breaks))
        assert (await agent.resume()).text() == "ok"


# ---- what comes of what it says -------------------------------------------------------------------------------


async def test_an_injected_message_is_the_users_and_another_round_follows() -> None:
    strategy = says(Inject("quickly"), Inject("are you sure?"))
    async with bench(*two_rounds(), text("yes"), tools=[act]) as table:
        agent = await table.agent()
        assert (await agent.run("go", options(strategy))).text() == "yes"
        assert [sent(table, n) for n in (1, 2)] == [["go", "quickly"], ["go", "quickly", "ok", "are you sure?"]]
        assert [x.kind for x in agent.transcript.tail if x.message.text() in ("quickly", "are you sure?")] == [
            "user_turn",
            "user_turn",
        ]
    assert len(strategy.asked) == 3


async def test_nothing_is_injected_when_no_request_is_left_in_the_budget() -> None:
    stop = CancellationToken()

    async def inject_too_late(context: RoundContext) -> Decision:
        stop.cancel()
        return Inject("never heard")

    async with bench(text("ok"), text("never")) as table:
        agent, run = await table.agent(), options(inject_too_late, stop=stop)
        assert (await agent.run("go", run)).text() == "ok"
        assert (len(agent.history()), run.ended_early) == (2, "stop_requested")


async def test_a_stop_after_tools_ends_the_turn_as_a_graceful_stop_does() -> None:
    run = options(says(Stop()))
    async with bench(*two_rounds(), tools=[act]) as table:
        agent = await table.agent()
        with pytest.raises(EmptyAssistantResponse):
            await agent.run("go", run)
        assert (len(agent.history()), table.provider.remaining) == (3, 1)
        assert [(t.stop_reason, t.success) for t in table.recorder.of(e.TurnFinished)] == [("stopped", True)]
    assert run.ended_early == "stop_requested"


async def test_a_stop_after_an_answer_changes_nothing() -> None:
    run = options(says(None, Stop()))
    async with bench(*two_rounds(), tools=[act]) as table:
        assert (await (await table.agent()).run("go", run)).text() == "ok"
    assert run.ended_early is None


@pytest.mark.parametrize("decision", [Continue, lambda adjust: Inject("more", adjust)])
async def test_a_changed_model_is_used_from_the_next_request_on_and_stored(decision: Any) -> None:
    other = ScriptedProvider([text("two"), text("three")], id="other")
    async with bench(tool_calls([("act", {})]), tools=[act]) as table:
        table.runtime.register_provider_instance(other)
        agent = await table.agent()
        await agent.run("go", options(says(decision(adjust=Adjustment(model=OTHER)))))
        assert [r.model for r in other.recorded_requests] == ["m2"]
        asked = [(r.provider, r.model) for r in table.recorder.of(e.ModelRequestStarted)]
        assert asked == [("scripted", "scripted"), ("other", "m2")]
        assert (await (await table.runtime.resume_agent(agent.id)).send("again")).text() == "three"


async def test_reasoning_is_set_cleared_and_stored() -> None:
    strategy = says(
        Continue(Adjustment(reasoning_effort="high")),
        Continue(Adjustment()),
        Continue(Adjustment(reasoning_effort=None)),
    )
    script = [tool_calls([("act", {})]) for _ in range(3)]
    async with bench(*script, text("ok"), text("ok"), tools=[act]) as table:
        agent = await table.agent(AgentConfig(reasoning_effort="low"))
        await agent.run("go", options(strategy))
        await (await table.runtime.resume_agent(agent.id)).send("again")
        efforts = [r.reasoning_effort for r in table.provider.recorded_requests]
    assert efforts == ["low", "high", "high", None, None]


async def test_a_model_of_an_unknown_provider_fails_the_turn_and_changes_nothing() -> None:
    async with bench(*two_rounds(), tools=[act]) as table:
        agent = await table.agent()
        with pytest.raises(ProviderNotFound):
            await agent.run("go", options(says(Continue(Adjustment(model=OTHER)))))
        stored = await table.runtime.store.load_agent(agent.id)
        assert stored is not None
        assert (agent.model, stored.model, stored.provider_id) == (MODEL.id, MODEL.id, MODEL.provider)


async def test_a_cost_budget_refuses_a_model_without_a_price_during_a_turn_too() -> None:
    rich = ScriptedProvider([tool_calls([("act", {})])], id="openai")
    unknown, model = ScriptedProvider([text("never")], id="lab"), ModelInfo(id="m", provider="lab")
    async with bench(tools=[act]) as table:
        table.runtime.register_provider_instance(rich)
        table.runtime.register_provider_instance(unknown)
        agent = await table.runtime.spawn("rich", ModelInfo(id="gpt-4o", provider="openai"))
        with pytest.raises(ConfigurationError, match="no known price"):
            await agent.run("go", options(says(Continue(Adjustment(model=model))), cost_budget=1.0))
        assert unknown.recorded_requests == []


# ---- the setters it goes through, called by a program ---------------------------------------------------------


async def test_a_setter_during_a_request_applies_to_the_next_one_and_not_to_retries() -> None:
    agents: list[Agent] = []
    other, stream = ScriptedProvider([text("two")], id="other"), ControlledStream()

    @tool
    def who(context: ToolContext) -> str:
        """Say who asked."""
        return context.model

    async with bench(stream, failure(TransportError("lost")), tool_calls([("who", {})]), tools=[who]) as table:
        table.runtime.register_provider_instance(other)
        agents.append(await table.agent())

        def move(event: e.AgentEvent) -> None:
            if isinstance(event, e.RetryAttempt):
                agents[0].use_model(OTHER, other)

        agents[0].environment.bus.tap(move)
        stream.fail(TransportError("lost"))
        await agents[0].run("go", RunOptions(retry_base=0))
        asked = [(r.provider, r.model, r.attempt) for r in table.recorder.of(e.ModelRequestStarted)]
        assert asked == [("scripted", "scripted", n) for n in (1, 2, 3)] + [("other", "m2", 1)]
        assert agents[0].history()[2].tool_results()[0].content == "scripted"

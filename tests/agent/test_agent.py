"""A turn: from a prompt to the final message, and every other way it can end."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskGroup
from kits.core import bench, heard, of

from mentra_nb.agent import loop
from mentra_nb.agent.agent import Agent
from mentra_nb.agent.answer import MAX_ANSWER, PER_BLOCK, PendingMessage, parse_arguments
from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.agent.retrying import retry_delay
from mentra_nb.content import Message, Role, Text, Thinking, TokenUsage, ToolResult
from mentra_nb.errors import (
    Cancelled,
    DeadlineExceeded,
    EmptyAssistantResponse,
    FailedToStreamResponse,
    HttpError,
    InvalidRequest,
    MalformedStream,
    MaxRoundsExceeded,
    MentraError,
    ModelBudgetExceeded,
    OperationDenied,
    ProviderError,
    RetryableError,
    StoreError,
    StreamTruncated,
    TransportError,
    Unreachable,
)
from mentra_nb.event import types as e
from mentra_nb.notebook.ended import why
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers import base as p
from mentra_nb.providers import scripted
from mentra_nb.providers.scripted import (
    ControlledStream,
    ScriptedAnswer,
    ScriptedProvider,
    erroring,
    failure,
    message,
    raw,
    stream_text,
    text,
    text_block,
    tool_calls,
)
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.function import FunctionTool, tool
from mentra_nb.tools.tool import Delegate, ToolContext, ToolOutput

pytestmark = pytest.mark.anyio

AT_ONCE = 3.0
"""Seconds. Generous: what is stopped here would otherwise take ten or sixty."""
HALF = [p.MessageStarted("m", "scripted"), p.ContentBlockStarted(0, "text"), p.ContentBlockDelta(0, "half")]


@tool
def act() -> str:
    """Do it."""
    return "done"


def said(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(str(m.role), m.text()) for m in messages]


# ---- turns that end well --------------------------------------------------------------------------------------


async def test_send_streamed_text_turn_emits_events_and_commits_history() -> None:
    async with bench(stream_text(["Hel", "lo"])) as table:
        agent = await table.agent()
        events = heard(agent)
        final = await agent.send("hi")
    assert final.text() == "Hello"
    assert said(agent.history()) == [("user", "hi"), ("assistant", "Hello")]
    assert isinstance(events[0], e.TurnStarted)
    assert isinstance(events[-1], e.TurnFinished)
    assert [d.delta for d in of(events, e.TextDelta)] == ["Hel", "lo"]
    assert (events[-1].text, events[-1].stop_reason) == ("Hello", "end")
    assert of(events, e.AssistantMessageCommitted)[0].message == final
    snapshot = agent.snapshot()
    assert (snapshot.status, snapshot.history_len, snapshot.run_generation) == ("Finished", 2, 1)


async def test_snapshot_progresses_during_streaming() -> None:
    stream = ControlledStream()
    async with bench(stream, tools=[act]) as table:
        agent = await table.agent()
        seen = [agent.snapshot()]
        agent.environment.bus.tap(lambda event: seen.append(agent.snapshot()))
        stream.send_answer(tool_calls([("act", {})], text="Let me."))
        table.provider.push(stream_text(["He", "llo"]))
        await agent.send("hi")
        seen.append(agent.snapshot())
    texts = [snapshot.current_text for snapshot in seen]
    assert [text for text, before in zip(texts[1:], texts, strict=False) if text != before] == [
        "Let me.",
        "",
        "He",
        "Hello",
        "",
    ]
    order = [snapshot.status for snapshot in seen]
    assert list(dict.fromkeys(order)) == ["Idle", "AwaitingModel", "Streaming", "ExecutingTool", "Finished"]
    assert {tuple(use.name for use in snapshot.pending_tool_uses) for snapshot in seen} == {(), ("act",)}
    assert seen[-1].pending_tool_uses == ()


class Next:
    """A home that starts another turn when one has ended."""

    def __init__(self, group: TaskGroup) -> None:
        self.group = group

    def turn_began(self) -> None:
        return

    def turn_ended(self, agent: Agent) -> None:
        self.group.start_soon(agent.send, "two")

    async def closed(self, agent: Agent) -> None:
        raise AssertionError("nobody closes it")


async def test_wait_handle_targets_the_generation_active_when_the_future_is_created() -> None:
    first, second = ControlledStream(), ControlledStream()
    async with bench(first, second) as table, anyio.create_task_group() as group:
        agent, returned = await table.agent(), anyio.Event()
        await agent.wait_until_idle()  # returns at once: no turn is running

        async def wait() -> None:
            await agent.wait_until_idle()
            returned.set()

        group.start_soon(agent.send, "one")
        await first.wait_opened()
        group.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert not returned.is_set()
        agent.home = Next(group)
        first.send_answer(text("1"))
        await second.wait_opened()
        with anyio.fail_after(10):
            await returned.wait()
        assert agent.is_running
        agent.home = None
        second.send_answer(text("2"))


async def test_send_returns_final_message_after_tool_execution() -> None:
    async with bench(tool_calls([("act", {})], text="Let me."), text("There."), tools=[act]) as table:
        agent = await table.agent()
        events = heard(agent)
        assert (await agent.send("go")).text() == "There."
    assert len(table.provider.recorded_requests) == 2
    assert [m.role for m in agent.history()] == [Role.USER, Role.ASSISTANT, Role.USER, Role.ASSISTANT]
    assert agent.history()[2].tool_results() == [ToolResult(tool_use_id="tool-1", content="done")]
    order = [type(x).__name__ for x in events if "Tool" in type(x).__name__ or "Committed" in type(x).__name__]
    assert order == [
        "ToolUseUpdated",
        "ToolUseReady",
        "AssistantMessageCommitted",
        "ToolCallStarted",
        "ToolAuthorizationFinished",
        "ToolExecutionStarted",
        "ToolExecutionFinished",
        "AssistantMessageCommitted",
    ]


async def test_options_of_the_answer_reach_the_provider_and_survive_storage() -> None:
    config = AgentConfig(
        response_format=p.ResponseFormat("answer", {"type": "object"}, strict=False),
        parallel_tool_calls=False,
        tool_search=True,
        prompt_cache_key="k",
    )
    async with bench(text("{}")) as table:
        agent = await table.agent(AgentConfig.model_validate_json(config.model_dump_json()))
        await agent.send("hi")
    [request] = table.provider.recorded_requests
    assert request.response_format == p.ResponseFormat("answer", {"type": "object"}, strict=False)
    assert (request.parallel_tool_calls, request.tool_search, request.prompt_cache_key) == (False, True, "k")


async def test_each_request_carries_the_whole_conversation_and_the_tools_by_name() -> None:
    config = AgentConfig(system="Be brief.", temperature=0.5, metadata={"k": "v"})
    other = tool(name="aaa")(lambda: "a")
    async with bench(text("one"), text("two"), tools=[act, other]) as table:
        agent = await table.agent(config)
        await agent.send("first")
        await agent.send("second")
    request = table.provider.recorded_requests[1]
    assert said(request.messages) == [("user", "first"), ("assistant", "one"), ("user", "second")]
    assert [t.name for t in request.tools] == ["aaa", "act"]
    assert (request.system, request.temperature, request.max_output_tokens) == ("Be brief.", 0.5, 8192)
    assert request.metadata == {"k": "v"}


@pytest.mark.parametrize(
    ("config", "offered"),
    [
        (AgentConfig(), {"act", "aaa"}),
        (AgentConfig(tools=("act",)), {"act"}),
        (AgentConfig(hidden_tools=("act",)), {"aaa"}),
        (AgentConfig(tools=("act",), hidden_tools=("act",)), set()),
    ],
)
async def test_tool_profile_respects_allowlist_and_hidden_overrides(config: AgentConfig, offered: set[str]) -> None:
    async with bench(text("ok"), tools=[act, tool(name="aaa")(lambda: "a")]) as table:
        await (await table.agent(config)).send("hi")
    assert {t.name for t in table.provider.recorded_requests[0].tools} == offered


async def test_agents_with_equal_settings_share_them() -> None:
    async with bench() as table:
        first, second, other = [
            await table.agent(AgentConfig(system=system, metadata={"k": "v"}))
            for system in ("Be \ud800.", "Be \ud800.", "")
        ]
    assert first.config is second.config
    assert (first.config.system, other.config.system) == ("Be \ud800.", "")


@pytest.mark.parametrize("stored", [{}, {"system": "s"}, {"context_compaction": {}, "team": {}}])
def test_agent_config_deserializes_without_tool_profile_field(stored: dict[str, Any]) -> None:
    config = AgentConfig.model_validate(stored)
    assert config == AgentConfig(system=stored.get("system"))
    assert (config.tools, config.hidden_tools, config.tool_search, config.reasoning_effort) == (None, (), False, None)


def test_tool_spec_deserialization_defaults_loading_policy() -> None:
    assert p.ProviderToolSpec.model_validate({"name": "x"}) == p.ProviderToolSpec(name="x", deferred=False)


def deferred(name: str) -> FunctionTool:
    made = tool(name=name)(lambda: "done")
    made.spec = made.spec.model_copy(update={"wire": made.spec.wire.model_copy(update={"deferred": True})})
    return made


async def test_hidden_tool_profile_tool_choice_falls_back_to_auto() -> None:
    config = AgentConfig(tool_choice=p.ToolChoice("tool", "act"))
    async with bench(text("a"), text("b"), tools=[act, deferred("aaa")]) as table:
        await (await table.agent(config.model_copy(update={"hidden_tools": ("act",)}))).send("hi")
        await (await table.agent(config)).send("hi")
    assert [r.tool_choice for r in table.provider.recorded_requests] == [p.ToolChoice(), p.ToolChoice("tool", "act")]


async def test_hidden_tool_profile_filters_deferred_tools_before_provider_request() -> None:
    config = AgentConfig(tool_search=True, hidden_tools=("secret",))
    async with bench(text("ok"), tools=[deferred("secret"), deferred("found"), act]) as table:
        await (await table.agent(config)).send("hi")
    assert [(t.name, t.deferred) for t in table.provider.recorded_requests[0].tools] == [
        ("act", False),
        ("found", True),
    ]


async def test_deferred_tool_choice_reaches_provider_request_unchanged() -> None:
    choice = p.ToolChoice("tool", "found")
    async with bench(text("ok"), tools=[deferred("found")]) as table:
        await (await table.agent(AgentConfig(tool_search=True, tool_choice=choice))).send("hi")
    assert table.provider.recorded_requests[0].tool_choice == choice


async def test_set_reasoning_updates_the_configured_reasoning_for_future_turns() -> None:
    async with bench(text("one"), text("two"), text("three")) as table:
        agent = await table.agent(AgentConfig(reasoning_effort="low"))
        await agent.send("hi")
        await agent.set_reasoning("high")
        await agent.send("hi")
        await (await table.runtime.resume_agent(agent.id)).send("hi")
    assert [r.reasoning_effort for r in table.provider.recorded_requests] == ["low", "high", "high"]


async def test_usage_is_summed_over_the_requests_of_a_turn() -> None:
    first, second = TokenUsage(input_tokens=10, output_tokens=2), TokenUsage(input_tokens=20, output_tokens=3)
    async with bench(tool_calls([("act", {})], usage=first), text("ok", usage=second), tools=[act]) as table:
        agent = await table.agent()
        events = heard(agent)
        await agent.send("go")
    assert of(events, e.TurnFinished)[0].usage == TokenUsage(input_tokens=30, output_tokens=5)
    assert [(r.input_tokens, r.cache_read_tokens) for r in of(events, e.UsageReport)] == [(10, 0), (20, 0)]


async def test_the_model_can_be_changed_between_turns() -> None:
    async with bench(text("one")) as table:
        other = ScriptedProvider([text("two")], id="other", models=["m2"])
        table.runtime.register_provider_instance(other)
        agent = await table.agent()
        await agent.send("hi")
        agent.use_model(p.ModelInfo(id="m2", provider="other"), other)
        assert (await agent.send("again")).text() == "two"
    assert other.recorded_requests[0].model == "m2"


async def test_reasoning_is_kept_and_reported_apart_from_the_text() -> None:
    events: list[p.ProviderEvent] = [
        p.MessageStarted("m", "scripted"),
        p.ContentBlockStarted(0, "thinking"),
        p.ContentBlockDelta(0, "hmm"),
        p.ContentBlockStopped(0, signature="sig"),
        *text_block(1, ["yes"]),
        p.MessageDelta(stop_reason="end"),
        p.MessageStopped(),
    ]
    async with bench(raw(events)) as table:
        agent = await table.agent()
        told = heard(agent)
        final = await agent.send("hi")
    thinking, answer = final.content
    assert answer == Text(text="yes")
    assert isinstance(thinking, Thinking)
    assert (thinking.text, thinking.signature, thinking.provider) == ("hmm", "sig", "scripted")
    assert [d.delta for d in of(told, e.ReasoningDelta)] == ["hmm"]


# ---- nothing final --------------------------------------------------------------------------------------------


async def test_an_empty_answer_is_an_error_and_the_prompt_is_not_its_text() -> None:
    async with bench(stream_text([])) as table:
        agent = await table.agent()
        events = heard(agent)
        with pytest.raises(EmptyAssistantResponse):
            await agent.send("hi")
    assert said(agent.history()) == [("user", "hi")]
    (finished,) = of(events, e.TurnFinished)
    assert finished.text == ""
    assert finished.error == "run completed without a final assistant message"  # so that the record says it as well


async def test_what_the_server_says_about_an_empty_answer_is_in_the_error() -> None:
    blocked = p.MessageDelta("content_filter", detail="SAFETY: not this")
    answer = raw([p.MessageStarted(id="m", model="scripted"), blocked, p.MessageStopped()])
    async with bench(answer, stream_text([])) as table:
        agent = await table.agent()
        with pytest.raises(EmptyAssistantResponse, match=r"final assistant message: SAFETY: not this$") as caught:
            await agent.send("hi")
        with pytest.raises(EmptyAssistantResponse, match=r"final assistant message$"):
            await agent.send("hi")
    shown = why("content_filter", caught.value)
    assert shown is not None
    assert shown[0] == "the answer is empty: ended by the provider's content filter (SAFETY: not this)"


async def test_empty_assistant_response_preserves_committed_tool_results() -> None:
    bye = tool(name="bye")(lambda: ToolOutput("bye", terminate=True))
    async with bench(tool_calls([("bye", {})]), tools=[bye]) as table:
        agent = await table.agent()
        events = heard(agent)
        with pytest.raises(EmptyAssistantResponse):
            await agent.send("go")
        [run] = await table.runtime.store.list_runs(agent.id)
    assert len(agent.history()) == 3
    assert len(table.provider.recorded_requests) == 1
    assert run.state == "finished"
    assert of(events, e.TurnFinished)[0].stop_reason == "ended_by_tool"


# ---- failures -------------------------------------------------------------------------------------------------


async def test_send_failure_rolls_history_back_and_emits_run_failed() -> None:
    async with bench(text("one"), erroring(HALF, MalformedStream("boom"))) as table:
        agent = await table.agent()
        await agent.send("first")
        before = agent.history()
        events = heard(agent)
        with pytest.raises(FailedToStreamResponse, match="scripted/scripted failed: malformed provider stream"):
            await agent.send("second")
        assert agent.history() == before
        assert isinstance(events[-1], e.TurnFinished)
        assert (events[-1].error_type, events[-1].recoverable) == ("FailedToStreamResponse", False)
        again = await table.runtime.resume_agent(agent.id)
        assert again.history() == before
        assert [run.state for run in await table.runtime.store.list_runs(agent.id)] == ["finished", "failed"]


async def test_after_a_failure_the_agent_takes_turns_again() -> None:
    async with bench(failure(InvalidRequest("no")), text("fine")) as table:
        agent = await table.agent()
        with pytest.raises(FailedToStreamResponse):
            await agent.send("hi")
        assert (await agent.send("hi")).text() == "fine"
    assert len(agent.history()) == 2


@pytest.mark.parametrize(
    "events",
    [
        [*HALF, p.ContentBlockStopped(0)],
        [*HALF, p.MessageStopped()],
        [p.ContentBlockDelta(0, "x")],
        [p.ContentBlockStopped(3)],
        [*HALF, p.ContentBlockStarted(0, "text")],
    ],
)
async def test_a_malformed_stream_fails_the_turn(events: list[p.ProviderEvent]) -> None:
    async with bench(raw(events)) as table:
        agent = await table.agent()
        with pytest.raises(FailedToStreamResponse) as error:
            await agent.send("hi")
    assert isinstance(error.value.__cause__, MalformedStream)
    assert agent.history() == []


class Foreign(ScriptedProvider):
    """A provider with a bug."""

    @asynccontextmanager
    async def stream(self, request: p.Request) -> AsyncIterator[AsyncIterator[p.ProviderEvent]]:
        raise ZeroDivisionError("a bug")
        yield  # type: ignore[unreachable]


async def test_a_bug_of_a_provider_fails_the_turn_and_closes_its_request_in_the_record() -> None:
    async with bench() as table:
        table.runtime.register_provider_instance(Foreign())
        agent = await table.agent()
        with pytest.raises(ZeroDivisionError):
            await agent.send("hi")
        kinds = table.recorder.kinds()
    assert agent.history() == []
    assert kinds[-4:] == ["model_request_started", "model_request_finished", "run_aborted", "turn_finished"]


@pytest.mark.parametrize("how", ["stopped", "failed"])
async def test_a_store_that_fails_at_the_end_of_a_turn_hides_neither_its_error_nor_later_turns(
    how: str, tmp_path: Path
) -> None:
    class Full(SqliteStore):
        full = True

        async def finish_run(self, run_id: str, state: Any, **rest: Any) -> None:
            if self.full:
                raise StoreError("the disk is full")
            await super().finish_run(run_id, state, **rest)

    file = tmp_path / "state.sqlite"
    store, token, stream = Full(file), CancellationToken(), ControlledStream()
    stream.send(*HALF)
    first = stream if how == "stopped" else failure(InvalidRequest("no"))
    async with bench(first, text("two"), store=store) as table:
        agent = await table.agent()
        agent.environment.bus.tap(lambda event: token.cancel() if isinstance(event, e.TextDelta) else None)
        with pytest.raises(Cancelled if how == "stopped" else FailedToStreamResponse):
            await agent.run("one", RunOptions(cancellation=token))
        assert table.recorder.kinds()[-2:] == ["run_aborted", "turn_finished"]
        store.full = False
        await agent.send("later")
    async with bench(store=SqliteStore(file)) as table:
        again = await table.runtime.resume_agent(agent.id)
        assert said(again.history()) == [("user", "later"), ("assistant", "two")]
        runs = await table.runtime.store.list_runs(agent.id)
        assert [run.state for run in runs] == ["interrupted", "finished"]
        assert again.status == "Finished"


# ---- retries --------------------------------------------------------------------------------------------------


async def test_send_retries_transient_provider_error_before_streaming() -> None:
    async with bench(failure(HttpError(503)), text("recovered")) as table:
        agent = await table.agent()
        events = heard(agent)
        assert (await agent.send("hi")).text() == "recovered"
    assert len(table.provider.recorded_requests) == 2
    [retry] = of(events, e.RetryAttempt)
    assert (retry.attempt, retry.max_attempts) == (1, 5)
    assert retry.next_delay_ms <= 500


async def test_an_answer_that_broke_before_anything_was_shown_is_retried() -> None:
    async with bench(erroring(HALF[:2], TransportError("reset")), text("ok")) as table:
        assert (await (await table.agent()).send("hi")).text() == "ok"


async def test_an_answer_that_broke_after_something_was_shown_is_not_retried() -> None:
    async with bench(erroring(HALF, TransportError("reset")), text("never")) as table:
        agent = await table.agent()
        events = heard(agent)
        with pytest.raises(FailedToStreamResponse):
            await agent.send("hi")
    assert table.provider.remaining == 1
    assert of(events, e.TurnFinished)[0].recoverable


async def test_an_answer_cut_off_after_something_was_shown_is_final() -> None:
    async with bench(erroring(HALF, StreamTruncated()), text("never")) as table:
        agent = await table.agent()
        events = heard(agent)
        with pytest.raises(FailedToStreamResponse):
            await agent.send("hi")
    assert table.provider.remaining == 1
    assert not of(events, e.TurnFinished)[0].recoverable


async def test_a_retry_budget_of_zero_fails_at_once() -> None:
    async with bench(failure(HttpError(503)), text("never")) as table:
        agent = await table.agent()
        with pytest.raises(FailedToStreamResponse):
            await agent.run("hi", RunOptions(retry_budget=0))
    assert table.provider.remaining == 1


@pytest.mark.parametrize(
    ("error", "milliseconds"),
    [
        (HttpError(429, retry_after=7), 7000),
        (RetryableError("later", 9), 9000),
        (HttpError(429, retry_after=60), 60_000),
    ],
)
async def test_a_server_that_names_a_longer_wait_gets_it_but_not_an_hour(error: MentraError, milliseconds: int) -> None:
    async with bench(failure(error), text("never")) as table:
        agent, token = await table.agent(), CancellationToken()
        events = heard(agent)
        agent.environment.bus.tap(lambda event: token.cancel() if isinstance(event, e.RetryAttempt) else None)
        with pytest.raises(Cancelled):
            await agent.run("hi", RunOptions(cancellation=token))
    assert [r.next_delay_ms for r in of(events, e.RetryAttempt)] == [milliseconds]


async def test_a_server_of_this_machine_that_does_not_run_is_asked_twice() -> None:
    refused = [failure(Unreachable("127.0.0.1:9", "refused")) for _ in range(3)]
    async with bench(*refused) as table:
        agent = await table.agent()
        events = heard(agent)
        with pytest.raises(FailedToStreamResponse, match="is the server running"):
            await agent.run("hi", RunOptions(retry_base=0.01))
    assert len(of(events, e.ModelRequestStarted)) == 2
    assert [(retry.attempt, retry.max_attempts) for retry in of(events, e.RetryAttempt)] == [(1, 1)]


@pytest.mark.parametrize("error", [HttpError(429, retry_after=3600), RetryableError("later", 3600)])
async def test_a_server_that_asks_to_wait_longer_than_the_cap_ends_the_turn(error: ProviderError) -> None:
    async with bench(failure(error), text("never")) as table:
        agent = await table.agent()
        events = heard(agent)
        with pytest.raises(FailedToStreamResponse, match=r"asks to wait 3,600 s.*%mentra resume"):
            await agent.run("hi")
    assert of(events, e.RetryAttempt) == []
    assert table.provider.remaining == 1


@pytest.mark.parametrize("cut", [[], [p.MessageStarted("m", "scripted"), p.ContentBlockStarted(0, "tool_use", "c")]])
async def test_an_answer_cut_off_before_anything_was_shown_is_asked_for_again(cut: list[p.ProviderEvent]) -> None:
    async with bench(erroring(cut, StreamTruncated()), text("recovered")) as table:
        agent = await table.agent()
        assert (await agent.run("hi")).text() == "recovered"
    async with bench(erroring(HALF, StreamTruncated()), text("never")) as table:
        agent = await table.agent()
        with pytest.raises(FailedToStreamResponse):
            await agent.run("hi")
    assert table.provider.remaining == 1


def test_the_wait_is_a_random_share_of_a_time_that_doubles_up_to_five_seconds() -> None:
    attempts = (1, 2, 3, 4, 5, 50)
    assert [retry_delay(HttpError(503), attempt, 1, RunOptions()) for attempt in attempts] == [0.5, 1, 2, 4, 5, 5]
    assert [retry_delay(HttpError(503), attempt, 0.5, RunOptions()) for attempt in attempts] == [
        0.25,
        0.5,
        1,
        2,
        2.5,
        2.5,
    ]


def test_the_wait_is_never_shorter_than_the_server_asked_for() -> None:
    asked = HttpError(429, retry_after=0.1)
    assert [retry_delay(asked, 1, chance, RunOptions()) for chance in (0, 0.5, 1)] == [0.1, 0.25, 0.5]


async def test_waits_differ_from_one_another() -> None:
    times = 20
    async with bench(*[failure(HttpError(503))] * times) as table:
        agent = await table.agent()
        events = heard(agent)
        for _ in range(times):
            token = CancellationToken()
            stop = agent.environment.bus.tap(
                lambda event, token=token: token.cancel() if isinstance(event, e.RetryAttempt) else None
            )
            with pytest.raises(Cancelled):
                await agent.run("hi", RunOptions(cancellation=token, retry_base=5))
            stop()
    waits = [r.next_delay_ms for r in of(events, e.RetryAttempt)]
    assert len(waits) == times
    assert len(set(waits)) > 1
    assert all(0 <= wait <= 5000 for wait in waits)


async def test_a_paused_answer_is_continued_with_its_text_so_far() -> None:
    paused = message([text_block(0, ["Let me "])], "pause")
    async with bench(paused, text("see.")) as table:
        agent = await table.agent()
        assert (await agent.send("hi")).text() == "see."
    assert [m.text() for m in table.provider.recorded_requests[1].messages] == ["hi", "Let me "]
    assert [m.text() for m in agent.history()] == ["hi", "Let me ", "see."]


async def test_a_pause_without_content_is_not_continued() -> None:
    async with bench(message([], "pause"), text("never")) as table:
        with pytest.raises(EmptyAssistantResponse):
            await (await table.agent()).send("hi")
    assert table.provider.remaining == 1


async def test_a_stop_ends_the_wait_before_a_retry() -> None:
    token = CancellationToken()
    async with bench(failure(HttpError(429, retry_after=60)), text("never")) as table:
        agent = await table.agent()
        agent.environment.bus.tap(lambda event: token.cancel() if isinstance(event, e.RetryAttempt) else None)
        began = time.monotonic()
        with pytest.raises(Cancelled):
            await agent.run("hi", RunOptions(cancellation=token))
    assert time.monotonic() - began < AT_ONCE


# ---- budgets --------------------------------------------------------------------------------------------------


async def test_run_options_model_budget_blocks_follow_up_round() -> None:
    async with bench(tool_calls([("act", {})]), text("never"), tools=[act]) as table:
        agent = await table.agent()
        with pytest.raises(ModelBudgetExceeded) as error:
            await agent.run("go", RunOptions(model_budget=1))
    assert (error.value.limit, agent.history(), table.provider.remaining) == (1, [], 1)


async def test_retries_count_against_the_model_budget_and_are_not_waited_for_when_it_is_spent() -> None:
    async with bench(failure(HttpError(429, retry_after=60)), text("never")) as table:
        agent = await table.agent()
        events = heard(agent)
        with pytest.raises(ModelBudgetExceeded):
            await agent.run("go", RunOptions(model_budget=1))
    assert of(events, e.RetryAttempt) == []
    assert table.provider.remaining == 1


async def test_max_rounds() -> None:
    async with bench(*[tool_calls([("act", {})]) for _ in range(3)], tools=[act]) as table:
        agent = await table.agent()
        with pytest.raises(MaxRoundsExceeded, match="max rounds exceeded at 2"):
            await agent.run("go", RunOptions(max_rounds=2))
    assert (agent.history(), table.provider.remaining) == ([], 1)


async def test_a_deadline_ends_a_silent_stream_and_rolls_back() -> None:
    silent = ControlledStream()
    async with bench(silent) as table:
        agent = await table.agent()
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await agent.run("go", RunOptions(deadline=time.time() + 0.05))
        assert (await table.runtime.store.list_runs(agent.id))[0].state == "failed"
    assert time.monotonic() - began < AT_ONCE
    assert silent.closed
    assert agent.history() == []


async def test_a_deadline_that_has_passed_sends_nothing() -> None:
    async with bench(text("never")) as table:
        agent = await table.agent()
        with pytest.raises(DeadlineExceeded):
            await agent.run("go", RunOptions(deadline=time.time() - 1))
    assert (table.provider.recorded_requests, agent.history()) == ([], [])


# ---- malformed arguments --------------------------------------------------------------------------------------


async def test_malformed_tool_json_is_reported_back_to_model_instead_of_aborting() -> None:
    async with bench(tool_calls([("act", "{nope")]), text("sorry"), tools=[act]) as table:
        agent = await table.agent()
        events = heard(agent)
        assert (await agent.send("go")).text() == "sorry"
    [use] = agent.history()[1].tool_uses()
    [result] = agent.history()[2].tool_results()
    assert (use.input, result.tool_use_id, result.is_error) == ({}, use.id, True)
    assert of(events, e.ToolUseReady) == []


async def test_malformed_rounds_are_bounded() -> None:
    bad = [tool_calls([("act", "{nope")]) for _ in range(5)]
    async with bench(*bad, tools=[act]) as table:
        agent = await table.agent()
        with pytest.raises(FailedToStreamResponse, match="3 rounds in a row"):
            await agent.send("go")
    assert (len(table.provider.recorded_requests), agent.history()) == (3, [])


async def test_a_well_formed_round_resets_the_count_of_malformed_ones() -> None:
    bad, good = tool_calls([("act", "{nope")]), tool_calls([("act", {})])
    async with bench(bad, bad, good, bad, bad, text("ok"), tools=[act]) as table:
        assert (await (await table.agent()).send("go")).text() == "ok"


@pytest.mark.parametrize("arguments", ["", "  ", "{}"])
def test_blank_arguments_are_an_empty_object(arguments: str) -> None:
    assert parse_arguments(arguments) == ({}, None)


def test_arguments_that_are_encoded_twice_are_read() -> None:
    assert parse_arguments(json.dumps(json.dumps({"a": "1"}))) == ({"a": "1"}, None)


@pytest.mark.parametrize(
    "arguments",
    [
        *("[1]", '"x"', '"[1]"', '"\\"{}\\""', "{", '{"a":NaN}', '{"a":"\\ud800"}', "[" * 100_000, "null"),
        f'{{"a":{"[" * 100}{"]" * 100}}}',
    ],
)
def test_arguments_that_are_not_a_json_object_are_malformed_and_quoted_briefly(arguments: str) -> None:
    value, error = parse_arguments(arguments)
    assert value == {}
    assert error is not None
    assert len(error) < 500


# ---- one at a time --------------------------------------------------------------------------------------------


async def test_a_second_turn_while_one_is_running_is_refused() -> None:
    stream = ControlledStream()
    async with bench(stream, text("two")) as table, anyio.create_task_group() as group:
        agent = await table.agent()
        group.start_soon(agent.send, "first")
        await stream.wait_opened()
        with pytest.raises(OperationDenied, match="already taking a turn"):
            await agent.send("second")
        stream.send_answer(text("one"))
    assert said(agent.history()) == [("user", "first"), ("assistant", "one")]


# ---- stops ----------------------------------------------------------------------------------------------------


async def stopped(agent: Agent, token: CancellationToken, when: Any) -> float:
    """Run a turn, stop it when `when` returns, and return the seconds until it had ended."""
    ended = 0.0

    async def go() -> None:
        nonlocal ended
        with pytest.raises(Cancelled):
            await agent.run("go", RunOptions(cancellation=token))
        ended = time.monotonic()

    async with anyio.create_task_group() as group:
        group.start_soon(go)
        with anyio.fail_after(10):
            await when()
        asked = time.monotonic()
        await anyio.to_thread.run_sync(token.cancel, "enough")
    return ended - asked


def when_heard(agent: Agent, kind: type[e.AgentEvent]) -> Any:
    happened = asyncio.Event()
    agent.environment.bus.tap(lambda event: happened.set() if isinstance(event, kind) else None)
    return happened.wait


async def test_run_options_cancelled_run_stops_before_provider_request() -> None:
    token = CancellationToken()
    token.cancel()
    async with bench(text("never")) as table:
        agent = await table.agent()
        with pytest.raises(Cancelled):
            await agent.run("go", RunOptions(cancellation=token))
    assert (table.provider.recorded_requests, agent.history()) == ([], [])


async def test_a_stop_in_a_silent_stream_settles_at_once_and_keeps_the_prompt() -> None:
    stream, token = ControlledStream(), CancellationToken()
    async with bench(stream, text("later")) as table:
        agent = await table.agent()
        assert await stopped(agent, token, stream.wait_opened) < AT_ONCE
        assert stream.closed
        assert said(agent.history()) == [("user", "go")]


async def test_a_stop_keeps_the_text_so_far_and_the_conversation_continues_from_it(tmp_path: Path) -> None:
    stream, token = ControlledStream(), CancellationToken()
    stream.send(*HALF)
    async with bench(stream, text("later"), store=SqliteStore(tmp_path / "s.sqlite")) as table:
        agent = await table.agent()
        events = heard(agent)
        assert await stopped(agent, token, when_heard(agent, e.TextDelta)) < AT_ONCE
        assert said(agent.history()) == [("user", "go"), ("assistant", "half")]
        assert isinstance(events[-1], e.TurnFinished)
        assert (events[-1].stop_reason, events[-1].error) == ("cancelled", "enough")
        again = await table.runtime.resume_agent(agent.id)
        assert again.history() == agent.history()
        assert (await again.send("and?")).text() == "later"
        assert [r.state for r in await table.runtime.store.list_runs(agent.id)] == ["interrupted", "finished"]


async def test_a_stop_kills_a_running_command_at_once_and_answers_its_call(tmp_path: Path) -> None:
    token = CancellationToken()
    script = tool_calls([("shell", {"command": "echo started; sleep 60"})])
    options: dict[str, Any] = {"builtin_tools": True, "policy": RuntimePolicy.permissive()}
    async with bench(script, working_directory=tmp_path, **options) as table:
        agent = await table.agent()
        assert await stopped(agent, token, when_heard(agent, e.ToolExecutionProgress)) < AT_ONCE
    [result] = agent.history()[-1].tool_results()
    assert (result.content, result.is_error) == ("stopped before it finished; it may have taken effect", True)
    assert [m.role for m in agent.history()] == [Role.USER, Role.ASSISTANT, Role.USER]


async def test_a_stop_while_a_function_blocks_its_thread_does_not_wait_for_it() -> None:
    release, token = threading.Event(), CancellationToken()
    block = tool(name="block")(lambda: str(release.wait(10)))
    async with bench(tool_calls([("block", {})]), tools=[block]) as table:
        agent = await table.agent()
        try:
            assert await stopped(agent, token, when_heard(agent, e.ToolExecutionStarted)) < AT_ONCE
        finally:
            release.set()


async def test_a_stop_while_a_person_is_asked_closes_the_question() -> None:
    token = CancellationToken()
    async with bench(tool_calls([("act", {})]), tools=[act]) as table:
        session = await table.session()
        agent = session.agent
        assert await stopped(agent, token, when_heard(agent, e.QuestionAsked)) < AT_ONCE
        assert session.permissions.open_questions() == []
        assert await table.runtime.store.open_questions() == []
    [result] = agent.history()[-1].tool_results()
    assert result.content == "not executed: the turn was stopped"
    assert [r.decided_by for r in table.recorder.of(e.QuestionAnswered)] == ["cancelled"]
    assert [(str(d.outcome), d.decided_by) for d in table.recorder.of(e.ToolAuthorizationFinished)] == [
        ("deny", "cancelled")
    ]


async def test_cancelling_the_task_from_outside_runs_the_epilogue() -> None:
    stream = ControlledStream()
    stream.send(*HALF)
    async with bench(stream, text("later")) as table:
        agent = await table.agent()
        happened = when_heard(agent, e.TextDelta)
        task = asyncio.create_task(agent.send("go"))
        await happened()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert said(agent.history()) == [("user", "go"), ("assistant", "half")]
        assert (await table.runtime.store.list_runs(agent.id))[0].state == "interrupted"
        assert table.recorder.kinds()[-1] == "turn_finished"
        assert (await agent.send("and?")).text() == "later"


async def test_a_second_stop_changes_nothing() -> None:
    token = CancellationToken()
    token.cancel("first")
    token.cancel("second")
    assert (token.is_cancelled, token.reason) == (True, "first")


# ---- a message on its way -------------------------------------------------------------------------------------


def folded(*events: p.ProviderEvent) -> tuple[PendingMessage, list[e.AgentEvent]]:
    pending = PendingMessage("agent-1", "scripted", "scripted")
    told = [meaning for event in events if (meaning := pending.apply(event)) is not None]
    return pending, told


def test_text_turn_commits_after_message_stop() -> None:
    pending, _ = folded(*text_block(0, ["a", "b"]))
    with pytest.raises(StreamTruncated):
        pending.message()
    pending.apply(p.MessageStopped())
    assert pending.message() == Message.assistant("ab")


def test_tool_use_turn_emits_ready_event_and_parses_call() -> None:
    pending, told = folded(*tool_calls([("act", {"n": 1})]).events)
    [ready] = of(told, e.ToolUseReady)
    assert (ready.call.id, ready.call.name, ready.call.input) == ("tool-1", "act", {"n": 1})
    assert pending.message().tool_uses() == [ready.call]
    assert pending.stop_reason == "tool_use"


def test_pending_turn_rejects_missing_stop_and_recovers_from_malformed_tool_json() -> None:
    pending, told = folded(*tool_calls([("act", '{"n":')]).events[:-1])
    with pytest.raises(StreamTruncated):
        pending.message()
    pending.apply(p.MessageStopped())
    [use] = pending.message().tool_uses()
    assert of(told, e.ToolUseReady) == []
    assert use.input == {}
    assert use.error is not None
    assert 'received {"n":' in use.error


def test_blocks_come_in_the_order_of_their_index() -> None:
    pending, _ = folded(*text_block(1, ["two"]), *text_block(0, ["one"]), p.MessageStopped())
    assert pending.message().text() == "onetwo"
    assert pending.partial_text() == "onetwo"


def test_pending_turn_tracks_latest_usage_without_affecting_message() -> None:
    usage = TokenUsage(output_tokens=9)
    early, late = p.MessageDelta(usage=TokenUsage(output_tokens=1)), p.MessageDelta("end", usage)
    pending, _ = folded(early, late, p.MessageDelta(), *text_block(0, ["x"]), p.MessageStopped())
    assert (pending.usage, pending.stop_reason) == (usage, "end")
    assert pending.message() == Message.assistant("x")


@pytest.mark.parametrize("pieces", [["\ud83d", "\ude00"], ["a\ud83d", "\ude00b"], ["\ud83d\ude00"], ["\U0001f600"]])
def test_a_character_sent_in_two_halves_is_joined(pieces: list[str]) -> None:
    pending, told = folded(*text_block(0, pieces), p.MessageStopped())
    assert pending.message().text().strip("ab") == "\U0001f600"
    assert "".join(d.delta for d in of(told, e.TextDelta)).strip("ab") == "\U0001f600"


@pytest.mark.parametrize("piece", ["\ud83d", "x\ude00", "\ude00\ud83d!"])
def test_half_a_character_alone_never_reaches_history(piece: str) -> None:
    pending, _ = folded(*text_block(0, [piece]), p.MessageStopped())
    pending.message().model_dump_json()


async def test_partial_text_is_saved_while_it_streams_and_deleted_at_the_end() -> None:
    stream = ControlledStream()
    stream.send(*HALF)
    async with bench(stream) as table:
        agent, store = await table.agent(), table.runtime.store
        async with anyio.create_task_group() as group:
            group.start_soon(agent.send, "go")
            await stream.wait_opened()
            with anyio.fail_after(10):
                while not (await store.list_runs(agent.id))[0].partial.startswith("half"):
                    stream.send(p.ContentBlockDelta(0, "."))
            stream.send(p.ContentBlockStopped(0), p.MessageStopped())
            stream.finish()
        assert (await store.list_runs(agent.id))[0].partial == ""


async def test_partial_text_is_saved_at_the_end_of_each_block() -> None:
    stream = ControlledStream()
    stream.send(*HALF, p.ContentBlockStopped(0))
    async with bench(stream) as table, anyio.create_task_group() as group:
        agent, store = await table.agent(), table.runtime.store
        group.start_soon(agent.send, "go")
        await stream.wait_opened()
        with anyio.fail_after(10):
            while (await store.list_runs(agent.id))[0].partial != "half":
                await anyio.lowlevel.checkpoint()
        stream.send(p.MessageStopped())
        stream.finish()


@pytest.mark.parametrize("at_end", [True, False])
async def test_a_text_that_ends_with_its_message_is_stored_once(at_end: bool) -> None:
    saved: list[str] = []

    class Watched(VolatileStore):
        async def save_partial(self, run_id: str, text: str, *, holder: str | None = None) -> None:
            saved.append(text)

    events = [*HALF, p.ContentBlockStopped(0, at_end=at_end), p.MessageDelta("end"), p.MessageStopped()]
    async with bench(ScriptedAnswer(tuple(events)), store=Watched()) as table:
        agent = await table.agent()
        assert (await agent.send("go")).text() == "half"
        path = await table.runtime.store.load_path(agent.id, agent.transcript.leaf)
        assert [entry.message.text() for entry in path] == ["go", "half"]
    assert saved == ([] if at_end else ["half"])


@pytest.mark.parametrize(("length", "least", "most"), [(100, 20, 41), (1 << 17, 2, 4)])
async def test_a_long_text_is_saved_the_less_often_the_longer_that_takes(
    monkeypatch: pytest.MonkeyPatch, length: int, least: int, most: int
) -> None:
    now, saved = 0.0, 0

    class Slow(VolatileStore):
        async def save_partial(self, run_id: str, text: str, *, holder: str | None = None) -> None:
            nonlocal now, saved
            now, saved = now + 1.0, saved + 1

    def pass_time(event: e.AgentEvent) -> None:
        nonlocal now
        now += 0.5 * isinstance(event, e.TextDelta)

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now))
    async with bench(stream_text(["x" * length, *"y" * 40]), store=Slow()) as table:
        agent = await table.agent()
        agent.environment.bus.tap(pass_time)
        await agent.send("go")
    assert least <= saved <= most


# ---- tasks given to others ------------------------------------------------------------------------------------


@tool
async def ask_another(question: str, context: ToolContext) -> str:
    """Give a task to a subagent."""
    return await context.service(Delegate)(question)


async def test_task_tool_wraps_child_failure_and_parent_continues() -> None:
    script = tool_calls([("ask_another", {"question": "?"})]), failure(InvalidRequest("no")), text("outer")
    async with bench(*script, tools=[ask_another]) as table:
        agent = await table.agent()
        events = heard(agent)
        assert (await agent.send("go")).text() == "outer"
    [result] = agent.history()[2].tool_results()
    assert (result.content, result.is_error) == ("scripted/scripted failed: no", True)
    assert [f.error for f in of(events, e.SubagentFinished)] == ["scripted/scripted failed: no"]


async def test_child_rejects_nested_task_requests_without_recursing() -> None:
    call = tool_calls([("ask_another", {"question": "?"})])
    async with bench(call, call, text("inner"), text("outer"), tools=[ask_another]) as table:
        agent = await table.agent()
        assert (await agent.send("go")).text() == "outer"
        nested = table.provider.recorded_requests[2].messages[-1].tool_results()[0]
    assert (nested.content, nested.is_error) == (
        "a subagent cannot delegate: do this task without",
        True,
    )
    assert agent.history()[2].tool_results()[0].content == "inner"


# ---- answers that are not whole -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("max_tokens", "cut at the limit of tokens"),
        ("content_filter", "content filter cut the answer"),
        ("context_overflow", "context was full"),
        ("refusal", "refused to go on"),
        ("error", "unusable"),
        ("unknown", "unknown reason (unknown)"),
        ("odd_new", "unknown reason (odd_new)"),
    ],
)
async def test_the_calls_of_an_answer_that_is_not_whole_do_not_run(reason: str, why: str) -> None:
    wiped: list[str] = []

    def wipe(table: str = "all") -> str:
        wiped.append(table)
        return "wiped"

    block = scripted.call_block(0, scripted.ScriptedCall("wipe", ""), "call-1")
    async with bench(scripted.message([block], reason), text("ok"), tools=[wipe]) as table:
        agent = await table.agent()
        await agent.send("go")
        [result] = agent.history()[2].tool_results()
        [decision] = table.recorder.of(e.ToolAuthorizationFinished)
    assert wiped == []
    assert (result.is_error, decision.outcome, decision.decided_by) == (True, "deny", "runtime")
    assert why in str(result.content)
    assert "so its calls may be incomplete" in str(result.content)


async def test_three_answers_in_a_row_that_are_not_whole_fail_the_turn_with_the_cause() -> None:
    cut = scripted.message([scripted.call_block(0, scripted.ScriptedCall("look", "{}"), "call-1")], "max_tokens")
    async with bench(cut, cut, cut, tools=[tool(reads_only=True, name="look")(lambda: "x")]) as table:
        agent = await table.agent()
        with pytest.raises(FailedToStreamResponse, match="3 answers in a row were cut off in a call"):
            await agent.send("go")


async def test_ids_of_calls_are_unique_over_all_turns() -> None:
    rounds = [step for _ in range(2) for step in (tool_calls([("act", {})]), text("ok"))]
    async with bench(*rounds, tools=[act]) as table:
        agent = await table.agent()
        await agent.run("go")
        await agent.run("go")
        called = [use.id for message in agent.history() for use in message.tool_uses()]
        answered = [result.tool_use_id for message in agent.history() for result in message.tool_results()]
    assert called == answered == ["tool-1", "tool-1-2"]


async def test_an_answer_without_end_is_refused() -> None:
    pending = PendingMessage("agent", "x", "m")
    pending.apply(p.ContentBlockStarted(0, "text"))
    delta = p.ContentBlockDelta(0, "x" * (1 << 20))
    for _ in range(15):
        pending.apply(delta)
    assert len(pending.partial_text()) == 15 << 20
    with pytest.raises(MalformedStream, match="longer than"):
        pending.apply(delta)


@pytest.mark.parametrize("kept", [{"encrypted": "x" * (1 << 20)}, {"signature": "x" * (1 << 20)}])
async def test_what_goes_back_unread_counts_as_part_of_the_answer(kept: dict[str, str]) -> None:
    pending = PendingMessage("agent", "x", "m")
    for index in range(15):
        pending.apply(p.ContentBlockStarted(index, "opaque"))
        pending.apply(p.ContentBlockStopped(index, **kept))
    pending.apply(p.ContentBlockStarted(15, "opaque"))
    with pytest.raises(MalformedStream, match="longer than"):
        pending.apply(p.ContentBlockStopped(15, **kept))


@pytest.mark.slow
async def test_an_answer_of_empty_blocks_without_end_is_refused() -> None:
    pending = PendingMessage("agent", "x", "m")
    most = MAX_ANSWER // PER_BLOCK
    for index in range(most):
        pending.apply(p.ContentBlockStarted(index, "text"))
    with pytest.raises(MalformedStream, match="longer than"):
        pending.apply(p.ContentBlockStarted(most, "text"))


def test_the_text_so_far_joins_only_what_came_since() -> None:
    pending = PendingMessage("agent", "x", "m")
    pending.apply(p.ContentBlockStarted(0, "text"))
    for piece in "abc":
        pending.apply(p.ContentBlockDelta(0, piece))
        pending.partial_text()
        assert len(pending._blocks[0].pieces) == 1
    assert pending.partial_text() == "abc"

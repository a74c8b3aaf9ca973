"""The record of whole turns: every event, in order, whatever a hook does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from kits import stores
from kits.core import Bench, Judge, allow_all, bench

from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.authorization import ToolAuthorizationDecision, ToolAuthorizationPreview
from mentra_nb.content import Message, TokenUsage, ToolUse
from mentra_nb.errors import HttpError, MalformedStream, MentraError, StoreError
from mentra_nb.event import types as e
from mentra_nb.event.bus import AuditStore, RuntimeHook
from mentra_nb.memory.tools import memory_tools
from mentra_nb.permission.policy import PolicyViolation
from mentra_nb.providers.base import ContentBlockDelta, ContentBlockStarted, MessageStarted, ProviderToolSpec
from mentra_nb.providers.scripted import ControlledStream, erroring, failure, stream_text, text, tool_calls
from mentra_nb.store.records import ToolCallRecord
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.function import tool
from mentra_nb.tools.pre_hooks import PreExecutionContext, PreExecutionDecision
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import Delegate, Tool, ToolContext, ToolOutput

pytestmark = pytest.mark.anyio

Turn = Callable[..., Awaitable[list[e.RuntimeEvent]]]
"""A real turn: takes the hooks to install, and returns the events that the last of them received."""

BEGUN = ["recovery_prepared", "turn_started"]
IN_SESSION = ["recovery_prepared", "session_started", "turn_started"]
ASKED = ["model_request_started", "model_request_finished", "model_response_finished"]
UNOPENED = ASKED[:2]
JUDGED = ["tool_authorization_started", "tool_authorization_finished"]
DECIDED = JUDGED[1:]
RAN = ["tool_execution_started", "tool_execution_finished"]
UNRUN = RAN[1:]
BLOCKED = ["tool_authorization_blocked", *UNRUN]
ENDED = ["turn_finished"]
ABORTED = ["run_aborted", *ENDED]
CALLED = [*BEGUN, *ASKED]
"""The events until the model has made its calls."""
ANSWERED = [*ASKED, *ENDED]


@tool
def act() -> str:
    """Do it."""
    return "done"


@tool(name="act")
def tell() -> str:
    """Tell much."""
    return "word " * 400


@tool
async def ask_another(context: ToolContext) -> str:
    """Give a task to a subagent."""
    return await context.service(Delegate)("well?")


CALL, CALLS = tool_calls([("act", {})]), tool_calls([("act", {}), ("act", {})])
HALF = [MessageStarted("m", "s"), ContentBlockStarted(0, "text"), ContentBlockDelta(0, "x")]


def turn(*script: Any, run: RunOptions | None = None, **options: Any) -> Turn:
    """Return one turn of an agent on this script."""

    async def take(*hooks: RuntimeHook) -> list[e.RuntimeEvent]:
        async with bench(*script, hooks=hooks, **{"tools": [act]} | options) as table:
            await go(table, run)
            return table.recorder.events

    return take


async def go(table: Bench, run: RunOptions | None = None) -> None:
    agent = await table.agent()
    with suppress(MentraError):
        await agent.run("go", run)


def judged(verdict: ToolAuthorizationDecision) -> Turn:
    return turn(CALL, text("ok"), authorizer=Judge(verdict))


class Gate:
    """A pre-execution hook that returns the same decision for every call."""

    def __init__(self, *decision: Any) -> None:
        self.decision = PreExecutionDecision(*decision)

    async def before_execution(self, context: PreExecutionContext) -> PreExecutionDecision:
        return self.decision


class Secretive(Tool):
    spec = ToolSpec(wire=ProviderToolSpec(name="act"), effect="none")

    def preview(self, context: ToolContext, arguments: dict[str, Any]) -> ToolAuthorizationPreview:
        raise ValueError("no preview today")

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        raise AssertionError


@tool(name="act")
def overstep() -> None:
    """Do what the policy forbids, which is noticed only then."""
    raise PolicyViolation("read_file", "outside the runtime policy read roots")


class ReadOnlyDisk(VolatileStore):
    async def begin_tool_call(self, call: ToolCallRecord, **rest: Any) -> None:
        raise StoreError("the disk is full")


async def beside_each_other(*hooks: RuntimeHook) -> list[e.RuntimeEvent]:
    both = asyncio.Barrier(2)

    @tool(reads_only=True)
    async def look() -> None:
        await both.wait()

    return await turn(tool_calls([("look", {}), ("look", {})]), text("ok"), tools=[look])(*hooks)


async def stopped_in_silence(*hooks: RuntimeHook) -> list[e.RuntimeEvent]:
    token = CancellationToken()
    stop = StopAt("model_request_finished", token)
    return await turn(ControlledStream(), run=RunOptions(cancellation=token))(*hooks, stop)


async def stopped_in_a_tool(*hooks: RuntimeHook) -> list[e.RuntimeEvent]:
    token = CancellationToken()

    @tool(name="act")
    async def hang() -> None:
        token.cancel()
        await anyio.sleep_forever()

    return await turn(CALLS, tools=[hang], run=RunOptions(cancellation=token))(*hooks)


async def stopped_while_asked(*hooks: RuntimeHook) -> list[e.RuntimeEvent]:
    token = CancellationToken()
    async with bench(CALL, tools=[act], hooks=[*hooks, StopAt("permission_requested", token)]) as table:
        session = await table.session()
        with suppress(MentraError):
            await session.append_turn("go", RunOptions(cancellation=token))
        return table.recorder.events


async def a_person_allows(*hooks: RuntimeHook) -> list[e.RuntimeEvent]:
    async with bench(CALL, text("ok"), tools=[act], hooks=hooks) as table:
        session = await table.session()
        allow_all(session)
        await session.append_turn("go")
        return table.recorder.events


async def nobody_answers(*hooks: RuntimeHook) -> list[e.RuntimeEvent]:
    async with bench(CALL, text("ok"), tools=[act], hooks=hooks) as table:
        session = await table.session()
        session.permissions.ask_timeout = 0.02
        await session.append_turn("go")
        return table.recorder.events


async def a_rule_denies(*hooks: RuntimeHook) -> list[e.RuntimeEvent]:
    async with bench(CALL, text("ok"), tools=[act], hooks=hooks) as table:
        session = await table.session()
        await session.permissions.add_rule("act", "*", allow=False)
        await session.append_turn("go")
        return table.recorder.events


async def resumed_after_a_failure(*hooks: RuntimeHook) -> list[e.RuntimeEvent]:
    async with bench(CALL, failure(HttpError(400)), text("ok"), tools=[act], hooks=hooks) as table:
        agent = await table.agent()
        with suppress(MentraError):
            await agent.send("go")
        await agent.resume()
        return table.recorder.events


async def recovered(*hooks: RuntimeHook) -> list[e.RuntimeEvent]:
    """Settle and resume a turn whose process died while a tool ran."""
    store = VolatileStore()
    await store.create_agent(stores.agent(model="scripted", provider_id="scripted", config={}))
    await store.start_run(stores.run(), entries=[stores.entry("one", None)])
    use = Message.assistant([ToolUse(id="call-1", name="t", input={})])
    await store.append_entries([stores.entry("two", "one", use, kind="assistant_turn")])
    await store.begin_tool_call(stores.tool_call())
    async with bench(text("ok"), tools=[tool(lambda: "done", name="t")], store=store, hooks=hooks) as table:
        agent = await table.runtime.resume_agent("agent-1")
        await agent.resume()
        return table.recorder.events


@dataclass
class StopAt:
    """A hook that stops the turn at one kind of event."""

    kind: str
    token: CancellationToken

    def on_event(self, store: AuditStore, event: e.RuntimeEvent) -> None:
        if event.kind == self.kind:
            self.token.cancel()


text_turn = turn(text("hi"))
one_tool = turn(CALL, text("ok"))
allowed = judged(ToolAuthorizationDecision.allow())
denied = judged(ToolAuthorizationDecision.deny("no"))
prompted = judged(ToolAuthorizationDecision.prompt("hm"))
malformed = turn(tool_calls([("act", {"extra": 1}), ("nope", {}), ("act", "{")]), text("ok"))
preview_fails = turn(CALL, text("ok"), tools=[Secretive()])
pre_hook_denies = turn(CALL, text("ok"), pre_hooks=[Gate("deny", "no")])
pre_hook_modifies = turn(tool_calls([("act", {})]), text("ok"), pre_hooks=[Gate("modify", None, {})])
policy_refuses = turn(tool_calls([("shell", {"command": "true"})]), text("ok"), builtin_tools=True)
policy_refuses_inside = turn(CALL, text("ok"), tools=[overstep])
fails_then_answers = turn(failure(HttpError(503)), text("ok"))
stream_breaks = turn(erroring(HALF, MalformedStream("boom")))
never_opens = turn(failure(HttpError(400, "bad")))
says_nothing = turn(stream_text([]))
ends_the_turn = turn(CALLS, tools=[tool(lambda: ToolOutput("bye", terminate=True), name="act")])
fails_after_a_tool = turn(CALL, failure(HttpError(400)))
store_fails_at_a_tool = turn(CALLS, store=ReadOnlyDisk())
no_more_tools = turn(CALLS, run=RunOptions(tool_budget=1))
no_more_requests = turn(CALL, run=RunOptions(model_budget=1))
no_more_tokens = turn(
    tool_calls([("act", {})], usage=TokenUsage(input_tokens=9)), text("never"), run=RunOptions(token_budget=9)
)
delegated = turn(tool_calls([("ask_another", {})]), text("inner"), text("outer"), tools=[ask_another])

remembering = turn(text("ok"), tools=memory_tools())
SEARCHED = ["memory_search_started", "memory_search_finished"]
KEPT = ["memory_ingest_started", "memory_ingest_finished"]
TOO_LONG = failure(HttpError(400, "This model's maximum context length is 8192 tokens."))
compacted = turn(CALL, CALL, TOO_LONG, text('{"goal": "go"}'), text("ok"), tools=[tell])
nothing_summarised = turn(CALL, CALL, TOO_LONG, failure(HttpError(400, "no")), text("ok"), tools=[tell])

TRACES: dict[str, tuple[Turn, list[str]]] = {
    "text turn": (text_turn, [*BEGUN, *ANSWERED]),
    "with memory": (remembering, [*BEGUN, *SEARCHED, *ANSWERED, *KEPT]),
    "one tool, no authorizer": (one_tool, [*CALLED, *DECIDED, *RAN, *ANSWERED]),
    "one tool, an authorizer": (allowed, [*CALLED, *JUDGED, *RAN, *ANSWERED]),
    "denied": (denied, [*CALLED, *JUDGED, *BLOCKED, *ANSWERED]),
    "prompt": (prompted, [*CALLED, *JUDGED, *BLOCKED, *ANSWERED]),
    "bad arguments, unknown tool": (malformed, [*CALLED, *[*DECIDED, *UNRUN] * 3, *ANSWERED]),
    "preview fails": (preview_fails, [*CALLED, *DECIDED, *UNRUN, *ANSWERED]),
    "pre-hook deny": (pre_hook_denies, [*CALLED, *DECIDED, "tool_execution_blocked", *UNRUN, *ANSWERED]),
    "pre-hook modify": (pre_hook_modifies, [*CALLED, *DECIDED, *RAN, *ANSWERED]),
    "policy refuses shell": (
        policy_refuses,
        [*CALLED, "policy_denied", "authorization_denied", *DECIDED, *UNRUN, *ANSWERED],
    ),
    "policy refuses inside": (
        policy_refuses_inside,
        [*CALLED, *DECIDED, RAN[0], "policy_denied", "authorization_denied", RAN[1], *ANSWERED],
    ),
    "503 then ok": (fails_then_answers, [*BEGUN, *UNOPENED, *ANSWERED]),
    "stream breaks": (stream_breaks, [*CALLED, *ABORTED]),
    "request never opens": (never_opens, [*BEGUN, *UNOPENED, *ABORTED]),
    "empty answer": (says_nothing, [*BEGUN, *ANSWERED]),
    "a batch": (beside_each_other, [*CALLED, *DECIDED * 2, RAN[0], RAN[0], RAN[1], RAN[1], *ANSWERED]),
    "a tool ends the turn": (ends_the_turn, [*CALLED, *DECIDED, *RAN, *DECIDED, *UNRUN, *ENDED]),
    "a failure after a tool": (fails_after_a_tool, [*CALLED, *DECIDED, *RAN, *UNOPENED, *ABORTED]),
    "a failure at a tool": (store_fails_at_a_tool, [*CALLED, *DECIDED, *UNRUN, *DECIDED, *UNRUN, *ABORTED]),
    "tool budget spent": (no_more_tools, [*CALLED, *DECIDED, *RAN, *DECIDED, *UNRUN, *ABORTED]),
    "model budget spent": (no_more_requests, [*CALLED, *DECIDED, *RAN, *ABORTED]),
    "token budget spent": (no_more_tokens, [*CALLED, *DECIDED, *RAN, *ENDED]),
    "subagent": (
        delegated,
        [*CALLED, *DECIDED, RAN[0], "turn_started", *ANSWERED, RAN[1], *ANSWERED],
    ),
    "stopped in silence": (stopped_in_silence, [*CALLED, *ABORTED]),
    "stopped in a tool": (stopped_in_a_tool, [*CALLED, *DECIDED, *RAN, *DECIDED, *UNRUN, *ABORTED]),
    "stopped while asked": (
        stopped_while_asked,
        [
            *IN_SESSION,
            *ASKED,
            JUDGED[0],
            "permission_requested",
            "permission_resolved",
            JUDGED[1],
            *UNRUN,
            *ABORTED,
        ],
    ),
    "a person allows": (
        a_person_allows,
        [
            *IN_SESSION,
            *ASKED,
            JUDGED[0],
            "permission_requested",
            "permission_resolved",
            JUDGED[1],
            *RAN,
            *ANSWERED,
        ],
    ),
    "question timed out": (
        nobody_answers,
        [
            *IN_SESSION,
            *ASKED,
            JUDGED[0],
            "permission_requested",
            "permission_resolved",
            JUDGED[1],
            *BLOCKED,
            *ANSWERED,
        ],
    ),
    "a rule denies": (
        a_rule_denies,
        [*IN_SESSION[:2], "rule_changed", *IN_SESSION[2:], *ASKED, *JUDGED, *BLOCKED, *ANSWERED],
    ),
    "refused as too long, then summarised": (
        compacted,
        [
            *[*CALLED, *DECIDED, *RAN],
            *[*ASKED, *DECIDED, *RAN],
            *[*UNOPENED, "memory_compaction_proposed", *ASKED, "memory_compaction_applied"],
            *ANSWERED,
        ],
    ),
    "refused as too long, and no summary": (
        nothing_summarised,
        [
            *[*CALLED, *DECIDED, *RAN],
            *[*ASKED, *DECIDED, *RAN],
            *[*UNOPENED, "memory_compaction_proposed", *UNOPENED],
            *["memory_compaction_skipped", "memory_compaction_applied"],
            *ANSWERED,
        ],
    ),
    "resumed after a failure": (
        resumed_after_a_failure,
        [*CALLED, *DECIDED, *RAN, *UNOPENED, *ABORTED, "turn_started", *ANSWERED],
    ),
    "recovery of a dead turn": (
        recovered,
        ["recovery_prepared", *UNRUN, *ABORTED, "turn_started", *JUDGED, *BLOCKED, *ANSWERED],
    ),
}


@pytest.mark.parametrize("name", TRACES)
async def test_the_trace_of_a_turn(name: str) -> None:
    taken, kinds = TRACES[name]
    assert [event.kind for event in await taken()] == kinds


SEEN: dict[str, Turn | str] = {
    "authorization_denied": policy_refuses,
    "tool_authorization_started": allowed,
    "tool_authorization_finished": one_tool,
    "tool_authorization_blocked": denied,
    "recovery_prepared": text_turn,
    "model_request_started": text_turn,
    "model_request_finished": never_opens,
    "model_response_finished": stream_breaks,
    "tool_execution_started": one_tool,
    "tool_execution_finished": one_tool,
    "policy_denied": policy_refuses,
    "background_task_started": "open: background work",
    "background_task_finished": "open: background work",
    "memory_search_started": remembering,
    "memory_search_finished": remembering,
    "memory_ingest_started": remembering,
    "memory_ingest_finished": remembering,
    "memory_compaction_proposed": compacted,
    "memory_compaction_applied": compacted,
    "memory_compaction_skipped": nothing_summarised,
    "run_aborted": never_opens,
    "tool_execution_blocked": pre_hook_denies,
}
"""For each kind of the original, a turn that emits it, or the feature that will."""
SEEN_TOO: dict[str, Turn] = {
    "turn_started": text_turn,
    "turn_finished": text_turn,
    "session_started": a_person_allows,
    "permission_requested": a_person_allows,
    "permission_resolved": a_person_allows,
    "rule_changed": a_rule_denies,
}
EMITTED = {kind: taken for kind, taken in {**SEEN, **SEEN_TOO}.items() if not isinstance(taken, str)}


async def test_each_of_the_22_kinds_is_emitted_by_a_real_turn_or_listed_as_open() -> None:
    assert list(SEEN) == [kind.model_fields["kind"].default for kind in e.SEED_KINDS]
    emitted = {event.kind for taken, _ in TRACES.values() for event in await taken()}
    assert emitted == set(EMITTED)


@pytest.mark.parametrize("kind", EMITTED)
async def test_a_kind_is_emitted_by_its_turn(kind: str) -> None:
    assert kind in [event.kind for event in await EMITTED[kind]()]


# ---- hooks that fail ------------------------------------------------------------------------------------------


@dataclass
class Fussy:
    """A hook that fails on one kind of event."""

    kind: str

    def on_event(self, store: AuditStore, event: e.RuntimeEvent) -> None:
        if event.kind == self.kind:
            raise OSError("disk full")


HOW = ("success", "outcome", "reason", "is_error", "error", "stop_reason")


def story(events: list[e.RuntimeEvent]) -> Iterator[dict[str, Any]]:
    """Return the events without what differs from turn to turn."""
    for event in events:
        told = event.model_dump(mode="json")
        yield {key: told.get(key) for key in ("kind", *HOW)}


@pytest.mark.parametrize("kind", [kind for kind in EMITTED if kind != "tool_execution_started"])
async def test_a_failing_hook_does_not_stop_the_others(kind: str) -> None:
    assert list(story(await EMITTED[kind](Fussy(kind)))) == list(story(await EMITTED[kind]()))


async def test_whatever_a_hook_raises_is_its_failure() -> None:
    class Breaks(Fussy):
        def on_event(self, store: Any, event: e.RuntimeEvent) -> None:
            if event.kind == self.kind:
                raise SystemExit(3)

    assert list(story(await one_tool(Breaks("turn_finished")))) == list(story(await one_tool()))
    [finished] = of(await one_tool(Breaks("tool_execution_started")), e.ToolExecutionFinished)
    assert finished.error == "Tool execution blocked: SystemExit: 3"


@pytest.mark.parametrize("taken", [one_tool, beside_each_other])
async def test_a_hook_that_fails_when_a_tool_starts_blocks_that_call_and_the_turn_continues(taken: Turn) -> None:
    events = await taken(Fussy("tool_execution_started"))
    results = [event.error for event in events if isinstance(event, e.ToolExecutionFinished)]
    assert set(results) == {"Tool execution blocked: disk full"}
    assert [event.success for event in events if isinstance(event, e.TurnFinished)] == [True]


# ---- what they carry ------------------------------------------------------------------------------------------


def of(events: list[e.RuntimeEvent], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


async def test_custom_hooks_observe_model_and_tool_execution() -> None:
    events = await one_tool()
    [started], [finished] = of(events, e.ToolExecutionStarted), of(events, e.ToolExecutionFinished)
    first = of(events, e.ModelResponseFinished)[0]
    assert (first.success, first.stop_reason, first.usage) == (True, "tool_use", None)
    assert (started.tool_name, started.tool_call_id) == ("act", "tool-1")
    assert (finished.is_error, finished.error, finished.output_preview) == (False, None, "done")


async def test_model_response_finished_hook_reports_usage_after_successful_commit() -> None:
    usage = TokenUsage(input_tokens=12, output_tokens=5, total_tokens=17)
    [response] = of(await turn(text("hi", usage=usage))(), e.ModelResponseFinished)
    assert (response.success, response.usage, response.stop_reason) == (True, usage, "end")


async def test_model_response_finished_hook_reports_stream_failures_without_usage() -> None:
    [response] = of(await stream_breaks(), e.ModelResponseFinished)
    assert (response.success, response.usage, response.stop_reason) == (False, None, None)
    assert "boom" in response.error


async def test_failed_and_successful_attempts_can_be_told_apart() -> None:
    events = await fails_then_answers()
    assert [r.success for r in of(events, e.ModelRequestFinished)] == [False, True]
    assert [r.attempt for r in of(events, e.ModelRequestStarted)] == [1, 2]
    assert [r.attempt for r in of(events, e.ModelResponseFinished)] == [2]


async def test_start_and_finish_of_a_request_share_its_id_and_those_of_a_turn_its_run_id() -> None:
    events = await one_tool()
    requests = [x.request_id for x in of(events, e.ModelRequestStarted | e.ModelResponseFinished)]
    assert requests[0] == requests[1] != requests[2] == requests[3]
    runs = {getattr(x, "run_id", None) for x in events[1:]}
    assert len(runs) == 1
    assert None not in runs


@pytest.mark.parametrize(
    ("taken", "stop_reason", "success"),
    [
        (text_turn, "end", True),
        (says_nothing, "end", True),
        (no_more_tokens, "budget", True),
        (ends_the_turn, "ended_by_tool", True),
        (never_opens, "error", False),
        (no_more_tools, "error", False),
        (stopped_in_silence, "cancelled", False),
        (stopped_in_a_tool, "cancelled", False),
    ],
)
async def test_a_turn_says_how_it_ended(taken: Turn, stop_reason: str, success: bool) -> None:
    [finished] = of(await taken(), e.TurnFinished)
    assert (finished.stop_reason, finished.success) == (stop_reason, success)


@pytest.mark.parametrize(
    ("taken", "outcome", "by"),
    [
        (allowed, "allow", "authorizer"),
        (prompted, "prompt", "authorizer"),
        (preview_fails, "deny", "runtime"),
        (policy_refuses, "deny", "policy"),
        (a_person_allows, "allow", "user"),
        (nobody_answers, "deny", "timeout"),
        (stopped_while_asked, "deny", "cancelled"),
        (a_rule_denies, "deny", "rule"),
        (recovered, "deny", "runtime"),
    ],
)
async def test_a_call_has_one_decision_that_names_what_decided(taken: Turn, outcome: str, by: str) -> None:
    [decision] = of(await taken(), e.ToolAuthorizationFinished)
    assert (str(decision.outcome), decision.decided_by.partition(":")[0]) == (outcome, by)


async def test_the_events_of_a_subagent_have_its_id_and_lie_within_the_call_that_made_it() -> None:
    events = await delegated()
    parent, child = [started.agent_id for started in of(events, e.TurnStarted)]
    assert parent != child
    call = [at for at, event in enumerate(events) if event.kind in RAN]
    assert {at for at, event in enumerate(events) if event.agent_id == child} == set(range(call[0] + 1, call[1]))


async def test_a_resumed_turn_names_the_turn_it_continues() -> None:
    first, second = of(await resumed_after_a_failure(), e.TurnStarted)
    assert (first.resumes, second.resumes) == (None, first.run_id)


async def test_a_turn_that_died_is_closed_with_an_unknown_result_of_its_call() -> None:
    events = await recovered()
    unknown = of(events, e.ToolExecutionFinished)[0]
    assert (unknown.tool_call_id, unknown.is_error, unknown.run_id) == ("call-1", True, "run-1")
    assert "not known whether it took effect" in unknown.error
    assert [(turn.stop_reason, turn.success) for turn in of(events, e.TurnFinished)] == [
        ("interrupted", False),
        ("end", True),
    ]


async def test_the_turn_has_its_origin() -> None:
    async with bench(text("hi")) as table:
        session = await table.session(project="/p", notebook="nb.ipynb")
        await session.append_turn("go", origin=e.TurnOrigin(cell_id="cell-7", execution_count=3))
        [started], [finished] = table.recorder.of(e.TurnStarted), table.recorder.of(e.TurnFinished)
    assert (started.session_id, started.cell_id, started.execution_count) == (session.id, "cell-7", 3)
    assert (started.prompt, started.project, started.notebook) == ("go", "/p", "nb.ipynb")
    assert (finished.cell_id, finished.success, finished.run_id) == ("cell-7", True, started.run_id)


async def test_the_end_of_a_failed_turn_names_the_error() -> None:
    events = await never_opens()
    [finished], [aborted] = of(events, e.TurnFinished), of(events, e.RunAborted)
    assert (
        aborted.reason
        == finished.error
        == "scripted/scripted failed: HTTP 400: bad · change the question, or take another model (-m NAME)"
    )

"""The calls of one round: their gates, their order, and that each has one decision and one answer."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from kits.core import Bench, Judge, Recorder, bench, heard, of

from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.agent.results import MAX_RESULT_BYTES, MAX_RESULT_LINES, NOT_RUN, limited
from mentra_nb.authorization import (
    ToolAuthorizationDecision,
    ToolAuthorizationOutcome,
    ToolAuthorizationPreview,
    ToolAuthorizationRequest,
    allow_everything,
)
from mentra_nb.content import MAX_DEPTH, Image, ToolResult
from mentra_nb.errors import Cancelled, EmptyAssistantResponse, ToolBudgetExceeded
from mentra_nb.event import types as e
from mentra_nb.event.bus import AuditStore, NullAudit
from mentra_nb.permission.binding import arguments_hash, duration
from mentra_nb.permission.policy import PolicyViolation, RuntimePolicy
from mentra_nb.providers.base import ProviderCapabilities, ProviderToolSpec
from mentra_nb.providers.scripted import ScriptedCall, text, tool_calls
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.function import tool
from mentra_nb.tools.pre_hooks import PreExecutionContext, PreExecutionDecision
from mentra_nb.tools.schema import ToolError
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import Tool, ToolContext, ToolOutput

pytestmark = pytest.mark.anyio


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


@dataclass
class Custom(Tool):
    """A tool of an application."""

    name: str
    body: Callable[[], Any] = lambda: "done"
    timeout: float | None = None
    ran: int = 0
    spec: ToolSpec = field(init=False)

    def __post_init__(self) -> None:
        self.spec = ToolSpec(
            wire=ProviderToolSpec(name=self.name),
            execution_timeout=self.timeout,
        )

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        self.ran += 1
        value = self.body()
        if asyncio.iscoroutine(value):
            value = await value
        return value if isinstance(value, ToolOutput) else ToolOutput(value)


async def one_round(table: Bench, *calls: Any, config: AgentConfig | None = None) -> list[ToolResult]:
    """Have the model make these calls, then stop. Returns their results."""
    table.provider.push(tool_calls(calls), text("ok"))
    agent = await table.agent(config)
    await agent.run("go")
    return agent.history()[2].tool_results()


def decisions(recorder: Recorder) -> list[tuple[str, str, str | None]]:
    return [(d.tool_call_id, str(d.outcome), d.decided_by) for d in recorder.of(e.ToolAuthorizationFinished)]


# ---- gates ----------------------------------------------------------------------------------------------------


async def test_a_call_that_passes_every_gate_is_answered_with_its_result() -> None:
    async with bench(tools=[add]) as table:
        [result] = await one_round(table, ("add", {"a": 1, "b": 2}))
    assert result == ToolResult(tool_use_id="tool-1", content=3)
    assert decisions(table.recorder) == [("tool-1", "allow", "runtime")]


async def test_an_agent_without_an_authorizer_runs_what_only_reads() -> None:
    @tool(reads_only=True)
    def look() -> str:
        return "seen"

    @tool(asks=False)
    def note() -> str:
        return "noted"

    change = Custom("change")
    async with bench(tools=[look, note, change], authorizer=None) as table:
        seen, noted, denied = await one_round(table, ("look", {}), ("note", {}), ("change", {}))
    assert (seen.content, noted.content) == ("seen", "noted")
    assert denied.is_error
    assert denied.content == (
        "Tool execution denied: it may change something and this program has no authorizer: "
        "give one with Runtime(authorizer=…); authorizer=allow_everything asks nobody"
    )
    assert change.ran == 0
    assert [outcome for _, outcome, _ in decisions(table.recorder)] == ["allow", "allow", "deny"]


async def test_a_program_can_say_that_nobody_is_asked() -> None:
    change = Custom("change")
    async with bench(tools=[change], authorizer=allow_everything) as table:
        [result] = await one_round(table, ("change", {}))
    assert (result.content, change.ran) == ("done", 1)
    assert decisions(table.recorder) == [("tool-1", "allow", "runtime")]


async def test_a_session_asks_although_the_runtime_has_no_authorizer() -> None:
    async with bench(tool_calls([("change", {})]), text("ok"), tools=[Custom("change")]) as table:
        session = await table.session(ask="rules")
        await session.append_turn("go")
    [(_, outcome, by)] = decisions(table.recorder)
    assert (outcome, by) == ("deny", "setting")


async def test_an_unknown_tool_is_answered_with_what_there_is() -> None:
    async with bench(tools=[add]) as table:
        [result] = await one_round(table, ("nope", {}))
    assert (result.content, result.is_error) == ("Tool not found: 'nope'; available: add", True)
    assert decisions(table.recorder) == [("tool-1", "deny", "runtime")]
    assert [f.is_error for f in table.recorder.of(e.ToolExecutionFinished)] == [True]


async def test_a_hidden_tool_cannot_be_called() -> None:
    hidden = Custom("hidden")
    async with bench(tools=[add, hidden]) as table:
        results = await one_round(table, ("hidden", {}), ("nope", {}), config=AgentConfig(hidden_tools=("hidden",)))
    assert results[0].content == "Tool 'hidden' is not available for this agent"
    assert results[1].content == "Tool not found: 'nope'; available: add"
    assert hidden.ran == 0
    assert [tool.name for tool in table.provider.recorded_requests[0].tools] == ["add"]


async def test_malformed_arguments_are_answered_and_valid_siblings_run() -> None:
    async with bench(tools=[add]) as table:
        bad, good = await one_round(table, ("add", "{nope"), ("add", {"a": 1, "b": 2}))
    assert bad.is_error
    assert str(bad.content).startswith("The arguments of 'add' are not a JSON object: ")
    assert "received {nope" in str(bad.content)
    assert good.content == 3
    assert decisions(table.recorder) == [("tool-1", "deny", "runtime"), ("tool-2", "allow", "runtime")]


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("levels", [MAX_DEPTH, 300, 5000])
async def test_arguments_nested_too_deep_are_that_calls_error(levels: int) -> None:
    deep = '{"a":' + "[" * levels + "]" * levels + "}"
    async with bench(tools=[add]) as table:
        bad, good = await one_round(table, ("add", deep), ("add", {"a": 1, "b": 2}))
    assert bad.is_error
    assert len(str(bad.content)) < 500
    assert good.content == 3
    assert decisions(table.recorder) == [("tool-1", "deny", "runtime"), ("tool-2", "allow", "runtime")]


async def test_a_result_nested_too_deep_is_its_text() -> None:
    async with bench(tools=[Custom("deep", lambda: nested(300))]) as table:
        [result] = await one_round(table, ("deep", {}))
    assert result.content == json.dumps(nested(300))
    assert decisions(table.recorder) == [("tool-1", "allow", "runtime")]


async def test_a_refusal_does_not_quote_all_that_was_sent() -> None:
    big = "x" * 1_000_000

    class Strict(Custom):
        def check_policy(self, context: ToolContext, arguments: dict[str, Any]) -> None:
            raise PolicyViolation("files_read", f"'{big}' is outside")

    judge = Judge(ToolAuthorizationDecision.deny(f"never {big}"))
    async with bench(tools=[add, Custom("free"), Strict("strict")], authorizer=judge) as table:
        calls = [("add", {"a": big}), (big, {}), ("free", {"a": big}), ("strict", {})]
        results = await one_round(table, *calls)
    assert all(result.is_error and len(str(result.content)) < 4_200 for result in results)
    for event in table.recorder.events:
        if isinstance(event, e.ToolAuthorizationFinished | e.ToolAuthorizationBlocked | e.PolicyDenied):
            assert event.reason is not None
            assert len(event.reason) <= 4_000


async def test_arguments_that_do_not_fit_are_denied_before_anybody_is_asked() -> None:
    judge = Judge(ToolAuthorizationDecision.allow())
    async with bench(tools=[add], authorizer=judge) as table:
        [result] = await one_round(table, ("add", {"a": 1}))
    assert result.content == "Tool execution denied: invalid arguments: b: Field required"
    assert judge.asked == []
    assert decisions(table.recorder) == [("tool-1", "deny", "runtime")]
    assert [decision.invalid for decision in table.recorder.of(e.ToolAuthorizationFinished)] == [True]
    assert table.recorder.of(e.ToolAuthorizationStarted) == []


async def test_preview_fails() -> None:
    class Secretive(Custom):
        def preview(self, context: ToolContext, arguments: dict[str, Any]) -> ToolAuthorizationPreview:
            raise ValueError("no preview today")

    judge, made = Judge(ToolAuthorizationDecision.allow()), Secretive("quiet")
    async with bench(tools=[made], authorizer=judge) as table:
        [result] = await one_round(table, ("quiet", {}))
    assert (result.content, result.is_error) == ("Tool execution denied: no preview today", True)
    assert (judge.asked, made.ran) == ([], 0)
    assert decisions(table.recorder) == [("tool-1", "deny", "runtime")]


@pytest.mark.parametrize("method", ["validate", "check_policy", "subject", "structured_input", "preview"])
async def test_whatever_a_tool_raises_while_its_call_is_judged_denies_that_call(method: str) -> None:
    def breaks(*_: Any) -> Any:
        raise SystemExit("no more")

    made = type("Breaking", (Custom,), {method: breaks})("odd")
    async with bench(tools=[made, add], authorizer=Judge(ToolAuthorizationDecision.allow())) as table:
        denied, added = await one_round(table, ("odd", {}), ("add", {"a": 1, "b": 1}))
    assert (denied.content, denied.is_error) == ("Tool execution denied: SystemExit: no more", True)
    assert (made.ran, added.content) == (0, 2)


async def test_a_tool_that_cannot_say_whether_it_is_parallel_runs_alone() -> None:
    class Unsure(Custom):
        def is_parallel(self, arguments: dict[str, Any]) -> bool:
            raise KeyboardInterrupt

    async with bench(tools=[Unsure("odd")], authorizer=allow_everything) as table:
        [result] = await one_round(table, ("odd", {}))
    assert not result.is_error


@dataclass
class Keeping(NullAudit):
    """A record that keeps what it is given."""

    rows: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def record_audit_event(self, scope: str, event_type: str, payload: dict[str, Any]) -> None:
        self.rows.append((scope, event_type, payload))


async def test_shell_tool_is_denied_by_default_policy_and_audited(tmp_path: Path) -> None:
    judge = Judge(ToolAuthorizationDecision.allow())
    audit = Keeping()
    async with bench(builtin_tools=True, authorizer=judge, working_directory=tmp_path, audit=audit) as table:
        [result] = await one_round(table, ("shell", {"command": "touch ran"}))
    assert "disabled by the runtime policy" in str(result.content)
    [(scope, payload)] = [(scope, payload) for scope, kind, payload in audit.rows if kind == "authorization_denied"]
    assert (scope, payload["action"]) == (payload["agent_id"], "shell_command")
    assert judge.asked == []
    [audited] = table.recorder.of(e.AuthorizationDenied)
    assert audited.action == "shell_command"
    assert audited.agent_id.startswith("agent-")
    assert len(table.recorder.of(e.PolicyDenied)) == 1
    assert decisions(table.recorder) == [("tool-1", "deny", "policy")]
    [denial] = table.recorder.of(e.ToolAuthorizationFinished)
    assert str(result.content) == f"Tool execution denied: {denial.reason}"
    assert list(tmp_path.iterdir()) == []


async def test_tool_authorizer_allows_tool_execution_and_captures_preview() -> None:
    judge = Judge(ToolAuthorizationDecision.allow())
    async with bench(tools=[add], authorizer=judge) as table:
        [result] = await one_round(table, ("add", {"a": 1, "b": 2}))
    [asked] = judge.asked
    assert asked.preview.structured_input == asked.arguments == {"a": 1, "b": 2}
    assert (asked.tool_name, asked.tool_call_id, asked.history_len) == ("add", "tool-1", 2)
    assert result.content == 3
    assert decisions(table.recorder) == [("tool-1", "allow", "authorizer")]


@pytest.mark.parametrize(
    ("verdict", "words", "outcome"),
    [
        (ToolAuthorizationDecision.deny("not today"), "Tool execution denied: not today", "deny"),
        (ToolAuthorizationDecision.deny(), "Tool execution denied: denied by authorizer", "deny"),
        (ToolAuthorizationDecision.prompt("who knows"), "Tool execution requires approval: who knows", "prompt"),
        (RuntimeError("broken"), "Tool execution denied: broken", "deny"),
        (TimeoutError(), "Tool execution denied: TimeoutError", "deny"),
    ],
)
async def test_whatever_is_not_an_allowance_blocks(
    verdict: ToolAuthorizationDecision | Exception, words: str, outcome: str
) -> None:
    made = Custom("act")
    async with bench(tools=[made], authorizer=Judge(verdict)) as table:
        [result] = await one_round(table, ("act", {}))
    assert (result.content, result.is_error, made.ran) == (words, True, 0)
    assert decisions(table.recorder) == [("tool-1", outcome, "authorizer")]
    assert [str(b.outcome) for b in table.recorder.of(e.ToolAuthorizationBlocked)] == [outcome]
    assert table.recorder.of(e.ToolExecutionStarted) == []


async def test_tool_authorizer_can_prompt_shell_tool_and_emit_hooks(tmp_path: Path) -> None:
    judge = Judge(ToolAuthorizationDecision.prompt("a person must agree"))
    options: dict[str, Any] = {"builtin_tools": True, "policy": RuntimePolicy.permissive()}
    async with bench(authorizer=judge, working_directory=tmp_path, **options) as table:
        [result] = await one_round(table, ("shell", {"command": "touch ran", "timeoutMs": 5}))
    assert (result.content, result.is_error) == ("Tool execution requires approval: a person must agree", True)
    assert [k for k in table.recorder.kinds() if k.startswith("tool_")] == [
        "tool_authorization_started",
        "tool_authorization_finished",
        "tool_authorization_blocked",
        "tool_execution_finished",
    ]
    [asked] = judge.asked
    assert asked.preview.raw_input == {"command": "touch ran", "timeoutMs": 5}
    assert (asked.preview.structured_input["kind"], asked.preview.structured_input["timeout_ms"]) == ("shell", 5)
    assert list(tmp_path.iterdir()) == []


async def test_tool_authorizer_timeout_blocks_execution() -> None:
    class Sleeper(Judge):
        async def authorize(self, request: Any) -> ToolAuthorizationDecision:
            await anyio.sleep_forever()
            raise AssertionError

    made = Custom("act")
    judge = Sleeper(ToolAuthorizationDecision.allow(), seconds=0.02)
    async with bench(tools=[made], authorizer=judge) as table:
        [result] = await one_round(table, ("act", {}))
    assert result.content == "Tool execution denied: authorizer timed out after 20ms"
    assert decisions(table.recorder) == [("tool-1", "deny", "timeout")]
    assert made.ran == 0


async def test_tool_authorizer_errors_block_execution_also_in_its_timeout() -> None:
    class Broken(Judge):
        def timeout(self) -> float | None:
            raise RuntimeError("no clock")

    async with bench(tools=[add], authorizer=Broken(ToolAuthorizationDecision.allow())) as table:
        [result] = await one_round(table, ("add", {"a": 1, "b": 2}))
    assert result.content == "Tool execution denied: no clock"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize("in_timeout", [False, True])
async def test_whatever_an_authorizer_raises_is_a_denial(error: BaseException, in_timeout: bool) -> None:
    class Breaks(Judge):
        def timeout(self) -> float | None:
            if in_timeout:
                raise error
            return None

        async def authorize(self, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision:
            raise error

    async with bench(tools=[add], authorizer=Breaks(ToolAuthorizationDecision.allow())) as table:
        [result] = await one_round(table, ("add", {"a": 1, "b": 2}))
    assert result.content == f"Tool execution denied: {type(error).__name__}"


# ---- pre-execution hooks --------------------------------------------------------------------------------------


@dataclass
class Gate:
    """Answers with `decide(context)`, and keeps the contexts."""

    decide: Callable[[PreExecutionContext], PreExecutionDecision]
    seen: list[PreExecutionContext] = field(default_factory=list)

    async def before_execution(self, context: PreExecutionContext) -> PreExecutionDecision:
        self.seen.append(context)
        return self.decide(context)


def passing(_: PreExecutionContext) -> PreExecutionDecision:
    return PreExecutionDecision("allow")


def refusing(reason: str) -> Callable[[PreExecutionContext], PreExecutionDecision]:
    return lambda _: PreExecutionDecision("deny", reason)


async def test_empty_pre_hooks_allows() -> None:
    async with bench(tools=[add], pre_hooks=[]) as table:
        [result] = await one_round(table, ("add", {"a": 1, "b": 2}))
    assert result.content == 3


async def test_pre_execution_hook_blocks_tool_call() -> None:
    made = Custom("act")
    async with bench(tools=[made], pre_hooks=[Gate(refusing("not on a Sunday"))]) as table:
        [result] = await one_round(table, ("act", {}))
    assert (result.is_error, made.ran) == (True, 0)
    assert "not on a Sunday" in str(result.content)
    assert [finished.success for finished in table.recorder.of(e.TurnFinished)] == [True]


async def test_all_allow_hooks_allows() -> None:
    first, second = Gate(passing), Gate(passing)
    async with bench(tools=[add], pre_hooks=[first, second]) as table:
        [result] = await one_round(table, ("add", {"a": 1, "b": 2}))
    assert result.content == 3
    assert (len(first.seen), len(second.seen)) == (1, 1)
    assert first.seen[0].input == {"a": 1, "b": 2}


async def test_first_deny_wins() -> None:
    last = Gate(refusing("two"))
    made = Custom("act")
    async with bench(tools=[made], pre_hooks=[Gate(passing), Gate(refusing("one")), last]) as table:
        [result] = await one_round(table, ("act", {}))
    assert (result.content, result.is_error) == ("Blocked by pre-execution hook: one", True)
    assert (last.seen, made.ran) == ([], 0)
    assert [b.reason for b in table.recorder.of(e.ToolExecutionBlocked)] == ["one"]
    assert decisions(table.recorder) == [("tool-1", "deny", "hook")]


async def test_conditional_deny_by_tool_name() -> None:
    def no_acting(context: PreExecutionContext) -> PreExecutionDecision:
        return PreExecutionDecision("deny" if context.tool_name == "act" else "allow", "not act")

    async with bench(tools=[add, Custom("act")], pre_hooks=[Gate(no_acting)]) as table:
        acted, added = await one_round(table, ("act", {}), ("add", {"a": 1, "b": 1}))
    assert (acted.is_error, added.content) == (True, 2)


async def test_modifications_compose_in_order() -> None:
    def more(context: PreExecutionContext) -> PreExecutionDecision:
        return PreExecutionDecision("modify", input={**context.input, "a": context.input["a"] * 10 + 1})

    async with bench(tools=[add], pre_hooks=[Gate(more), Gate(more)]) as table:
        [result] = await one_round(table, ("add", {"a": 0, "b": 0}))
    assert result.content == 11
    assert [s.input for s in table.recorder.of(e.ToolExecutionStarted)] == [{"a": 11, "b": 0}]


async def test_a_later_hook_can_still_deny_a_modified_call() -> None:
    modify = Gate(lambda _: PreExecutionDecision("modify", input={"a": 9, "b": 9}))
    async with bench(tools=[add], pre_hooks=[modify, Gate(refusing("too big"))]) as table:
        [result] = await one_round(table, ("add", {"a": 0, "b": 0}))
    assert "too big" in str(result.content)


async def test_a_modification_that_does_not_fit_blocks() -> None:
    async with bench(tools=[add], pre_hooks=[Gate(lambda _: PreExecutionDecision("modify", input={}))]) as table:
        [result] = await one_round(table, ("add", {"a": 0, "b": 0}))
    assert result.content == "Blocked by pre-execution hook: invalid arguments: a: Field required"


async def test_a_modification_nested_too_deep_blocks() -> None:
    deep: dict[str, Any] = {}
    for _ in range(MAX_DEPTH + 1):
        deep = {"a": deep}
    made, gate = Custom("free"), Gate(lambda _: PreExecutionDecision("modify", input=deep))
    async with bench(tools=[made], authorizer=allow_everything, pre_hooks=[gate]) as table:
        [result] = await one_round(table, ("free", {}))
    assert "nested deeper than" in str(result.content)
    assert (result.is_error, made.ran) == (True, 0)


async def test_a_modification_does_not_get_past_the_policy(tmp_path: Path) -> None:
    gate = Gate(lambda _: PreExecutionDecision("modify", input={"command": "touch ran", "workingDirectory": "/"}))
    policy = RuntimePolicy.permissive()
    options: dict[str, Any] = {"builtin_tools": True, "policy": policy, "working_directory": tmp_path}
    async with bench(pre_hooks=[gate], **options) as table:
        [result] = await one_round(table, ("shell", {"command": "true"}))
    assert "outside the runtime policy roots" in str(result.content)
    assert len(table.recorder.of(e.AuthorizationDenied)) == len(table.recorder.of(e.PolicyDenied)) == 1
    assert decisions(table.recorder) == [("tool-1", "deny", "policy")]
    assert table.recorder.of(e.ToolExecutionStarted) == []


async def test_a_hook_that_raises_blocks() -> None:
    def broken(_: PreExecutionContext) -> PreExecutionDecision:
        raise RuntimeError("hook is broken")

    made = Custom("act")
    async with bench(tools=[made], pre_hooks=[Gate(broken)]) as table:
        [result] = await one_round(table, ("act", {}))
    assert (result.content, made.ran) == ("Blocked by pre-execution hook: hook is broken", 0)


# ---- the body -------------------------------------------------------------------------------------------------


async def test_tool_execution_error_is_wrapped_and_loop_continues() -> None:
    def fail() -> None:
        raise ToolError("it broke")

    async with bench(tools=[Custom("act", fail)]) as table:
        [result] = await one_round(table, ("act", {}))
    assert (result.content, result.is_error) == ("it broke", True)
    [finished] = table.recorder.of(e.ToolExecutionFinished)
    assert (finished.error, finished.output_preview) == ("it broke", "it broke")


@pytest.mark.parametrize("error", [ValueError(), SystemExit(3), KeyError("k"), StopIteration(), RecursionError("deep")])
async def test_whatever_a_tool_raises_is_an_error_result(error: BaseException) -> None:
    def fail() -> None:
        raise error

    async with bench(tools=[Custom("inline", fail), tool(fail, name="thread")]) as table:
        results = await one_round(table, ("inline", {}), ("thread", {}))
    assert [r.is_error for r in results] == [True, True]
    assert all(r.content for r in results)


async def test_tool_execution_timeout_returns_tool_error() -> None:
    async with bench(tools=[Custom("slow", anyio.sleep_forever, timeout=0.02)]) as table:
        [result] = await one_round(table, ("slow", {}))
    assert (result.content, result.is_error) == ("Tool 'slow' timed out after 20ms", True)


async def test_a_call_that_ran_out_of_time_says_what_it_had_done() -> None:
    class Half(Custom):
        async def execute(self, context: Any, arguments: dict[str, Any]) -> ToolOutput:
            context.so_far(ToolOutput("[names: created half]", details={"created": ["half"]}))
            return await super().execute(context, arguments)

    async with bench(tools=[Half("slow", anyio.sleep_forever, timeout=0.02)]) as table:
        [result] = await one_round(table, ("slow", {}))
    assert result.content == "Tool 'slow' timed out after 20ms\n[names: created half]"
    [finished] = table.recorder.of(e.ToolExecutionFinished)
    assert finished.details == {"created": ["half"]}


async def test_a_tool_that_is_cancelled_from_within_is_an_error_result() -> None:
    async def give_up() -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    async with bench(tools=[Custom("act", give_up)]) as table:
        [result] = await one_round(table, ("act", {}))
    assert (result.content, result.is_error) == ("Tool 'act' was cancelled from within", True)


async def test_a_result_that_is_not_json_does_not_fail_the_turn() -> None:
    async with bench(tools=[Custom("odd", lambda: ToolOutput(object())), Custom("half", lambda: "\ud800")]) as table:
        odd, half = await one_round(table, ("odd", {}), ("half", {}))
    assert str(odd.content).startswith("<object object")
    assert half.content == "?"


async def test_progress_of_a_function_on_a_thread_arrives_on_the_loop_and_in_order() -> None:
    def talk(ctx: ToolContext) -> str:
        ctx.progress("one")
        ctx.progress("two")
        return "said"

    async with bench(tool_calls([("talk", {})]), text("ok"), tools=[talk]) as table:
        agent = await table.agent()
        here, threads = threading.get_ident(), set()
        agent.environment.bus.tap(lambda _: threads.add(threading.get_ident()))
        events = heard(agent)
        await agent.run("go")
    assert threads == {here}
    shown = [x for x in events if isinstance(x, e.ToolExecutionProgress | e.ToolExecutionFinished)]
    assert [getattr(x, "progress", "finished") for x in shown] == ["one", "two", "finished"]
    progress = of(events, e.ToolExecutionProgress)[0]
    assert (progress.id, progress.name) == ("tool-1", "talk")


async def test_shell_tool_emits_stderr_progress_on_failure(tmp_path: Path) -> None:
    options: dict[str, Any] = {"builtin_tools": True, "policy": RuntimePolicy.permissive()}
    script = tool_calls([("shell", {"command": "echo bad >&2; exit 1"})]), text("ok")
    async with bench(*script, working_directory=tmp_path, **options) as table:
        agent = await table.agent()
        events = heard(agent)
        await agent.run("go")
    assert [(p.id, p.name, p.progress) for p in of(events, e.ToolExecutionProgress)] == [
        ("tool-1", "shell", "stderr: bad")
    ]
    assert agent.history()[2].tool_results()[0].content == "bad\n[exit status 1]"


async def test_exclusive_success_and_error_outputs_truncate_with_identical_rules() -> None:
    many = "\n".join(map(str, range(5000)))

    def fail() -> None:
        raise ToolError(many)

    async with bench(tools=[Custom("good", lambda: many), Custom("bad", fail)]) as table:
        good, bad = await one_round(table, ("good", {}), ("bad", {}))
        finished = table.recorder.of(e.ToolExecutionFinished)
    assert good.content == bad.content.replace("tool-2", "tool-1") != many
    assert [f.output_preview for f in finished] == [good.content, bad.content]  # the screen shows what the model gets


async def test_parallel_outputs_truncate_per_result_and_preserve_call_order() -> None:
    @tool(reads_only=True)
    def look(size: str) -> str:
        return f"{size} " + "x" * int(size)

    async with bench(tools=[look]) as table:
        big, small = await one_round(table, ("look", {"size": str(MAX_RESULT_BYTES)}), ("look", {"size": "1"}))
    assert str(big.content).startswith(f"{MAX_RESULT_BYTES} xxx")
    assert len(str(big.content)) <= MAX_RESULT_BYTES
    assert small.content == "1 x"


async def test_a_large_result_is_cut_at_whole_lines() -> None:
    async with bench(tools=[Custom("many", lambda: "\n".join(map(str, range(5000))))]) as table:
        [result] = await one_round(table, ("many", {}))
    lines = str(result.content).split("\n")
    assert (lines[0], lines[1332], lines[-1]) == ("0", "1332", "4999")
    go_on = 'read_tool_result(tool_use_id="tool-1", start_line=1334)'
    assert lines[1333] == f"[… 15006 of 23889 bytes left out; 5000 lines in all; go on with {go_on} …]"
    assert lines[1334:] == [str(n) for n in range(5000 - len(lines[1334:]), 5000)]
    assert len(lines) <= MAX_RESULT_LINES


@pytest.mark.parametrize("content", ["short", {"a": 1}, "\n" * 1999, "x" * MAX_RESULT_BYTES])
def test_a_result_within_the_limits_is_untouched(content: Any) -> None:
    assert limited(content) == content


@pytest.mark.parametrize("lines", ["ok\n{}\ndone", "ok\n{}", "{}\ndone"])
def test_a_long_line_among_short_ones_is_shown_in_part(lines: str) -> None:
    text = limited(lines.format("x" * 200_000))
    assert text.count("x") > MAX_RESULT_BYTES - 1_000
    assert all(word in text for word in ("ok", "done") if word in lines)


def test_the_limit_counts_bytes_and_json_is_never_cut_in_two() -> None:
    text = limited("ä" * MAX_RESULT_BYTES)
    assert MAX_RESULT_BYTES - 400 < len(text.encode()) <= MAX_RESULT_BYTES
    assert set(text) >= {"ä"}
    assert "1 line in all" in text
    assert "over the limit" in limited(["x" * MAX_RESULT_BYTES])


@pytest.mark.parametrize(
    ("seconds", "words"), [(3, "3s"), (0.02, "20ms"), (1.5, "1500ms"), (5e-6, "5us"), (7e-9, "7ns")]
)
def test_a_duration_is_said_in_its_largest_whole_unit(seconds: float, words: str) -> None:
    assert duration(seconds) == words


# ---- order ----------------------------------------------------------------------------------------------------


@dataclass
class Meeting:
    """Read-only tools that only finish when they are all there at once."""

    size: int
    here: int = 0
    most: int = 0
    everybody: asyncio.Event = field(default_factory=asyncio.Event)

    async def attend(self) -> str:
        self.here += 1
        self.most = max(self.most, self.here)
        if self.here == self.size:
            self.everybody.set()
        with anyio.fail_after(10):
            await self.everybody.wait()
        self.here -= 1
        return "met"


async def test_parallel_tools_run_concurrently_and_preserve_history_order() -> None:
    meeting, first_done = Meeting(2), asyncio.Event()

    async def one() -> str:
        await meeting.attend()
        await first_done.wait()  # finishes last although it was called first
        return "one"

    async def two() -> str:
        await meeting.attend()
        first_done.set()
        return "two"

    tools = [tool(reads_only=True)(one), tool(reads_only=True)(two)]
    async with bench(tools=tools) as table:
        results = await one_round(table, ("one", {}), ("two", {}))
    assert [r.content for r in results] == ["one", "two"]
    assert [r.tool_use_id for r in results] == ["tool-1", "tool-2"]
    assert meeting.most == 2


@pytest.mark.parametrize("is_async", [False, True])
async def test_twenty_tools_that_read_run_at_the_same_time(is_async: bool) -> None:
    together, arrived, everybody = threading.Barrier(20), 0, anyio.Event()

    def look(number: int) -> int:
        together.wait(timeout=30)  # is broken unless all twenty wait at once
        return number

    async def listen(number: int) -> int:
        nonlocal arrived
        arrived += 1
        if arrived == 20:
            everybody.set()
        with anyio.fail_after(30):
            await everybody.wait()
        return number

    made = tool(name="look", reads_only=True)(listen if is_async else look)
    async with bench(tools=[made]) as table:
        results = await one_round(table, *(("look", {"number": number}) for number in range(20)))
    assert [result.content for result in results] == list(range(20))


async def test_parallel_batches_respect_exclusive_barriers() -> None:
    log: list[str] = []
    rooms = {"a": Meeting(2), "b": Meeting(2)}

    @tool(reads_only=True)
    async def look(room: str) -> None:
        log.append(f"look {room}")
        await rooms[room].attend()
        log.append(f"looked {room}")

    @tool
    async def change() -> None:
        log.append("change")

    async with bench(tools=[look, change]) as table:
        a, b = ("look", {"room": "a"}), ("look", {"room": "b"})
        await one_round(table, a, a, ("change", {}), b, b)
    assert log == ["look a"] * 2 + ["looked a"] * 2 + ["change"] + ["look b"] * 2 + ["looked b"] * 2


async def test_calls_that_change_things_run_one_after_the_other() -> None:
    log: list[str] = []

    @tool
    async def step(n: int) -> None:
        log.append(f"begin {n}")
        await anyio.lowlevel.checkpoint()
        log.append(f"end {n}")

    async with bench(tools=[step]) as table:
        await one_round(table, ("step", {"n": 1}), ("step", {"n": 2}))
    assert log == ["begin 1", "end 1", "begin 2", "end 2"]


async def test_all_calls_of_a_batch_are_authorized_before_any_starts() -> None:
    judge = Judge(ToolAuthorizationDecision.allow())
    look = tool(reads_only=True, name="look")(lambda: "seen")
    async with bench(tools=[look], authorizer=judge) as table:
        await one_round(table, ("look", {}), ("look", {}))
    kinds = [k for k in table.recorder.kinds() if k.startswith("tool_")]
    assert kinds[:4] == ["tool_authorization_started", "tool_authorization_finished"] * 2
    assert kinds.count("tool_execution_finished") == 2


async def test_a_refused_call_of_a_batch_does_not_hold_up_the_others() -> None:
    look = tool(reads_only=True, name="look")(lambda: "seen")
    async with bench(tools=[look]) as table:
        results = await one_round(table, ("look", {}), ("look", {"extra": 1}), ("look", {}))
    assert [r.is_error for r in results] == [False, True, False]


async def test_terminating_call_creates_a_barrier_and_skips_the_scheduled_parallel_batch() -> None:
    ran: list[str] = []
    look = tool(reads_only=True, name="look")(lambda: ran.append("look"))
    last = Custom("last", lambda: ToolOutput("bye", terminate=True))
    calls = [("look", {}), ("last", {}), ("look", {}), ("look", {}), ("last", {})]
    async with bench(tool_calls(calls), tools=[last, look]) as table:
        agent = await table.agent()
        with pytest.raises(EmptyAssistantResponse):
            await agent.run("go")
        results = agent.history()[2].tool_results()
    assert [r.content for r in results] == ["", "bye", *["not executed: the turn was ended by 'last'"] * 3]
    assert (ran, last.ran) == (["look"], 1)
    assert [d[1:] for d in decisions(table.recorder)] == [("allow", "runtime")] * 2 + [("deny", "runtime")] * 3
    assert len(table.provider.recorded_requests) == 1


@pytest.mark.parametrize("calls", [1, 2])
async def test_parallel_lane_terminate_is_rejected_as_misuse_and_run_continues(calls: int) -> None:
    bye = tool(reads_only=True, name="bye")(lambda: ToolOutput("bye", terminate=True))
    async with bench(tools=[bye]) as table:
        results = await one_round(table, *[("bye", {})] * calls)
        assert len(table.provider.recorded_requests) == 2
    assert {(r.content, r.is_error) for r in results} == {
        ("Tool 'bye' runs beside others and cannot end the turn", True)
    }


async def test_a_tools_images_are_part_of_its_result() -> None:
    plot = Image.from_bytes("image/png", b"png")
    show = Custom("show", lambda: ToolOutput("a plot", images=(plot,)))
    async with bench(tools=[show]) as table:
        (result,) = await one_round(table, ("show", {}))
    assert (result.content, result.images, result.is_error) == ("a plot", (plot,), False)


async def test_a_model_that_takes_no_images_in_results_reads_that_there_were_some() -> None:
    show = Custom("show", lambda: ToolOutput("a plot", images=(Image(data="AA"),)))
    async with bench(tool_calls([("show", {})]), text("ok"), tools=[show]) as table:
        table.provider.capabilities = ProviderCapabilities(supports_images=False)
        agent = await table.agent()
        await agent.send("go")
        [result] = agent.history()[2].tool_results()
    note = "[1 image(s) left out: this model takes none in the results of tools]"
    assert (result.content, result.images) == (f"a plot\n{note}", ())


# ---- budget ---------------------------------------------------------------------------------------------------


async def test_run_respects_tool_budget() -> None:
    made = Custom("act")
    async with bench(tool_calls([("act", {})]), tools=[made]) as table:
        agent = await table.agent()
        with pytest.raises(ToolBudgetExceeded) as error:
            await agent.run("go", RunOptions(tool_budget=0))
    assert (error.value.limit, made.ran, agent.history()) == (0, 0, [])


async def test_run_options_tool_budget_blocks_second_tool_call() -> None:
    ran: list[str] = []
    look = tool(reads_only=True, name="look")(lambda: ran.append("x"))
    async with bench(tool_calls([("look", {}), ("look", {})]), tools=[look]) as table:
        agent = await table.agent()
        with pytest.raises(ToolBudgetExceeded) as error:
            await agent.run("go", RunOptions(tool_budget=1))
    assert (error.value.limit, ran, agent.history()) == (1, [], [])
    assert [d[1] for d in decisions(table.recorder)] == ["deny", "deny"]


async def test_the_budget_counts_over_the_rounds_of_a_turn_and_anew_in_the_next() -> None:
    turns = [tool_calls([("act", {})]), text("one"), tool_calls([("act", {})]), tool_calls([("act", {})])]
    async with bench(*turns, tools=[Custom("act")]) as table:
        agent = await table.agent()
        await agent.run("go", RunOptions(tool_budget=1))
        with pytest.raises(ToolBudgetExceeded):
            await agent.run("go", RunOptions(tool_budget=1))


# ---- written ahead --------------------------------------------------------------------------------------------


@dataclass
class Syncing:
    """A record that says when it was synced."""

    synced: int = 0

    def record_audit_event(self, scope: str, event_type: str, payload: dict[str, Any]) -> None:
        return

    def sync(self) -> None:
        self.synced += 1


async def test_before_a_tool_runs_the_store_and_the_disk_know(tmp_path: Path) -> None:
    other, seen, audit = SqliteStore(tmp_path / "state.sqlite"), [], Syncing()

    async def act(ctx: ToolContext) -> str:
        seen.append((await other.list_tool_calls(ctx.run_id), audit.synced))
        return "done"

    async with bench(tools=[act], store=SqliteStore(tmp_path / "state.sqlite"), audit=audit) as table:
        await one_round(table, ("act", {}))
        [(written, synced)] = seen
        assert (written[0].call_id, written[0].tool, written[0].effect) == ("tool-1", "act", "once")
        assert written[0].finished_at is None
        assert written[0].arguments_hash == arguments_hash("act", {})
        assert synced == 1
        [after] = await other.list_tool_calls(written[0].run_id)
        assert (after.result, after.is_error) == ("done", False)
        assert after.finished_at is not None
    other.close()


async def test_a_refused_call_is_not_written_ahead() -> None:
    judge = Judge(ToolAuthorizationDecision.deny("no"))
    async with bench(tools=[add], authorizer=judge) as table:
        await one_round(table, ("add", {"a": 1, "b": 2}))
        run_id = table.recorder.of(e.TurnStarted)[0].run_id
        assert run_id is not None
        assert await table.runtime.store.list_tool_calls(run_id) == []


async def test_a_model_that_repeats_its_call_ids_from_round_to_round_is_served() -> None:
    rounds = [tool_calls([("act", {})]) for _ in range(3)]
    async with bench(*rounds, text("ok"), tools=[Custom("act")]) as table:
        agent = await table.agent()
        await agent.run("go")
        run_id = table.recorder.of(e.TurnStarted)[0].run_id
        assert run_id is not None
        written = await table.runtime.store.list_tool_calls(run_id)
    assert [w.call_id for w in written] == ["tool-1", "tool-1-2", "tool-1-3"]
    for called, answered in zip(agent.history()[1::2], agent.history()[2::2], strict=False):
        assert [u.id for u in called.tool_uses()] == [r.tool_use_id for r in answered.tool_results()]


async def test_calls_without_an_id_or_with_the_same_one_get_their_own() -> None:
    calls = [ScriptedCall("add", {"a": n, "b": 0}, id) for n, id in enumerate(["x", "x"])]
    async with bench(tools=[add]) as table:
        results = await one_round(table, *calls)
    assert [(r.tool_use_id, r.content) for r in results] == [("x", 0), ("x-2", 1)]


def test_an_approval_is_bound_to_tool_and_arguments_whatever_their_order() -> None:
    assert arguments_hash("t", {"a": 1, "b": 2}) == arguments_hash("t", {"b": 2, "a": 1})
    assert len({arguments_hash("t", {"a": 1}), arguments_hash("u", {"a": 1}), arguments_hash("t", {"a": 2})}) == 3


# ---- a stop ---------------------------------------------------------------------------------------------------


async def test_a_stop_in_a_batch_answers_every_call_and_says_which_may_have_run() -> None:
    token, ran = CancellationToken(), anyio.Event()

    @tool(reads_only=True)
    async def quick() -> str:
        ran.set()
        return "quick"

    @tool(reads_only=True)
    async def slow() -> str:
        await ran.wait()
        token.cancel()
        await anyio.sleep_forever()
        return "never"

    after = Custom("after")
    calls = [("quick", {}), ("slow", {}), ("after", {})]
    async with bench(tool_calls(calls), tools=[quick, slow, after]) as table:
        agent = await table.agent()
        with pytest.raises(Cancelled):
            await agent.run("go", RunOptions(cancellation=token))
        results = agent.history()[2].tool_results()
        run_id = table.recorder.of(e.TurnStarted)[0].run_id
        assert run_id is not None
        written = {w.tool: w for w in await table.runtime.store.list_tool_calls(run_id)}
    assert [r.content for r in results] == [
        "quick",
        "stopped before it finished; it may have taken effect",
        "not executed: the turn was stopped",
    ]
    assert written["slow"].is_error
    assert set(written) == {"quick", "slow"}
    assert [d[:2] for d in decisions(table.recorder)] == [("tool-1", "allow"), ("tool-2", "allow"), ("tool-3", "deny")]
    assert len(table.recorder.of(e.ToolExecutionFinished)) == 3


async def test_a_result_that_is_known_when_the_turn_is_stopped_is_stored_and_kept() -> None:
    token = CancellationToken()

    class Stopping(VolatileStore):
        async def finish_tool_call(self, *args: Any, **options: Any) -> None:
            token.cancel()
            await anyio.lowlevel.checkpoint()
            await super().finish_tool_call(*args, **options)

    first, after = Custom("first"), Custom("after")
    async with bench(tool_calls([("first", {}), ("after", {})]), tools=[first, after], store=Stopping()) as table:
        agent = await table.agent()
        with pytest.raises(Cancelled):
            await agent.run("go", RunOptions(cancellation=token))
        run_id = table.recorder.of(e.TurnStarted)[0].run_id
        assert run_id is not None
        [written, *_] = await table.runtime.store.list_tool_calls(run_id)
    assert [result.content for result in agent.history()[2].tool_results()] == ["done", NOT_RUN]
    assert (written.tool, written.result, after.ran) == ("first", "done", 0)


async def test_what_an_abandoned_thread_reports_later_is_dropped() -> None:
    token, release, said = CancellationToken(), threading.Event(), threading.Event()

    def stubborn(ctx: ToolContext) -> None:
        token.cancel()
        release.wait(10)
        ctx.progress("too late")
        said.set()

    async with bench(tool_calls([("stubborn", {})]), tools=[stubborn]) as table:
        agent = await table.agent()
        events = heard(agent)
        with pytest.raises(Cancelled):
            await agent.run("go", RunOptions(cancellation=token))
        release.set()
        assert await anyio.to_thread.run_sync(said.wait, 10)
        await anyio.lowlevel.checkpoint()
    assert of(events, e.ToolExecutionProgress) == []


def test_outcomes_are_the_words_of_the_original() -> None:
    assert [str(outcome) for outcome in ToolAuthorizationOutcome] == ["allow", "prompt", "deny"]


# ---- whatever a tool does -----------------------------------------------------------------------------------------


class Strange(BaseException):
    """An exception that is not an `Exception`."""


def raising(error: BaseException) -> Callable[[], Any]:
    def body() -> Any:
        raise error

    return body


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Strange("odd"), GeneratorExit(), SystemExit(3)])
@pytest.mark.parametrize("is_async", [False, True])
async def test_whatever_a_tool_raises_is_its_error_result(error: BaseException, is_async: bool) -> None:
    async def later() -> str:
        raise error

    made = tool(asks=False, name="act")(later if is_async else raising(error))
    async with bench(tools=[made, add]) as table:
        failed, added = await one_round(table, ("act", {}), ("add", {"a": 1, "b": 1}))
    assert (failed.is_error, added.content) == (True, 2)
    assert type(error).__name__ in str(failed.content)


async def test_an_error_is_named_by_its_type() -> None:
    async with bench(tools=[Custom("act", raising(KeyError("amount")))]) as table:
        [result] = await one_round(table, ("act", {}))
    assert result.content == "KeyError: 'amount'"


async def test_a_connection_made_on_another_thread_says_what_to_do() -> None:
    connection = sqlite3.connect(":memory:")
    made = tool(asks=False, name="act")(lambda: connection.execute("SELECT 1").fetchall())
    async with bench(tools=[made]) as table:
        [result] = await one_round(table, ("act", {}))
    assert result.is_error
    assert str(result.content).endswith("or with sqlite3.connect(..., check_same_thread=False)")
    shared = sqlite3.connect(":memory:", check_same_thread=False)
    made = tool(asks=False, name="act")(lambda: shared.execute("SELECT 1").fetchall())
    async with bench(tools=[made]) as table:
        [result] = await one_round(table, ("act", {}))
    assert result.content == [(1,)]


class Unspeakable:
    def __str__(self) -> str:
        raise ValueError("no words")


async def test_a_result_that_cannot_be_put_into_words_is_that_calls_error() -> None:
    made = tool(asks=False, name="act")(lambda: Unspeakable())
    async with bench(tools=[made, add]) as table:
        failed, added = await one_round(table, ("act", {}), ("add", {"a": 1, "b": 1}))
    assert (failed.content, failed.is_error, added.content) == ("ValueError: no words", True, 2)


@pytest.mark.parametrize("kind", [Exception, BaseException, ToolError])
@pytest.mark.parametrize("raised", [ValueError("no words"), SystemExit(3)])
async def test_an_error_that_cannot_be_put_into_words_is_named_by_its_type(
    kind: type[BaseException], raised: BaseException
) -> None:
    def words(_: BaseException) -> str:
        raise raised

    mute = type("Mute", (kind,), {"__str__": words})

    def act() -> str:
        raise mute

    async with bench(tools=[tool(asks=False)(act)]) as table:
        [failed] = await one_round(table, ("act", {}))
    assert failed.is_error
    assert "Mute" in str(failed.content)


async def test_the_words_of_a_result_are_made_off_the_loop() -> None:
    made_on: list[int] = []

    class Slow:
        def __str__(self) -> str:
            made_on.append(threading.get_ident())
            return "words"

    async def act() -> object:
        return Slow()

    async with bench(tools=[tool(asks=False)(act)]) as table:
        [result] = await one_round(table, ("act", {}))
    assert result.content == "words"
    assert threading.get_ident() not in made_on


async def test_whatever_a_pre_execution_hook_raises_blocks_that_call() -> None:
    def hook(_: PreExecutionContext) -> PreExecutionDecision:
        raise KeyboardInterrupt

    async with bench(tools=[add], pre_hooks=[Gate(hook)]) as table:
        [result] = await one_round(table, ("add", {"a": 1, "b": 1}))
    assert result.content == "Blocked by pre-execution hook: KeyboardInterrupt"


async def test_what_a_call_acts_on_may_not_change_between_the_decision_and_the_run(tmp_path: Path) -> None:
    (tmp_path / "important.py").write_text("kept")

    class Swapper(Judge):
        async def authorize(self, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision:
            (tmp_path / "notes.md").symlink_to(tmp_path / "important.py")
            return await super().authorize(request)

    judge = Swapper(ToolAuthorizationDecision.allow())
    async with bench(builtin_tools=True, working_directory=tmp_path, authorizer=judge) as table:
        [result] = await one_round(table, ("write", {"path": "notes.md", "content": "x"}))
    assert "changed while it was decided about" in str(result.content)
    assert (tmp_path / "important.py").read_text() == "kept"


async def test_a_file_that_changes_between_the_decision_and_the_write_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("one")

    class Writer(Judge):
        async def authorize(self, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision:
            (tmp_path / "notes.md").write_text("two")  # of the same size
            return await super().authorize(request)

    judge = Writer(ToolAuthorizationDecision.allow())
    async with bench(builtin_tools=True, working_directory=tmp_path, authorizer=judge) as table:
        [result] = await one_round(table, ("write", {"path": "notes.md", "content": "x"}))
    assert "changed while it was decided about" in str(result.content)
    assert (tmp_path / "notes.md").read_text() == "two"


async def test_what_a_call_would_do_is_read_off_the_event_loop() -> None:
    class Threads(Custom):
        def structured_input(self, context: ToolContext, arguments: dict[str, Any]) -> Any:
            threads.append(threading.get_ident())
            return {}

    threads: list[int] = []
    async with bench(tools=[Threads("act")]) as table:
        await one_round(table, ("act", {}))
    assert len(threads) == 2
    assert threading.get_ident() not in threads


async def test_a_hook_that_changes_the_arguments_in_place_changes_nothing() -> None:
    def hook(context: PreExecutionContext) -> PreExecutionDecision:
        context.input["a"] = 100
        return PreExecutionDecision("allow")

    async with bench(tools=[add], pre_hooks=[Gate(hook)]) as table:
        [result] = await one_round(table, ("add", {"a": 1, "b": 1}))
    assert result.content == 2


async def test_a_policy_that_refuses_a_call_after_the_decision_keeps_it_from_running() -> None:
    @dataclass
    class Closing(Custom):
        checks: int = 0

        def check_policy(self, context: ToolContext, arguments: dict[str, Any]) -> None:
            self.checks += 1
            if self.checks > 1:
                raise PolicyViolation("files_read", "the folder was closed")

    made = Closing("act")
    async with bench(tools=[made]) as table:
        [result] = await one_round(table, ("act", {}))
        denied = table.recorder.of(e.PolicyDenied)
    assert (made.ran, result.is_error) == (0, True)
    assert [event.reason for event in denied] == ["the folder was closed"]
    assert decisions(table.recorder) == [("tool-1", "allow", "runtime")]


@dataclass
class StopsAtStart:
    """A hook that stops the turn when a call is about to run."""

    token: CancellationToken

    def on_event(self, store: AuditStore, event: e.RuntimeEvent) -> None:
        if isinstance(event, e.ToolExecutionStarted):
            self.token.cancel("enough")


async def test_a_call_that_is_stopped_just_before_it_runs_is_stored_as_not_run() -> None:
    token, made = CancellationToken(), Custom("act")
    async with bench(tool_calls([("act", {})]), tools=[made], hooks=[StopsAtStart(token)]) as table:
        agent = await table.agent()
        with pytest.raises(Cancelled):
            await agent.run("go", RunOptions(cancellation=token))
        run_id = table.recorder.of(e.TurnStarted)[0].run_id
        assert run_id is not None
        [written] = await table.runtime.store.list_tool_calls(run_id)
    assert made.ran == 0
    assert (written.result, written.is_error) == (NOT_RUN, True)


async def test_what_a_call_would_do_may_not_change_either_though_its_subject_stays() -> None:
    @dataclass
    class Changing(Custom):
        asked: int = 0

        def structured_input(self, context: ToolContext, arguments: dict[str, Any]) -> Any:
            self.asked += 1
            return {"op": "create" if self.asked == 1 else "set"}

    made = Changing("act")
    async with bench(tools=[made]) as table:
        [result] = await one_round(table, ("act", {}))
    assert (made.ran, result.is_error) == (0, True)
    assert "changed while it was decided about" in str(result.content)

"""What the record holds of whole turns, event by event and in order."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from corekit import Bench, Judge, bench

from mentra_nb import event_types as e
from mentra_nb import session_events as shown
from mentra_nb.authorization import PermissionDecision, ToolAuthorizationDecision
from mentra_nb.content import TokenUsage
from mentra_nb.control.hooks import PreExecutionContext, PreExecutionDecision
from mentra_nb.control.limits import CancellationToken, RunOptions
from mentra_nb.errors import EmptyAssistantResponse, FailedToStreamResponse, HttpError, MalformedStream, MentraError
from mentra_nb.providers.base import ContentBlockDelta, ContentBlockStarted, MessageStarted
from mentra_nb.providers.scripted import ControlledStream, erroring, failure, stream_text, text, tool_calls
from mentra_nb.tools.spec import tool

pytestmark = pytest.mark.anyio

ASKED = ["model_request_started", "model_request_finished", "model_response_finished"]
RAN = ["tool_execution_started", "tool_execution_finished"]
JUDGED = ["tool_authorization_started", "tool_authorization_finished"]


@tool
def act() -> str:
    """Do it."""
    return "done"


async def trace(table: Bench, options: RunOptions | None = None) -> list[str]:
    """The kinds recorded for one turn of an agent, without the runtime's own."""
    agent = await table.agent()
    with suppress(MentraError):
        await agent.run("go", options)
    kinds = table.recorder.kinds()
    assert kinds[:2] == ["recovery_prepared", "turn_started"]
    assert kinds[-1] == "turn_finished"
    return kinds[2:-1]


async def test_text_turn() -> None:
    async with bench(text("hi")) as table:
        assert await trace(table) == ASKED


async def test_one_tool_no_authorizer() -> None:
    async with bench(tool_calls([("act", {})]), text("ok"), tools=[act]) as table:
        assert await trace(table) == [*ASKED, "tool_authorization_finished", *RAN, *ASKED]


async def test_one_tool_with_an_authorizer() -> None:
    judge = Judge(ToolAuthorizationDecision.allow())
    async with bench(tool_calls([("act", {})]), text("ok"), tools=[act], authorizer=judge) as table:
        assert await trace(table) == [*ASKED, *JUDGED, *RAN, *ASKED]


@pytest.mark.parametrize("verdict", [ToolAuthorizationDecision.deny("no"), ToolAuthorizationDecision.prompt("hm")])
async def test_denied_or_prompt(verdict: ToolAuthorizationDecision) -> None:
    async with bench(tool_calls([("act", {})]), text("ok"), tools=[act], authorizer=Judge(verdict)) as table:
        refused = [*JUDGED, "tool_authorization_blocked", "tool_execution_finished"]
        assert await trace(table) == [*ASKED, *refused, *ASKED]


async def test_arguments_that_do_not_fit_or_an_unknown_tool() -> None:
    calls = [("act", {"extra": 1}), ("nope", {})]
    async with bench(tool_calls(calls), text("ok"), tools=[act]) as table:
        refused = ["tool_authorization_finished", "tool_execution_finished"]
        assert await trace(table) == [*ASKED, *refused, *refused, *ASKED]


async def test_pre_hook_deny() -> None:
    class No:
        async def before_execution(self, context: PreExecutionContext) -> PreExecutionDecision:
            return PreExecutionDecision("deny", "no")

    async with bench(tool_calls([("act", {})]), text("ok"), tools=[act], pre_hooks=[No()]) as table:
        refused = ["tool_authorization_finished", "tool_execution_blocked", "tool_execution_finished"]
        assert await trace(table) == [*ASKED, *refused, *ASKED]


async def test_policy_refuses_shell(tmp_path: Path) -> None:
    script = tool_calls([("shell", {"command": "true"})])
    async with bench(script, text("ok"), builtin_tools=True, working_directory=tmp_path) as table:
        denied = ["policy_denied", "authorization_denied", "tool_authorization_finished", "tool_execution_finished"]
        assert await trace(table) == [*ASKED, *denied, *ASKED]


async def test_503_then_ok() -> None:
    async with bench(failure(HttpError(503)), text("ok")) as table:
        assert await trace(table) == ["model_request_started", "model_request_finished", *ASKED]
        assert [r.success for r in table.recorder.of(e.ModelRequestFinished)] == [False, True]
        assert [r.attempt for r in table.recorder.of(e.ModelRequestStarted)] == [1, 2]
        assert [r.attempt for r in table.recorder.of(e.ModelResponseFinished)] == [2]


async def test_stream_breaks() -> None:
    broken = erroring(
        [MessageStarted("m", "s"), ContentBlockStarted(0, "text"), ContentBlockDelta(0, "x")], MalformedStream("boom")
    )
    async with bench(broken) as table:
        assert await trace(table) == [*ASKED, "run_aborted"]
        [response] = table.recorder.of(e.ModelResponseFinished)
    assert (response.success, response.usage, response.stop_reason) == (False, None, None)
    assert "boom" in str(response.error)


async def test_a_request_that_never_opens() -> None:
    async with bench(failure(HttpError(400, "bad"))) as table:
        assert await trace(table) == ["model_request_started", "model_request_finished", "run_aborted"]


async def test_a_stop_while_the_model_is_silent() -> None:
    token = CancellationToken()
    async with bench(ControlledStream()) as table:
        table.runtime.hooks.with_hook(StopAt("model_request_finished", token))
        assert await trace(table, RunOptions(cancellation=token)) == [*ASKED, "run_aborted"]
        [finished] = table.recorder.of(e.TurnFinished)
    assert (finished.stop_reason, finished.success) == ("cancelled", False)


class StopAt:
    """A hook that presses the stop button at one kind of event."""

    def __init__(self, kind: str, token: CancellationToken) -> None:
        self.kind, self.token = kind, token

    def on_event(self, store: Any, event: e.RuntimeEvent) -> None:
        if event.kind == self.kind:
            self.token.cancel()


async def test_a_person_is_asked_and_allows() -> None:
    async with bench(tool_calls([("act", {})]), text("ok"), tools=[act]) as table:
        session = await table.session()

        def answer(event: shown.SessionEvent) -> None:
            if isinstance(event, shown.PermissionAsked):
                session.resolve_permission(event.request_id, PermissionDecision(allow=True))

        session.subscribe(answer)
        await session.append_turn("go")
        kinds = table.recorder.kinds()
    asked = ["tool_authorization_started", "permission_requested", "permission_resolved", "tool_authorization_finished"]
    assert kinds == [
        "recovery_prepared",
        "session_started",
        "turn_started",
        *ASKED,
        *asked,
        *RAN,
        *ASKED,
        "turn_finished",
    ]


async def test_an_empty_answer_is_a_finished_turn() -> None:
    async with bench(stream_text([])) as table:
        agent = await table.agent()
        with pytest.raises(EmptyAssistantResponse):
            await agent.send("go")
        assert table.recorder.kinds()[2:] == [*ASKED, "turn_finished"]


async def test_custom_hooks_observe_model_and_tool_execution() -> None:
    async with bench(tool_calls([("act", {})]), text("ok"), tools=[act]) as table:
        await trace(table)
        first = table.recorder.of(e.ModelResponseFinished)[0]
        [started] = table.recorder.of(e.ToolExecutionStarted)
        [finished] = table.recorder.of(e.ToolExecutionFinished)
    assert (first.success, first.stop_reason, first.usage) == (True, "tool_use", None)
    assert (started.tool_name, started.tool_call_id) == ("act", "tool-1")
    assert (finished.is_error, finished.error, finished.output_preview) == (False, None, "done")


async def test_model_response_finished_hook_reports_usage_after_successful_commit() -> None:
    usage = TokenUsage(input_tokens=12, output_tokens=5, total_tokens=17)
    async with bench(text("hi", usage=usage)) as table:
        await trace(table)
        [response] = table.recorder.of(e.ModelResponseFinished)
    assert (response.usage, response.stop_reason) == (usage, "end")


async def test_starts_and_finishes_of_a_request_pair_by_its_id_and_of_a_turn_by_its_run() -> None:
    async with bench(tool_calls([("act", {})]), text("ok"), tools=[act]) as table:
        await trace(table)
        events = table.recorder.events
    requests = [x.request_id for x in events if isinstance(x, e.ModelRequestStarted | e.ModelResponseFinished)]
    assert requests[0] == requests[1] != requests[2] == requests[3]
    runs = {getattr(x, "run_id", None) for x in events[1:]}
    assert len(runs) == 1
    assert None not in runs


async def test_the_turn_carries_where_it_came_from() -> None:
    async with bench(text("hi")) as table:
        session = await table.session(project="/p", notebook="nb.ipynb")
        await session.append_turn("go", origin=e.RunOrigin(cell_id="cell-7", execution_count=3))
        [started], [finished] = table.recorder.of(e.TurnStarted), table.recorder.of(e.TurnFinished)
    assert (started.session_id, started.cell_id, started.execution_count) == (session.id, "cell-7", 3)
    assert (started.prompt, started.project, started.notebook) == ("go", "/p", "nb.ipynb")
    assert (finished.cell_id, finished.success, finished.run_id) == ("cell-7", True, started.run_id)


async def test_a_failure_is_named_in_the_turn() -> None:
    async with bench(failure(HttpError(400, "bad"))) as table:
        agent = await table.agent()
        with pytest.raises(FailedToStreamResponse):
            await agent.send("go")
        [finished], [aborted] = table.recorder.of(e.TurnFinished), table.recorder.of(e.RunAborted)
    assert aborted.reason == finished.error == "failed to stream provider response: provider returned HTTP 400: bad"
    assert (finished.stop_reason, finished.success) == ("error", False)

"""Hooks around a call: those before it are asked first of all, those after it decide what the model reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from kits.core import Bench, Judge, bench

from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.agent.outcome import WITHHELD
from mentra_nb.agent.results import STOPPED
from mentra_nb.authorization import ToolAuthorizationDecision
from mentra_nb.content import Image, ToolResult
from mentra_nb.errors import Cancelled, EmptyAssistantResponse
from mentra_nb.event import types as e
from mentra_nb.providers.scripted import text, tool_calls
from mentra_nb.tools.function import tool
from mentra_nb.tools.post_hooks import PostExecutionContext, PostExecutionDecision
from mentra_nb.tools.pre_hooks import PreExecutionContext, PreExecutionDecision
from mentra_nb.tools.schema import ToolError
from mentra_nb.tools.tool import ToolOutput

pytestmark = pytest.mark.anyio

PIXEL = Image.from_bytes("image/gif", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;")


@dataclass
class After:
    """A post-execution hook that decides with `decide(context)`, and keeps the contexts."""

    decide: Callable[[PostExecutionContext], Any]
    seen: list[PostExecutionContext] = field(default_factory=list)

    async def after_execution(self, context: PostExecutionContext) -> PostExecutionDecision:
        self.seen.append(context)
        made = self.decide(context)
        return await made if asyncio.iscoroutine(made) else made


@dataclass
class Before:
    """A pre-execution hook of the same kind."""

    decide: Callable[[PreExecutionContext], PreExecutionDecision]
    seen: list[PreExecutionContext] = field(default_factory=list)

    async def before_execution(self, context: PreExecutionContext) -> PreExecutionDecision:
        self.seen.append(context)
        return self.decide(context)


def keep(_: PostExecutionContext) -> PostExecutionDecision:
    return PostExecutionDecision("keep")


def instead(content: Any) -> Callable[[PostExecutionContext], PostExecutionDecision]:
    return lambda _: PostExecutionDecision("replace", content)


def marked(mark: str) -> Callable[[PostExecutionContext], PostExecutionDecision]:
    return lambda context: PostExecutionDecision("replace", f"{context.content}{mark}")


@tool
def look(name: str = "") -> Any:
    """Look."""
    match name:
        case "broken":
            raise ToolError("of Smith there is nothing")
        case "picture":
            return ToolOutput("Smith", images=(PIXEL,))
        case "data":
            return {"names": ["Smith"]}
        case "last":
            return ToolOutput("Smith", terminate=True)
    return "Smith is here"


async def looked(table: Bench, **arguments: Any) -> ToolResult:
    """Have the model call `look`, and return the result that it reads."""
    table.provider.push(tool_calls([("look", arguments)]), text("ok"))
    agent = await table.agent()
    await agent.run("go")
    [result] = agent.history()[2].tool_results()
    return result


def finished(table: Bench) -> e.ToolExecutionFinished:
    [event] = table.recorder.of(e.ToolExecutionFinished)
    return event


# ---- after ----------------------------------------------------------------------------------------------------


async def test_a_model_reads_what_a_hook_made_of_a_result_and_the_record_keeps_the_original() -> None:
    async with bench(tools=[look], post_hooks=[After(instead("N. is here"))]) as table:
        result = await looked(table)
        [stored] = await table.runtime.store.list_tool_calls(table.recorder.of(e.TurnStarted)[0].run_id)
        sent = table.provider.recorded_requests[1].messages[-1].tool_results()
    assert (result.content, result.is_error) == ("N. is here", False)
    assert [each.content for each in sent] == ["N. is here"]
    assert stored.result == "N. is here"  # an interrupted turn goes on with what the model may read
    assert (finished(table).output_preview, finished(table).model_output) == ("Smith is here", "N. is here")


async def test_a_result_that_hooks_keep_is_the_original() -> None:
    hook = After(keep)
    async with bench(tools=[look], post_hooks=[hook]) as table:
        assert (await looked(table, name="data")).content == {"names": ["Smith"]}
    assert finished(table).model_output is None
    [context] = hook.seen
    assert (context.tool_name, context.input, context.content) == ("look", {"name": "data"}, {"names": ["Smith"]})


async def test_each_hook_is_asked_about_what_those_before_it_left() -> None:
    async with bench(tools=[look], post_hooks=[After(marked(".")), After(keep), After(marked("!"))]) as table:
        assert (await looked(table)).content == "Smith is here.!"


@pytest.mark.parametrize("error", [RuntimeError("about Smith"), KeyboardInterrupt(), asyncio.CancelledError()])
async def test_when_a_hook_fails_the_result_is_withheld(error: BaseException) -> None:
    def fail(_: PostExecutionContext) -> PostExecutionDecision:
        raise error

    last = After(keep)
    async with bench(tools=[look], post_hooks=[After(fail), last]) as table:
        result = await looked(table, name="picture")
    assert (result.content, result.is_error, result.images) == (WITHHELD, True, ())
    assert last.seen == []
    assert (finished(table).is_error, finished(table).output_preview) == (False, "Smith")
    assert [turn.success for turn in table.recorder.of(e.TurnFinished)] == [True]


async def test_a_replaced_result_has_the_pictures_of_its_replacement_only() -> None:
    async with bench(tools=[look], post_hooks=[After(instead("no picture"))]) as table:
        assert (await looked(table, name="picture")).images == ()
    async with bench(tools=[look], post_hooks=[After(instead({"seen": PIXEL}))]) as table:
        result = await looked(table)
    assert result.images == (PIXEL,)
    assert result.content["seen"].startswith("[picture 1: image/gif")


async def test_a_hook_that_changes_a_result_in_place_changes_nothing() -> None:
    def change(context: PostExecutionContext) -> PostExecutionDecision:
        context.content["names"].clear()
        context.input.clear()
        return PostExecutionDecision("keep")

    async with bench(tools=[look], post_hooks=[After(change)]) as table:
        assert (await looked(table, name="data")).content == {"names": ["Smith"]}
    assert finished(table).output_preview == '{"names":["Smith"]}'


async def test_hooks_are_asked_about_errors_and_cannot_keep_a_turn_from_ending() -> None:
    hook = After(instead("nothing"))
    async with bench(tools=[look], post_hooks=[hook]) as table:
        result = await looked(table, name="broken")
        table.provider.push(tool_calls([("look", {"name": "last"})]))
        agent = await table.agent()
        with pytest.raises(EmptyAssistantResponse):
            await agent.run("go")
    assert (result.content, result.is_error) == ("nothing", True)
    assert [context.is_error for context in hook.seen] == [True, False]
    assert [turn.stop_reason for turn in table.recorder.of(e.TurnFinished)] == ["end", "ended_by_tool"]


async def test_a_call_that_did_not_run_has_no_result_to_ask_about() -> None:
    hook, judge = After(keep), Judge(ToolAuthorizationDecision.deny("no"))
    async with bench(tools=[look], post_hooks=[hook], authorizer=judge) as table:
        assert (await looked(table)).is_error
    assert hook.seen == []


async def test_a_stop_while_a_hook_is_asked_answers_the_call_without_its_result() -> None:
    token = CancellationToken()

    async def wait() -> PostExecutionDecision:
        token.cancel()
        await asyncio.Event().wait()
        raise AssertionError

    async with bench(tool_calls([("look", {})]), tools=[look], post_hooks=[After(lambda _: wait())]) as table:
        agent = await table.agent()
        with pytest.raises(Cancelled):
            await agent.run("go", RunOptions(cancellation=token))
        [result] = agent.history()[2].tool_results()
    assert (result.content, result.is_error) == (STOPPED, True)


# ---- before ---------------------------------------------------------------------------------------------------


@tool
def add(a: int, b: int = 0) -> int:
    """Add."""
    return a + b


async def added(table: Bench, arguments: dict[str, Any]) -> ToolResult:
    table.provider.push(tool_calls([("add", arguments)]), text("ok"))
    agent = await table.agent()
    await agent.run("go")
    [result] = agent.history()[2].tool_results()
    return result


async def test_a_hook_may_mend_arguments_that_do_not_fit() -> None:
    hook = Before(lambda context: PreExecutionDecision("modify", input={"a": int(context.input["first"])}))
    judge = Judge(ToolAuthorizationDecision.allow())
    async with bench(tools=[add], pre_hooks=[hook], authorizer=judge) as table:
        result = await added(table, {"first": "3"})
    assert (result.content, result.is_error) == (3, False)
    assert [context.input for context in hook.seen] == [{"first": "3"}]
    assert [request.arguments for request in judge.asked] == [{"a": 3}]


async def test_arguments_that_do_not_fit_when_all_hooks_were_asked_are_refused_before_anybody_is_asked() -> None:
    hook, judge = Before(lambda _: PreExecutionDecision("allow")), Judge(ToolAuthorizationDecision.allow())
    async with bench(tools=[add], pre_hooks=[hook], authorizer=judge) as table:
        result = await added(table, {"a": "x"})
    assert str(result.content).startswith("Tool execution denied: invalid arguments: a: ")
    assert (len(hook.seen), judge.asked) == (1, [])
    assert [event.invalid for event in table.recorder.of(e.ToolAuthorizationFinished)] == [True]


async def test_a_hook_reads_arguments_as_the_tool_reads_them() -> None:
    @tool
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    hook = Before(lambda _: PreExecutionDecision("allow"))
    async with bench(tools=[total], pre_hooks=[hook]) as table:
        table.provider.push(tool_calls([("total", {"numbers": "[1, 2]"})]), text("ok"))
        await (await table.agent()).run("go")
    assert [context.input for context in hook.seen] == [{"numbers": [1, 2]}]
    assert [event.input for event in table.recorder.of(e.ToolExecutionStarted)] == [{"numbers": [1, 2]}]


async def test_a_denial_by_a_hook_comes_before_the_schema() -> None:
    hook = Before(lambda _: PreExecutionDecision("deny", "never"))
    async with bench(tools=[add], pre_hooks=[hook]) as table:
        result = await added(table, {"a": "x"})
    assert result.content == "Blocked by pre-execution hook: never"

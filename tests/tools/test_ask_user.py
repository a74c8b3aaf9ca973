"""The tool by which a model asks the person: choices or free text, one decision, refused where nobody is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kits.core import bench

from mentra_nb.authorization import PermissionDecision, PermissionQuestion
from mentra_nb.content import ToolResult
from mentra_nb.errors import MentraError, OperationDenied
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e
from mentra_nb.providers.scripted import text, tool_calls
from mentra_nb.runtime.session import Session
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.tools.builtin.ask_user import AskUserTool

pytestmark = pytest.mark.anyio

RED = PermissionDecision(allow=True, values={"answer": "red"})
COLOUR = {"question": "Which colour?", "choices": ["red", "blue"]}


def answering(session: Session, answer: Callable[[PermissionQuestion], None]) -> list[PermissionQuestion]:
    asked: list[PermissionQuestion] = []

    def hear(event: shown.SessionEvent) -> None:
        if isinstance(event, shown.QuestionAsked):
            asked.append(session.permissions.open_questions()[0])
            answer(asked[-1])

    session.subscribe(hear)
    return asked


async def put(
    arguments: dict[str, Any], decision: PermissionDecision | None, **options: Any
) -> tuple[ToolResult, list[PermissionQuestion], list[tuple[str, str | None]]]:
    """Have the model ask. Returns the result of its call, the questions that were open, and what was decided."""
    async with bench(tools=[AskUserTool()], authorizer=None) as table:
        session = await table.session(**options)

        def answer(question: PermissionQuestion) -> None:
            if decision is not None:
                session.resolve_permission(question.request_id, decision)

        asked = answering(session, answer)
        if decision is None:
            session.permissions.can_ask = lambda: False
        table.provider.push(tool_calls([("ask_user", arguments)]), text("ok"))
        await session.append_turn("go")
        [result] = session.history()[-2].tool_results()
        decided = [(str(d.outcome), d.decided_by) for d in table.recorder.of(e.ToolAuthorizationFinished)]
    return result, asked, decided


@pytest.mark.parametrize("ask", ["changes", "always"])
@pytest.mark.parametrize(
    ("arguments", "value", "said"),
    [
        (COLOUR, "blue", "blue"),
        ({**COLOUR, "several": True}, ["red", "blue"], "red\nblue"),
        ({"question": "What is it called?"}, "Ada", "Ada"),
    ],
)
async def test_the_answer_of_the_person_is_the_result_and_the_one_decision(
    ask: Any, arguments: dict[str, Any], value: Any, said: str
) -> None:
    result, asked, decided = await put(arguments, PermissionDecision(allow=True, values={"answer": value}), ask=ask)
    assert (result.content, result.is_error) == (said, False)
    assert len(asked) == 1
    assert asked[0].form is not None
    assert (asked[0].form.who, asked[0].form.message) == ("talk", arguments["question"])
    assert decided == [("allow", "user")]


async def test_a_person_who_declines_can_say_why() -> None:
    result, _, decided = await put(COLOUR, PermissionDecision(allow=False, reason="look it up"))
    assert result.content == "Tool execution denied: look it up"
    assert decided == [("deny", "user")]


@pytest.mark.parametrize("values", [{}, {"answer": "green"}, {"answer": ""}, {"other": "red"}])
async def test_an_answer_that_is_not_one_is_refused_and_the_question_stays_open(values: dict[str, Any]) -> None:
    async with bench(tools=[AskUserTool()]) as table:
        session = await table.session()

        def answer(question: PermissionQuestion) -> None:
            with pytest.raises(OperationDenied):
                session.resolve_permission(question.request_id, PermissionDecision(allow=True, values=values))
            with pytest.raises(OperationDenied):
                session.resolve_permission(question.request_id, RED.model_copy(update={"remember": "session"}))
            session.resolve_permission(question.request_id, RED)

        answering(session, answer)
        table.provider.push(tool_calls([("ask_user", COLOUR)]), text("ok"))
        await session.append_turn("go")
        assert session.history()[-2].tool_results()[0].content == "red"


async def test_where_nobody_is_there_it_is_refused_with_a_reason() -> None:
    result, asked, decided = await put(COLOUR, None)
    assert "nobody is there to answer" in str(result.content)
    assert (asked, decided) == ([], [("deny", "headless")])
    result, asked, decided = await put(COLOUR, PermissionDecision(allow=True), ask="rules")
    assert "ask is 'rules'" in str(result.content)
    assert (asked, decided) == ([], [("deny", "setting")])


@pytest.mark.parametrize("unattended", [True, False])
async def test_an_agent_without_a_session_has_nobody_to_ask(unattended: bool) -> None:
    options: dict[str, Any] = {} if unattended else {"authorizer": None}
    async with bench(tool_calls([("ask_user", COLOUR)]), text("ok"), tools=[AskUserTool()], **options) as table:
        agent = await table.agent()
        await agent.send("go")
        [decision] = table.recorder.of(e.ToolAuthorizationFinished)
    assert (str(decision.outcome), decision.decided_by) == ("deny", "headless")
    assert "nobody is there to answer" in str(agent.history()[-2].tool_results()[0].content)


async def test_a_rule_can_refuse_to_be_asked_and_none_can_answer() -> None:
    async with bench(tools=[AskUserTool()]) as table:
        session = await table.session()
        await session.permissions.add_rule("ask_user", "*", allow=True)
        asked = answering(session, lambda question: session.resolve_permission(question.request_id, RED))
        for allow in (True, False):
            table.provider.push(tool_calls([("ask_user", COLOUR)]), text("ok"))
            await session.append_turn("go")
            if allow:
                await session.permissions.add_rule("ask_user", "*", allow=False)
        decided = [d.decided_by for d in table.recorder.of(e.ToolAuthorizationFinished)]
    assert (len(asked), decided) == (1, ["user", "rule"])


async def test_an_answer_after_the_death_of_the_turn_is_used_when_it_is_resumed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.sqlite")
    async with bench(tools=[AskUserTool()], store=store) as table:
        session = await table.session()
        copies: list[PermissionQuestion] = []

        def stop(question: PermissionQuestion) -> None:
            copies.append(question)
            raise_soon()

        token, raise_soon = stopping()
        answering(session, stop)
        table.provider.push(tool_calls([("ask_user", COLOUR)], text=""))
        with pytest.raises(MentraError):
            await session.append_turn("go", token)
    # As a kill leaves it: the question is open, and its turn is not.
    left = SqliteStore(tmp_path / "state.sqlite")
    await left.open_question(copies[0].model_copy(update={"request_id": "perm-again"}))
    async with bench(text("ok"), tools=[AskUserTool()], store=left) as table:
        again = await table.runtime.resume_session(session.id)
        await again.answer("perm-again", PermissionDecision(allow=True, values={"answer": "blue"}))
        await again.resume_turn()
        [result] = again.history()[-2].tool_results()
    assert result.content == "blue"


def stopping() -> tuple[Any, Callable[[], None]]:
    from mentra_nb.agent.limits import CancellationToken, RunOptions

    token = CancellationToken()
    return RunOptions(cancellation=token), token.cancel


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({}, "question"),
        ({"question": ""}, "question"),
        ({"question": "x" * 5_000}, "question"),
        ({"question": "q", "choices": ["a", "a"]}, "each must be another text"),
        ({"question": "q", "choices": [" "]}, "each must be another text"),
        ({"question": "q", "choices": list("abcdefghijklmnopqrstuvwxyz")}, "choices"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused_before_anybody_sees_it(
    arguments: dict[str, Any], why: str
) -> None:
    result, asked, _ = await put(arguments, PermissionDecision(allow=True))
    assert result.is_error
    assert why in str(result.content)
    assert asked == []

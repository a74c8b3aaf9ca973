"""Permission: who decides, in what order, and the life of a question put to a person."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from kits.core import Bench, Judge, bench

from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.authorization import (
    PermissionDecision,
    PermissionQuestion,
    PermissionRule,
    Subject,
    ToolAuthorizationDecision,
    ToolAuthorizationPreview,
    ToolAuthorizationRequest,
    ToolAuthorizer,
)
from mentra_nb.content import ToolResult
from mentra_nb.errors import Cancelled, OperationDenied, StoreError
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e
from mentra_nb.event.bus import NullAudit
from mentra_nb.permission.binding import effective_hash
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.permission.remembering import revoke
from mentra_nb.providers.base import ModelInfo, ProviderToolSpec
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.runtime.session import Session
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.function import tool
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import Tool, ToolContext, ToolOutput

pytestmark = pytest.mark.anyio

ALLOW, DENY = PermissionDecision(allow=True), PermissionDecision(allow=False)


@tool
def act(what: str = "") -> str:
    """Change something."""
    return "done"


@tool(reads_only=True)
def look() -> str:
    """Change nothing."""
    return "seen"


@tool(asks=False)
def note() -> str:
    """Change something unasked."""
    return "noted"


def answering(
    session: Session, answer: PermissionDecision | Callable[[PermissionQuestion], None]
) -> list[PermissionQuestion]:
    """Answer every question of the session at once; returns the questions."""
    asked: list[PermissionQuestion] = []

    def hear(event: shown.SessionEvent) -> None:
        if isinstance(event, shown.QuestionAsked):
            [question] = [q for q in session.permissions.open_questions() if q.request_id == event.request_id]
            asked.append(question)
            if isinstance(answer, PermissionDecision):
                session.resolve_permission(event.request_id, answer)
            else:
                answer(question)

    session.subscribe(hear)
    return asked


async def call(table: Bench, session: Session, *calls: tuple[str, dict[str, Any]]) -> list[ToolResult]:
    """Have the model make these calls in one turn. Returns their results."""
    table.provider.push(tool_calls(calls), text("ok"))
    await session.append_turn("go")
    return session.history()[-2].tool_results()


def decided(table: Bench) -> list[tuple[str, str | None]]:
    return [(str(d.outcome), d.decided_by) for d in table.recorder.of(e.ToolAuthorizationFinished)]


# ---- asking ---------------------------------------------------------------------------------------------------


async def test_session_tool_authorizer_emits_permission_request_and_waits() -> None:
    async with bench(tools=[act]) as table:
        session = await table.session()
        asked = answering(session, ALLOW)
        [result] = await call(table, session, ("act", {"what": "x"}))
        [question] = asked
    assert result.content == "done"
    assert (question.tool_name, question.tool_call_id, question.session_id) == ("act", "tool-1", session.id)
    assert (question.arguments, str(question.subject)) == ({"what": "x"}, '{"what":"x"}')
    assert question.deadline == pytest.approx(question.asked_at + 600)
    assert decided(table) == [("allow", "user")]
    [requested], [resolved] = table.recorder.of(e.QuestionAsked), table.recorder.of(e.QuestionAnswered)
    assert requested.request_id == resolved.request_id == question.request_id
    assert (resolved.outcome, resolved.decided_by, resolved.rule_scope) == ("allowed", "user", None)
    assert table.recorder.of(e.ToolAuthorizationFinished)[0].request_id == question.request_id


async def test_allowing_once_allows_once() -> None:
    async with bench(tools=[act]) as table:
        session = await table.session()
        asked = answering(session, ALLOW)
        await call(table, session, ("act", {}), ("act", {}))
        assert await session.remembered_rules() == []
    assert len({q.request_id for q in asked}) == 2


async def test_a_reasoned_denial_carries_its_words_to_the_tool_result() -> None:
    async with bench(tools=[act]) as table:
        session = await table.session()
        answering(session, PermissionDecision(allow=False, reason="use the other one"))
        [result] = await call(table, session, ("act", {}))
    assert (result.content, result.is_error) == ("Tool execution denied: use the other one", True)
    assert decided(table) == [("deny", "user")]


async def test_a_denial_without_a_reason_says_who_denied() -> None:
    async with bench(tools=[act]) as table:
        session = await table.session()
        answering(session, DENY)
        [result] = await call(table, session, ("act", {}))
    assert result.content == "Tool execution denied: denied by the user"


async def test_an_answer_may_come_from_another_thread() -> None:
    async with bench(tools=[act]) as table:
        session = await table.session()
        async with anyio.create_task_group() as group:

            def elsewhere(question: PermissionQuestion) -> None:
                group.start_soon(anyio.to_thread.run_sync, session.resolve_permission, question.request_id, ALLOW)

            answering(session, elsewhere)
            [result] = await call(table, session, ("act", {}))
    assert result.content == "done"


async def test_two_questions_are_open_at_once_and_answered_in_any_order() -> None:
    @tool(reads_only=True)
    def peek(where: str) -> str:
        return where

    async with bench(tools=[peek]) as table:
        one, two = await table.session("one", ask="always"), await table.session("two", ask="always")
        table.provider.push(tool_calls([("peek", {"where": "a"})]), tool_calls([("peek", {"where": "b"})]))
        table.provider.push(text("ok"), text("ok"))
        async with anyio.create_task_group() as group:
            asked: list[tuple[Session, PermissionQuestion]] = []

            def gather(session: Session) -> None:
                def hear(question: PermissionQuestion) -> None:
                    asked.append((session, question))
                    if len(asked) == 2:
                        for who, each in reversed(asked):
                            who.resolve_permission(each.request_id, ALLOW)

                answering(session, hear)

            for session in (one, two):
                gather(session)
                group.start_soon(session.append_turn, "go")
    results = [session.history()[2].tool_results()[0].content for session in (one, two)]
    assert sorted(map(str, results)) == ["a", "b"]


async def test_resolve_permission_unknown_id_returns_error() -> None:
    async with bench() as table:
        session = await table.session()
        with pytest.raises(OperationDenied, match="closed"):
            session.resolve_permission("perm-nothing", ALLOW)


async def test_only_the_first_answer_counts() -> None:
    late: list[Exception] = []

    async with bench(tools=[act]) as table:
        session = await table.session()

        def twice(question: PermissionQuestion) -> None:
            session.resolve_permission(question.request_id, ALLOW)
            try:
                session.resolve_permission(question.request_id, DENY)
            except OperationDenied as error:
                late.append(error)

        answering(session, twice)
        [result] = await call(table, session, ("act", {}))
    assert (result.content, len(late)) == ("done", 1)


# ---- deadlines and stops --------------------------------------------------------------------------------------


async def test_nobody_answers_in_time_and_a_late_answer_is_refused_and_stores_no_rule() -> None:
    async with bench(tools=[act]) as table:
        session = await table.session()
        session.permissions.ask_timeout = 0.05
        asked = answering(session, lambda question: None)
        [result] = await call(table, session, ("act", {}))
        with pytest.raises(OperationDenied, match="timed out"):
            session.resolve_permission(asked[0].request_id, PermissionDecision(allow=True, remember="global"))
        assert await session.remembered_rules() == []
        assert await table.runtime.store.open_questions() == []
    assert result.content == "Tool execution denied: nobody answered within 50ms"
    assert decided(table) == [("deny", "timeout")]
    assert [r.decided_by for r in table.recorder.of(e.QuestionAnswered)] == ["timeout"]


async def test_a_stopped_turn_cancels_its_question_and_a_late_answer_is_refused() -> None:
    token = CancellationToken()
    async with bench(tools=[act]) as table:
        session = await table.session()
        asked = answering(session, lambda question: token.cancel())
        table.provider.push(tool_calls([("act", {})]))
        with pytest.raises(Cancelled):
            await session.append_turn("go", RunOptions(cancellation=token))
        with pytest.raises(OperationDenied):
            session.resolve_permission(asked[0].request_id, ALLOW)
    [resolved] = table.recorder.of(e.QuestionAnswered)
    assert (resolved.outcome, resolved.decided_by) == ("denied", "cancelled")


async def test_an_open_question_is_a_row_until_it_is_closed(tmp_path: Path) -> None:
    other = SqliteStore(tmp_path / "state.sqlite")
    async with bench(tools=[act], store=SqliteStore(tmp_path / "state.sqlite")) as table:
        session = await table.session()
        async with anyio.create_task_group() as group:
            rows: list[PermissionQuestion] = []

            async def look_and_answer(question: PermissionQuestion) -> None:
                rows.extend(await other.open_questions(session.id))
                session.resolve_permission(question.request_id, ALLOW)

            asked = answering(session, lambda question: group.start_soon(look_and_answer, question))
            await call(table, session, ("act", {"what": "x"}))
        assert rows == asked
        assert await other.open_questions() == []
    other.close()


# ---- remembering ----------------------------------------------------------------------------------------------


async def test_resolve_permission_emits_event_and_sends_decision_and_remembers() -> None:
    async with bench(tools=[act]) as table:
        session = await table.session()
        asked = answering(session, PermissionDecision(allow=True, remember="session"))
        await call(table, session, ("act", {"what": "x"}))
        await call(table, session, ("act", {"what": "x"}))
        await call(table, session, ("act", {"what": "y"}))
        first, second = await session.remembered_rules()
    assert [q.arguments for q in asked] == [{"what": "x"}, {"what": "y"}]
    assert (first.tool, first.pattern, first.allow, first.scope) == ("act", '{"what":"x"}', True, "session")
    assert (first.times_used, second.times_used) == (1, 0)
    assert decided(table) == [("allow", "user"), ("allow", "rule"), ("allow", "user")]
    assert table.recorder.of(e.ToolAuthorizationFinished)[1].rule_id == first.id
    assert [r.rule_scope for r in table.recorder.of(e.QuestionAnswered)] == ["session", "session"]


async def test_remembering_a_pattern_covers_what_fits_it() -> None:
    async with bench(tools=[act]) as table:
        session = await table.session()

        def answer(question: PermissionQuestion) -> None:
            pattern = '{"what":"a*"}' if question.arguments["what"] == "apple" else None
            scope: Any = "session" if pattern else None
            session.resolve_permission(
                question.request_id, PermissionDecision(allow=True, remember=scope, pattern=pattern)
            )

        asked = answering(session, answer)
        for what in ("apple", "avocado", "banana"):
            await call(table, session, ("act", {"what": what}))
    assert [q.arguments["what"] for q in asked] == ["apple", "banana"]


@pytest.mark.parametrize(
    ("command", "pattern", "why"),
    [
        ("echo step 3; sleep 0.1", "echo *", "'echo *' does not cover this call; 'echo step 3; sleep 0.1' does"),
        ("echo step 3; sleep 0.1", "echo step*; sleep 0.1", "can never match"),
    ],
)
async def test_a_pattern_that_does_not_cover_the_call_is_refused_and_the_question_stays_open(
    tmp_path: Path, command: str, pattern: str, why: str
) -> None:
    options = {"builtin_tools": True, "policy": RuntimePolicy.permissive(), "working_directory": tmp_path}
    refused: list[str] = []
    async with bench(**options) as table:
        session = await table.session()

        def answer(question: PermissionQuestion) -> None:
            always = PermissionDecision(allow=True, remember="session", pattern=pattern)
            with pytest.raises(OperationDenied) as error:
                session.resolve_permission(question.request_id, always)
            refused.append(str(error.value))
            session.resolve_permission(question.request_id, ALLOW)

        answering(session, answer)
        await call(table, session, ("shell", {"command": command}))
        assert await session.remembered_rules() == []
    assert why in refused[0]


async def test_a_wildcard_that_a_denial_narrows_is_refused_and_the_exact_text_is_taken(tmp_path: Path) -> None:
    options = {"builtin_tools": True, "policy": RuntimePolicy.permissive(), "working_directory": tmp_path}
    async with bench(**options) as table:
        session = await table.session()
        await session.permissions.add_rule("shell", "git push*", allow=False)

        def answer(question: PermissionQuestion) -> None:
            for pattern in ("git *", "*"):
                with pytest.raises(OperationDenied, match="'no-such-wrapper git push' does"):
                    session.resolve_permission(
                        question.request_id, PermissionDecision(allow=True, remember="session", pattern=pattern)
                    )
            session.resolve_permission(question.request_id, PermissionDecision(allow=True, remember="session"))

        asked = answering(session, answer)
        for _ in range(2):
            await call(table, session, ("shell", {"command": "no-such-wrapper git push"}))
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("echo $HOME", "it has $, so no pattern covers this line, not even 'echo *'"),
        ("echo a > b", "it has >, so no pattern covers this line"),
        ("no-such-wrapper git push", "it may run what 'git push*' denies, so only its exact text is covered"),
        ("echo 'open", "what this line would run cannot be told, so no rule covers it"),
        ("make", "'shell' may change things and no rule covers this call"),
    ],
)
async def test_the_question_says_why_a_rule_that_seems_to_fit_does_not(tmp_path: Path, command: str, why: str) -> None:
    options = {"builtin_tools": True, "policy": RuntimePolicy.permissive(), "working_directory": tmp_path}
    async with bench(**options) as table:
        session = await table.session()
        for pattern, allowed in (("echo *", True), ("git *", True), ("git push*", False)):
            await session.permissions.add_rule("shell", pattern, allow=allowed)
        asked = answering(session, DENY)
        await call(table, session, ("shell", {"command": command}))
    assert why in asked[0].description


async def test_remembering_a_command_with_a_star_remembers_that_command_only(tmp_path: Path) -> None:
    options = {"builtin_tools": True, "policy": RuntimePolicy.permissive(), "working_directory": tmp_path}
    async with bench(**options) as table:
        session = await table.session()
        asked = answering(session, PermissionDecision(allow=True, remember="session"))
        for command in ("echo *", "echo *", "echo secret", "echo a && echo *", "echo a && echo *"):
            await call(table, session, ("shell", {"command": command}))
    assert [str(q.subject) for q in asked] == ["echo *", "echo secret", "echo a && echo *"]


async def test_a_remembered_refusal_keeps_its_reason_across_a_restart(tmp_path: Path) -> None:
    async with bench(tools=[act], store=SqliteStore(tmp_path / "s")) as table:
        session = await table.session()
        answering(session, PermissionDecision(allow=False, remember="session", pattern="*", reason="never"))
        await call(table, session, ("act", {}))
    async with bench(tools=[act], store=SqliteStore(tmp_path / "s")) as table:
        again = await table.runtime.resume_session(session.id)
        asked = answering(again, ALLOW)
        [result] = await call(table, again, ("act", {"what": "else"}))
    assert result.content == (
        "Tool execution denied: never; blocked by a remembered rule for '*'; asking again will not help"
    )
    assert asked == []


async def test_an_answer_that_cannot_be_remembered_counts_and_closes_its_question() -> None:
    class Full(VolatileStore):
        async def save_rule(self, rule: PermissionRule) -> PermissionRule:
            raise StoreError("the disk is full")

    async with bench(tools=[act], store=Full()) as table:
        session = await table.session()
        asked = answering(session, PermissionDecision(allow=True, remember="session"))
        [result] = await call(table, session, ("act", {}))
        assert await table.runtime.store.open_questions() == []
        with pytest.raises(OperationDenied):
            await session.answer(asked[0].request_id, DENY)
    assert result.content == "done"
    assert [resolved.rule_scope for resolved in table.recorder.of(e.QuestionAnswered)] == [None]


async def test_a_rule_of_one_session_is_not_for_another() -> None:
    async with bench(tools=[act]) as table:
        one, two = await table.session("one"), await table.session("two")
        await one.permissions.add_rule("act", "*", allow=True)
        asked = answering(two, DENY)
        await call(table, two, ("act", {}))
        assert await two.remembered_rules() == []
    assert len(asked) == 1


async def test_project_scoped_rules_are_visible_across_sessions_of_the_project() -> None:
    async with bench(tools=[act]) as table:
        here, there = await table.session("a", "/p"), await table.session("b", "/p")
        elsewhere = await table.session("c", "/q")
        await here.permissions.add_rule("act", "*", allow=True, scope="project")
        [result] = await call(table, there, ("act", {}))
        asked = answering(elsewhere, DENY)
        await call(table, elsewhere, ("act", {}))
    assert result.content == "done"
    assert len(asked) == 1


async def test_global_scoped_rules_are_visible_to_all_sessions() -> None:
    async with bench(tools=[act]) as table:
        await (await table.session("a")).permissions.add_rule("act", "*", allow=True, scope="global")
        [result] = await call(table, await table.session("b", "/q"), ("act", {}))
    assert result.content == "done"


async def test_project_scope_without_a_project_is_refused_and_the_question_stays_open() -> None:
    refused: list[str] = []

    async with bench(tools=[act]) as table:
        session = await table.session()
        with pytest.raises(OperationDenied, match="no project"):
            await session.permissions.add_rule("act", "*", allow=True, scope="project")

        def insist(question: PermissionQuestion) -> None:
            try:
                session.resolve_permission(question.request_id, PermissionDecision(allow=True, remember="project"))
            except OperationDenied as error:
                refused.append(str(error))
            session.resolve_permission(question.request_id, ALLOW)

        answering(session, insist)
        [result] = await call(table, session, ("act", {}))
    assert result.content == "done"
    assert refused == ["this session has no project: remember it for the session or globally"]


async def test_a_revoked_allowance_stays_revoked_after_reload(tmp_path: Path) -> None:
    async with bench(tools=[act], store=SqliteStore(tmp_path / "s")) as table:
        permissions = (await table.session()).permissions
        await permissions.add_rule("act", "*", allow=True, scope="global")
        await permissions.add_rule("act", "*", allow=False, scope="global")
    async with bench(tools=[act], store=SqliteStore(tmp_path / "s")) as table:
        session = await table.session()
        assert [rule.allow for rule in await session.remembered_rules()] == [False]
        [result] = await call(table, session, ("act", {}))
    assert result.is_error


# ---- the order ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "judge", "outcome"),
    [
        ([False, True], Judge(ToolAuthorizationDecision.allow()), ("deny", "rule")),
        ([True], Judge(ToolAuthorizationDecision.deny("hard no")), ("deny", "authorizer")),
        ([True], Judge(RuntimeError("broken")), ("deny", "authorizer")),
        ([True], Judge(ToolAuthorizationDecision.prompt("sure?")), ("allow", "rule")),
        ([], Judge(ToolAuthorizationDecision.allow()), ("allow", "authorizer")),
        ([], Judge(ToolAuthorizationDecision.prompt("sure?")), ("deny", "user")),
        ([], None, ("deny", "user")),
        ([True], None, ("allow", "rule")),
    ],
)
async def test_deny_rule_then_authorizers_denial_then_allow_rule_then_its_allowance_then_a_person(
    rules: list[bool], judge: ToolAuthorizer | None, outcome: tuple[str, str]
) -> None:
    async with bench(tools=[act], authorizer=judge) as table:
        session = await table.session()
        for allow in rules:
            await session.permissions.add_rule("act", "*" if allow else "{*", allow=allow)
        answering(session, DENY)
        await call(table, session, ("act", {}))
    [(what, by)] = decided(table)
    assert (what, str(by).split(":")[0]) == outcome


async def test_an_authorizer_that_asks_gives_the_reason_of_the_question() -> None:
    async with bench(tools=[look], authorizer=Judge(ToolAuthorizationDecision.prompt("because"))) as table:
        session = await table.session()
        asked = answering(session, ALLOW)
        await call(table, session, ("look", {}))
    assert [q.description for q in asked] == ["because"]


async def test_an_authorizer_that_takes_too_long_is_a_denial() -> None:
    class Sleeper(Judge):
        async def authorize(self, request: object) -> ToolAuthorizationDecision:
            await anyio.sleep_forever()
            raise AssertionError

    async with bench(tools=[act], authorizer=Sleeper(ToolAuthorizationDecision.allow(), 0.02)) as table:
        session = await table.session()
        [result] = await call(table, session, ("act", {}))
    assert result.content == "Tool execution denied: authorizer timed out after 20ms"


async def test_a_remembered_allowance_does_not_get_past_the_policy(tmp_path: Path) -> None:
    async with bench(builtin_tools=True, working_directory=tmp_path) as table:
        session = await table.session()
        await session.permissions.add_rule("shell", "*", allow=True, scope="global")
        [result] = await call(table, session, ("shell", {"command": "true"}))
    assert "disabled by the runtime policy" in str(result.content)
    assert decided(table) == [("deny", "policy")]


# ---- when to ask ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "asked_about"), [("always", ["act", "look", "note"]), ("changes", ["act"]), ("rules", [])]
)
async def test_what_is_asked_about(ask: str, asked_about: list[str]) -> None:
    async with bench(tools=[act, look, note]) as table:
        session = await table.session(ask=ask)
        asked = answering(session, ALLOW)
        results = await call(table, session, ("act", {}), ("look", {}), ("note", {}))
    assert [q.tool_name for q in asked] == asked_about
    assert all(r.is_error for r in results) == (ask == "rules")


async def test_with_only_rules_what_none_covers_is_denied_with_how_to_allow() -> None:
    async with bench(tools=[act]) as table:
        session = await table.session(ask="rules")
        await session.permissions.add_rule("act", '{"what":"x"}', allow=True)
        allowed, denied = await call(table, session, ("act", {"what": "x"}), ("act", {}))
    assert allowed.content == "done"
    assert "no rule covers it" in str(denied.content)
    assert "mn.allow('act', pattern='{}')" in str(denied.content)
    assert "%config Mentra.ask = 'changes'" in str(denied.content)
    assert decided(table)[1] == ("deny", "setting")


async def test_with_nobody_there_a_call_is_denied_at_once_with_how_to_allow() -> None:
    async with bench(tools=[act, look]) as table:
        session = await table.session()
        session.permissions.can_ask = lambda: False
        asked = answering(session, ALLOW)
        began = time.monotonic()
        denied, seen = await call(table, session, ("act", {}), ("look", {}))
    assert time.monotonic() - began < 5
    assert "nobody is there to be asked; allow it beforehand with mn.allow('act'" in str(denied.content)
    assert seen.content == "seen"
    assert asked == []
    assert decided(table) == [("deny", "headless"), ("allow", "setting")]


async def test_the_advice_allows_this_very_call_and_no_other(tmp_path: Path) -> None:
    options = {"builtin_tools": True, "policy": RuntimePolicy.permissive(), "working_directory": tmp_path}
    async with bench(**options) as table:
        session = await table.session(ask="rules")
        [denied] = await call(table, session, ("shell", {"command": "rm *.tmp"}))
    assert "mn.allow('shell', pattern='rm [*].tmp')" in str(denied.content)


@pytest.mark.parametrize("ask", ["rules", "changes"])
async def test_a_denial_says_why_a_pattern_that_looks_right_does_not_cover_the_line(tmp_path: Path, ask: Any) -> None:
    options = {"builtin_tools": True, "policy": RuntimePolicy.permissive(), "working_directory": tmp_path}
    async with bench(**options) as table:
        session = await table.session(ask=ask)
        session.permissions.can_ask = lambda: False
        await session.permissions.add_rule("shell", "echo *", allow=True)
        [with_sign] = await call(table, session, ("shell", {"command": "echo $HOME"}))
        [without] = await call(table, session, ("shell", {"command": "rm x"}))
    assert "; it has $, so no pattern covers this line, not even 'echo *', only its exact text; allow it" in str(
        with_sign.content
    )
    assert "pattern covers" not in str(without.content)


async def test_the_advice_quotes_no_long_subject(tmp_path: Path) -> None:
    options = {"builtin_tools": True, "policy": RuntimePolicy.permissive(), "working_directory": tmp_path}
    async with bench(**options) as table:
        session = await table.session(ask="rules")
        [denied] = await call(table, session, ("shell", {"command": "echo " + "x" * 2_000}))
    assert "2005 characters, too many to quote" in str(denied.content)
    assert "xxx" not in str(denied.content)


async def test_the_reading_tool_runs_unasked_and_the_writing_tool_asks(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    async with bench(builtin_tools=True, working_directory=tmp_path) as table:
        session = await table.session()
        asked = answering(session, DENY)
        await call(table, session, ("read", {"path": "a.txt"}), ("write", {"path": "b.txt", "content": "x"}))
    assert [(q.tool_name, str(q.subject)) for q in asked] == [("write", "b.txt")]
    assert not (tmp_path / "b.txt").exists()


async def test_a_secret_file_is_asked_about_also_for_reading_and_whatever_a_wildcard_allows(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KEY=1")
    (tmp_path / "notes.txt").symlink_to(".env")
    reading = ("files", {"operations": [{"op": "read", "path": ".env"}]})
    async with bench(builtin_tools=True, working_directory=tmp_path) as table:
        session = await table.session()
        for tool in ("read", "files", "write"):
            await session.permissions.add_rule(tool, "*", allow=True)
        asked = answering(session, DENY)
        results = await call(
            table,
            session,
            ("read", {"path": "notes.txt"}),
            reading,
            ("write", {"path": ".git/config", "content": "x"}),
            ("write", {"path": "mentra.toml", "content": "x"}),
            ("write", {"path": "a.txt", "content": "x"}),
        )
        assert [(q.tool_name, str(q.subject)) for q in asked] == [
            ("read", ".env"),
            ("files", ".env"),
            ("write", ".git/config"),
        ]
        assert "only its exact name in a rule covers it" in asked[0].description
        assert [result.is_error for result in results] == [True, True, True, True, False]
        await session.permissions.add_rule("files", ".env", allow=True)
        [found] = await call(table, session, reading)
        assert "KEY=1" in str(found.content)


async def test_without_an_authorizer_a_secret_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("KEY=1")
    provider = ScriptedProvider([tool_calls([("read", {"path": ".env"})]), text("done")])
    async with Runtime([provider], store=VolatileStore(), audit=NullAudit(), working_directory=tmp_path) as runtime:
        agent = await runtime.spawn("a", ModelInfo(id="scripted", provider="scripted"))
        await agent.send("read it")
        found = [block for message in agent.history() for block in message.content if isinstance(block, ToolResult)]
    assert [result.is_error for result in found] == [True]
    assert "KEY=1" not in str(found)


async def test_an_authorizer_is_not_reached_past_a_denial() -> None:
    judge = Judge(ToolAuthorizationDecision.allow())
    async with bench(tools=[act], authorizer=judge) as table:
        session = await table.session()
        await session.permissions.add_rule("act", "*", allow=False)
        [result] = await call(table, session, ("act", {}))
    assert result.is_error
    assert judge.asked == []


class ManyFiles(Tool):
    """Acts on several files in one call."""

    spec = ToolSpec(wire=ProviderToolSpec(name="many"))

    def subject(self, context: ToolContext, arguments: dict[str, Any]) -> Subject:
        return Subject.path("src/a", "docs/b*")

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        return ToolOutput("done")


async def test_always_for_a_call_with_several_parts_remembers_each_of_them() -> None:
    async with bench(tools=[ManyFiles()]) as table:
        session = await table.session()
        asked = answering(session, PermissionDecision(allow=True, remember="session"))
        await call(table, session, ("many", {}), ("many", {}))
        assert [rule.pattern for rule in await session.remembered_rules()] == ["src/a", "docs/b[*]"]
    assert len(asked) == 1
    first = table.recorder.of(e.ToolAuthorizationFinished)[0]
    assert (first.subject, first.subjects) == ("src/a\ndocs/b*", ("src/a", "docs/b*"))


@pytest.mark.parametrize(
    "change", [{"structured_input": {"path": "/b"}}, {"working_directory": "/elsewhere"}], ids=["input", "folder"]
)
def test_an_answer_is_bound_to_what_the_call_would_do_and_where(change: dict[str, Any]) -> None:
    preview = ToolAuthorizationPreview(working_directory="/here", raw_input={}, structured_input={"path": "/a"})
    request = ToolAuthorizationRequest(
        agent_id="agent-1", agent_name="tester", tool_call_id="call-1", tool_name="act", preview=preview
    )
    other = request.model_copy(update={"preview": preview.model_copy(update=change)})
    again = request.model_copy(update={"preview": preview.model_copy(update={"raw_input": {"path": "a"}})})
    assert effective_hash(other) != effective_hash(request) == effective_hash(again)


async def test_each_change_of_a_rule_is_recorded_with_its_pattern_and_question() -> None:
    async with bench(tools=[act]) as table:
        session = await table.session()
        asked = answering(session, PermissionDecision(allow=True, remember="session", pattern="*", reason="fine"))
        await call(table, session, ("act", {"what": "x"}), ("act", {"what": "y"}))
        [made] = table.recorder.of(e.RuleChanged)
        [answer] = table.recorder.of(e.QuestionAnswered)
        assert (made.action, made.tool_name, made.pattern, made.allow) == ("made", "act", "*", True)
        assert (made.rule_scope, made.scope_key, made.reason, made.decided_by) == (
            "session",
            session.id,
            "fine",
            "user",
        )
        assert (made.request_id, made.session_id) == (asked[0].request_id, session.id)
        assert (answer.rule_id, answer.pattern) == (made.rule_id, "*")
        decisions = [(event.decided_by, event.rule_id) for event in table.recorder.of(e.ToolAuthorizationFinished)]
        assert decisions == [("user", None), ("rule", made.rule_id)]
        changed = await session.permissions.add_rule("act", "*", allow=False)
        store, bus = table.runtime.store, session.permissions.bus
        assert await revoke(store, bus, session.id, None, changed.id)
        assert not await revoke(store, bus, session.id, None, changed.id)
    events = table.recorder.of(e.RuleChanged)
    assert [(event.action, event.allow) for event in events] == [("made", True), ("changed", False), ("revoked", False)]
    assert events[1].replaces == made.rule_id

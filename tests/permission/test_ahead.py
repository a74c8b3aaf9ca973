"""Questions about the calls of one answer that run one after another: open together, each call judged in its turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from kits.core import Bench, Judge, bench

from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.authorization import PermissionDecision, PermissionQuestion, ToolAuthorizationDecision
from mentra_nb.content import ToolResult
from mentra_nb.errors import Cancelled
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e
from mentra_nb.permission.ahead import CHANGED
from mentra_nb.providers.scripted import text, tool_calls
from mentra_nb.runtime.session import Session
from mentra_nb.tools.function import tool
from mentra_nb.tools.pre_hooks import PreExecutionContext, PreExecutionDecision

pytestmark = pytest.mark.anyio

ALLOW, DENY = PermissionDecision(allow=True), PermissionDecision(allow=False, reason="no")
DEADLINE = 20
"""Seconds after which a test has failed."""
TWO = [("act", {"what": "one"}), ("act", {"what": "two"})]


class Person(list[PermissionQuestion]):
    """Hears the questions of a session, and waits for them."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session, self._more = session, anyio.Event()
        session.subscribe(self._hear)

    def _hear(self, event: shown.SessionEvent) -> None:
        if isinstance(event, shown.QuestionAsked):
            [asked] = [q for q in self._session.permissions.open_questions() if q.request_id == event.request_id]
            self.append(asked)
            self._more.set()

    async def wait_for(self, n: int) -> None:
        with anyio.fail_after(DEADLINE):
            while len(self) < n:
                self._more = anyio.Event()
                await self._more.wait()

    def answer(self, n: int, decision: PermissionDecision) -> None:
        self._session.resolve_permission(self[n].request_id, decision)

    def patterns(self) -> list[str]:
        return [str(question.subject) for question in self]


class Turn:
    """A turn that makes `calls` in one answer, with the person who is asked. `ran` has what ran, in order."""

    def __init__(self, table: Bench, session: Session, ran: list[str]) -> None:
        self.table, self.session, self.ran = table, session, ran
        self.person, self.token = Person(session), CancellationToken()
        self._closes = anyio.Event()
        session.subscribe(self._hear)

    def _hear(self, event: shown.SessionEvent) -> None:
        if isinstance(event, shown.QuestionAnswered):
            self._closes.set()
            self._closes = anyio.Event()

    async def run(self) -> None:
        await self.session.append_turn("go", RunOptions(cancellation=self.token))

    def results(self) -> list[ToolResult]:
        return self.session.history()[-2].tool_results()

    def decided(self) -> list[tuple[str, str | None]]:
        return [(str(d.outcome), d.decided_by) for d in self.table.recorder.of(e.ToolAuthorizationFinished)]

    async def closes(self, how: tuple[str, str]) -> None:
        """Wait until a question is closed like this: its outcome, and what decided it."""
        with anyio.fail_after(DEADLINE):
            while how not in self.closed():
                await self._closes.wait()

    def closed(self) -> list[tuple[str, str]]:
        return [(event.outcome, event.decided_by) for event in self.table.recorder.of(e.QuestionAnswered)]


@asynccontextmanager
async def turn(
    *calls: tuple[str, dict[str, Any]], held: anyio.Event | None = None, **options: Any
) -> AsyncIterator[Turn]:
    """Prepare a turn. Its call that begins waits until `held` is set."""
    ran: list[str] = []

    @tool
    async def act(what: str) -> str:
        ran.append(f"begin {what}")
        await (anyio.lowlevel.checkpoint() if held is None else held.wait())
        ran.append(f"end {what}")
        return what

    async with bench(**{"tools": [act]} | options) as table:
        made = Turn(table, await table.session(), ran)
        table.provider.push(tool_calls(calls), text("ok"))
        yield made


async def test_calls_with_effects_are_asked_about_together_and_run_in_order_whatever_is_answered_first() -> None:
    async with turn(*TWO) as made, anyio.create_task_group() as group:
        group.start_soon(made.run)
        await made.person.wait_for(2)
        assert made.person.patterns() == ['{"what":"one"}', '{"what":"two"}']
        made.person.answer(1, ALLOW)
        await made.closes(("allowed", "user"))
        assert made.ran == []
        made.person.answer(0, ALLOW)
    assert made.ran == ["begin one", "end one", "begin two", "end two"]
    assert made.decided() == [("allow", "user")] * 2
    assert [result.content for result in made.results()] == ["one", "two"]


async def test_a_call_whose_file_an_earlier_one_changed_is_asked_about_anew(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    writes = [("write", {"path": "a.txt", "content": each}) for each in ("first", "second")]
    async with (
        turn(*writes, builtin_tools=True, working_directory=tmp_path) as made,
        anyio.create_task_group() as group,
    ):
        group.start_soon(made.run)
        await made.person.wait_for(2)
        for n in (1, 0):
            made.person.answer(n, ALLOW)
        await made.person.wait_for(3)
        assert (tmp_path / "a.txt").read_text() == "first"
        assert made.person[2].tool_call_id == made.person[1].tool_call_id
        assert made.person[2].description.startswith(CHANGED)
        made.person.answer(2, DENY)
    assert (tmp_path / "a.txt").read_text() == "first"
    assert made.decided() == [("allow", "user"), ("deny", "user")]


async def test_an_open_question_that_is_asked_anew_is_closed_first(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    writes = [("write", {"path": "a.txt", "content": each}) for each in ("first", "second")]
    async with (
        turn(*writes, builtin_tools=True, working_directory=tmp_path) as made,
        anyio.create_task_group() as group,
    ):
        group.start_soon(made.run)
        await made.person.wait_for(2)
        made.person.answer(0, ALLOW)
        await made.person.wait_for(3)
        assert made.closed() == [("allowed", "user"), ("denied", "cancelled")]
        made.person.answer(2, ALLOW)
    assert (tmp_path / "a.txt").read_text() == "second"
    assert made.decided() == [("allow", "user")] * 2


async def test_a_persons_denial_holds_whatever_an_earlier_call_changed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    writes = [("write", {"path": "a.txt", "content": each}) for each in ("first", "second")]
    async with (
        turn(*writes, builtin_tools=True, working_directory=tmp_path) as made,
        anyio.create_task_group() as group,
    ):
        group.start_soon(made.run)
        await made.person.wait_for(2)
        made.person.answer(1, DENY)
        made.person.answer(0, ALLOW)
    assert (tmp_path / "a.txt").read_text() == "first"
    assert made.decided() == [("allow", "user"), ("deny", "user")]
    assert len(made.person) == 2


async def test_the_question_about_a_call_that_cannot_run_any_more_is_closed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    edit = {"op": "replace", "path": "a.txt", "old": "old", "new": "x"}
    calls = [("write", {"path": "a.txt", "content": "new"}), ("files", {"operations": [edit]}), TWO[0]]
    async with turn(*calls, builtin_tools=True, working_directory=tmp_path) as made, anyio.create_task_group() as group:
        group.start_soon(made.run)
        await made.person.wait_for(3)
        made.person.answer(0, ALLOW)
        await made.closes(("denied", "cancelled"))
        assert [str(each.subject) for each in made.session.permissions.open_questions()] == ['{"what":"one"}']
        made.person.answer(2, ALLOW)
    assert made.decided() == [("allow", "user"), ("deny", "runtime"), ("allow", "user")]


async def test_a_denial_by_a_rule_made_meanwhile_counts_more_than_an_earlier_allowance() -> None:
    async with turn(*TWO) as made, anyio.create_task_group() as group:
        group.start_soon(made.run)
        await made.person.wait_for(2)
        made.person.answer(1, ALLOW)
        await made.closes(("allowed", "user"))
        await made.session.permissions.add_rule("act", "*two*", allow=False)
        made.person.answer(0, ALLOW)
    assert made.ran == ["begin one", "end one"]
    assert [(outcome, by) for outcome, by in made.decided()] == [("allow", "user"), ("deny", "rule")]


async def test_a_persons_denial_counts_more_than_a_rule_made_meanwhile() -> None:
    async with turn(*TWO) as made, anyio.create_task_group() as group:
        group.start_soon(made.run)
        await made.person.wait_for(2)
        made.person.answer(1, DENY)
        made.person.answer(0, PermissionDecision(allow=True, remember="session", pattern="*"))
    assert made.ran == ["begin one", "end one"]
    assert made.decided() == [("allow", "user"), ("deny", "user")]


async def test_an_answer_that_is_remembered_decides_the_other_open_question_and_counts_its_use_once() -> None:
    async with turn(*TWO) as made:
        async with anyio.create_task_group() as group:
            group.start_soon(made.run)
            await made.person.wait_for(2)
            made.person.answer(0, PermissionDecision(allow=True, remember="session", pattern="*"))
        [rule] = await made.session.remembered_rules()
    assert rule.times_used == 1
    assert made.decided() == [("allow", "user"), ("allow", "rule")]
    assert made.ran == ["begin one", "end one", "begin two", "end two"]


async def test_a_question_that_lapsed_before_the_turn_of_its_call_is_asked_anew() -> None:
    held = anyio.Event()
    async with turn(*TWO, held=held) as made, anyio.create_task_group() as group:
        made.session.permissions.ask_timeout = 0.3
        group.start_soon(made.run)
        await made.person.wait_for(2)
        made.person.answer(0, ALLOW)
        await made.closes(("denied", "timeout"))
        made.session.permissions.ask_timeout = 600
        held.set()
        await made.person.wait_for(3)
        made.person.answer(2, ALLOW)
    assert made.decided() == [("allow", "user")] * 2
    assert made.ran == ["begin one", "end one", "begin two", "end two"]


async def test_a_stopped_turn_closes_all_of_its_questions() -> None:
    async with turn(*TWO) as made:
        async with anyio.create_task_group() as group:

            async def stopped() -> None:
                with pytest.raises(Cancelled):
                    await made.run()

            group.start_soon(stopped)
            await made.person.wait_for(2)
            made.token.cancel()
        assert made.session.permissions.open_questions() == []
        assert made.closed() == [("denied", "cancelled")] * 2
        assert made.ran == []


class Hook:
    async def before_execution(self, context: PreExecutionContext) -> PreExecutionDecision:
        return PreExecutionDecision("allow")


@pytest.mark.parametrize(
    "options",
    [{"pre_hooks": [Hook()]}, {"authorizer": Judge(ToolAuthorizationDecision.prompt("look"))}],
    ids=["hook", "authorizer"],
)
async def test_where_an_application_judges_calls_each_is_judged_only_in_its_turn(options: dict[str, Any]) -> None:
    async with turn(*TWO, **options) as made, anyio.create_task_group() as group:
        group.start_soon(made.run)
        await made.person.wait_for(1)
        await anyio.wait_all_tasks_blocked()
        assert len(made.person) == 1
        made.person.answer(0, ALLOW)
        await made.person.wait_for(2)
        assert made.ran == ["begin one", "end one"]
        made.person.answer(1, ALLOW)
    assert made.ran[2:] == ["begin two", "end two"]

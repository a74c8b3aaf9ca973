"""A question and its one answer: from another process, with other arguments, with a reason, beside others."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from kits.core import Bench, Judge, Recorder, bench

from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.authorization import PermissionDecision, PermissionQuestion, ToolAuthorizationDecision
from mentra_nb.content import ToolResult
from mentra_nb.errors import Cancelled, MentraError, OperationDenied, StoreError
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e
from mentra_nb.event.bus import EventBus, NullAudit, RuntimeHooks
from mentra_nb.forms import Form
from mentra_nb.permission import questions
from mentra_nb.permission.person import AskPerson
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers.scripted import text, tool_calls
from mentra_nb.runtime.session import Session
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.function import tool
from mentra_nb.tools.pre_hooks import PreExecutionContext, PreExecutionDecision
from mentra_nb.who import person

pytestmark = pytest.mark.anyio

ALLOW, DENY = PermissionDecision(allow=True), PermissionDecision(allow=False)
Ask = Callable[[PermissionQuestion], Any]


@tool
def act(what: str = "", count: int = 1) -> str:
    """Change something."""
    return f"{what}*{count}"


def on_question(session: Session, group: anyio.abc.TaskGroup, answer: Ask) -> list[shown.SessionEvent]:
    """Start `answer(question)` for each question. Returns the events that the screen sees."""
    seen: list[shown.SessionEvent] = []

    def hear(event: shown.SessionEvent) -> None:
        seen.append(event)
        if isinstance(event, shown.QuestionAsked):
            found = {each.request_id: each for each in session.permissions.open_questions()}
            group.start_soon(answer, found[event.request_id])

    session.subscribe(hear)
    return seen


async def ask(table: Bench, session: Session, answer: Ask, **arguments: Any) -> ToolResult:
    """Have the model make one call and answer its question. Returns the result."""
    table.provider.push(tool_calls([("act", arguments)]), text("ok"))
    async with anyio.create_task_group() as group:
        on_question(session, group, answer)
        await session.append_turn("go")
    [result] = session.history()[-2].tool_results()
    return result


class Elsewhere:
    """Another process of the same home: its own connection to the store, and its own record."""

    def __init__(self, path: Path) -> None:
        self.store, self.recorder = SqliteStore(path), Recorder()
        self.bus = EventBus(RuntimeHooks([self.recorder]), NullAudit())

    async def answer(self, decision: PermissionDecision, project: str | None = None) -> bool:
        [question] = await self.store.open_questions()
        return await questions.close(self.store, self.bus, question, decision, project, in_time=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


def decided(table: Bench) -> list[tuple[str, str | None]]:
    return [(str(d.outcome), d.decided_by) for d in table.recorder.of(e.ToolAuthorizationFinished)]


# ---- from another process -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("decision", "line"), [(ALLOW, "x*1"), (DENY, "Tool execution denied: denied by the user")])
async def test_another_process_answers_and_the_call_goes_on_within_a_second(
    path: Path, decision: PermissionDecision, line: str
) -> None:
    there, answered_at = Elsewhere(path), 0.0
    async with bench(tools=[act], store=SqliteStore(path)) as table:
        session = await table.session()

        async def answer(_question: PermissionQuestion) -> None:
            nonlocal answered_at
            assert await there.answer(decision)
            answered_at = time.monotonic()

        seen: list[shown.SessionEvent] = []
        session.subscribe(seen.append)
        result = await ask(table, session, answer, what="x")
        took = time.monotonic() - answered_at
        assert await table.runtime.store.open_questions() == []
    there.store.close()
    assert result.content == line
    assert took < 1
    assert decided(table) == [("allow" if decision.allow else "deny", "user")]
    assert len([event for event in seen if isinstance(event, shown.QuestionAnswered)]) == 1
    assert table.recorder.of(e.QuestionAnswered) == []  # the process that closed it has recorded it
    [answered] = there.recorder.of(e.QuestionAnswered)
    assert (answered.decided_by, answered.session_id) == ("user", session.id)


async def test_always_answered_by_another_process_makes_the_rule_and_covers_the_next_call(path: Path) -> None:
    there = Elsewhere(path)
    async with bench(tools=[act], store=SqliteStore(path)) as table:
        session = await table.session("talk", "/p")
        always = PermissionDecision(allow=True, remember="project", pattern="*")

        async def answer(_question: PermissionQuestion) -> None:
            assert await there.answer(always, "/p")

        await ask(table, session, answer, what="x")
        await ask(table, session, answer, what="y")
        [rule] = await session.remembered_rules()
    there.store.close()
    assert (rule.pattern, rule.scope, rule.scope_key) == ("*", "project", "/p")
    assert decided(table) == [("allow", "user"), ("allow", "rule")]
    assert len(there.recorder.of(e.RuleChanged)) == 1


async def test_the_first_of_two_processes_counts_and_the_other_is_told(path: Path) -> None:
    there = Elsewhere(path)
    async with bench(tools=[act], store=SqliteStore(path)) as table:
        session = await table.session()

        async def answer(question: PermissionQuestion) -> None:
            assert await there.answer(DENY)
            session.resolve_permission(question.request_id, ALLOW)  # too late, though nobody here knows yet

        result = await ask(table, session, answer, what="x")
        [row] = table.recorder.of(e.ToolAuthorizationFinished)
        stored = await there.store.question_answer(row.request_id or "")
        assert stored is not None
        with pytest.raises(OperationDenied, match="closed"):
            await session.answer(row.request_id or "", ALLOW)
    there.store.close()
    assert result.is_error
    assert (stored.decision.allow, decided(table)) == (False, [("deny", "user")])
    assert len(there.recorder.of(e.QuestionAnswered)) == 1
    assert table.recorder.of(e.QuestionAnswered) == []


async def test_an_answer_has_the_name_of_the_person_and_of_the_machine(path: Path) -> None:
    there = Elsewhere(path)
    async with bench(tools=[act], store=SqliteStore(path)) as table:
        session = await table.session()
        asked: list[PermissionQuestion] = []

        async def answer(question: PermissionQuestion) -> None:
            asked.append(question)
            session.resolve_permission(question.request_id, ALLOW)

        await ask(table, session, answer)
        found = await there.store.question_answer(asked[0].request_id)
    there.store.close()
    assert found is not None
    assert (found.decision.user, found.decision.host) == person()
    assert all(person())


async def test_an_answer_that_the_store_cannot_take_denies() -> None:
    class Full(VolatileStore):
        async def close_question(self, *_: Any, **__: Any) -> bool:
            raise StoreError("the disk is full")

    async with bench(tools=[act], store=Full()) as table:
        session = await table.session()

        async def answer(question: PermissionQuestion) -> None:
            session.resolve_permission(question.request_id, ALLOW)

        result = await ask(table, session, answer, what="x")
    assert result.content == "Tool execution denied: the answer could not be stored: the disk is full"
    assert decided(table) == [("deny", "runtime")]


# ---- other arguments ------------------------------------------------------------------------------------------


def edit(session: Session, **arguments: Any) -> Ask:
    async def answer(question: PermissionQuestion) -> None:
        session.resolve_permission(question.request_id, PermissionDecision(allow=True, arguments=arguments))

    return answer


async def test_what_a_person_changed_is_what_runs_and_what_is_recorded_and_the_model_is_told() -> None:
    async with bench(tools=[act]) as table:
        session = await table.session()
        result = await ask(table, session, edit(session, what="less", count=2), what="more")
        [use] = session.history()[1].tool_uses()
    assert result.content == (
        '[the user changed the arguments before allowing it, so this ran: {"what": "less", "count": 2}]\nless*2'
    )
    assert use.input == {"what": "more"}
    [started] = table.recorder.of(e.ToolExecutionStarted)
    [decision] = table.recorder.of(e.ToolAuthorizationFinished)
    [answered] = table.recorder.of(e.QuestionAnswered)
    assert started.input == answered.input == {"what": "less", "count": 2}
    assert (decision.subject, decision.decided_by) == ('{"count":2,"what":"less"}', "user")


@pytest.mark.parametrize(
    ("arguments", "options", "why"),
    [
        ({"count": "many"}, {}, "invalid arguments: count"),
        ({"other": 1}, {}, "invalid arguments: other"),
        ({"what": "y"}, {"remember": "session"}, "holds once"),
    ],
)
async def test_arguments_that_cannot_be_taken_are_refused_and_the_question_stays_open(
    arguments: dict[str, Any], options: dict[str, Any], why: str
) -> None:
    async with bench(tools=[act]) as table:
        session = await table.session()

        async def answer(question: PermissionQuestion) -> None:
            changed = PermissionDecision(allow=True, arguments=arguments, **options)
            with pytest.raises(MentraError, match=why):
                session.resolve_permission(question.request_id, changed)
            session.resolve_permission(question.request_id, ALLOW)

        result = await ask(table, session, answer, what="x")
    assert result.content == "x*1"


async def test_a_denial_also_holds_for_what_a_person_changed() -> None:
    async with bench(tools=[act]) as table:
        session = await table.session()
        await session.permissions.add_rule("act", '*"what":"bad"*', allow=False, reason="never bad")
        result = await ask(table, session, edit(session, what="bad"), what="good")
    assert result.is_error
    assert "never bad" in str(result.content)
    assert decided(table) == [("deny", "rule")]
    assert table.recorder.of(e.ToolExecutionStarted) == []


@pytest.mark.parametrize(
    "decision", [ALLOW, PermissionDecision(allow=True, remember="session", pattern="*")], ids=["once", "always"]
)
async def test_a_denial_made_while_a_question_is_open_counts_more_than_an_allowance_given_later(
    decision: PermissionDecision,
) -> None:
    async with bench(tools=[act]) as table:
        session = await table.session()

        async def answer(question: PermissionQuestion) -> None:
            await session.permissions.add_rule("act", '*"what":"bad"*', allow=False, reason="never bad")
            session.resolve_permission(question.request_id, decision)

        result = await ask(table, session, answer, what="bad")
        assert decided(table) == [("deny", "rule")]
        assert "never bad" in str(result.content)
        assert table.recorder.of(e.ToolExecutionStarted) == []


async def test_a_change_into_what_is_not_denied_runs_though_what_it_replaces_was_denied_meanwhile() -> None:
    async with bench(tools=[act]) as table:
        session = await table.session()

        async def answer(question: PermissionQuestion) -> None:
            await session.permissions.add_rule("act", '*"what":"bad"*', allow=False)
            await edit(session, what="good")(question)

        assert str((await ask(table, session, answer, what="bad")).content).endswith("good*1")


async def test_an_authorizer_and_the_policy_also_judge_what_a_person_changed(tmp_path: Path) -> None:
    class Judges(Judge):
        async def authorize(self, request: Any) -> ToolAuthorizationDecision:
            bad = "bad" in str(request.subject)
            return ToolAuthorizationDecision.deny("judged bad") if bad else ToolAuthorizationDecision.prompt()

    async with bench(tools=[act], authorizer=Judges(ToolAuthorizationDecision.prompt())) as table:
        session = await table.session()
        result = await ask(table, session, edit(session, what="bad"), what="good")
    assert result.content == "Tool execution denied: judged bad"

    policy = RuntimePolicy.permissive()
    async with bench(builtin_tools=True, working_directory=tmp_path, policy=policy) as table:
        session = await table.session()
        table.provider.push(tool_calls([("write", {"path": "a.txt", "content": "x"})]), text("ok"))
        async with anyio.create_task_group() as group:
            on_question(session, group, edit(session, path="/proc/self/mem", content="x"))
            await session.append_turn("go")
        [result] = session.history()[-2].tool_results()
    assert result.is_error
    assert len(table.recorder.of(e.ToolAuthorizationFinished)) == 1
    assert table.recorder.of(e.ToolExecutionStarted) == []


async def test_a_hook_judges_what_a_person_changed_and_may_not_change_it_again() -> None:
    class Hook:
        async def before_execution(self, context: PreExecutionContext) -> PreExecutionDecision:
            match context.input["what"]:
                case "bad":
                    return PreExecutionDecision("deny", "hooked")
                case "odd":
                    return PreExecutionDecision("modify", input={"what": "even"})
            return PreExecutionDecision("allow")

    async with bench(tools=[act], pre_hooks=[Hook()]) as table:
        session = await table.session()
        bad = await ask(table, session, edit(session, what="bad"), what="x")
    async with bench(tools=[act], pre_hooks=[Hook()]) as table:
        session = await table.session()
        odd = await ask(table, session, edit(session, what="odd"), what="x")
        assert decided(table) == [("deny", "runtime")]
    assert bad.content == "Blocked by pre-execution hook: hooked"
    assert "a hook would change the arguments that were approved" in str(odd.content)


async def test_arguments_changed_by_another_process_are_held_to_the_schema(path: Path) -> None:
    there = Elsewhere(path)
    async with bench(tools=[act], store=SqliteStore(path)) as table:
        session = await table.session()

        async def answer(_question: PermissionQuestion) -> None:
            assert await there.answer(PermissionDecision(allow=True, arguments={"count": "many"}))

        result = await ask(table, session, answer, what="x")
    there.store.close()
    assert result.is_error
    assert "the changed arguments do not fit: invalid arguments: count" in str(result.content)
    assert decided(table) == [("deny", "runtime")]


# ---- reasons --------------------------------------------------------------------------------------------------


async def test_a_reason_for_allowing_reaches_the_model_and_the_record() -> None:
    async with bench(tools=[act]) as table:
        session = await table.session()

        async def answer(question: PermissionQuestion) -> None:
            session.resolve_permission(question.request_id, PermissionDecision(allow=True, reason="but only once"))

        result = await ask(table, session, answer, what="x")
    assert result.content == "[the user allowed it and says: but only once]\nx*1"
    assert [answered.reason for answered in table.recorder.of(e.QuestionAnswered)] == ["but only once"]


# ---- beside others --------------------------------------------------------------------------------------------


@tool(reads_only=True)
def peek(where: str) -> str:
    """Look somewhere."""
    return f"seen {where}"


async def peeks(table: Bench, session: Session, answer: Callable[[list[PermissionQuestion]], None]) -> list[str]:
    """Have the model look at three places in one answer, and answer once all three questions are open."""
    table.provider.push(tool_calls([("peek", {"where": each}) for each in "abc"]), text("ok"))

    def hear(event: shown.SessionEvent) -> None:
        if isinstance(event, shown.QuestionAsked) and len(found := session.permissions.open_questions()) == 3:
            answer(found)

    session.subscribe(hear)
    await session.append_turn("go")
    return [str(result.content) for result in session.history()[-2].tool_results()]


async def test_calls_that_run_beside_others_are_asked_about_at_once_and_answered_in_any_order() -> None:
    async with bench(tools=[peek]) as table:
        session = await table.session(ask="always")

        def answer(found: list[PermissionQuestion]) -> None:
            for question, decision in zip(reversed(found), (ALLOW, DENY, ALLOW), strict=True):
                session.resolve_permission(question.request_id, decision)

        said = await peeks(table, session, answer)
    assert said == ["seen a", "Tool execution denied: denied by the user", "seen c"]
    assert sorted(decided(table)) == [("allow", "user"), ("allow", "user"), ("deny", "user")]
    assert len({row.request_id for row in table.recorder.of(e.ToolAuthorizationFinished)}) == 3


@pytest.mark.parametrize("allow", [True, False])
async def test_always_for_one_call_decides_the_others_that_its_pattern_covers(allow: bool) -> None:
    async with bench(tools=[peek]) as table:
        session = await table.session(ask="always")
        pattern, other = '{"where":"*"}', PermissionDecision(allow=not allow)

        def answer(found: list[PermissionQuestion]) -> None:
            remembered = PermissionDecision(allow=allow, remember="session", pattern=pattern)
            session.resolve_permission(found[2].request_id, other)
            session.resolve_permission(found[1].request_id, remembered)

        said = await peeks(table, session, answer)
        [rule] = await session.remembered_rules()
    assert [text.startswith("seen") for text in said] == [allow, allow, False]  # no allowance holds against a denial
    assert sorted(by or "" for _, by in decided(table)) == (
        ["rule", "user", "user"] if allow else ["rule", "rule", "user"]
    )
    used = [row.rule_id for row in table.recorder.of(e.ToolAuthorizationFinished) if row.rule_id]
    assert used == [rule.id] * (1 if allow else 2)
    assert rule.times_used == len(used)


async def test_a_stop_closes_all_open_questions_of_a_turn() -> None:
    token = CancellationToken()
    async with bench(tools=[peek]) as table:
        session = await table.session(ask="always")
        table.provider.push(tool_calls([("peek", {"where": each}) for each in "abc"]))

        def hear(event: shown.SessionEvent) -> None:
            if len(session.permissions.open_questions()) == 3:
                token.cancel()

        session.subscribe(hear)
        with pytest.raises(Cancelled):
            await session.append_turn("go", RunOptions(cancellation=token))
        assert await table.runtime.store.open_questions() == []
    assert [answered.decided_by for answered in table.recorder.of(e.QuestionAnswered)] == ["cancelled"] * 3
    assert decided(table) == [("deny", "cancelled")] * 3


async def test_what_was_asked_in_the_middle_of_a_call_is_refused_and_closed_once_its_process_has_died() -> None:
    async with bench() as table:
        session = await table.session()
        form = Form(who="The server", message="Go on?")
        asked: list[PermissionQuestion] = []

        def hear(event: shown.SessionEvent) -> None:
            if isinstance(event, shown.QuestionAsked):
                asked.extend(session.permissions.open_questions())
                session.resolve_permission(event.request_id, PermissionDecision(allow=True))

        session.subscribe(hear)
        about = {"agent_name": "a", "run_id": "run-1", "tool_call_id": "c", "tool_name": "t"}
        assert await AskPerson(session.permissions)(form, agent_id=session.agent.id, **about) == {}
        left = asked[0].model_copy(update={"request_id": "perm-left"})
        await session.permissions.store.open_question(left)  # as a kill leaves it
        with pytest.raises(OperationDenied, match="has died with its kernel, so nobody would get the answer"):
            await session.answer("perm-left", PermissionDecision(allow=True))
        assert await session.permissions.store.open_questions() == []
        assert table.recorder.of(e.QuestionAnswered)[-1].decided_by == "cancelled"

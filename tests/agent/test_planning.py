"""A turn that only reads until a person has approved the plan that it ends in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kits.core import Bench, bench

from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.authorization import PermissionDecision, PermissionQuestion
from mentra_nb.content import Message
from mentra_nb.errors import Cancelled, ConfigurationError, MentraError
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e
from mentra_nb.providers.scripted import text, tool_calls
from mentra_nb.runtime.session import Session
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.tools.function import tool
from mentra_nb.tools.tool import Delegate, ToolContext

pytestmark = pytest.mark.anyio

PLAN = RunOptions(plan=True)
APPROVE = PermissionDecision(allow=True)
DENY = PermissionDecision(allow=False)
done: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    done.clear()


@tool(reads_only=True)
def look() -> str:
    done.append("looked")
    return "two files"


@tool(asks=False)
def act() -> str:
    done.append("acted")
    return "acted"


TOOLS: dict[str, Any] = {"tools": [look, act], "authorizer": None}


def answering(session: Session, *decisions: PermissionDecision) -> list[PermissionQuestion]:
    """Answer the questions of a session with these decisions, in turn. Returns those that were asked."""
    asked: list[PermissionQuestion] = []

    def hear(event: shown.SessionEvent) -> None:
        if isinstance(event, shown.QuestionAsked):
            asked.append(session.permissions.open_questions()[0])
            session.resolve_permission(event.request_id, decisions[len(asked) - 1])

    session.subscribe(hear)
    return asked


def offered(table: Bench) -> list[list[str]]:
    """Return the names of the tools of each request."""
    return [[wire.name for wire in request.tools] for request in table.provider.recorded_requests]


async def test_a_plan_is_made_by_reading_and_carried_out_in_the_same_turn_once_it_is_approved() -> None:
    async with bench(**TOOLS) as table:
        session = await table.session()
        asked = answering(session, PermissionDecision(allow=True, reason="be careful"))
        table.provider.push(tool_calls([("look", {})]), tool_calls([("act", {})]), text("1. Act."))
        table.provider.push(tool_calls([("act", {})]), text("It is done."))
        answer = await session.append_turn("do it", PLAN)
        assert answer.text() == "It is done."
        assert offered(table) == [["look"], ["look"], ["look"], ["act", "look"], ["act", "look"]]
        assert ["You are planning" in (each.system or "") for each in table.provider.recorded_requests] == [
            *[True] * 3,
            *[False] * 2,
        ]
        assert done == ["looked", "acted"]  # the first call of the tool that changes something was refused
        [question] = asked
        assert question.form is not None
        assert (question.tool_name, question.form.message, question.form.yes) == ("plan", "1. Act.", "Approve plan")
        approval = session.history()[-4]
        assert approval.text().startswith("[The user approved this plan and says: be careful]")
        table.provider.push(tool_calls([("act", {})]), text("Again."))
        await session.append_turn("again")
        assert offered(table)[-1] == ["act", "look"]
        assert len(asked) == 1


@pytest.mark.parametrize(("decision", "by"), [(DENY, "user"), (None, "headless")])
async def test_a_plan_that_is_not_approved_ends_the_turn_and_says_why(
    decision: PermissionDecision | None, by: str
) -> None:
    async with bench(text("1. Act."), **TOOLS) as table:
        session = await table.session()
        if decision is None:
            session.permissions.can_ask = lambda: False
        else:
            answering(session, decision)
        shown_answers: list[shown.SessionEvent] = []
        session.subscribe(shown_answers.append)
        assert (await session.append_turn("do it", PLAN)).text() == "1. Act."
        [ended] = table.recorder.of(e.TurnFinished)
        assert (ended.stop_reason, ended.success) == ("plan_denied", True)
        [answered] = table.recorder.of(e.QuestionAnswered)
        assert (answered.tool_name, answered.outcome, answered.decided_by) == ("plan", "denied", by)
        assert ("nobody is there" in (answered.reason or "")) is (decision is None)
        assert [each.decided_by for each in shown_answers if isinstance(each, shown.QuestionAnswered)] == [by]
        table.provider.push(tool_calls([("act", {})]), text("Done."))
        await session.append_turn("then do it at once")  # a turn that is not to plan
        assert done == ["acted"]


async def test_what_a_person_says_instead_leads_to_another_plan() -> None:
    async with bench(text("1. Act."), text("1. Look."), text("Looked."), **TOOLS) as table:
        session = await table.session()
        asked = answering(session, PermissionDecision(allow=False, reason="only look"), APPROVE)
        await session.append_turn("do it", PLAN)
        assert [each.arguments["plan"] for each in asked] == ["1. Act.", "1. Look."]
        said_back = table.provider.recorded_requests[1].messages[-1]
        assert isinstance(said_back, Message)
        assert said_back.text().startswith("[The user did not approve this plan and says: only look]")
        assert offered(table) == [["look"], ["look"], ["act", "look"]]


async def test_a_denial_by_rule_or_setting_decides_about_a_plan_too() -> None:
    async with bench(text("1. Act."), text("1. Act."), **TOOLS) as table:
        session = await table.session()
        asked = answering(session)
        await session.permissions.add_rule("plan", "*", allow=False)
        await session.append_turn("do it", PLAN)
        await session.permissions.store.revoke_rule((await session.permissions.rules())[0].id)
        session.permissions.ask = "rules"
        await session.append_turn("do it", PLAN)
        decided = [each.decided_by.partition(":")[0] for each in table.recorder.of(e.QuestionAnswered)]
        assert decided == ["rule", "setting"]
        assert asked == []


async def test_an_agent_without_a_session_has_nobody_to_approve_its_plan() -> None:
    async with bench(text("1. Act."), tools=[look, act]) as table:
        agent = await table.agent()
        assert (await agent.run("do it", PLAN)).text() == "1. Act."
        [answered] = table.recorder.of(e.QuestionAnswered)
        assert (answered.decided_by, answered.tool_name) == ("headless", "plan")


@pytest.mark.parametrize(
    ("decision", "ran"),
    [
        (APPROVE, ["acted"]),
        (DENY, []),
        (PermissionDecision(allow=False, reason="look first"), ["looked"]),
        (None, ["acted"]),
    ],
    ids=["approved", "denied", "something else", "asked again"],
)
async def test_a_plan_whose_turn_has_died_is_decided_by_the_answer_given_since(
    tmp_path: Path, decision: PermissionDecision | None, ran: list[str]
) -> None:
    copies: list[PermissionQuestion] = []
    async with bench(text("1. Act."), store=SqliteStore(tmp_path / "state.sqlite"), **TOOLS) as table:
        session = await table.session()
        token = CancellationToken()

        def stop(event: shown.SessionEvent) -> None:
            if isinstance(event, shown.QuestionAsked):
                copies.extend(session.permissions.open_questions())
                token.cancel()

        session.subscribe(stop)
        with pytest.raises(Cancelled):
            await session.append_turn("do it", RunOptions(plan=True, cancellation=token))
    # As a kill leaves it: the question is open, and its turn is not.
    left = SqliteStore(tmp_path / "state.sqlite")
    await left.open_question(copies[0].model_copy(update={"request_id": "perm-again"}))
    async with bench(store=left, **TOOLS) as table:
        again = await table.runtime.resume_session(session.id)
        if decision is not None:
            await again.answer("perm-again", decision)
        asked = answering(again, APPROVE if decision is None else DENY, DENY)
        calls = [("look", {}) if ran == ["looked"] else ("act", {})]
        table.provider.push(tool_calls(calls), text("2. Act after all." if ran == ["looked"] else "Done."))
        await again.resume_turn()
        assert done == ran
        assert len(asked) == {"acted": int(decision is None), "looked": 1, "": 0}["".join(ran)]
        assert await left.open_questions() == []


async def test_an_approval_holds_in_a_turn_that_goes_on_after_it_was_given(tmp_path: Path) -> None:
    async with bench(text("1. Act."), store=SqliteStore(tmp_path / "state.sqlite"), **TOOLS) as table:
        session = await table.session()
        answering(session, APPROVE)
        with pytest.raises(MentraError):  # the script has ended
            await session.append_turn("do it", PLAN)
        await session.agent._change({"planning": True})  # as a kill leaves it that came right after the approval
        table.provider.push(tool_calls([("act", {})]), text("Done."))
        assert (await session.resume_turn()).text() == "Done."
        assert done == ["acted"]


async def test_an_approval_does_not_hold_in_a_later_turn_that_plans_and_is_resumed(tmp_path: Path) -> None:
    async with bench(text("1. Act."), text("Done."), store=SqliteStore(tmp_path / "state.sqlite"), **TOOLS) as table:
        session = await table.session()
        answering(session, APPROVE, DENY)
        await session.append_turn("do it", PLAN)
        table.provider.push(tool_calls([("look", {})]))
        with pytest.raises(MentraError):  # the script has ended
            await session.append_turn("and that", PLAN)
        table.provider.push(tool_calls([("act", {})]), text("1. Act again."))
        await session.resume_turn()
        assert "acted" not in done


WOKEN = e.TurnOrigin(woken_by="bg-1")


async def test_a_turn_that_begins_by_itself_after_an_approved_plan_goes_on_with_it_and_plans_nothing() -> None:
    async with bench(**TOOLS) as table:
        session = await table.session()
        asked = answering(session, APPROVE)
        table.provider.push(text("1. Act."), text("It runs."), tool_calls([("act", {})]), text("It is built."))
        await session.append_turn("build it", PLAN)
        answer = await session.append_turn("It has ended.", PLAN, WOKEN)
        assert answer.text() == "It is built."
        assert done == ["acted"]
        assert len(asked) == 1


@pytest.mark.parametrize("options", [PLAN, RunOptions()], ids=["with the options of a plan", "without"])
@pytest.mark.parametrize("compacts", [False, True], ids=["", "compacts"])
async def test_a_turn_that_begins_by_itself_after_a_plan_without_approval_carries_nothing_out(
    options: RunOptions, compacts: bool
) -> None:
    async with bench(**TOOLS) as table:
        session = await table.session()
        asked = answering(session, APPROVE, DENY, DENY, APPROVE)
        table.provider.push(text("1. Act."), text("It runs."), text("1. Act on more."))
        await session.append_turn("build it", PLAN)
        await session.append_turn("and that", PLAN)
        if compacts:
            await session.compact()
        table.provider.push(tool_calls([("act", {})]), text("It is built. 1. Act on more."))
        await session.append_turn("It has ended.", options, WOKEN)
        assert done == []
        table.provider.push(text("1. Act."), tool_calls([("act", {})]), text("Acted."))
        await session.append_turn("The other has ended.", options, WOKEN)
        assert done == ["acted"]  # now a person has approved
        assert len(asked) == 4


async def test_a_subagent_of_a_turn_that_plans_only_reads_and_its_answer_is_no_plan() -> None:
    @tool(reads_only=True)
    async def ask_another(context: ToolContext) -> str:
        return await context.service(Delegate)("look around")

    async with bench(**(TOOLS | {"tools": [look, act, ask_another]})) as table:
        session = await table.session()
        asked = answering(session, APPROVE)
        table.provider.push(tool_calls([("ask_another", {})]), text("I found two files."), text("1. Act."))
        table.provider.push(tool_calls([("ask_another", {})]), tool_calls([("act", {})]), text("Acted."), text("Done."))
        await session.append_turn("do it", PLAN)
        assert len(asked) == 1
        assert offered(table)[1] == ["ask_another", "look"]
        assert done == ["acted"]


async def test_a_turn_with_a_typed_answer_cannot_be_one_that_plans() -> None:
    async with bench(**TOOLS) as table:
        agent = await table.agent()
        with pytest.raises(ConfigurationError, match="a plan"):
            await agent.run_to_output("do it", list[str], PLAN)

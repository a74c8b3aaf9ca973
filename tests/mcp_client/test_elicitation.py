"""A server asks the person in the middle of a call: what is asked, what goes back, and who cannot be asked."""

from __future__ import annotations

import pytest
from kits.core import bench
from kits.mcp_programs import npm

from mentra_nb.authorization import PermissionDecision
from mentra_nb.content import ToolResult
from mentra_nb.errors import OperationDenied
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e
from mentra_nb.mcp_client.servers import McpServers
from mentra_nb.providers.scripted import text, tool_calls
from mentra_nb.runtime.session import Session
from mentra_nb.settings import McpServer

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PLAN = tool_calls([("mcp__kit__plan", {})])


def answers(session: Session, *given: PermissionDecision) -> list[str]:
    """Allow the call, then give these answers to what is asked in it. Returns what was refused."""
    refused: list[str] = []

    def hear(event: shown.SessionEvent) -> None:
        if not isinstance(event, shown.QuestionAsked):
            return
        [question] = session.permissions.open_questions()
        if question.form is None:
            session.resolve_permission(event.request_id, PermissionDecision(allow=True))
            return
        assert (question.form.message, [field.name for field in question.form.fields]) == (
            "Where to?",
            ["city", "days", "sea", "season"],
        )
        for answer in given:
            try:
                session.resolve_permission(event.request_id, answer)
            except OperationDenied as error:
                refused.append(str(error))

    session.subscribe(hear)
    return refused


async def result_of(session: Session) -> str:
    await session.append_turn("plan")
    results = [block for message in session.history() for block in message.content if isinstance(block, ToolResult)]
    return results[-1].display()


@pytest.mark.parametrize("kit", ["kit_stdio", "kit_http"])
async def test_what_a_person_fills_in_goes_to_the_server(kit: str, request: pytest.FixtureRequest) -> None:
    config: McpServer = request.getfixturevalue(kit)
    async with bench(PLAN, text("done"), mcp={"kit": config}) as table:
        session = await table.session()
        refused = answers(
            session,
            PermissionDecision(allow=True),
            PermissionDecision(allow=True, values={"city": "Oslo", "days": "many"}),
            PermissionDecision(allow=True, values={"city": "Oslo"}, remember="session"),
            PermissionDecision(allow=True, values={"city": "Oslo", "days": "3", "season": "winter"}),
        )
        assert await result_of(session) == "accept: city='Oslo' days=3 sea=False season='winter'"
        assert refused == [
            "'City' is needed: fill it in on the card, or type city=…",
            "'Days' must be a whole number",
            "values are asked for each time: an answer cannot be remembered",
        ]
        asked = table.recorder.of(e.QuestionAsked)
        assert [each.tool_name for each in asked] == ["mcp__kit__plan"] * 2
        assert [each.outcome for each in table.recorder.of(e.QuestionAnswered)] == ["allowed", "allowed"]
        assert len(table.recorder.of(e.ToolAuthorizationFinished)) == 1


async def test_a_person_may_decline(kit_stdio: McpServer) -> None:
    async with bench(PLAN, text("done"), mcp={"kit": kit_stdio}) as table:
        session = await table.session()
        answers(session, PermissionDecision(allow=False, reason="not now"))
        assert await result_of(session) == "decline: None"


async def test_where_nobody_can_be_asked_a_server_is_declined(kit_stdio: McpServer, servers: McpServers) -> None:
    await servers.connect("kit", kit_stdio)
    assert (await servers.call("kit", "plan", {})).content == "decline: None"
    async with bench(PLAN, text("done"), mcp={"kit": kit_stdio}) as table:
        agent = await table.agent()
        await agent.send("plan")
        results = [block for message in agent.history() for block in message.content if isinstance(block, ToolResult)]
        assert results[-1].display() == "decline: None"


async def test_the_older_protocol_asks_too() -> None:
    trigger = tool_calls([("mcp__everything__trigger-elicitation-request", {})])
    async with bench(trigger, text("done"), mcp={"everything": npm("server-everything")}) as table:
        session = await table.session()
        names: list[str] = []

        def hear(event: shown.SessionEvent) -> None:
            if isinstance(event, shown.QuestionAsked):
                [question] = session.permissions.open_questions()
                values = None
                if question.form is not None:
                    names.extend(field.name for field in question.form.fields)
                    values = {"name": "Ada", "integer": "7"}
                session.resolve_permission(event.request_id, PermissionDecision(allow=True, values=values))

        session.subscribe(hear)
        result = await result_of(session)
    assert {"name", "check", "firstLine", "integer", "number", "untitledSingleSelectEnum"} <= set(names)
    assert "Ada" in result
    assert "7" in result

"""A turn that returns a value of a given type: the tool that receives it, and models that do not cooperate."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from kits.core import Bench, Judge, Recorder, Unattended
from pydantic import BaseModel, Field

from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.limits import RunOptions
from mentra_nb.agent.strategy import Inject, RoundContext
from mentra_nb.authorization import PermissionRule, ToolAuthorizationDecision
from mentra_nb.errors import (
    ConfigurationError,
    EmptyAssistantResponse,
    FailedToStreamResponse,
    HttpError,
    InvalidOutput,
    StoreError,
)
from mentra_nb.event import types as e
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.base import ProviderEvent, ProviderToolSpec, Request, ResponseFormat, ToolChoice
from mentra_nb.providers.scripted import ScriptedAnswer, ScriptedProvider, failure, text, tool_calls
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.function import tool
from mentra_nb.tools.tool import Delegate, ToolContext

pytestmark = pytest.mark.anyio

ANSWER = "THE TERMINAL TOOL"
"""In a script: the name of the turn's terminal tool."""


class City(BaseModel):
    """A place with people in it."""

    name: str
    people: int = Field(ge=0)


class Node(BaseModel):
    left: Node | None = None


class Colour(StrEnum):
    RED = "red"


@dataclass
class Point:
    x: float
    on: date


@dataclass
class Step:
    name: str
    count: int = 3
    at: date = date(2024, 2, 29)


PARIS = {"name": "Paris", "people": 2}


class Model(ScriptedProvider):
    """Calls the terminal tool it is offered where the script says `ANSWER`."""

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[ProviderEvent]]:
        if self.remaining and isinstance(turn := self._answers[0], ScriptedAnswer) and (offered := terminal(request)):
            self._answers[0] = ScriptedAnswer(
                tuple(_named(event, offered[0].name) for event in turn.events), turn.error
            )
        async with super().stream(request) as events:
            yield events


def _named(event: Any, name: str) -> Any:
    return type(event)(event.index, event.kind, event.id, name) if getattr(event, "name", "") == ANSWER else event


def terminal(request: Request) -> list[ProviderToolSpec]:
    return [spec for spec in request.tools if spec.name.startswith("mentra_terminal_")]


@asynccontextmanager
async def table_of(*turns: ScriptedAnswer, **options: Any) -> AsyncIterator[Bench]:
    model, recorder = Model(turns), Recorder()
    options = {"store": VolatileStore(), "audit": NullAudit(), "builtin_tools": False, "hooks": [recorder]} | options
    async with Unattended([model], **options) as runtime:
        yield Bench(runtime, model, recorder)


@tool
def act() -> str:
    """Do it."""
    return "done"


def answer(*values: dict[str, Any]) -> ScriptedAnswer:
    return tool_calls([(ANSWER, value) for value in values])


# ---- shaping --------------------------------------------------------------------------------------------------


async def test_a_shaping_turn_offers_only_the_terminal_tool_and_forces_it() -> None:
    config = AgentConfig(
        tools=("act",),
        reasoning_effort="high",
        reasoning_summary="auto",
        response_format=ResponseFormat("f", {"type": "object"}),
        tool_choice=ToolChoice("none"),
    )
    async with table_of(answer(PARIS), text("ok"), tools=[act]) as table:
        agent = await table.agent(config)
        city = await agent.run_to_output("Where?", City)
        assert city == City(name="Paris", people=2)
        [offered] = table.provider.recorded_requests[0].tools
        choice = table.provider.recorded_requests[0].tool_choice
        assert choice == ToolChoice("tool", offered.name)
        assert offered.input_schema["properties"]["people"] == {"type": "integer", "minimum": 0}
        request = table.provider.recorded_requests[0]
        assert (request.reasoning_effort, request.reasoning_summary, request.response_format) == (None, None, None)
        await agent.send("and now?")
        request = table.provider.recorded_requests[1]
        assert ([spec.name for spec in request.tools], request.tool_choice) == (["act"], ToolChoice("none"))
        assert request.reasoning_effort == "high"


async def test_the_transcript_keeps_a_call_and_its_result() -> None:
    async with table_of(answer(PARIS)) as table:
        agent = await table.agent()
        await agent.run_to_output("Where?", City)
        called, answered = agent.history()[1:]
        assert called.tool_uses()[0].input == PARIS
        assert [(r.content, r.is_error) for r in answered.tool_results()] == [("received", False)]
        assert agent.status == "Finished"
        assert [(t.stop_reason, t.success) for t in table.recorder.of(e.TurnFinished)] == [("ended_by_tool", True)]
        [run] = await table.runtime.store.list_runs(agent.id)
        assert [call.ends_turn for call in await table.runtime.store.list_tool_calls(run.id)] == [True]


@pytest.mark.parametrize("name", [None, "a rather long name, and odd: ä/b", "ä", "x"])
async def test_the_terminal_tool_has_a_valid_name_that_only_the_same_answer_has(name: str | None) -> None:
    async with table_of(*[answer(PARIS)] * 4) as table:
        agent = await table.agent()
        for how in ({"description": "The city."}, {"description": "The city."}, {"description": "A city."}):
            await agent.run_to_output("Where?", City, name=name, **how)
        await agent.run_to_output("Where?", dict[str, Any], name=name, description="The city.")
        first, again, *others = [terminal(request)[0] for request in table.provider.recorded_requests]
    assert first == again
    assert first.description == "The city."
    assert len({first.name, *(other.name for other in others)}) == 3
    for spec in (first, *others):
        assert re.fullmatch(r"mentra_terminal_[A-Za-z0-9_]{1,14}_[0-9a-f]{16}_[0-9a-f]{16}", spec.name)
        assert len(spec.name) <= 64


@pytest.mark.parametrize(
    ("output", "value", "expected"),
    [
        (City, PARIS, City(name="Paris", people=2)),
        (Point, {"x": 1, "on": "2024-02-29"}, Point(1.0, date(2024, 2, 29))),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (int, {"value": 3}, 3),
        (list[City], {"value": [PARIS]}, [City(name="Paris", people=2)]),
        (City | None, {"value": None}, None),
        (tuple[Colour, ...], {"value": ["red"]}, (Colour.RED,)),
        (Node, {"value": {"left": {"left": None}}}, Node(left=Node())),
        (list[int], {"value": "[1, 2]"}, [1, 2]),  # JSON text inside JSON
        (list[City], {"value": [json.dumps(PARIS)]}, [City(name="Paris", people=2)]),
        (Step, {"name": "a", "count": None, "at": None}, Step("a")),  # null for a default
    ],
    ids=str,
)
async def test_any_type_that_pydantic_understands(output: Any, value: dict[str, Any], expected: Any) -> None:
    async with table_of(answer(value)) as table:
        assert await (await table.agent()).run_to_output("Well?", output) == expected
        schema = terminal(table.provider.recorded_requests[0])[0].input_schema
    assert (schema["type"], "title" in schema) == ("object", False)
    for name in re.findall(r'"#/\$defs/(\w+)"', json.dumps(schema)):
        assert name in schema["$defs"]


async def test_a_type_without_a_json_schema_is_refused_before_anything_is_asked() -> None:
    async with table_of() as table:
        agent = await table.agent()
        with pytest.raises(
            ConfigurationError, match=r"describe an output of collections\.abc\.Callable.*CallableSchema$"
        ):
            await agent.run_to_output("Well?", Callable[[], int])
        assert await table.runtime.store.list_runs(agent.id) == []


# ---- with the other tools -------------------------------------------------------------------------------------


@pytest.mark.parametrize("tools", [None, ("act",)])
async def test_a_working_turn_keeps_the_other_tools_and_leaves_the_choice(tools: Any) -> None:
    config = AgentConfig(tools=tools, tool_choice=ToolChoice("tool", "act"), reasoning_effort="high")
    async with table_of(tool_calls([("act", {})]), answer(PARIS), tools=[act]) as table:
        agent = await table.agent(config)
        assert await agent.run_to_output("Where?", City, keeps_tools=True) == City(name="Paris", people=2)
        for request in table.provider.recorded_requests:
            assert ["act", terminal(request)[0].name] == [spec.name for spec in request.tools]
            assert (request.tool_choice, request.reasoning_effort) == (ToolChoice(), "high")
        assert [r.content for m in agent.history() for r in m.tool_results()] == ["done", "received"]


async def test_two_terminal_calls_in_one_round_answer_with_the_first() -> None:
    ran: list[str] = []
    look = tool(reads_only=True, name="look")(lambda: ran.append("look"))
    calls = tool_calls([("look", {}), (ANSWER, PARIS), ("look", {}), (ANSWER, {"name": "Rome", "people": 3})])
    async with table_of(calls, tools=[look]) as table:
        agent = await table.agent()
        city = await agent.run_to_output("Where?", City, keeps_tools=True)
        results = [(r.content, r.is_error) for r in agent.history()[2].tool_results()]
        name = terminal(table.provider.recorded_requests[0])[0].name
    late = (f"not executed: the turn was ended by '{name}'", True)
    assert (city.name, ran, results) == ("Paris", ["look"], [("", False), ("received", False), late, late])


async def test_a_subagent_is_not_offered_the_terminal_tool() -> None:
    @tool
    async def ask_another(context: ToolContext) -> str:
        """Give a task to a subagent."""
        return await context.service(Delegate)("well?")

    async with table_of(tool_calls([("ask_another", {})]), text("inner"), answer(PARIS), tools=[ask_another]) as table:
        await (await table.agent()).run_to_output("Where?", City, keeps_tools=True)
        assert [len(terminal(request)) for request in table.provider.recorded_requests] == [1, 0, 1]


async def test_a_strategy_may_insist_on_the_terminal_tool() -> None:
    async def insist(context: RoundContext) -> Inject:
        return Inject("Call it.")

    async with table_of(text("Paris."), answer(PARIS)) as table:
        options = RunOptions(round_strategy=insist)
        city = await (await table.agent()).run_to_output("Where?", City, options, keeps_tools=True)
    assert city.name == "Paris"


# ---- who allows it --------------------------------------------------------------------------------------------


async def test_the_terminal_call_needs_no_permission_and_has_one_decision() -> None:
    judge = Judge(ToolAuthorizationDecision.deny("no"))
    calls = tool_calls([("act", {}), (ANSWER, PARIS)])
    async with table_of(calls, tools=[act], authorizer=judge) as table:
        session = await table.session(ask="always")
        everything = PermissionRule(id="r", tool="*", pattern="*", allow=False, scope="session", scope_key=session.id)
        await table.runtime.store.save_rule(everything)
        await session.agent.run_to_output("Where?", City, keeps_tools=True)
        decided = [
            (d.tool_call_id, str(d.outcome), d.decided_by) for d in table.recorder.of(e.ToolAuthorizationFinished)
        ]
    assert [request.tool_name for request in judge.asked] == ["act"]
    assert decided == [("tool-1", "deny", "authorizer"), ("tool-2", "allow", "runtime")]


async def test_a_call_of_another_tool_in_a_shaping_turn_is_answered_and_not_run() -> None:
    async with table_of(tool_calls([("act", {})]), answer(PARIS), tools=[act]) as table:
        agent = await table.agent()
        await agent.run_to_output("Where?", City)
        [refused] = agent.history()[2].tool_results()
    assert (refused.content, refused.is_error) == ("Tool 'act' is not available for this agent", True)


# ---- a model that does not play along -------------------------------------------------------------------------


async def test_an_answer_without_the_call_is_an_error_and_the_transcript_is_kept() -> None:
    async with table_of(text("Paris."), text("ok")) as table:
        agent = await table.agent()
        with pytest.raises(InvalidOutput, match="does not match City: it answered in words") as raised:
            await agent.run_to_output("Where?", City)
        assert raised.value.text == "Paris."
        assert [m.text() for m in agent.history()] == ["Where?", "Paris."]
        assert (await agent.send("thanks")).text() == "ok"


@pytest.mark.parametrize(
    ("output", "value", "problem"),
    [
        (City, {"name": "Paris", "people": -1}, r"does not match City: people: Input should be greater"),
        (list[int], {"value": [1, "x"]}, r"does not match list\[int\]: value\.1: Input should be a valid integer"),
        (int, {}, r"does not match int: value: Field required"),
        (list[int], {"value": "[1, true]x"}, r"does not match list\[int\]: value: Input should be a valid array"),
    ],
)
async def test_a_value_that_does_not_fit_is_an_error_that_names_the_problem(
    output: Any, value: Any, problem: str
) -> None:
    async with table_of(answer(value), answer(value)) as table:
        agent = await table.agent()
        with pytest.raises(InvalidOutput, match=problem) as raised:
            await agent.run_to_output("Well?", output)
        assert [t.success for t in table.recorder.of(e.TurnFinished)] == [True]
        assert len(agent.history()) == 5
    assert json.loads(raised.value.text) == (value if output is City else value.get("value"))


async def test_a_value_that_does_not_fit_goes_back_to_the_model_once() -> None:
    async with table_of(answer({"name": "Paris", "people": -1}), answer(PARIS)) as table:
        agent = await table.agent()
        assert (await agent.run_to_output("Where?", City)).name == "Paris"
        [first, second] = table.provider.recorded_requests
        assert first.tool_choice == second.tool_choice == ToolChoice("tool", terminal(first)[0].name)
        [told] = agent.history()[2].tool_results()
    assert told.is_error
    assert str(told.content).startswith("the model's answer does not match City: people: Input should be greater")
    assert str(told.content).endswith("; give the whole answer again")


async def test_malformed_arguments_are_reported_to_the_model_and_the_next_call_counts() -> None:
    async with table_of(tool_calls([(ANSWER, "{")]), answer(PARIS)) as table:
        assert (await (await table.agent()).run_to_output("Where?", City)).name == "Paris"


async def test_a_turn_that_a_budget_ended_says_so() -> None:
    async with table_of(tool_calls([("act", {})]), tools=[act]) as table:
        options = RunOptions(token_budget=0)
        with pytest.raises(EmptyAssistantResponse):
            await (await table.agent()).run_to_output("Where?", City, options)
    assert options.ended_early == "token_budget"


# ---- it exists for that turn only ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "turns", [(failure(HttpError(400)),), (text("Paris."),), (answer({}), answer({})), (answer(PARIS),)]
)
async def test_the_terminal_tool_is_gone_however_the_turn_ends(turns: tuple[ScriptedAnswer, ...]) -> None:
    async with table_of(*turns, text("ok"), tools=[act]) as table:
        agent = await table.agent()
        with_error = None
        try:
            await agent.run_to_output("Where?", City, keeps_tools=True)
        except Exception as error:
            with_error = error
        assert (turns[0] == answer(PARIS)) == (with_error is None)
        await agent.send("again")
        assert [spec.name for spec in table.provider.recorded_requests[-1].tools] == ["act"]
        assert [spec.name for spec in table.runtime.tools()] == ["act"]


async def test_a_failed_turn_is_resumed_as_an_ordinary_one() -> None:
    async with table_of(failure(HttpError(400)), text("ok")) as table:
        agent = await table.agent()
        with pytest.raises(FailedToStreamResponse):
            await agent.run_to_output("Where?", City)
        assert (await agent.resume()).text() == "ok"
        assert terminal(table.provider.recorded_requests[1]) == []


class Dies(SqliteStore):
    """The store of a process that dies at this write."""

    at = ""

    async def begin_tool_call(self, *args: Any, **rest: Any) -> None:
        self._die("begin")
        await super().begin_tool_call(*args, **rest)
        self._die("began")

    async def finish_tool_call(self, *args: Any, **rest: Any) -> None:
        await super().finish_tool_call(*args, **rest)
        self._die("finished")

    async def finish_run(self, *args: Any, **rest: Any) -> None:
        if self.at:  # the end of the turn is not stored either
            raise StoreError("died")
        await super().finish_run(*args, **rest)

    def _die(self, at: str) -> None:
        if self.at == at:
            raise StoreError("died")


@pytest.mark.parametrize("at", ["begin", "began", "finished", "end"])
async def test_after_a_death_the_call_has_a_result_and_the_conversation_continues(at: str, tmp_path: Path) -> None:
    store = Dies(tmp_path / "state.sqlite")
    async with table_of(answer(PARIS), store=store) as table:
        session = await table.session()
        store.at = at
        with pytest.raises(StoreError):
            await session.agent.run_to_output("Where?", City)
    is_known = at in ("finished", "end")
    async with table_of(text("Paris."), store=SqliteStore(tmp_path / "state.sqlite")) as table:
        session = await table.runtime.resume_session("talk")
        if is_known:
            with pytest.raises(EmptyAssistantResponse):
                await session.resume_turn()
        else:
            assert (await session.resume_turn()).text() == "Paris."
        [result] = session.history()[2].tool_results()
        assert result.is_error is not is_known
        assert len(table.provider.recorded_requests) == (0 if is_known else 1)
        table.provider.push(text("Paris."))
        assert (await session.append_turn("thanks")).text() == "Paris."


async def test_a_session_counts_a_request_for_a_value_as_a_turn() -> None:
    async with table_of(tool_calls([(ANSWER, {"name": "Oslo", "people": 7})])) as table:
        session = await table.session()
        assert await session.run_to_output("where?", City, name="city") == City(name="Oslo", people=7)
        assert (session.turn_count, len(session.history())) == (1, 3)
    [started] = table.recorder.of(e.TurnStarted)
    assert started.session_id == session.id

"""Deferred tools: a model sees a name and one line of each until it asks; then it is shown the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kits.core import Bench, bench

from mentra_nb.agent.config import AgentConfig
from mentra_nb.content import ToolResult
from mentra_nb.providers.base import ProviderToolSpec, Request, ToolChoice
from mentra_nb.providers.scripted import text, tool_calls
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.tools.builtin.search_tools import MAX_LISTED, best, listing
from mentra_nb.tools.function import tool
from mentra_nb.tools.needed import SEARCH_TOOLS as NAME

pytestmark = pytest.mark.anyio


@tool(deferred=True, reads_only=True)
def exchange_rate(currency: str) -> float:
    """Return what a euro costs.

    In another currency, at the rate of today.
    """
    return 1.09


@tool(deferred=True, reads_only=True)
def weather_forecast(city: str) -> str:
    """Return the weather of the next days."""
    return "sun"


@tool
def note(words: str) -> str:
    """Write a note."""
    return words


TOOLS = [exchange_rate, weather_forecast, note]


async def turn(table: Bench, agent: Any, *rounds: Any) -> list[ToolResult]:
    """Take a turn of these rounds, and return their results."""
    table.provider.push(*(tool_calls([call]) for call in rounds), text("ok"))
    before = len(agent.history())
    await agent.run("go")
    return [result for message in agent.history()[before:] for result in message.tool_results()]


def described(request: Request) -> list[str]:
    assert not any(wire.deferred for wire in request.tools)
    return [wire.name for wire in request.tools]


async def test_a_model_sees_names_and_one_line_until_it_asks() -> None:
    async with bench(tools=TOOLS) as table:
        agent = await table.agent(AgentConfig(system="Be short."))
        [found, rate] = await turn(
            table, agent, (NAME, {"query": "currency exchange"}), ("exchange_rate", {"currency": "USD"})
        )
        first, second, third = table.provider.recorded_requests
    assert first.system == (
        "Be short.\n\nFurther tools. Load one with `search_tools` before you call it:\n"
        "- exchange_rate: Return what a euro costs.\n- weather_forecast: Return the weather of the next days."
    )
    assert described(first) == ["note", NAME]
    assert described(second) == described(third) == ["exchange_rate", "note", NAME]
    assert "at the rate of today" in str(found.content)
    assert "weather" not in str(found.content)
    assert (rate.content, rate.is_error) == (1.09, False)
    assert first.system == second.system == third.system  # the beginning of a prompt stays the same, and is cached
    assert second.tools[0] is third.tools[0]


async def test_a_tool_that_was_found_stays_loaded_in_later_turns_and_processes(tmp_path: Path) -> None:
    async with bench(tools=TOOLS, store=SqliteStore(tmp_path / "state.db")) as table:
        agent = await table.agent()
        await turn(table, agent, (NAME, {"query": "weather"}))
        await turn(table, agent)
        assert described(table.provider.recorded_requests[-1]) == ["note", "weather_forecast", NAME]
        id = agent.id
    async with bench(tools=TOOLS, store=SqliteStore(tmp_path / "state.db")) as table:
        await turn(table, await table.runtime.resume_agent(id))
        assert described(table.provider.recorded_requests[0]) == ["note", "weather_forecast", NAME]


async def test_without_deferred_tools_there_is_no_search() -> None:
    async with bench(tools=[note]) as table:
        agent = await table.agent()
        [refused] = await turn(table, agent, (NAME, {"query": "note"}))
        assert [described(request) for request in table.provider.recorded_requests] == [["note"], ["note"]]
        assert table.provider.recorded_requests[0].system is None
    assert (refused.is_error, refused.content) == (True, f"Tool '{NAME}' is not available for this agent")


async def test_tools_that_are_not_offered_are_neither_named_nor_found() -> None:
    async with bench(tools=TOOLS) as table:
        agent = await table.agent(AgentConfig(hidden_tools=("exchange_rate",)))
        [found] = await turn(table, agent, (NAME, {"query": "exchange_rate"}))
        [first, _] = table.provider.recorded_requests
    assert found.content == "no tool fits these words: use others, or the name of one"
    assert "exchange_rate" not in (first.system or "")


async def test_where_the_provider_searches_it_is_sent_all_and_the_model_none_of_ours() -> None:
    async with bench(tools=TOOLS) as table:
        await turn(table, await table.agent(AgentConfig(tool_search=True)))
        [request] = table.provider.recorded_requests
    assert [(wire.name, wire.deferred) for wire in request.tools] == [
        ("exchange_rate", True),
        ("note", False),
        ("weather_forecast", True),
    ]
    assert (request.tool_search, request.system) == (True, None)


async def test_without_the_search_deferred_tools_are_described_at_once() -> None:
    async with bench(tools=TOOLS) as table:
        await turn(table, await table.agent(AgentConfig(hidden_tools=(NAME,))))
        [request] = table.provider.recorded_requests
    assert described(request) == ["exchange_rate", "note", "weather_forecast"]
    assert request.system is None


async def test_a_tool_that_must_be_called_is_described() -> None:
    async with bench(tools=TOOLS) as table:
        await turn(table, await table.agent(AgentConfig(tool_choice=ToolChoice("tool", "exchange_rate"))))
        [request] = table.provider.recorded_requests
    assert described(request) == ["exchange_rate", "note", NAME]


async def test_a_tool_of_the_application_with_the_name_of_the_search_is_that_tool() -> None:
    @tool(name=NAME, reads_only=True)
    def mine() -> str:
        return "mine"

    async with bench(tools=[*TOOLS, mine]) as table:
        [result] = await turn(table, await table.agent(), (NAME, {}))
        assert described(table.provider.recorded_requests[0]) == ["exchange_rate", "note", NAME, "weather_forecast"]
    assert result.content == "mine"


async def test_a_deferred_tool_that_is_called_by_name_runs() -> None:
    async with bench(tools=TOOLS) as table:
        [result] = await turn(table, await table.agent(), ("exchange_rate", {"currency": "USD"}))
    assert result.content == 1.09


# ---- which are found ------------------------------------------------------------------------------------------


def wire(name: str, description: str = "", **parameters: str) -> ProviderToolSpec:
    schema = {"type": "object", "properties": {key: {"type": kind} for key, kind in parameters.items()}}
    return ProviderToolSpec(name=name, description=description or None, input_schema=schema)


SEVERAL = [
    wire("mcp__github__create_issue", "Open an issue in a repository.", title="string"),
    wire("mcp__github__list_issues", "List issues.", repository="string"),
    wire("mcp__mail__send", "Send a message to people.", recipient="string"),
    wire("readTable", "Read rows from a file.", path="string"),
    wire("XMLParser"),
]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("create an issue", "mcp__github__create_issue"),
        ("list github issues", "mcp__github__list_issues"),
        ("mcp__mail__send", "mcp__mail__send"),
        ("mail", "mcp__mail__send"),
        ("a recipient", "mcp__mail__send"),
        ("read a table", "readTable"),
        ("TABLES", "readTable"),
        ("parse xml", "XMLParser"),
        ("repo", None),
        ("", None),
        ("\ud800 (", None),
    ],
)
def test_the_best_fit_comes_first(query: str, first: str | None) -> None:
    found = best(query, SEVERAL)
    assert (found[0].name if found else None) == first


async def test_no_more_tools_are_loaded_than_asked_for() -> None:
    many = [tool(name=f"count_{number}", deferred=True, reads_only=True)(lambda: 1) for number in range(30)]
    async with bench(tools=many) as table:
        agent = await table.agent()
        await turn(table, agent, (NAME, {"query": "count"}))
        await turn(table, agent, (NAME, {"query": "count", "limit": 12}))
        [too_many] = await turn(table, agent, (NAME, {"query": "count", "limit": 21}))
        loaded = [len(described(request)) - 1 for request in table.provider.recorded_requests]
    assert loaded == [0, 5, 5, 12, 12, 12]
    assert too_many.is_error


def test_a_list_of_very_many_tools_is_cut() -> None:
    lines = listing([wire(f"tool_{number}", "x" * 1000) for number in range(1000)]).splitlines()
    assert len(lines) == MAX_LISTED + 2
    assert lines[-1] == "- and 700 more tools, which `search_tools` finds"
    assert max(map(len, lines)) < 150

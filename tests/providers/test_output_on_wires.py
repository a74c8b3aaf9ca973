"""Turns to a value of a given type, on every wire: the tool offered and forced, and the requests after it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kits import validate
from kits.conformance import TEXT, Called, stream
from kits.core import Unattended
from kits.dialects import DIALECTS
from kits.http_server import Reply, Server
from pydantic import BaseModel

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.config import AgentConfig
from mentra_nb.content import ToolResult
from mentra_nb.errors import InvalidOutput
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.base import ModelInfo, Provider
from mentra_nb.providers.registry import adapter
from mentra_nb.providers.replay import replay_provider, taping
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.store.volatile import VolatileStore

pytestmark = pytest.mark.anyio

TERMINAL = re.compile(r"mentra_terminal_City_\w+")
CHECKS = {
    "responses": validate.check_responses,
    "chat_completions": validate.check_chat,
    "anthropic_messages": validate.check_anthropic,
    "gemini_generate_content": validate.check_gemini,
}
FORCED = {
    "responses": lambda name: {"tool_choice": {"type": "function", "name": name}},
    "chat_completions": lambda name: {"tool_choice": {"type": "function", "function": {"name": name}}},
    "anthropic_messages": lambda name: {"tool_choice": {"type": "tool", "name": name}},
    "gemini_generate_content": lambda name: {
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [name]}}
    },
}


class City(BaseModel):
    name: str
    districts: list[str]


PARIS = City(name="Paris", districts=["Marais"])


def clock(city: str) -> str:
    """The time in a city."""
    return f"noon in {city}"


@pytest.fixture(params=DIALECTS)
def wire(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def bench(wire: str, server: Server) -> Runtime:
    return bench_of(adapter(wire)("lab", server.url, api_key="k"))


def bench_of(provider: Provider) -> Runtime:
    return Unattended([provider], [clock], builtin_tools=False, store=VolatileStore(), audit=NullAudit())


async def agent_of(runtime: Runtime, **config: Any) -> Agent:
    return await runtime.spawn("a", ModelInfo(id="m", provider="lab"), AgentConfig(**config))


def said(wire: str) -> Reply:
    return Reply([stream(DIALECTS[wire].answer(TEXT)[0])])


def called(wire: str, name: str, arguments: Any) -> bytes:
    call = Called("call-1", name, (json.dumps(arguments),))
    return stream(DIALECTS[wire].answer(call, stop="tool_use")[0])


def gives(wire: str, server: Server, value: BaseModel) -> Reply:
    """Return a reply that calls the terminal tool offered by the request."""

    def answered() -> Iterator[bytes]:
        yield called(wire, TERMINAL.search(server.requests[-1].body.decode())[0], value.model_dump())

    return Reply(answered())


async def test_the_only_tool_is_forced_also_for_an_agent_that_reasons(wire: str, server: Server) -> None:
    async with bench(wire, server) as runtime:
        agent = await agent_of(runtime, reasoning_effort="high")
        server.reply(gives(wire, server, PARIS), said(wire))
        assert await agent.run_to_output("Where?", City) == PARIS
        body = server.requests[0].json()
        CHECKS[wire](body)
        [name] = set(TERMINAL.findall(json.dumps(body)))
        assert FORCED[wire](name).items() <= body.items()
        assert "clock" not in json.dumps(body)
        await agent.send("thanks")
        body = server.requests[1].json()
        CHECKS[wire](body)
        assert "received" in json.dumps(body)
        assert "clock" in json.dumps(body)
        assert not FORCED[wire](name).items() <= body.items()


async def test_other_tools_may_be_used_first(wire: str, server: Server) -> None:
    async with bench(wire, server) as runtime:
        agent = await agent_of(runtime, reasoning_effort="high")
        server.reply(Reply([called(wire, "clock", {"city": "Paris"})]), gives(wire, server, PARIS))
        assert await agent.run_to_output("Where?", City, keeps_tools=True) == PARIS
        for request in server.requests:
            CHECKS[wire](request.json())
            assert len(set(TERMINAL.findall(request.body.decode()))) == 1
        results = [block for message in agent.history() for block in message.content if isinstance(block, ToolResult)]
        assert [result.content for result in results] == ["noon in Paris", "received"]


@pytest.mark.parametrize("keeps_tools", [False, True])
async def test_a_taped_value_is_replayed(wire: str, server: Server, tmp_path: Path, keeps_tools: bool) -> None:
    taped = taping(adapter(wire)("lab", server.url, api_key="k"), tmp_path / "value.jsonl")
    server.reply(*[Reply([called(wire, "clock", {"city": "Paris"})])] * keeps_tools, gives(wire, server, PARIS))
    for provider in (lambda: taped, lambda: replay_provider(tmp_path / "value.jsonl")):
        async with bench_of(provider()) as runtime:
            agent = await agent_of(runtime)
            assert await agent.run_to_output("Where?", City, keeps_tools=keeps_tools) == PARIS
    assert len(server.requests) == 1 + keeps_tools


async def test_a_model_that_only_talks_gives_no_value(wire: str, server: Server) -> None:
    async with bench(wire, server) as runtime:
        agent = await agent_of(runtime)
        server.reply(said(wire))
        with pytest.raises(InvalidOutput, match="does not match City: it answered in words"):
            await agent.run_to_output("Where?", City)
        assert len(agent.history()) == 2

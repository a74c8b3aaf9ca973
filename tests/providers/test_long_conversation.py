"""A conversation longer than the part kept whole in memory: it is sent, read and branched like any other."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from kits.conformance import TEXT, Called, stream
from kits.core import Unattended
from kits.dialects import DIALECTS
from kits.http_server import Reply, Server
from kits.wires import Frame

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.limits import RunOptions
from mentra_nb.agent.strategy import Adjustment, Continue, Inject
from mentra_nb.agent.transcript import KEEP, Sent
from mentra_nb.content import Image, Message, Text
from mentra_nb.errors import FailedToStreamResponse
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.base import ModelInfo, Request
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.providers.registry import adapter
from mentra_nb.providers.wire import WireProvider
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.store.records import Entry
from mentra_nb.store.sqlite import SqliteStore

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MODEL = ModelInfo(id="m", provider="lab")
PICTURE = Image.from_bytes("image/png", b"\x89PNG")
TURNS = 12
"""Each adds four entries."""


def clock(city: str) -> str:
    """The time in a city."""
    return f"noon in {city}"


@pytest.fixture(params=DIALECTS)
def wire(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def said(wire: str) -> Reply:
    return Reply([stream(DIALECTS[wire].answer(TEXT)[0])])


def called(wire: str, number: int) -> Reply:
    call = Called(f"call-{number}", "clock", ('{"city": "Paris"}',))
    return Reply([stream(DIALECTS[wire].answer(call, stop="tool_use")[0])])


def provider(wire: str, server: Server) -> WireProvider:
    return adapter(wire)("lab", server.url, api_key="k")


def bench(wire: str, server: Server, folder: Path, **options: Any) -> Runtime:
    server.lists_models = False  # which a long conversation asks for, for the context window
    made = options.pop("provider", None) or provider(wire, server)
    store = options.pop("store", None) or SqliteStore(folder / "state.sqlite")
    return Unattended([made], [clock], builtin_tools=False, store=store, audit=NullAudit(), **options)


async def talk(agent: Agent, wire: str, server: Server, turns: int = TURNS) -> None:
    for number in range(turns):
        server.reply(called(wire, number), said(wire))
        await agent.send([Text(text=f"question {number}"), *[PICTURE] * (number == 1)])


def as_fresh(wire: str, server: Server, agent: Agent, messages: Iterable[Message], model: str = "m") -> Frame:
    """Return the request body with these messages, encoded by a new provider."""
    tools = [agent.environment.tools["clock"].spec.wire]
    request = Request(model, [Message(role=x.role, content=x.content) for x in messages], tools=tools)
    return json.loads(provider(wire, server).body(request))


def messages_of(body: Frame) -> list[Any]:
    """Return the conversation in a request body."""
    [found] = [body[name] for name in ("messages", "input", "contents") if name in body]
    return found


async def test_of_old_messages_only_the_form_they_were_sent_in_stays(wire: str, server: Server, tmp_path: Path) -> None:
    async with bench(wire, server, tmp_path) as runtime:
        agent = await runtime.spawn("a", MODEL)
        await talk(agent, wire, server)
        path = await runtime.store.load_path(agent.id, agent.leaf)
        kinds = [type(message) for message in agent.transcript.messages()]
        assert kinds == [Sent] * (4 * TURNS - KEEP) + [Message] * KEEP
        assert [entry.id for entry in agent.transcript.tail] == [entry.id for entry in path[-KEEP:]]
        assert agent.transcript.tail == tuple(path[-KEEP:])
        assert (len(agent.transcript), agent.snapshot().history_len) == (len(path), len(path))
        assert agent.history() == [entry.message for entry in path]
        sent = server.requests[-1].json()
        assert messages_of(sent) == messages_of(as_fresh(wire, server, agent, agent.history()[:-1]))


async def test_an_old_message_reads_as_it_did(server: Server, tmp_path: Path) -> None:
    async with bench("chat_completions", server, tmp_path) as runtime:
        agent = await runtime.spawn("a", MODEL)
        await talk(agent, "chat_completions", server)
        for old, whole in zip(agent.transcript.messages(), agent.history(), strict=True):
            assert (old.role, old.content, old.text()) == (whole.role, whole.content, whole.text())
            assert (old.tool_uses(), old.tool_results()) == (whole.tool_uses(), whole.tool_results())
            assert old.has_images() is whole.has_images()
        assert [x.has_images() for x in agent.transcript.messages()].index(True) == 4  # the prompt of the second turn


async def test_another_model_is_sent_all_of_it_in_its_own_form(wire: str, server: Server, tmp_path: Path) -> None:
    async with bench(wire, server, tmp_path) as runtime:
        agent = await runtime.spawn("a", MODEL)
        await talk(agent, wire, server)
        await runtime.set_model(agent, ModelInfo(id="other", provider="lab"))
        server.reply(said(wire))
        await agent.send("and now?")
        expected = as_fresh(wire, server, agent, agent.history()[:-1], model="other")
        assert messages_of(server.requests[-1].json()) == messages_of(expected)


class Watched(SqliteStore):
    """Notes which threads read paths: a separate one if the event loop was blocked for it."""

    readers: set[int]

    async def load_path(self, agent_id: str, leaf: str | None, *, last: int | None = None) -> list[Entry]:
        self.readers.add(threading.get_ident())
        return await super().load_path(agent_id, leaf, last=last)


async def test_another_model_in_mid_turn_is_sent_all_of_it_in_its_own_form_and_back(
    wire: str, server: Server, tmp_path: Path
) -> None:
    async def to_and_fro(context: Any) -> Any:
        moves = {1: "other", 3: "m"}
        model = moves.get(context.rounds_completed)
        return Continue(Adjustment(model=ModelInfo(id=model, provider="lab"))) if model else None

    store = Watched(tmp_path / "state.sqlite")
    store.readers = set()
    async with bench(wire, server, tmp_path, store=store) as runtime:
        agent = await runtime.spawn("a", MODEL)
        await talk(agent, wire, server)
        server.reply(*[called(wire, number) for number in range(KEEP)], said(wire))
        await agent.run("go on and on", RunOptions(round_strategy=to_and_fro))
        assert store.readers == {threading.get_ident()}
        history, asked = agent.history(), server.requests[-KEEP - 1 :]
        for number, request in enumerate(asked):
            model = "other" if number in (1, 2) else "m"
            expected = as_fresh(wire, server, agent, history[: 4 * TURNS + 1 + 2 * number], model)
            assert messages_of(request.json()) == messages_of(expected)
        assert type(agent.transcript.messages()[-KEEP - 1]) is Sent


async def test_a_failed_turn_leaves_the_forms_of_the_model_before_it(wire: str, server: Server, tmp_path: Path) -> None:
    async def move(context: Any) -> Any:
        return Continue(Adjustment(model=ModelInfo(id="other", provider="lab")))

    async with bench(wire, server, tmp_path) as runtime:
        agent = await runtime.spawn("a", MODEL)
        await talk(agent, wire, server)
        images = [message.has_images() for message in agent.transcript.messages()]
        server.reply(called(wire, 0), called(wire, 1), Reply(status=400))
        with pytest.raises(FailedToStreamResponse):
            await agent.run("go on", RunOptions(round_strategy=move))
        assert [message.has_images() for message in agent.transcript.messages()] == images
        server.reply(said(wire))
        await agent.send("and now?")
        expected = as_fresh(wire, server, agent, agent.history()[:-1], model="other")
        assert messages_of(server.requests[-1].json()) == messages_of(expected)


async def test_a_strategy_that_always_continues_changes_no_byte_of_what_is_sent(
    wire: str, server: Server, tmp_path: Path
) -> None:
    async def always(context: Any) -> Any:
        return Continue()

    sent = []
    for number, strategy in enumerate((None, always)):
        async with bench(wire, server, tmp_path / str(number)) as runtime:
            server.reply(called(wire, 0), said(wire))
            await (await runtime.spawn("a", MODEL)).run("go", RunOptions(round_strategy=strategy))
            sent.append([request.body for request in server.requests[-2:]])
    assert sent[0] == sent[1]


async def test_what_a_strategy_says_is_sent(wire: str, server: Server, tmp_path: Path) -> None:
    async def insist(context: Any) -> Any:
        return Inject("sure?") if context.rounds_completed < 3 else None

    async with bench(wire, server, tmp_path) as runtime:
        agent = await runtime.spawn("a", MODEL)
        server.reply(called(wire, 0), said(wire), said(wire))
        await agent.run("go", RunOptions(round_strategy=insist))
        expected = as_fresh(wire, server, agent, agent.history()[:-1])
        assert messages_of(server.requests[-1].json()) == messages_of(expected)
        assert [message.text() for message in agent.history()].count("sure?") == 2


class Curious(ChatCompletionsProvider):
    """Reads every message, and uses another model for every other request."""

    def body(self, request: Request) -> bytes:
        assert sum(len(message.text()) for message in request.messages) > 0
        model = f"model-{len(request.messages) % 3}"
        return super().body(dataclasses.replace(request, model=model))


async def test_a_provider_may_look_into_all_of_it_and_change_its_mind(server: Server, tmp_path: Path) -> None:
    curious = Curious("lab", server.url)
    async with bench("chat_completions", server, tmp_path, provider=curious) as runtime:
        agent = await runtime.spawn("a", MODEL)
        await talk(agent, "chat_completions", server, turns=20)
        expected = as_fresh("chat_completions", server, agent, agent.history()[:-1])
        assert messages_of(server.requests[-1].json()) == messages_of(expected)


async def test_a_failed_turn_leaves_what_it_had_let_go_of(wire: str, server: Server, tmp_path: Path) -> None:
    async with bench(wire, server, tmp_path) as runtime:
        agent = await runtime.spawn("a", MODEL)
        await talk(agent, wire, server)
        before, leaf = agent.history(), agent.leaf
        server.reply(*[called(wire, number) for number in range(KEEP)], Reply(status=400))
        with pytest.raises(FailedToStreamResponse):
            await agent.send(
                "go on and on",
            )
        assert (agent.history(), agent.leaf, len(agent.transcript)) == (before, leaf, len(before))
        server.reply(said(wire))
        await agent.send("something else")
        assert agent.history()[:-2] == before
        expected = as_fresh(wire, server, agent, agent.history()[:-1])
        assert messages_of(server.requests[-1].json()) == messages_of(expected)


async def test_what_failed_is_gone_on_with(wire: str, server: Server, tmp_path: Path) -> None:
    async with bench(wire, server, tmp_path) as runtime:
        agent = await runtime.spawn("a", MODEL)
        await talk(agent, wire, server, turns=6)
        server.reply(*[called(wire, number) for number in range(KEEP)], Reply(status=400))
        with pytest.raises(FailedToStreamResponse):
            await agent.run("go on and on", RunOptions(retry_budget=0))
        server.reply(said(wire))
        await agent.resume()
        assert len(agent.history()) == 6 * 4 + 1 + 2 * KEEP + 1
        expected = as_fresh(wire, server, agent, agent.history()[:-1])
        assert messages_of(server.requests[-1].json()) == messages_of(expected)


async def test_a_branch_may_start_before_the_part_in_memory(server: Server, tmp_path: Path) -> None:
    async with bench("chat_completions", server, tmp_path) as runtime:
        agent = await runtime.spawn("a", MODEL)
        await talk(agent, "chat_completions", server)
        path = await runtime.store.load_path(agent.id, agent.leaf)
        assert await agent.branch_from(path[3].id) == len(path) - 4
        assert agent.history() == [entry.message for entry in path[:4]]
        assert agent.history() == [*agent.transcript.messages()]


async def test_after_idleness_it_goes_on(wire: str, server: Server, tmp_path: Path) -> None:
    async with bench(wire, server, tmp_path) as runtime:
        agent = await runtime.spawn("a", MODEL)
        await talk(agent, wire, server)
        before = agent.history()
        agent.unload()
        assert (agent.history(), len(agent.transcript), agent.transcript.is_loaded) == (before, len(before), False)
        server.reply(said(wire))
        await agent.send("and now?")
        expected = as_fresh(wire, server, agent, agent.history()[:-1])
        assert messages_of(server.requests[-1].json()) == messages_of(expected)
        assert type(agent.transcript.messages()[0]) is Sent

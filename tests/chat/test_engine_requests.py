"""The engine on a real server: one connection for its providers, stops in a silent stream, the list of models."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NoReturn

import pytest
from kits.http_server import Reply, Server, sse

from mentra_nb.chat.catalog import PROBE_SECONDS, catalog, models_of
from mentra_nb.chat.chat import chat_on
from mentra_nb.chat.engine import Engine
from mentra_nb.errors import Cancelled
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.base import ModelInfo
from mentra_nb.providers.scripted import ScriptedProvider
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import Endpoint, Settings
from mentra_nb.store.volatile import VolatileStore

pytestmark = pytest.mark.usefixtures("anyio_backend")


def chunk(content: str | None = None, finish: str | None = None) -> dict[str, Any]:
    return {"id": "1", "model": "m", "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]}


def answer(text: str) -> Reply:
    return Reply([sse(chunk(text), chunk(finish="stop"), done=True)])


@asynccontextmanager
async def engine_on(*servers: str, **settings: Any) -> AsyncIterator[Engine]:
    """An engine with the providers `lab0`, `lab1`, … at these addresses."""
    labs = {f"lab{number}": Endpoint(base_url=url) for number, url in enumerate(servers)}
    runtime = Runtime(builtin_tools=False, store=VolatileStore(), audit=NullAudit())
    engine = Engine(Settings(providers=labs, **settings), runtime)
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.close)


async def test_turns_of_two_providers_share_one_connection(server: Server) -> None:
    server.reply(answer("one"), answer("two"), answer("three"))
    async with engine_on(server.url, server.url) as engine:
        chat = chat_on(engine, "talk")
        for model, text in (("lab0/m", "one"), ("lab0/m", "two"), ("lab1/m", "three")):
            reply = await asyncio.to_thread(chat.ask, "Go on", model=model)
            assert (reply.text, reply.model) == (text, model)
    assert len(server.requests) == 3
    assert server.connections == 1


async def test_the_shared_client_can_be_used_after_a_close(server: Server) -> None:
    server.reply(answer("one"), answer("two"))
    async with engine_on(server.url) as engine:
        assert (await asyncio.to_thread(chat_on(engine, "a").ask, "Go", model="lab0/m")).text == "one"
        await asyncio.to_thread(engine.close)
        assert (await asyncio.to_thread(chat_on(engine, "b").ask, "Go", model="lab0/m")).text == "two"
    assert server.connections == 2


async def test_a_stop_in_a_silent_stream_ends_the_turn_and_closes_the_connection(server: Server) -> None:
    server.reply(Reply([sse(chunk("Well"))], end="stall"))
    async with engine_on(server.url) as engine:
        turn = chat_on(engine, "talk").start("Go", model="lab0/m")

        def stop_after_the_text() -> None:
            while getattr(turn.events.get(timeout=20), "delta", None) != "Well":
                pass
            turn.stop()
            with pytest.raises(Cancelled):
                turn.future.result(20)

        await asyncio.to_thread(stop_after_the_text)
        await asyncio.wait_for(server.gone.wait(), 10)


# ---- the list of models -------------------------------------------------------------------------------------------


def listing(*models: dict[str, Any]) -> Reply:
    return Reply([json.dumps({"data": models}).encode()], headers={"content-type": "application/json"})


async def listed(
    engine: Engine, text: str | None = None, all: bool = False, environ: Mapping[str, str] | None = None
) -> tuple[list[ModelInfo], list[str]]:
    return await asyncio.to_thread(engine.call, catalog, engine, text, all, environ or {})


async def test_models_come_by_provider_newest_first(server: Server) -> None:
    server.reply(
        listing({"id": "old", "created": 1_600_000_000}, {"id": "undated"}, {"id": "new", "created": 1_700_000_000})
    )
    async with engine_on(server.url) as engine:
        found, notes = await listed(engine)
    mine = [model for model in found if model.provider == "lab0"]
    assert [model.id for model in mine] == ["new", "old", "undated"]
    assert mine[0].created_at == datetime.fromtimestamp(1_700_000_000, UTC)
    assert list(dict.fromkeys(m.provider for m in found)) == sorted({m.provider for m in found})
    assert notes == []


async def test_a_provider_that_fails_hides_no_other_and_is_named_in_a_line(server: Server) -> None:
    server.reply(listing({"id": "m"}))
    async with Server() as broken, engine_on(server.url, broken.url, "nonsense") as engine:
        broken.reply(Reply([b"out of order"], status=500, headers={"content-type": "text/plain"}))
        found, notes = await listed(engine)
    assert "lab0/m" in [str(model) for model in found]
    assert [note.partition(" ")[0] for note in notes] == ["lab1", "lab2"]
    assert "out of order" in notes[0]
    assert "must begin with http" in notes[1]
    assert not [note for note in notes if "\n" in note]


async def test_a_refused_key_is_named_with_what_to_do(server: Server) -> None:
    server.reply(Reply([b'{"error": {"message": "Incorrect API key"}}'], status=401))
    async with engine_on(server.url) as engine:
        _, notes = await listed(engine)
    assert notes == ["lab0 is not listed: HTTP 401: Incorrect API key · check the key: %mentra check"]


async def test_a_server_that_cannot_be_listed_is_not_a_turn_to_resume() -> None:
    async with Server() as gone:
        url = gone.url
    async with engine_on(url) as engine:
        _, notes = await listed(engine)
    assert "could not connect" in notes[0]
    assert "resume" not in notes[0]


async def test_local_servers_that_do_not_run_are_not_mentioned() -> None:
    async with engine_on() as engine:
        found, notes = await listed(engine, environ={"OPENAI_API_KEY": ""})
    assert notes == []
    assert "demo/demo" in [str(model) for model in found]
    assert not [model for model in found if model.provider == "openai"]


async def test_registered_providers_are_listed_and_the_text_is_looked_for(server: Server) -> None:
    server.reply(*[listing({"id": "Alpha"}, {"id": "beta"}, {"id": "beta-embed"})] * 3)
    async with engine_on(server.url) as engine:
        engine.runtime.register_provider_instance(ScriptedProvider(models=["one"]))

        async def names(text: str | None = None, all: bool = False) -> list[str]:
            found, _ = await listed(engine, text, all)
            return [str(model) for model in found if model.provider in ("lab0", "scripted")]

        assert await names() == ["lab0/Alpha", "lab0/beta", "scripted/one"]
        assert await names("ALPH") == ["lab0/Alpha"]
        assert await names("beta", all=True) == ["lab0/beta", "lab0/beta-embed"]


async def test_completion_asks_a_server_on_this_machine_once(server: Server) -> None:
    server.reply(listing({"id": "qwen3"}, {"id": "llama"}))
    async with engine_on(server.url) as engine:
        for _ in range(2):
            assert await asyncio.to_thread(engine.call, models_of, engine, "lab0") == ["lab0/llama", "lab0/qwen3"]
    assert [request.path for request in server.requests] == ["/v1/models"]


async def test_completion_waits_no_longer_than_a_moment_for_a_server(server: Server) -> None:
    server.reply(Reply(end="mute"))
    async with engine_on(server.url) as engine:
        begun = time.monotonic()
        assert await asyncio.to_thread(engine.call, models_of, engine, "lab0") == []
        assert time.monotonic() - begun < PROBE_SECONDS + 2  # the machine may be busy
        assert await asyncio.to_thread(engine.call, models_of, engine, "nosuch") == []


async def test_completion_sends_nothing_to_other_machines_and_knows_what_was_listed(server: Server) -> None:
    async with engine_on("http://models.example/v1") as engine:
        engine.listed.update(("lab0/big", "other/small"))
        assert await asyncio.to_thread(engine.call, models_of, engine, "lab0") == ["lab0/big"]
        engine.listed.clear()
        engine.runtime.http().transport = Refusing()
        assert await asyncio.to_thread(engine.call, models_of, engine, "lab0") == []


class Refusing:
    """A network on which nothing may be sent."""

    def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> NoReturn:
        pytest.fail(f"{method} {url}")

    async def aclose(self) -> None: ...


async def test_a_listing_is_kept_for_completion(server: Server) -> None:
    server.reply(listing({"id": "qwen3"}, {"id": "llama"}))
    async with engine_on(server.url) as engine:
        await asyncio.to_thread(engine.call, catalog, engine, None, False, {})
        assert {"lab0/qwen3", "lab0/llama"} <= engine.listed

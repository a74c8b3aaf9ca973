"""llama.cpp on tiny models, which write nonsense of any shape; and on a real model if one is given."""

from __future__ import annotations

import base64
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import gguf
import httpx
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kits.tiny_model import FOND, PATCHES, tiny_model, tiny_projector
from kits.wires import blocks, collect, ending

from mentra_nb.agent.config import AgentConfig
from mentra_nb.content import Image, Message, Text, TokenUsage
from mentra_nb.errors import InvalidRequest, ProviderError
from mentra_nb.event.bus import NullAudit
from mentra_nb.pricing import context_window
from mentra_nb.providers.base import (
    ContentBlockDelta,
    ModelInfo,
    ProviderToolSpec,
    Request,
    ResponseFormat,
    ToolChoice,
)
from mentra_nb.providers.local.gguf import CACHE, GUESS, STEP, context_size
from mentra_nb.providers.local.provider import LocalProvider, LocalTransport, load_model
from mentra_nb.providers.local.tool_calls import MOST_CALLS
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.function import tool

pytestmark = pytest.mark.slow

SIZES = {
    "type": "object",
    "properties": {
        "size": {"enum": [41, 42]},
        "spot": {"$ref": "#/$defs/spot"},
        "note": {"type": "string", "maxLength": 5},
    },
    "required": ["size", "spot"],
    "additionalProperties": False,
    "$defs": {"spot": {"enum": ["north", 'the "south"']}},
}
CHOOSE = ProviderToolSpec(name="choose", input_schema=SIZES)


def user(text: str) -> Message:
    return Message.user([Text(text=text)])


def asking(file: Path | str, *messages: Message, **options: Any) -> Request:
    return Request(model=str(file), messages=messages or [user("Hi")], **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Path:
    return tiny_model(folder / "tiny.gguf")


@pytest.fixture
async def local(anyio_backend: str) -> AsyncIterator[LocalProvider]:
    provider = LocalProvider()
    yield provider
    await provider.aclose()


def usage(events: list[Any]) -> TokenUsage:
    found: TokenUsage = ending(events).usage
    return found


# ---- what it says -------------------------------------------------------------------------------------------------


async def test_it_streams_up_to_the_limit_and_counts(local: LocalProvider, tiny: Path) -> None:
    assert await local.list_models() == []
    events = await collect(local, asking(tiny, max_output_tokens=20))
    assert sum(isinstance(event, ContentBlockDelta) for event in events) == 20
    ((kind, _, _, text),) = blocks(events)
    assert (kind, len(text)) == ("text", 20)
    assert ending(events).stop_reason == "max_tokens"
    assert usage(events).output_tokens == 20
    assert usage(events).input_tokens == len("^user\nHi$\n^assistant")
    (listed,) = await local.list_models()
    assert (listed.id, listed.context_window) == (str(tiny), 2048)
    again = await collect(local, asking(tiny, max_output_tokens=1))
    assert usage(again).cache_read_input_tokens


@pytest.mark.parametrize("space_prefix", [False, True])
async def test_calls_are_held_to_their_schema(local: LocalProvider, tmp_path: Path, space_prefix: bool) -> None:
    file = tiny_model(tmp_path / "m.gguf", space_prefix=space_prefix)
    several = asking(file, tools=[CHOOSE], tool_choice=ToolChoice("any"), temperature=1.0)
    events = await collect(local, several)
    found = blocks(events)
    assert len(found) == MOST_CALLS, "it is fond of commas"
    assert len({id for _, id, _, _ in found}) == MOST_CALLS
    for kind, _, name, arguments in found:
        assert (kind, name) == ("tool_use", "choose")
        jsonschema.validate(json.loads(arguments), SIZES)
    assert len({arguments for *_, arguments in found}) > 1
    assert ending(events).stop_reason == "tool_use"


async def test_one_call_is_one_call(local: LocalProvider, tiny: Path) -> None:
    one = asking(tiny, tools=[CHOOSE], tool_choice=ToolChoice("tool", "choose"), parallel_tool_calls=False)
    ((kind, _, name, arguments),) = blocks(await collect(local, one))
    assert (kind, name) == ("tool_use", "choose")
    jsonschema.validate(json.loads(arguments), SIZES)


@pytest.mark.parametrize(("likes", "kind"), [("[", "tool_use"), ("a", "text")])
async def test_the_model_chooses_between_calls_and_prose(
    local: LocalProvider, tmp_path: Path, likes: str, kind: str
) -> None:
    file = tiny_model(tmp_path / "m.gguf", fond=FOND | {likes: 3.0})
    events = await collect(local, asking(file, tools=[CHOOSE], max_output_tokens=300))
    assert {found for found, *_ in blocks(events)} == {kind}
    none = asking(file, tools=[CHOOSE], tool_choice=ToolChoice("none"), max_output_tokens=20)
    assert [found for found, *_ in blocks(await collect(local, none))] == ["text"]


async def test_calls_cut_by_the_limit_say_so(local: LocalProvider, tiny: Path) -> None:
    events = await collect(local, asking(tiny, tools=[CHOOSE], tool_choice=ToolChoice("any"), max_output_tokens=170))
    assert ending(events).stop_reason == "max_tokens"
    found = blocks(events)
    assert 1 <= len(found) < MOST_CALLS
    for *_, arguments in found[:-1]:
        jsonschema.validate(json.loads(arguments), SIZES)


async def test_an_answer_keeps_to_its_format(local: LocalProvider, tiny: Path) -> None:
    form: dict[str, Any] = {"response_format": ResponseFormat("sizes", SIZES)}
    for options in (form, form | {"tools": [CHOOSE], "tool_choice": ToolChoice("none")}):
        events = await collect(local, asking(tiny, **options))
        ((kind, _, _, text),) = blocks(events)
        assert kind == "text"
        jsonschema.validate(json.loads(text), SIZES)
        assert ending(events).stop_reason == "end"
        assert sum(isinstance(event, ContentBlockDelta) for event in events) > 10


async def test_calls_are_made_and_their_results_are_answered(local: LocalProvider, tmp_path: Path) -> None:
    made: list[int] = []

    @tool(asks=False, reads_only=True)
    def pick(number: bool) -> str:
        "Pick."
        made.append(number)
        return "picked"

    file = tiny_model(tmp_path / "m.gguf", fond=FOND | {"[": 3.0})
    options: dict[str, Any] = {"store": VolatileStore(), "audit": NullAudit(), "builtin_tools": False}
    async with Runtime([local], [pick], **options) as runtime:
        agent = await runtime.spawn("a", ModelInfo(id=str(file), provider="local"), AgentConfig(max_output_tokens=400))
        answer = await agent.send("Go on.")
    assert len(made) >= MOST_CALLS
    assert len(answer.text()) == 400, "once it repeats itself it has no tools, and is free to talk"


# ---- the context --------------------------------------------------------------------------------------------------


async def test_a_prompt_that_does_not_fit_is_refused_and_the_next_is_answered(local: LocalProvider, tiny: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"the prompt has 30\d\d tokens, and the context of the local model 2048"):
        await collect(local, asking(tiny, user("a" * 3000)))
    assert usage(await collect(local, asking(tiny, user("a" * 1900), max_output_tokens=1))).input_tokens > 1900


async def test_an_answer_that_fills_the_context_says_so(anyio_backend: str, tiny: Path) -> None:
    provider = LocalProvider(context=300)
    events = await collect(provider, asking(tiny))
    assert ending(events).stop_reason == "context_overflow"
    assert usage(events).total_tokens == STEP
    assert [model.context_window for model in await provider.list_models()] == [STEP]
    await provider.aclose()


def test_the_context_is_what_was_trained_as_far_as_memory_holds_it(tmp_path: Path) -> None:
    file = tiny_model(tmp_path / "m.gguf", context=2000)
    assert [context_size(file, wanted) for wanted in (None, 600, 5000, 1)] == [1792, 512, 1792, STEP]
    assert context_window(f"local:{file}") == 1792
    assert context_window(f"local:{file}.missing") is None
    wide = tiny_model(tmp_path / "wide.gguf", context=10_000_000)
    token = 2 * 2 * 4 * (16 + 16)  # bytes a number, layers, heads, keys and values of each
    assert context_size(wide) == CACHE // token
    assert context_size(wide, 5_000_000) == 5_000_000 // STEP * STEP


def described(path: Path, **values: Any) -> Path:
    writer = gguf.GGUFWriter(str(path), "other")
    for key, value in values.items():
        name = f"other.{key.replace('__', '.')}"
        (writer.add_array if isinstance(value, list) else writer.add_uint32)(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_models_with_layers_of_their_own_kind_and_those_that_do_not_say(tmp_path: Path) -> None:
    trained = {"context_length": 1 << 30, "embedding_length": 4096, "block_count": 4, "attention__head_count": 32}
    uneven = described(tmp_path / "a.gguf", **trained, attention__head_count_kv=[8, 0, 8, 0])
    assert context_size(uneven) == CACHE // (2 * 16 * 256)
    named = described(tmp_path / "b.gguf", **trained, attention__key_length=64, attention__value_length=32)
    assert context_size(named) == CACHE // (2 * 4 * 32 * 96) // STEP * STEP
    for silent in ({}, {"block_count": 4, "embedding_length": 64, "attention__head_count": 0}):
        assert context_size(described(tmp_path / "c.gguf", **silent)) == CACHE // GUESS


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_description_is_refused(folder: Path, data: st.DataObject) -> None:
    whole = tiny_model(folder / "whole.gguf").read_bytes() if not (folder / "whole.gguf").exists() else b""
    whole = whole or (folder / "whole.gguf").read_bytes()
    broken = bytearray(whole[:700])
    for at in data.draw(st.lists(st.integers(0, 699), max_size=3)):
        broken[at] = data.draw(st.integers(0, 255))
    file = folder / "broken.gguf"
    file.write_bytes(broken[: data.draw(st.integers(0, 700))])
    try:
        assert context_size(file) >= STEP
    except InvalidRequest:
        return


# ---- stopping, changing, closing ----------------------------------------------------------------------------------


class Counted:
    """llama.cpp, with a count of the chunks of each request."""

    def __init__(self, file: Path, projector: Path | None) -> None:
        self.server = load_model(file, projector)
        self.said: list[int] = []

    def handle_chat_completions(self, body: str, callback: Callable[[str], bool]) -> None:
        self.said.append(0)

        def heard(chunk: str) -> bool:
            self.said[-1] += 1
            return callback(chunk)

        self.server.handle_chat_completions(body, heard)


async def test_leaving_stops_the_generation_and_the_next_is_answered(local: LocalProvider, folder: Path) -> None:
    file = tiny_model(folder / "long.gguf", context=32768)
    servers: list[Counted] = []

    def load(file: Path, projector: Path | None) -> Counted:
        servers.append(Counted(file, projector))
        return servers[-1]

    provider = local.with_transport(LocalTransport(load))
    async with provider.stream(asking(file)) as events:
        for _ in range(6):
            await anext(events)
    assert blocks(await collect(provider, asking(file, max_output_tokens=5)))[0][3]
    assert servers[0].said[0] < 30_000, "it would have gone on until the context was full"
    servers.clear()
    await provider.aclose()


async def test_two_requests_at_once_are_both_answered(local: LocalProvider, tiny: Path) -> None:
    answers: list[Any] = []

    async def ask() -> None:
        answers.append(blocks(await collect(local, asking(tiny, max_output_tokens=200))))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        tasks.start_soon(ask)
    assert [len(found[0][3]) for found in answers] == [200, 200]


async def test_models_with_other_vocabularies_take_turns(local: LocalProvider, folder: Path) -> None:
    small = tiny_model(folder / "small.gguf")
    large = tiny_model(folder / "large.gguf", words=[f"word{number}" for number in range(500)])
    for file in (small, large) * 3:
        events = await collect(local, asking(file, tools=[CHOOSE], tool_choice=ToolChoice("any")))
        assert len(blocks(events)) == MOST_CALLS


async def test_a_damaged_file_is_refused_and_the_next_is_answered(local: LocalProvider, tiny: Path) -> None:
    whole = tiny.read_bytes()
    for number, damaged in enumerate((whole[: len(whole) // 2], whole[:200], b"GGUF" + b"\xff" * 5000)):
        file = tiny.with_name(f"damaged{number}.gguf")
        file.write_bytes(damaged)
        with pytest.raises(InvalidRequest, match="damaged"):
            await collect(local, asking(file))
    assert await local.list_models() == []
    assert blocks(await collect(local, asking(tiny, max_output_tokens=1)))


async def test_a_file_that_was_removed_is_missed(local: LocalProvider, tmp_path: Path) -> None:
    file = tiny_model(tmp_path / "m.gguf")
    await collect(local, asking(file, max_output_tokens=1))
    file.unlink()
    with pytest.raises(InvalidRequest, match="there is no model file"):
        await collect(local, asking(file))
    assert await local.list_models() == []


async def test_its_port_is_closed_to_others_and_then_gone(local: LocalProvider, tiny: Path) -> None:
    addresses: list[str] = []

    def load(file: Path, projector: Path | None) -> Any:
        server = load_model(file, projector)
        addresses.append(server.listening_address)
        return server

    provider = local.with_transport(LocalTransport(load))
    await collect(provider, asking(tiny, max_output_tokens=1))
    (address,) = addresses
    assert address.startswith("http://127.0.0.1:")
    body = {"messages": [{"role": "user", "content": "Hi"}], "prompt": "Hi", "content": "Hi"}
    async with httpx.AsyncClient(base_url=address, trust_env=False) as client:
        for path in ("/v1/chat/completions", "/completion", "/tokenize", "/v1/messages", "/v1/responses"):
            assert (await client.post(path, json=body)).status_code == 401
        for path in ("/v1/models", "/props", "/slots", "/metrics"):
            assert (await client.get(path)).status_code == 401
        assert (await client.get("/")).status_code in (401, 404)
        await provider.aclose()
        with pytest.raises(httpx.ConnectError):
            await client.get("/health")


SILENT = """
import asyncio, sys
from mentra_nb.content import Image, Message
from mentra_nb.errors import ProviderError
from mentra_nb.providers.base import ProviderToolSpec, Request, ResponseFormat
from mentra_nb.providers.local.provider import LocalProvider

schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)y"}}, "required": ["a"]}
tools = [ProviderToolSpec(name="t", input_schema=schema)]
picture = Image(data=sys.argv[4], media_type="image/png")

async def ask(provider, file, content="Hi", **options):
    request = Request(file, [Message.user(content)], **{"max_output_tokens": 30, **options})
    try:
        async with provider.stream(request) as events:
            async for event in events:
                pass
    except ProviderError:
        pass

async def main(end, file, damaged):
    provider = LocalProvider()
    await ask(provider, file)
    await ask(provider, file, tools=tools)
    await ask(provider, file, response_format=ResponseFormat("a", schema))
    await ask(provider, file, [picture])
    await ask(provider, file, [Image(data="AAAA", media_type="image/png")])
    await ask(provider, file, "a" * 5000)
    await ask(provider, damaged)
    await ask(provider, file, max_output_tokens=None)
    if end == "closed":
        await provider.aclose()
    if end == "speaking":
        async with provider.stream(Request(file, [Message.user("Hi")])) as events:
            await anext(events)

asyncio.run(main(*sys.argv[1:4]))
"""


def png(width: int, height: int) -> str:
    """A red picture, base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\0" + b"\xff\0\0" * width for _ in range(height))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return base64.b64encode(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    ).decode()


@pytest.mark.parametrize("end", ["closed", "left", "speaking"])
def test_it_prints_nothing_and_ends_with_the_process(tmp_path: Path, end: str) -> None:
    file, damaged = tiny_model(tmp_path / "m.gguf", context=1024), tmp_path / "damaged.gguf"
    tiny_projector(tmp_path / "mmproj-m.gguf")
    damaged.write_bytes(file.read_bytes()[:100_000])
    done = subprocess.run(
        [sys.executable, "-c", SILENT, end, str(file), str(damaged), png(40, 30)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# ---- pictures -----------------------------------------------------------------------------------------------------


async def test_pictures_are_seen_through_the_projector_beside_the_model(local: LocalProvider, tmp_path: Path) -> None:
    file = tiny_model(tmp_path / "m.gguf")
    tiny_projector(tmp_path / "mmproj-m-f32.gguf")
    words, picture = Text(text="What is it?"), Image(data=png(40, 30), media_type="image/png")

    async def tokens(*content: Any, **options: Any) -> int:
        asked = asking(file, Message.user(content), max_output_tokens=1, **options)
        return usage(await collect(local, asked)).input_tokens or 0

    without = await tokens(words)
    assert await tokens(words, picture) == without + PATCHES**2
    assert await tokens(picture, words, picture) >= without + 2 * PATCHES**2
    assert await tokens(words) == without
    assert await tokens(words, picture, tools=[CHOOSE]) - await tokens(words, tools=[CHOOSE]) == PATCHES**2
    with pytest.raises(ProviderError, match="Failed to load image"):
        await tokens(words, Image(data="AAAA", media_type="image/png"))
    with pytest.raises(InvalidRequest, match="local does not support images by url"):
        await tokens(words, Image(url="http://127.0.0.1:1/a.png"))


async def test_pictures_without_a_projector_are_refused_before_anything_is_loaded(
    local: LocalProvider, tmp_path: Path
) -> None:
    file = tiny_model(tmp_path / "m.gguf")
    request = asking(file, Message.user([Image(data=png(1, 1), media_type="image/png")]))
    with pytest.raises(
        InvalidRequest, match=r"local does not support images here: there is no projector beside .*m\.gguf"
    ):
        await collect(local, request)
    for name in ("mmproj-a.gguf", "mmproj-b.gguf"):
        tiny_projector(tmp_path / name)
    with pytest.raises(InvalidRequest, match="there are 2 projectors"):
        await collect(local, request)
    assert await local.list_models() == []


async def test_a_projector_of_another_model_is_refused(local: LocalProvider, tmp_path: Path) -> None:
    file = tiny_model(tmp_path / "m.gguf")
    (tmp_path / "mmproj.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(InvalidRequest, match="cannot load"):
        await collect(local, asking(file, Message.user([Image(data=png(1, 1), media_type="image/png")])))
    assert blocks(await collect(local, asking(file, max_output_tokens=1)))


# ---- a real model -------------------------------------------------------------------------------------------------

GGUF = os.environ.get("MENTRA_TEST_GGUF", "")
needs_a_model = pytest.mark.skipif(not GGUF, reason="needs MENTRA_TEST_GGUF=/path/of/a/small/instruct/model.gguf")


@needs_a_model
async def test_a_real_model_answers_and_counts(local: LocalProvider) -> None:
    events = await collect(local, asking(GGUF, user("Say hello."), max_output_tokens=20))
    assert blocks(events)[0][0] == "text"
    assert usage(events).input_tokens
    assert usage(events).output_tokens
    assert [model.id for model in await local.list_models()] == [GGUF]


@needs_a_model
@pytest.mark.parametrize("word", ["London", 'a "quoted" {name}'])
async def test_a_real_model_is_held_to_the_schema(local: LocalProvider, word: str) -> None:
    request = asking(GGUF, user(f"Tell me about {word}"), tools=[CHOOSE], tool_choice=ToolChoice("any"))
    for kind, _, name, arguments in blocks(await collect(local, request)):
        assert (kind, name) == ("tool_use", "choose")
        jsonschema.validate(json.loads(arguments), SIZES)


@needs_a_model
async def test_a_real_model_makes_two_calls_at_once_and_answers_from_both(local: LocalProvider) -> None:
    asked: list[str] = []

    @tool(asks=False, reads_only=True)
    def weather(city: str) -> str:
        "The weather in a city."
        asked.append(city)
        return {"Paris": "21 °C, sunny", "Rome": "29 °C, storms"}.get(city, "unknown")

    options: dict[str, Any] = {"store": VolatileStore(), "audit": NullAudit(), "builtin_tools": False}
    async with Runtime([local], [weather], **options) as runtime:
        config = AgentConfig(system="Use the tools when they help.", temperature=0.0, max_output_tokens=200)
        agent = await runtime.spawn("a", ModelInfo(id=GGUF, provider="local"), config)
        answer = await agent.send("What is the weather in Paris and in Rome?")
    assert asked[:2] == ["Paris", "Rome"]
    assert "29" in answer.text() or "storm" in answer.text()


@needs_a_model
async def test_a_real_model_stops_when_left(local: LocalProvider) -> None:
    async with local.stream(asking(GGUF, user("Count from 1 to 2000."))) as events:
        for _ in range(4):
            await anext(events)
    with anyio.fail_after(30):  # the whole answer would take minutes
        events = await collect(local, asking(GGUF, user("Say hello."), max_output_tokens=5))
    assert blocks(events)


@needs_a_model
async def test_a_real_model_stops_reading_when_left(local: LocalProvider) -> None:
    """Between two batches: the prompt as a whole would take much longer than the first question does."""
    long = asking(GGUF, user("word apple tree " * 1500), max_output_tokens=1)
    await collect(local, asking(GGUF, user("Say hello."), max_output_tokens=1))
    with anyio.move_on_after(0.5) as scope:
        await collect(local, long)
    assert scope.cancelled_caught
    with anyio.fail_after(20):
        await collect(local, asking(GGUF, user("Say hello."), max_output_tokens=1))

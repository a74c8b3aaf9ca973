"""Behaviour shared by all wires: refusals that name the provider, keys that never show, waits that are kept."""

from __future__ import annotations

import json
import logging
import time
import traceback
from pathlib import Path
from typing import Any

import pytest
from kits.conformance import TEXT, stream
from kits.dialects import DIALECTS
from kits.http_server import Reply, Server
from kits.wires import WEATHER, blocks, collect
from pydantic import SecretStr

from mentra_nb.content import Image, Message, ToolResult, ToolUse
from mentra_nb.errors import (
    ConfigurationError,
    FailedToStreamResponse,
    HttpError,
    InvalidRequest,
    ProviderError,
    RetryableError,
)
from mentra_nb.event.bus import NullAudit
from mentra_nb.event.types import RetryAttempt
from mentra_nb.providers.base import ModelInfo, ProviderToolSpec, Request, ResponseFormat, ToolChoice
from mentra_nb.providers.registry import PRESETS, adapter, builtin
from mentra_nb.providers.replay import taping
from mentra_nb.providers.wire import WireProvider
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.store.volatile import VolatileStore

pytestmark = pytest.mark.anyio

KEY = "sk-very-secret-key"
TOKEN = "proxy-token-that-is-secret"
TOOL = ProviderToolSpec(name="weather", input_schema=WEATHER)
ASKED = [Message.user("hi")]
CALLED = Message.assistant([ToolUse(id="c", name="weather")])
JSON = {"content-type": "application/json"}


@pytest.fixture(params=DIALECTS)
def wire(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made(wire: str, url: str, **options: Any) -> WireProvider:
    return adapter(wire)("lab", url, api_key=KEY, headers={"x-token": TOKEN}, **options)


def answer(wire: str) -> Reply:
    return Reply([stream(DIALECTS[wire].answer(TEXT)[0])])


# ---- refusals


@pytest.mark.parametrize(
    ("request_", "option"),
    [
        (Request("m", [Message.assistant([Image(url="https://h/x.png")])]), "images are only supported in user mess"),
        (Request("m", [Message.user([Image()])]), "neither data nor a URL"),
        (Request("m", [Message.user([Image(media_type="image/gif", data="no base64")])]), "image/gif .*not base64"),
        (Request("m", ASKED, tools=[TOOL], tool_choice=ToolChoice("tool", "clock")), "tool_choice names 'clock'"),
        (Request("m", ASKED, tools=[TOOL.model_copy(update={"deferred": True})]), "deferred tools"),
    ],
    ids=["misplaced image", "empty image", "broken image", "unknown choice", "deferred"],
)
async def test_an_impossible_request_is_refused_with_the_providers_name_before_sending(
    server: Server, wire: str, request_: Request, option: Any
) -> None:
    with pytest.raises(InvalidRequest, match=f"^lab.*{option}"):
        await collect(made(wire, server.url), request_)
    assert not server.connections


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tools", [TOOL]),
        ("reasoning_effort", "low"),
        ("reasoning_summary", "auto"),
        ("response_format", ResponseFormat("a", WEATHER)),
        ("tool_search", True),
    ],
)
async def test_a_missing_capability_is_named(server: Server, wire: str, option: Any, value: Any) -> None:
    nothing = adapter(wire).offers.model_copy(update=dict.fromkeys(adapter(wire).offers.model_dump(), False))
    adapter_ = made(wire, server.url, capabilities=nothing)
    with pytest.raises(InvalidRequest, match=f"^lab does not support {option}"):
        await collect(adapter_, Request("m", ASKED, **{option: value}))
    shown = Message.user([ToolResult(tool_use_id="c", images=(Image.from_bytes("image/png", b"x"),))])
    for messages in ([CALLED, shown], [Message.user([Image(url="https://h/x.png")])]):
        with pytest.raises(InvalidRequest, match=r"^lab does not support images"):
            await collect(adapter_, Request("m", messages))
    assert not server.connections


# ---- secrets


async def test_keys_and_headers_are_sent_and_are_in_no_repr_error_or_log(
    server: Server, wire: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    lab = made(wire, server.url)
    echo = f"you sent {KEY} and {TOKEN}"
    error = DIALECTS[wire].error(echo, False)
    server.reply(
        answer(wire),
        Reply([json.dumps(error).encode()], 401, JSON),
        Reply([echo.encode()], 401, {"content-type": "text/plain"}),
        Reply([json.dumps(error).encode()], headers=JSON),
        Reply([stream([error])]),
        Reply([stream([{"type": "brand_new"}])[:-1], f"data: {echo}\n\n".encode(), b"data: {}\n\n"]),
        Reply(end="reset"),
    )
    request = Request("m", ASKED)
    await collect(lab, request)
    sent = server.requests[0].headers
    assert KEY in " ".join(sent.values())
    assert sent["x-token"] == TOKEN
    texts = [repr(lab), repr(vars(lab)), str(vars(lab))]
    for _ in range(6):
        with pytest.raises(ProviderError) as caught:
            await collect(lab, request)
        error = caught.value
        texts += [repr(error), str(error), "".join(traceback.format_exception(error)), repr(vars(error))]
        if isinstance(error, HttpError):
            assert "you sent ***" in error.body
    for text in (*texts, caplog.text):
        assert KEY not in text
        assert TOKEN not in text
    await lab.aclose()


async def test_keys_are_in_no_record_state_or_tape(
    server: Server, wire: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path))
    error = DIALECTS[wire].error(f"you sent {KEY} and {TOKEN}", False)
    server.reply(answer(wire), Reply([json.dumps(error).encode()], 401, JSON), Reply([stream([error])]))
    async with Runtime([taping(made(wire, server.url), tmp_path / "r.jsonl")], builtin_tools=False) as runtime:
        agent = await runtime.spawn("a", ModelInfo(id="m", provider="lab"))
        await agent.send("hi")
        for _ in range(2):
            with pytest.raises(FailedToStreamResponse):
                await agent.send("again")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"state.sqlite", "r.jsonl"} <= {path.name for path in files}
    written = b"".join(path.read_bytes() for path in files)
    assert b"you sent ***" in written
    assert KEY.encode() not in written
    assert TOKEN.encode() not in written


def test_a_key_that_cannot_be_sent_is_refused_without_being_repeated(wire: str) -> None:
    for key in ("sk-gehé-im", SecretStr("sk-geheim\n")):
        with pytest.raises(ConfigurationError) as caught:
            adapter(wire)("lab", "http://h", api_key=key, headers={"x": "a\nb"})
        assert "sk-" not in str(caught.value)


# ---- waits


async def test_a_rate_limit_that_names_its_window_is_waited_out(server: Server, wire: str) -> None:
    busy = Reply([b"{}"], 429, JSON | {"retry-after-ms": "700"})
    server.reply(busy, answer(wire))
    async with Runtime([made(wire, server.url)], builtin_tools=False, store=VolatileStore(), audit=NullAudit()) as lab:
        agent = await lab.spawn("a", ModelInfo(id="m", provider="lab"))
        waits = []
        agent.environment.bus.tap(lambda event: waits.append(event) if isinstance(event, RetryAttempt) else None)
        begun = time.monotonic()
        assert (await agent.send("hi")).text() == "".join(TEXT.pieces)
        assert time.monotonic() - begun >= 0.7
    (wait,) = waits
    assert wait.next_delay_ms >= 700
    assert "HTTP 429" in wait.error_message


# ---- presets


def test_openai_preset_uses_responses_wire_api() -> None:
    openai = builtin("openai", "k")
    assert (openai.wire, openai.base_url) == ("responses", "https://api.openai.com/v1")
    assert (openai.descriptor.id, openai.descriptor.display_name) == ("openai", "OpenAI")


def test_openrouter_preset_uses_openrouter_base_url() -> None:
    assert builtin("openrouter", "k").url("responses") == "https://openrouter.ai/api/v1/responses"


@pytest.mark.parametrize("id", ["ollama", "lmstudio", "openrouter"])
async def test_resolve_model_supports_openrouter_provider_and_local_servers(id: str) -> None:
    async with Runtime(builtin_tools=False, store=VolatileStore(), audit=NullAudit()) as runtime:
        runtime.register_provider(id, "k")
        assert await runtime.resolve_model(id, "some/model") == ModelInfo(id="some/model", provider=id)


async def test_every_preset_lists_its_models() -> None:
    page = {
        "data": [{"id": "one"}],
        "models": [{"name": "models/one", "supportedGenerationMethods": ["generateContent"]}],
    }
    for id in PRESETS:
        async with Server() as server:
            server.reply(Reply([json.dumps(page).encode()], headers=JSON))
            preset = builtin(id, "k", server.url)
            assert [str(model) for model in await preset.list_models()] == [f"{id}/one"]
            await preset.aclose()


async def test_a_custom_server_has_its_own_address_headers_and_place_for_the_key(server: Server) -> None:
    lab = adapter("chat_completions")("lab", f"{server.url}/api/v3?team=red&tag=a%20b", headers={"api-key": KEY})
    server.reply(answer("chat_completions"))
    assert blocks(await collect(lab, Request("m", ASKED)))
    (request,) = server.requests
    assert request.path == "/api/v3/chat/completions?team=red&tag=a%20b"
    assert request.headers["api-key"] == KEY
    assert "authorization" not in request.headers
    await lab.aclose()


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        ('{"code":500,"message":"it went wrong","type":"server_error"}', RetryableError, "it went wrong (500)"),
        ('{"code":400,"message":"not so","type":"bad"}', ProviderError, "not so (400)"),
        ("out of memory", ProviderError, "the provider reported an error: out of memory"),
    ],
)
async def test_an_event_named_error_is_an_error_with_any_content(
    wire: str, data: Any, kind: type[ProviderError], text: str
) -> None:
    first = stream(DIALECTS[wire].answer(TEXT)[0][:1])
    async with Server() as server:
        server.reply(Reply([first, f"event: error\ndata: {data}\n\n".encode()]))
        with pytest.raises(ProviderError) as error:
            await collect(made(wire, server.url), Request("m", ASKED))
    assert type(error.value) is kind
    assert str(error.value).startswith(text)

"""A request that a server refuses as too long is shortened and sent once more, on every wire."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kits.conformance import TEXT, Called, Said, stream
from kits.core import Unattended
from kits.dialects import DIALECTS
from kits.http_server import Reply, Server

from mentra_nb.compaction.summary import MARK
from mentra_nb.compaction.window import known_window, window_in
from mentra_nb.errors import FailedToStreamResponse
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.base import ModelInfo
from mentra_nb.providers.registry import adapter
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.store.sqlite import SqliteStore

pytestmark = pytest.mark.anyio

MODEL = ModelInfo(id="m", provider="lab")
OPENAI = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."
LLAMA = "the request exceeds the available context size, try increasing it"
GOOGLE = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
REFUSALS: dict[str, tuple[str, int, Any, int | None]] = {
    "openai chat": (
        "chat_completions",
        400,
        {"error": {"message": OPENAI, "type": "invalid_request_error", "code": "context_length_exceeded"}},
        8192,
    ),
    "vllm": ("chat_completions", 400, {"object": "error", "message": OPENAI, "type": "BadRequestError"}, 8192),
    "llama.cpp": (
        "chat_completions",
        400,
        {"error": {"code": 400, "message": LLAMA, "type": "exceed_context_size_error", "n_ctx": 4096}},
        4096,
    ),
    "openai responses": (
        "responses",
        400,
        {
            "error": {
                "message": "Your input exceeds the context window of this model. Please adjust your input.",
                "code": "context_length_exceeded",
            }
        },
        None,
    ),
    "anthropic": (
        "anthropic_messages",
        400,
        {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": "prompt is too long: 213221 tokens > 200000 maximum"},
        },
        200_000,
    ),
    "anthropic, by its size": (
        "anthropic_messages",
        413,
        {"type": "error", "error": {"type": "request_too_large", "message": "Request exceeds the maximum size"}},
        None,
    ),
    "gemini": (
        "gemini_generate_content",
        400,
        {"error": {"code": 400, "message": GOOGLE, "status": "INVALID_ARGUMENT"}},
        1_048_576,
    ),
    "a proxy": ("chat_completions", 413, "<html>413 Request Entity Too Large</html>", None),
}


def look(what: str) -> str:
    """Look at something."""
    return f"{what} " + "word " * 300


def said(wire: str, text: str = "") -> Reply:
    return Reply([stream(DIALECTS[wire].answer(Said("text", (text,)) if text else TEXT)[0])])


def called(wire: str, number: int) -> Reply:
    call = Called(f"call-{number}", "look", ('{"what": "it"}',))
    return Reply([stream(DIALECTS[wire].answer(call, stop="tool_use")[0])])


def refused(name: str) -> Reply:
    _, status, body, _ = REFUSALS[name]
    return Reply([body.encode() if isinstance(body, str) else json.dumps(body).encode()], status=status)


def runtime_on(wire: str, server: Server, folder: Path) -> Runtime:
    provider = adapter(wire)("lab", server.url, api_key="k")
    store = SqliteStore(folder / "state.sqlite")
    return Unattended([provider], [look], builtin_tools=False, store=store, audit=NullAudit())


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refused_request_is_shortened_and_sent_once_more(name: str, server: Server, tmp_path: Path) -> None:
    wire, _, _, window = REFUSALS[name]
    async with runtime_on(wire, server, tmp_path) as runtime:
        agent = await runtime.spawn("a", MODEL)
        server.reply(called(wire, 1), said(wire), called(wire, 2), refused(name))
        server.reply(said(wire, '{"goal": "to look", "facts": ["it is 2400"]}'), said(wire))
        await agent.send("question 1")
        answer = await agent.send("question 2")
        assert answer.text() == agent.history()[-1].text() != ""
        assert known_window(agent.provider, "m") == window
    before, summary, after = (request.body for request in server.requests[-3:])
    assert MARK.encode() not in before
    assert b"Shorten this conversation." in summary
    assert MARK.encode() in after
    assert b"it is 2400" in after
    assert len(after) < len(before)


@pytest.mark.parametrize("name", ["openai chat", "anthropic"])
async def test_a_request_that_is_refused_again_fails_the_turn(name: str, server: Server, tmp_path: Path) -> None:
    wire = REFUSALS[name][0]
    async with runtime_on(wire, server, tmp_path) as runtime:
        agent = await runtime.spawn("a", MODEL)
        server.reply(called(wire, 1), said(wire), refused(name), said(wire, '{"goal": "to look"}'), refused(name))
        await agent.send("question 1")
        with pytest.raises(FailedToStreamResponse):
            await agent.send("question 2")
    assert len(server.requests) == 5


async def test_a_first_question_that_is_too_long_is_not_sent_again(server: Server, tmp_path: Path) -> None:
    async with runtime_on("chat_completions", server, tmp_path) as runtime:
        agent = await runtime.spawn("a", MODEL)
        server.reply(Reply([b'{"data": []}']), refused("openai chat"))  # asked for the model's window first
        with pytest.raises(FailedToStreamResponse, match="maximum context length"):
            await agent.send("word " * 9_000)
    assert [request.method for request in server.requests] == ["GET", "POST"]


async def test_an_answer_without_room_in_the_window_is_asked_for_with_less(server: Server, tmp_path: Path) -> None:
    async with runtime_on("chat_completions", server, tmp_path) as runtime:
        agent = await runtime.spawn("a", MODEL)
        server.reply(refused("vllm"), said("chat_completions"))
        await agent.send("question 1")
    limits = [json.loads(request.body) for request in server.requests]
    before, after = (body.get("max_tokens", body.get("max_completion_tokens")) for body in limits)
    assert (before, 7_500 < after < 8_192) == (8_192, True)


@pytest.mark.parametrize(
    ("refusal", "window"),
    [
        ("the prompt has 3012 tokens, and the context of the local model 2048", 2048),
        ("maximum context length is 131,072 tokens", 131_072),
        ("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000", None),
        ("context length is 12", None),
        ("HTTP 400: no", None),
    ],
)
def test_the_window_that_a_refusal_names(refusal: str, window: int | None) -> None:
    assert window_in(refusal) == window

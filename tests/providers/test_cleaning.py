"""Secrets stay out of tapes, also those that arrive in pieces, and what was cleaned replays."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from kits.http_server import Reply, Server, sse
from kits.secret_vectors import HARMLESS, KEYS, SECRET
from kits.wires import blocks, collect

from mentra_nb.content import Message, ToolResult, ToolUse
from mentra_nb.providers.base import ProviderToolSpec, Request
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.providers.cleaning import clean_body, clean_text
from mentra_nb.providers.replay import replay_provider, taping

KEY = KEYS["GitHub"]
TOOLS = (ProviderToolSpec(name="shell"),)


def pieces(text: str, size: int = 7) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def answer(deltas: list[dict[str, Any]], finish: str = "stop") -> Reply:
    events = [{"id": "a", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    return Reply([sse(*events, {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}, done=True)])


def of_chat(text: str) -> list[dict[str, Any]]:
    return [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces(text)]


def of_anthropic(text: str) -> list[dict[str, Any]]:
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces(text)]
    return [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]


def of_responses(text: str) -> list[dict[str, Any]]:
    kind = "response.output_text.delta"
    deltas = [{"type": kind, "item_id": "m", "output_index": 0, "delta": piece} for piece in pieces(text)]
    return [*deltas, {"type": "response.output_text.done", "item_id": "m", "output_index": 0, "text": text}]


def of_gemini(text: str) -> list[dict[str, Any]]:
    return [{"candidates": [{"content": {"parts": [{"text": piece}]}, "index": 0}]} for piece in pieces(text)]


def texts(value: Any) -> str:
    """Return all texts in the `delta`, `text` and `content` fields of events, joined."""
    if isinstance(value, list):
        return "".join(map(texts, value))
    if not isinstance(value, dict):
        return ""
    held = [value[name] for name in ("delta", "text", "content") if isinstance(value.get(name), str)]
    return "".join(held) + texts([item for item in value.values() if not isinstance(item, str)])


@pytest.mark.parametrize("wire", [of_chat, of_anthropic, of_responses, of_gemini])
@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("secret", [KEY, f"password: {SECRET}", f"https://ann:{SECRET}@h"])
def test_a_key_in_pieces_is_taken_out_of_a_body(wire: Any, size: int, secret: str, monkeypatch: Any) -> None:
    monkeypatch.setitem(globals(), "pieces", lambda text: [text[at : at + size] for at in range(0, len(text), size)])
    body = sse(*wire(f"first {secret} last, {secret}"), done=True).decode()
    clean = clean_body(body)
    assert clean.endswith("data: [DONE]\n\n")
    held = texts([json.loads(line[5:]) for line in clean.split("\n") if line.startswith("data: {")])
    assert SECRET[3:9] not in held
    assert KEY[4:10] not in held
    assert held.count("[redacted]") == (4 if wire is of_responses else 2)
    assert held.startswith("first ")
    assert clean_body(clean) == clean


@pytest.mark.parametrize("text", HARMLESS)
def test_a_body_without_secrets_stays_as_it_is(text: str) -> None:
    for body in (
        sse(*of_chat(text)).decode(),
        json.dumps({"content": text}),
        json.dumps({"a": json.dumps([text])}),
        text,
    ):
        assert clean_body(body) == body


@pytest.mark.parametrize(
    "value",
    [
        {"command": f"curl -u ann:{SECRET} h"},
        {"headers": {"password": "swordfish and eleven more words that make a sentence of it all"}},
        {"argv": ["--token", "swordfish"], "env": [{"name": "T_TOKEN", "value": "swordfish"}]},
        {"key": KEY, "nested": json.dumps({"password": "swordfish"})},
    ],
)
def test_the_text_of_a_call_is_cleaned_alike_before_and_after(value: dict[str, Any]) -> None:
    clean = clean_text(json.dumps(value))
    assert "swordfish" not in clean
    assert SECRET not in clean
    assert clean_text(clean) == clean
    assert clean_text(json.dumps(json.loads(clean), indent=2)) == clean


@pytest.mark.anyio
@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
async def test_a_tape_holds_no_secret_is_private_and_replays(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "turn.jsonl"
    path.write_text("an older file")
    path.chmod(0o644)
    words = "swordfish and eleven more words that make a sentence of what is a password"
    command = json.dumps({"command": f"curl -u ann:{SECRET} h", "password": 12345, "passphrase": words})
    call: list[dict[str, Any]] = [
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "shell", "arguments": ""}}]}
    ]
    call += [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces(command)]
    server.reply(answer(call, "tool_calls"), answer([{"content": piece} for piece in pieces(f"it is {KEY}.")]))

    async def turn(provider: Any) -> Any:
        asked = Message.user(f"my password is {SECRET}")
        first = blocks(await collect(provider, Request("tiny", [asked], tools=TOOLS)))
        use = ToolUse(id=first[0][1], name="shell", input=json.loads(first[0][3]))
        result = Message.user([ToolResult(tool_use_id=use.id, content=f"TOKEN={SECRET}")])
        second = await collect(provider, Request("tiny", [asked, Message.assistant([use]), result], tools=TOOLS))
        return use.input, blocks(second)[0][3]

    provider = taping(ChatCompletionsProvider("x", server.url), path)
    assert await turn(provider) == (json.loads(command), f"it is {KEY}.")
    await provider.aclose()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert SECRET[3:10] not in text
    assert KEY[4:11] not in text
    assert "swordfish" not in text
    replayed = await turn(replay_provider(path))
    assert replayed == (
        {"command": "curl -u ann:[redacted] h", "password": 12345, "passphrase": "[redacted]"},
        "it is [redacted].",
    )

"""Real answers taped over a socket, and replayed without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from kits.http_server import Reply, Server, sse
from kits.wires import blocks, collect

from mentra_nb.content import Message, ToolResult, ToolUse
from mentra_nb.errors import ConfigurationError, HttpError, ReplayMiss, TransportError
from mentra_nb.providers.base import Provider, ProviderToolSpec, Request
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.providers.replay import replay_provider, taping
from mentra_nb.providers.responses import ResponsesProvider
from mentra_nb.providers.scripted import ScriptedProvider

KEY = "sk-very-secret-key"
TOOLS = (ProviderToolSpec(name="clock"),)


def chat(finish: str = "stop", **delta: Any) -> Reply:
    return Reply(_in_pieces(sse({"choices": [{"delta": delta, "finish_reason": finish}]}, done=True)))


def _in_pieces(stream: bytes) -> list[bytes]:
    return [stream[at : at + 5] for at in range(0, len(stream), 5)]


def prompt(*messages: Message) -> Request:
    return Request("tiny", [Message.user("What time is it?"), *messages], tools=TOOLS)


def answered(call_id: str, result: str = "12:00") -> Request:
    call = Message.assistant([ToolUse(id=call_id, name="clock")])
    return prompt(call, Message.user([ToolResult(tool_use_id=call_id, content=result)]))


async def tool_loop(provider: Provider, result: str = "12:00") -> Any:
    """Ask twice: for the call, and for the answer to its result."""
    first = await collect(provider, prompt())
    ((_, call_id, _, _),) = blocks(first)
    return blocks(first)[0][2:], blocks(await collect(provider, answered(call_id, result)))


@pytest.fixture
async def tape(server: Server, tmp_path: Path) -> Path:
    """The tape of a tool loop whose server gives no call ids, so that the ids differ each time."""
    path = tmp_path / "turn.jsonl"
    provider = taping(ChatCompletionsProvider("llamacpp", server.url, api_key=KEY, display_name="L"), path)
    call = [{"index": 0, "function": {"name": "clock", "arguments": "{}"}}]
    server.reply(chat("tool_calls", tool_calls=call), chat(content=f"Grüße 🌍, 12:00 {KEY}"))
    await tool_loop(provider)
    await provider.aclose()
    return path


@pytest.mark.anyio
async def test_a_tool_loop_replays_without_a_server_or_key_as_often_as_asked(tape: Path) -> None:
    for _ in range(2):
        provider = replay_provider(tape)
        assert (provider.descriptor.id, provider.descriptor.display_name) == ("llamacpp", "L")
        assert [str(model) for model in await provider.list_models()] == ["llamacpp/tiny"]
        for _ in range(2):
            assert await tool_loop(provider) == (("clock", "{}"), [("text", None, None, "Grüße 🌍, 12:00 ***")])


@pytest.mark.anyio
async def test_the_file_holds_no_key_no_host_and_the_pieces_of_the_answer(tape: Path, server: Server) -> None:
    text = tape.read_text()
    assert KEY not in text
    assert server.url not in text
    header, first, _ = map(json.loads, text.splitlines())
    assert header["wire"] == "chat_completions"
    assert header["model"] == "tiny"
    assert first["request"]["messages"][0]["content"] == "What time is it?"
    assert len(first["chunks"]) > 1


@pytest.mark.anyio
async def test_a_changed_tool_result_or_prompt_is_a_miss_that_says_what_changed(tape: Path) -> None:
    with pytest.raises(ReplayMiss, match=r'messages\.2\.content is "13:00" now, and was "12:00".*number 2'):
        await tool_loop(replay_provider(tape), result="13:00")
    with pytest.raises(ReplayMiss, match=r'messages\.0\.content is "Bye" now'):
        await collect(replay_provider(tape), Request("tiny", [Message.user("Bye")], tools=TOOLS))
    with pytest.raises(ReplayMiss, match=r"model"):
        await collect(replay_provider(tape), Request("big", [Message.user("What time is it?")], tools=TOOLS))


@pytest.mark.anyio
async def test_equal_requests_get_their_answers_in_order_and_the_last_again(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    provider = taping(ChatCompletionsProvider("x", server.url), path)
    server.reply(chat(content="one"), chat(content="two"))
    for _ in range(2):
        await collect(provider, prompt())
    await provider.aclose()
    replay = replay_provider(path)
    texts = [blocks(await collect(replay, prompt()))[0][3] for _ in range(3)]
    assert texts == ["one", "two", "two"]


@pytest.mark.anyio
async def test_terminal_refusals_are_taped_and_retried_or_broken_requests_are_not(
    server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "r.jsonl"
    provider = taping(ChatCompletionsProvider("x", server.url), path)
    json_type = {"content-type": "application/json"}
    server.reply(
        Reply([b"busy"], 503, json_type), Reply([b"data: {"], end="cut"), Reply([b"no such model"], 404, json_type)
    )
    for kind in (HttpError, TransportError, HttpError):
        with pytest.raises(kind):
            await collect(provider, prompt())
    server.reply(Reply([b"data: {"], end="stall"))
    with anyio.move_on_after(0.1):
        await collect(provider, prompt())
    await provider.aclose()
    assert len(path.read_text().splitlines()) == 2
    with pytest.raises(HttpError, match="404: no such model"):
        await collect(replay_provider(path), prompt())


@pytest.mark.anyio
async def test_a_responses_tape_is_replayed_by_the_responses_adapter(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    provider = taping(ResponsesProvider("openai", server.url), path)
    item = {"type": "message", "content": [{"type": "output_text", "text": "hi"}]}
    frame = {"type": "response.completed", "response": {"id": "r", "output": [item]}}
    server.reply(Reply([sse(frame)]))
    live = await collect(provider, prompt())
    await provider.aclose()
    assert await collect(replay_provider(path), prompt()) == live


def test_what_is_not_a_tape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read the tape"):
        replay_provider(tmp_path / "none.jsonl")
    for text in ("", "{}", '{"format":"mentra-recording","version":2}', "plain"):
        (tmp_path / "x.jsonl").write_text(text)
        with pytest.raises(ConfigurationError, match=r"x\.jsonl is not a tape"):
            replay_provider(tmp_path / "x.jsonl")
    with pytest.raises(ConfigurationError, match="cannot be taped"):
        taping(ScriptedProvider(), tmp_path / "y.jsonl")


async def test_a_tape_of_the_first_version_stays_readable(anyio_backend: str) -> None:
    provider = replay_provider(Path(__file__).parents[2] / "notebooks" / "01_first_turn.replay.jsonl")
    assert [str(model) for model in await provider.list_models()] == ["llamacpp/qwen"]

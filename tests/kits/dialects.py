"""The dialect of each wire, for the conformance suite and the tests of all wires."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from kits.conformance import DONE, Block, Called, Dialect
from kits.wires import Frame
from mentra_nb.content import Message
from mentra_nb.providers.anthropic import AnthropicProvider
from mentra_nb.providers.base import Request
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.providers.gemini import GeminiProvider
from mentra_nb.providers.local.provider import LocalTransport
from mentra_nb.providers.responses import ResponsesProvider
from mentra_nb.providers.wire import WireProvider


class Responses(Dialect):
    stops = {"max_tokens": "max_output_tokens"}  # noqa: RUF012

    def provider(self, url: str = "http://h") -> WireProvider:
        return ResponsesProvider("x", url)

    def answer(self, *blocks: Block, stop: str = "end") -> tuple[list[Any], int]:
        frames = [{"type": "response.created", "response": {"id": "r", "model": "m"}}]
        for index, block in enumerate(blocks):
            frames += self._item(index, block)
        response = {"id": "r", "status": "completed", "usage": {"input_tokens": 11, "output_tokens": 7}}
        if stop != "end":
            response |= {"status": "incomplete", "incomplete_details": {"reason": self.stops.get(stop, stop)}}
        return [*frames, {"type": f"response.{response['status']}", "response": response}], len(frames)

    def _item(self, index: int, block: Block) -> list[Frame]:
        kinds = {"text": ("message", "output_text"), "thinking": ("reasoning", "reasoning_summary_text")}
        if isinstance(block, Called):
            item = {"type": "function_call", "id": f"fc{index}", "call_id": block.id, "name": block.name}
            delta = "function_call_arguments"
        else:
            type, delta = kinds[block.kind]
            item = {"type": type, "id": f"i{index}"}
        about = {"output_index": index, "item_id": item["id"]}
        pieces = [{"type": f"response.{delta}.delta", "delta": piece, **about} for piece in block.pieces]
        opened = {"type": "response.output_item.added", "output_index": index, "item": item}
        return [opened, *pieces, {**opened, "type": "response.output_item.done"}]

    def interleaved(self, first: Called, second: Called) -> list[Any]:
        (start, *_), (*_, end) = self.answer()[0], self.answer()[0]
        return [start, *_alternating(self._item(0, first), self._item(1, second)), end]

    def error(self, message: str, transient: bool) -> Frame:
        code = "server_error" if transient else "invalid_prompt"
        return {"type": "error", "code": code, "message": message, "param": None}

    def bare(self) -> list[Any]:
        text = {"type": "message", "content": [{"type": "output_text", "text": "ok"}]}
        return [
            {"type": "response.output_item.done", "item": text},
            {"type": "response.output_item.done", "item": {"type": "function_call", "name": "clock"}},
            {"type": "response.completed", "response": {}},
        ]


class Chat(Dialect):
    stops = {"end": "stop", "max_tokens": "length"}  # noqa: RUF012
    noise = ({"object": "brand_new", "choices": []},)

    def provider(self, url: str = "http://h") -> WireProvider:
        return ChatCompletionsProvider("x", url)

    def answer(self, *blocks: Block, stop: str = "end") -> tuple[list[Any], int]:
        frames, calls = [self._chunk({"role": "assistant"})], 0
        for block in blocks:
            if isinstance(block, Called):
                frames += self._call(calls, block)
                calls += 1
            else:
                key = "content" if block.kind == "text" else "reasoning_content"
                frames += [self._chunk({key: piece}) for piece in block.pieces]
        finish = "tool_calls" if calls and stop == "end" else self.stops.get(stop, stop)
        counts = {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}}
        return [*frames, self._chunk({}, finish), counts, DONE], len(frames)

    def _chunk(self, delta: Frame, finish: str | None = None) -> Frame:
        return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    def _call(self, index: int, call: Called) -> list[Frame]:
        about = {"index": index, "id": call.id, "type": "function"}
        opened = self._chunk({"tool_calls": [about | {"function": {"name": call.name, "arguments": ""}}]})
        pieces = [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in call.pieces]
        return [opened, *map(self._chunk, pieces)]

    def interleaved(self, first: Called, second: Called) -> list[Any]:
        *_, finish, counts, done = self.answer()[0]
        return [*_alternating(self._call(0, first), self._call(1, second)), finish, counts, done]

    def error(self, message: str, transient: bool) -> Frame:
        return {"error": {"message": message, "code": "server_error" if transient else "invalid_prompt"}}

    def bare(self) -> list[Any]:
        call = {"function": {"name": "clock"}}
        return [
            {"choices": [{"delta": {"content": "ok"}}]},
            {"choices": [{"delta": {"tool_calls": [call]}}]},
            {"choices": [{"finish_reason": "stop"}]},
        ]


class Local(Chat):
    """The chunks of Chat Completions as llama.cpp hands them to a callback."""

    request = Request("m", [Message.user("hi")], max_output_tokens=100)  # without a limit, the context was full

    def transport(self, *pieces: bytes) -> LocalTransport:
        return LocalTransport(lambda file, projector: Callback(b"".join(pieces)))


class Callback:
    """Stands for `xllamacpp.Server`, which splits the stream of its own server in the same way."""

    def __init__(self, data: bytes) -> None:
        self.lines = data.decode().splitlines()

    def handle_chat_completions(self, body: str, callback: Callable[[str], bool]) -> None:
        chunks = [line.removeprefix("data: ") for line in self.lines if line and line != f"data: {DONE}"]
        any(callback(chunk) for chunk in chunks)


class Anthropic(Dialect):
    stops = {"end": "end_turn"}  # noqa: RUF012
    noise = ({"type": "brand_new"}, {"type": "ping"}, {"type": "content_block_delta", "delta": {"type": "new"}})

    def provider(self, url: str = "http://h") -> WireProvider:
        return AnthropicProvider("x", url)

    def answer(self, *blocks: Block, stop: str = "end") -> tuple[list[Any], int]:
        usage = {"input_tokens": 11, "output_tokens": 1}
        frames = [{"type": "message_start", "message": {"id": "m", "model": "m", "content": [], "usage": usage}}]
        for index, block in enumerate(blocks):
            frames += self._block(index, block)
        change = {"stop_reason": self.stops.get(stop, stop), "stop_sequence": None}
        ended = {"type": "message_delta", "delta": change, "usage": {"output_tokens": 7}}
        return [*frames, ended, {"type": "message_stop"}], len(frames)

    def _block(self, index: int, block: Block) -> list[Frame]:
        if isinstance(block, Called):
            whole = {"type": "tool_use", "id": block.id, "name": block.name, "input": {}}
            delta, key = "input_json_delta", "partial_json"
        else:
            whole = {"type": block.kind, block.kind: ""}
            delta, key = f"{block.kind}_delta", block.kind
        pieces = [
            {"type": "content_block_delta", "index": index, "delta": {"type": delta, key: piece}}
            for piece in block.pieces
        ]
        opened = {"type": "content_block_start", "index": index, "content_block": whole}
        return [opened, *pieces, {"type": "content_block_stop", "index": index}]

    def interleaved(self, first: Called, second: Called) -> list[Any]:
        start, *end = self.answer()[0]
        return [start, *_alternating(self._block(0, first), self._block(1, second)), *end]

    def error(self, message: str, transient: bool) -> Frame:
        type = "overloaded_error" if transient else "invalid_request_error"
        return {"type": "error", "error": {"type": type, "message": message}}

    def bare(self) -> list[Any]:
        return [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ok"}},
            {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "name": "clock"}},
            {"type": "message_stop"},
        ]


class Gemini(Dialect):
    stops = {"end": "STOP", "max_tokens": "MAX_TOKENS"}  # noqa: RUF012
    streams_arguments = False
    noise = ({"brandNew": 1}, {"candidates": []}, {"candidates": [{"index": 0}]})

    def provider(self, url: str = "http://h") -> WireProvider:
        return GeminiProvider("x", url)

    def answer(self, *blocks: Block, stop: str = "end") -> tuple[list[Any], int]:
        frames = [{"responseId": "r", "modelVersion": "m"}]
        for block in blocks:
            if isinstance(block, Called):
                call = {"name": block.name, "id": block.id, "args": json.loads("".join(block.pieces) or "{}")}
                frames.append(self._chunk({"functionCall": call}))
            else:
                thought = {"thought": True} if block.kind == "thinking" else {}
                frames += [self._chunk({"text": piece} | thought) for piece in block.pieces]
        counts = {"usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 7}}
        finish = {"candidates": [{"finishReason": self.stops.get(stop, stop), "index": 0}]}
        return [*frames, finish | counts], len(frames)

    def _chunk(self, part: Frame) -> Frame:
        return {"candidates": [{"content": {"parts": [part], "role": "model"}, "index": 0}]}

    def error(self, message: str, transient: bool) -> Frame:
        status = "UNAVAILABLE" if transient else "INVALID_ARGUMENT"
        return {"error": {"code": 503 if transient else 400, "message": message, "status": status}}

    def bare(self) -> list[Any]:
        return [
            {"candidates": [{"content": {"parts": [{"text": "ok"}]}}]},
            {"candidates": [{"content": {"parts": [{"functionCall": {"name": "clock"}}]}}]},
            {"candidates": [{"finishReason": "STOP"}]},
        ]


def _alternating(first: list[Frame], second: list[Frame]) -> list[Frame]:
    """Return the frames of both in alternation."""
    longest = max(len(first), len(second))
    return [frame for at in range(longest) for frames in (first, second) for frame in frames[at : at + 1]]


DIALECTS: dict[str, Dialect] = {
    "responses": Responses(),
    "chat_completions": Chat(),
    "anthropic_messages": Anthropic(),
    "gemini_generate_content": Gemini(),
}

"""The Anthropic Messages wire: Claude, and the local servers that speak it (llama.cpp, Ollama, proxies).

Prompt caching is on: the tools, the system text and the conversation so far are marked where the next
request will still be the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, ClassVar

from pydantic import SecretStr

from mentra_nb.content import Image, Opaque, Role, Sendable, Text, Thinking, TokenUsage, ToolResult, ToolUse
from mentra_nb.errors import MalformedStream, UnsupportedCapability
from mentra_nb.providers import anthropic_models
from mentra_nb.providers.base import (
    BlockKind,
    ContentBlockStopped,
    ModelInfo,
    ProviderCapabilities,
    ProviderToolSpec,
    Request,
)
from mentra_nb.providers.decoding import Decoder, check_size
from mentra_nb.providers.failures import stream_error
from mentra_nb.providers.json import Fragment, compact, count, encode, join_body, member, merge_roles
from mentra_nb.providers.wire import WireProvider, with_version

VERSION = "2023-06-01"
SEARCH_TOOL = encode({"type": "tool_search_tool_bm25_20251119", "name": "tool_search_tool_bm25"})
CACHED = b'"cache_control":{"type":"ephemeral"}'

STOP_REASONS = {
    "end_turn": "end",
    "stop_sequence": "end",
    "pause_turn": "pause",
    "model_context_window_exceeded": "context_overflow",
}


class AnthropicProvider(WireProvider):
    """A server that answers `POST …/v1/messages`; `base_url` may leave out the `/v1`."""

    wire = "anthropic_messages"
    endpoint = "messages"
    offers: ClassVar[ProviderCapabilities] = ProviderCapabilities.model_construct(
        supports_images=True,
        supports_reasoning_effort=True,
        supports_structured_output=True,
        supports_hosted_tool_search=True,
    )

    def __init__(self, id: str, base_url: str, *, headers: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(id, base_url, headers={"anthropic-version": VERSION, **(headers or {})}, **options)
        self.base_url: str = with_version(self.base_url)

    def authentication(self, key: str) -> dict[str, SecretStr]:
        return {"x-api-key": SecretStr(key)}

    def check(self, request: Request) -> None:
        super().check(request)
        if request.prompt_cache_key is not None:
            raise UnsupportedCapability(self.descriptor.id, "prompt_cache_key")

    def body(self, request: Request) -> bytes:
        merged = merge_roles(self.forms(request, lambda message: self._fragment(message, request.model)))
        _mark(merged)
        max_tokens = request.max_output_tokens or anthropic_models.default_max_tokens(request.model)
        thinking, output = anthropic_models.thinking(request, max_tokens, self.descriptor.id)
        if request.response_format is not None:
            output["format"] = {"type": "json_schema", "schema": request.response_format.schema}
        user = request.metadata.get("user_id")
        return join_body(
            {
                "model": request.model,
                "max_tokens": max_tokens,
                "stream": True,
                "temperature": request.temperature,
                "thinking": thinking,
                "output_config": output or None,
                "tool_choice": _tool_choice(request),
                "metadata": {"user_id": user} if user else None,
            },
            system=[_cached(encode({"type": "text", "text": request.system}))] if request.system else None,
            tools=self._offered(request),
            messages=merged,
        )

    def decoder(self, request: Request) -> AnthropicDecoder:
        return AnthropicDecoder(request.model, cached_apart=self.descriptor.id == "anthropic")

    def frames(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        ending = {"delta": {"stop_reason": answer.get("stop_reason")}, "usage": answer.get("usage")}
        return [
            {"type": "message_start", "message": answer},
            {"type": "message_delta", **ending},
            {"type": "message_stop"},
        ]

    async def list_models(self) -> list[ModelInfo]:
        pages = ("data", {"limit": "1000"}, "after_id", lambda page: page.get("has_more") and page.get("last_id"))
        entries = await self.model_entries(*pages)
        return [anthropic_models.model_info(entry, self.descriptor.id) for entry in entries if entry.get("id")]

    def _offered(self, request: Request) -> list[bytes] | None:
        if not request.tools:
            return None
        fragments = list(self.tool_fragments(request, _tool))
        deferred = [request.defers(tool) for tool in request.tools]
        at_once = [at for at, is_deferred in enumerate(deferred) if not is_deferred]
        if at_once:
            fragments[at_once[-1]] = _cached(fragments[at_once[-1]])
        return [*fragments, *[SEARCH_TOOL] * any(deferred)]

    def _fragment(self, message: Sendable, model: str) -> Fragment:
        """Encode one message; tool results come first, as the API requires. It may not end with thinking."""
        ours = (self.descriptor.id, model)
        blocks: list[bytes] = []
        for block in sorted(message.content, key=lambda block: not isinstance(block, ToolResult)):
            match block:
                case Text() if block.text.strip():
                    blocks.append(encode({"type": "text", "text": block.text}))
                case Image():
                    if message.role is not Role.USER:
                        raise self.misplaced_image()
                    blocks.append(encode(self._image(block)))
                case Thinking(signature=str(signature)) if (block.provider, block.model) == ours:
                    blocks.append(encode({"type": "thinking", "thinking": block.text, "signature": signature}))
                case Thinking(encrypted=str(data)) if (block.provider, block.model) == ours:
                    blocks.append(encode({"type": "redacted_thinking", "data": data}))
                case Opaque() if (block.provider, block.model) == ours:
                    blocks.append(block.data.encode())
                case ToolUse():
                    use = {"type": "tool_use", "id": block.id, "name": block.name, "input": block.input}
                    blocks.append(encode(use))
                case ToolResult():
                    blocks.append(encode(self._result(block)))
        while blocks and blocks[-1].startswith((b'{"type":"thinking"', b'{"type":"redacted_thinking"')):
            blocks.pop()
        return Fragment.of(message.role.value, "content", blocks)

    def _result(self, result: ToolResult) -> dict[str, Any]:
        text = result.display()
        content: Any = text or ("failed" if result.is_error else "")
        if result.images:
            content = [{"type": "text", "text": text}] if text.strip() else []
            content += [self._image(image) for image in result.images]
        answer = {"type": "tool_result", "tool_use_id": result.tool_use_id, "content": content}
        return answer | {"is_error": True} if result.is_error else answer

    def _image(self, image: Image) -> dict[str, Any]:
        if image.url:
            return {"type": "image", "source": {"type": "url", "url": image.url}}
        media_type, data = self.image_data(image)
        return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def _mark(merged: list[Fragment]) -> None:
    """Mark the last two user messages: the end of this request, and that of the one before, which is in the cache."""
    users = (at for at in reversed(range(len(merged))) if merged[at].is_user)
    for at in islice(users, 2):
        merged[at] = merged[at].with_member(CACHED)


def _cached(block: bytes) -> bytes:
    return b"%s,%s}" % (block[:-1], CACHED)


def _tool(tool: ProviderToolSpec, deferred: bool) -> dict[str, Any]:
    described: dict[str, Any] = {"name": tool.name}
    if tool.description:
        described["description"] = tool.description
    if tool.strict:
        described["strict"] = True
    if deferred:
        described["defer_loading"] = True
    return described | {"input_schema": tool.input_schema}


def _tool_choice(request: Request) -> dict[str, Any] | None:
    if not request.tools:
        return None
    chosen = request.tool_choice
    if chosen is None and request.parallel_tool_calls is None:
        return None
    choice: dict[str, Any] = {"type": chosen.mode if chosen is not None else "auto"}
    if chosen is not None and chosen.mode == "tool":
        choice["name"] = chosen.name or ""
    if request.parallel_tool_calls is not None and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = not request.parallel_tool_calls
    return choice


# ---- answers ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Block:
    index: int
    kind: BlockKind
    whole: dict[str, Any]
    """The block as it was started; complete, for a kind that is not streamed."""
    size: int = 0
    signature: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)
    """Streamed arguments of a call that the provider makes itself."""
    is_whole: bool = True
    """False if a piece of an opaque block could not be kept."""
    is_open: bool = True


KINDS: dict[Any, BlockKind] = {"text": "text", "thinking": "thinking", "tool_use": "tool_use"}
KINDS["redacted_thinking"] = "thinking"
DELTAS = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("tool_use", "partial_json"),
}
CACHE_COUNTS = ("cache_read_input_tokens", "cache_creation_input_tokens")
COUNTS = ("input_tokens", "output_tokens", "total_tokens", *CACHE_COUNTS)


class AnthropicDecoder(Decoder):
    """One answer's frames to events. With `cached_apart`, `input_tokens` are left without the cached, as they come."""

    def __init__(self, model: str, *, cached_apart: bool = True) -> None:
        super().__init__(model)
        self._cached_apart = cached_apart
        self._blocks: list[_Block] = []
        self._by_index: dict[Any, _Block] = {}
        self._counted: dict[str, int] = {}
        self._message_id: Any = None

    def _take(self, frame: dict[str, Any]) -> None:
        match frame.get("type"):
            case "content_block_delta":
                self._delta(frame)
            case "content_block_start":
                self._begin_block(frame.get("index"), member(frame, "content_block"))
            case "content_block_stop":
                if (block := self._by_index.get(frame.get("index"))) is not None:
                    self._stop_block(block)
            case "message_start":
                self._begin_message(member(frame, "message"))
            case "message_delta":
                change = member(frame, "delta")
                self._count(change.get("usage"))
                self._count(frame.get("usage"))
                self._finish = change.get("stop_reason") or self._finish
            case "message_stop":
                self._end()
            case "error":
                raise stream_error(frame.get("error") or frame, frame.get("request_id"))
            case None if frame.get("error"):
                raise stream_error(frame["error"])

    def _begin_message(self, message: dict[str, Any]) -> None:
        """Start the message, with the blocks it already holds. The same message again is ignored.

        Raises `MalformedStream` for another message: a gateway has asked again in the middle of an answer.
        """
        if self._started:
            if self._message_id and message.get("id") != self._message_id:
                raise MalformedStream(f"a second message, {message.get('id')}, began before the first one ended")
            return
        self._message_id = message.get("id")
        self._count(message.get("usage"))
        self._start(message.get("id"), message.get("model"))
        for at, whole in enumerate(message.get("content") or ()):
            self._stop_block(self._begin_block(("whole", at), whole))

    def _begin_block(self, index: Any, whole: dict[str, Any]) -> _Block:
        """Start a block, also when its index is in use: the older one then stays open until the end."""
        self._start()
        kind = KINDS.get(whole.get("type"), "opaque")
        if kind == "tool_use":
            at = self._begin(kind, id=self._call_id(whole.get("id")), name=str(whole.get("name") or ""))
        else:
            at = self._begin(kind)
        block = self._by_index[index] = _Block(at, kind, whole)
        self._blocks.append(block)
        if whole.get("signature"):
            block.signature.append(str(whole["signature"]))
        text = whole.get(kind) if kind in ("text", "thinking") else None
        if text:
            self._take_piece(block, text)
        return block

    def _delta(self, frame: dict[str, Any]) -> None:
        delta, index = member(frame, "delta"), frame.get("index")
        known = DELTAS.get(delta.get("type") or "")
        block = self._by_index.get(index)
        if block is None:
            if known is None:
                return
            if known[0] == "tool_use":
                raise MalformedStream(f"arguments for a call that never began: block {index}")
            block = self._begin_block(index, {"type": known[0]})
        if delta.get("type") == "signature_delta" and block.kind == "thinking":
            block.signature.append(self._keep(str(delta.get("signature") or "")))
        elif known is None or block.kind == "opaque":
            if known is not None and known[0] == "tool_use":
                self._take_piece(block, delta.get(known[1]))
            elif block.kind == "opaque":
                block.is_whole = False
        elif known[0] != block.kind:
            raise MalformedStream(f"a {known[0]} delta for a {block.kind} block: block {index}")
        elif text := delta.get(known[1]):
            self._take_piece(block, text)

    def _take_piece(self, block: _Block, text: Any) -> None:
        block.size += len(text)
        if block.kind not in ("text", "thinking"):
            check_size(block.size)
        if block.kind == "opaque":
            block.arguments.append(text)
        else:
            self._add(block.index, block.kind, text)

    def _stop_block(self, block: _Block) -> None:
        if not block.is_open:
            return
        block.is_open = False
        stopped = ContentBlockStopped(block.index)
        match block.kind:
            case "thinking":
                data = block.whole.get("data") if block.whole.get("type") == "redacted_thinking" else None
                stopped = ContentBlockStopped(block.index, "".join(block.signature) or None, data)
            case "opaque":
                whole = compact(_with_arguments(block)) if block.is_whole else None
                stopped = ContentBlockStopped(block.index, encrypted=whole)
            case "tool_use" if not block.size and block.whole.get("input"):
                self._add(block.index, "tool_use", compact(block.whole["input"]))
        self._emit(stopped)

    def _end(self) -> None:
        self._start()
        for block in self._blocks:
            self._stop_block(block)
        reason = self._finish or "end_turn"
        reason = STOP_REASONS.get(reason, reason)
        if reason in ("end", "tool_use"):
            reason = "tool_use" if any(block.kind == "tool_use" for block in self._blocks) else "end"
        self._stop(reason, self._usage())

    def _count(self, usage: Any) -> None:
        """Take in a report of counts. A later one replaces the earlier, unless it has no input: then counts only grow.

        Some servers send 0, or leave out, what they counted before.
        """
        found = {name: count(usage, name) for name in COUNTS}
        details = usage.get("output_tokens_details") if isinstance(usage, dict) else None
        found["reasoning_tokens"] = count(details, "thinking_tokens", "reasoning_tokens")
        replaces = bool(found["input_tokens"])
        for name, number in found.items():
            if number is not None:
                self._counted[name] = number if replaces else max(number, self._counted.get(name, 0))

    def _usage(self) -> TokenUsage | None:
        if not self._counted:
            return None
        counted = dict(self._counted)
        if not self._cached_apart and "input_tokens" in counted:
            counted["input_tokens"] += sum(counted.get(name, 0) for name in CACHE_COUNTS)
        return TokenUsage(**counted)


def _with_arguments(block: _Block) -> dict[str, Any]:
    """Return an opaque block with the arguments that were streamed into it."""
    text = "".join(block.arguments)
    if not text.strip():
        return block.whole
    try:
        return block.whole | {"input": json.loads(text)}
    except ValueError as error:
        raise MalformedStream(f"the arguments of a hosted call are not JSON: {error}") from error

"""The OpenAI Responses wire: OpenAI, OpenRouter, Ollama, LM Studio, llama.cpp and other servers.

Always stateless: the whole conversation is sent and `store` is false, so nothing is kept on the server.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from mentra_nb.content import Image, Opaque, Role, Sendable, Text, Thinking, ToolResult, ToolUse
from mentra_nb.errors import MalformedStream
from mentra_nb.providers.base import (
    BlockKind,
    ContentBlockStopped,
    ProviderCapabilities,
    ProviderToolSpec,
    Request,
    ResponseFormat,
)
from mentra_nb.providers.decoding import Decoder, check_size
from mentra_nb.providers.failures import stream_error
from mentra_nb.providers.json import compact, encode, join_body, member
from mentra_nb.providers.openai_common import (
    STOP_REASONS,
    OpenAIProvider,
    argument_delta,
    arguments_text,
    parallel_tool_calls,
    result_text,
    tool_choice,
    usage,
)

REASONS = re.compile(r"(^|/)(o[1-9]|gpt-5(?!.*chat))")
"""Models that reason by default: only they accept a request for encrypted reasoning."""
EXTENSIONS = ("signature", "format")
"""Members that OpenRouter adds to a reasoning item, and needs back for the models of other companies."""


class ResponsesProvider(OpenAIProvider):
    """A server that answers `POST …/responses`."""

    wire = "responses"
    endpoint = "responses"
    offers: ClassVar[ProviderCapabilities] = OpenAIProvider.offers.model_copy(
        update={"supports_hosted_tool_search": True}
    )

    def body(self, request: Request) -> bytes:
        items = self.forms(request, lambda message: self._items(message, request.model))
        return join_body(
            {
                "model": request.model,
                "stream": True,
                "store": False,
                "instructions": request.system,
                "tool_choice": tool_choice(request, lambda name: {"type": "function", "name": name}),
                "temperature": request.temperature,
                "max_output_tokens": request.max_output_tokens,
                "reasoning": _reasoning(request),
                "include": ["reasoning.encrypted_content"] if _reasons(request) else None,
                "metadata": request.metadata or None,
                "text": {"format": _format(request.response_format)} if request.response_format else None,
                "parallel_tool_calls": parallel_tool_calls(request),
                "prompt_cache_key": request.prompt_cache_key,
            },
            tools=self._offered(request),
            input=[item for item in items if item],
        )

    def decoder(self, request: Request) -> ResponsesDecoder:
        return ResponsesDecoder(request.model, late_encryption=_reasons(request))

    def frames(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"type": "response.completed", "response": answer}]

    def _offered(self, request: Request) -> list[bytes] | None:
        fragments = self.tool_fragments(request, _tool)
        searched = any(request.defers(tool) for tool in request.tools)
        return [*fragments, *[b'{"type":"tool_search"}'] * searched] or None

    def _items(self, message: Sendable, model: str) -> bytes:
        """Encode a message as input items, joined by commas; results come first, so that they follow their calls.

        A reasoning item is left out unless another item follows it: the API refuses it then.
        """
        ours = (self.descriptor.id, model)
        items: list[dict[str, Any]] = []
        parts: list[dict[str, Any]] = []
        reasoned = False
        for block in sorted(message.content, key=lambda block: not isinstance(block, ToolResult)):
            if message.role is Role.USER and isinstance(block, Text | Image):
                parts.append(self._part(block))
                continue
            parts = _flush(parts, items)
            match block:
                case Text() if block.text:
                    _add_text(block, items)
                case Image():
                    raise self.misplaced_image()
                case Thinking() if block.id and (block.encrypted or block.signature) and _is_of(block, ours):
                    reasoned = True
                    items.append(_reasoning_item(block))
                case Opaque() if _is_of(block, ours) and '"type"' in block.data:
                    items.append(json.loads(block.data))
                case ToolUse():
                    call = {"type": "function_call", "call_id": block.id, "name": block.name}
                    if reasoned and block.item_id:
                        call["id"] = block.item_id
                    items.append(call | {"arguments": arguments_text(block)})
                case ToolResult():
                    output = {"type": "function_call_output", "call_id": block.tool_use_id}
                    items.append(output | {"output": self._output(block)})
        _flush(parts, items)
        while items and items[-1]["type"] == "reasoning":
            items.pop()
        return b",".join(encode(item) for item in items)

    def _part(self, block: Text | Image) -> dict[str, Any]:
        if isinstance(block, Text):
            return {"type": "input_text", "text": block.text}
        return {"type": "input_image", "detail": "auto", "image_url": self.image_url(block)}

    def _output(self, result: ToolResult) -> str | list[dict[str, Any]]:
        text = result_text(result)
        if not result.images:
            return text
        parts = [{"type": "input_text", "text": text}] if text else []
        return parts + [self._part(image) for image in result.images]


def _reasons(request: Request) -> bool:
    """Return whether to ask for encrypted reasoning, which goes back to the model."""
    return bool(request.reasoning_effort or request.reasoning_summary or REASONS.search(request.model))


def _reasoning(request: Request) -> dict[str, str] | None:
    options = {"effort": request.reasoning_effort, "summary": request.reasoning_summary}
    return {name: value for name, value in options.items() if value} or None


def _reasoning_item(block: Thinking) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "reasoning", "id": block.id, "summary": []}
    if block.encrypted:
        item["encrypted_content"] = block.encrypted
    if block.signature:
        item |= {"content": [{"type": "reasoning_text", "text": block.text}], **json.loads(block.signature)}
    elif block.text:
        item["summary"] = [{"type": "summary_text", "text": block.text}]
    return item


def _is_of(block: Thinking | Opaque, ours: tuple[str, str]) -> bool:
    return (block.provider, block.model) == ours


def _flush(parts: list[dict[str, Any]], items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if parts:
        items.append({"type": "message", "role": "user", "content": parts})
    return []


def _add_text(block: Text, items: list[dict[str, Any]]) -> None:
    """Add text of the model: to the message before it if that has the same phase, else as a new one."""
    item = {"type": "message", "role": "assistant", "content": block.text}
    if block.phase:
        item["phase"] = block.phase
    if items and items[-1] | {"content": block.text} == item:
        items[-1]["content"] += block.text
    else:
        items.append(item)


def _tool(tool: ProviderToolSpec, deferred: bool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {
        "type": "function",
        "name": tool.name,
        **described,
        "parameters": tool.input_schema,
        "strict": tool.strict,
        **({"defer_loading": True} if deferred else {}),
    }


def _format(wanted: ResponseFormat) -> dict[str, Any]:
    return {"type": "json_schema", "name": wanted.name, "schema": wanted.schema, "strict": wanted.strict}


@dataclass(slots=True)
class _Block:
    index: int
    kind: BlockKind
    item_id: str | None
    size: int = 0
    """Characters streamed so far; if none were, the text of the finished item is used."""
    phase: str | None = None
    """Of a message."""
    is_open: bool = True


class ResponsesDecoder(Decoder):
    """One answer's frames to events. Items are told apart by `output_index`, or by item id where that is missing.

    With `late_encryption`, a reasoning block stays open until its encrypted part has come, at the latest in the
    terminal event.
    """

    def __init__(self, model: str, *, late_encryption: bool = False) -> None:
        super().__init__(model)
        self._late_encryption = late_encryption
        self._blocks: list[_Block] = []
        self._by_key: dict[int | str, _Block | None] = {}
        self._response: dict[str, Any] = {}
        """The response in the terminal event."""
        self._refused = False
        self._id: str | None = None
        """Of the response, as its first event has it."""

    def _take(self, frame: dict[str, Any]) -> None:
        match frame.get("type"):
            case "response.output_text.delta":
                self._delta(frame, "text")
            case "response.function_call_arguments.delta":
                self._delta(frame, "tool_use")
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                self._delta(frame, "thinking")
            case "response.refusal.delta":
                self._refused = True
                self._delta(frame, "text")
            case "response.reasoning_summary_part.added" if frame.get("summary_index"):
                self._delta(frame | {"delta": "\n\n"}, "thinking")
            case "response.created" | "response.in_progress":
                response = member(frame, "response")
                id = response.get("id")
                if self._started and self._id and id and id != self._id:
                    raise MalformedStream(f"a second response, {id}, began before the first one ended")
                self._id = id or self._id
                self._start(response.get("id"), response.get("model"))
            case "response.output_item.added":
                self._begin_item(frame, member(frame, "item"))
            case "response.output_item.done":
                self._done(frame, member(frame, "item"))
            case "response.completed" | "response.incomplete":
                self._response = member(frame, "response")
                self._end()
            case "response.failed":
                raise stream_error(member(frame, "response").get("error"))
            case "error":
                raise stream_error(frame.get("error") or frame)
            case None if frame.get("error"):
                raise stream_error(frame["error"])

    def _find(self, frame: dict[str, Any], item_id: Any) -> _Block | None:
        """Return the block a frame belongs to, `None` if its kind is ignored. Raises KeyError if it never started."""
        index = frame.get("output_index")
        return self._by_key[index if index in self._by_key else item_id]

    def _begin_item(self, frame: dict[str, Any], item: dict[str, Any]) -> _Block | None:
        """Start the block of an item, also when its index is in use: the older one then stays open until the end.

        Returns `None` for an item that is ignored.
        """
        self._start()
        id = item.get("id")
        block: _Block | None = None
        match item.get("type"):
            case "message":
                block = _Block(self._begin("text", item_id=id), "text", id, phase=item.get("phase"))
            case "reasoning":
                block = _Block(self._begin("thinking", id=id, item_id=id), "thinking", id)
            case "function_call":
                call_id, name = self._call_id(item.get("call_id")), str(item.get("name") or "")
                block = _Block(self._begin("tool_use", id=call_id, name=name, item_id=id), "tool_use", id)
            case "tool_search_call" | "tool_search_output":
                block = _Block(self._begin("opaque", item_id=id), "opaque", id)
        if block is not None:
            self._blocks.append(block)
        for key in (frame.get("output_index"), id):
            if key is not None:
                self._by_key[key] = block
        return block

    def _delta(self, frame: dict[str, Any], kind: BlockKind) -> None:
        try:
            block = self._find(frame, frame.get("item_id"))
        except KeyError:
            if kind == "tool_use":
                raise MalformedStream(f"arguments for a call that never began: {_name(frame)}") from None
            item = {"type": "message" if kind == "text" else "reasoning", "id": frame.get("item_id")}
            block = self._begin_item(frame, item)
        if block is None:
            return
        if block.kind != kind:
            raise MalformedStream(f"a {kind} delta for a {block.kind} item: {_name(frame)}")
        text = argument_delta(frame.get("delta"))
        if text:
            block.size += len(text)
            if kind == "tool_use":
                check_size(block.size)
            self._add(block.index, kind, text)

    def _done(self, frame: dict[str, Any], item: dict[str, Any]) -> None:
        try:
            block = self._find(frame, item.get("id"))
        except KeyError:
            block = self._begin_item(frame, item)
        if block is None or not block.is_open:
            return
        if block.kind == "opaque":
            block.is_open = False
            self._emit(ContentBlockStopped(block.index, encrypted=compact(item)))
            return
        if not block.size and (text := self._whole_text(item)):
            self._add(block.index, block.kind, text)
        encrypted = item.get("encrypted_content") or None
        added = {name: item[name] for name in EXTENSIONS if item.get(name)}
        if block.kind == "thinking" and self._late_encryption and not (encrypted or added):
            return
        block.is_open = False
        phase = item.get("phase") or block.phase
        self._emit(ContentBlockStopped(block.index, compact(added) if added else None, encrypted, phase))

    def _whole_text(self, item: dict[str, Any]) -> str:
        if item.get("type") == "function_call":
            return argument_delta(item.get("arguments"))
        parts = [part for key in ("summary", "content") for part in item.get(key) or [] if isinstance(part, dict)]
        self._refused = self._refused or any(part.get("type") == "refusal" for part in parts)
        texts = [str(part.get("text") or part.get("refusal") or "") for part in parts]
        return ("\n\n" if item.get("type") == "reasoning" else "").join(texts)

    def _end(self) -> None:
        response = self._response
        if response.get("status") == "failed":
            raise stream_error(response.get("error"))
        self._start(response.get("id"), response.get("model"))
        output = [item for item in response.get("output") or [] if isinstance(item, dict)]
        if not self._blocks:
            for index, item in enumerate(output):
                self._done({"output_index": index}, item)
        late = {item.get("id"): item.get("encrypted_content") for item in output if item.get("type") == "reasoning"}
        for block in self._blocks:
            if block.is_open:
                block.is_open = False
                encrypted = late.get(block.item_id) if block.kind == "thinking" else None
                self._emit(ContentBlockStopped(block.index, encrypted=encrypted or None, phase=block.phase))
        self._stop(self._stop_reason(), usage(response.get("usage")))

    def _stop_reason(self) -> str:
        response = self._response
        if self._refused:
            return "refusal"
        reason = (response.get("incomplete_details") or {}).get("reason")
        if reason:
            return STOP_REASONS.get(reason, str(reason))
        if response.get("status") == "incomplete":
            return "unknown"
        return "tool_use" if any(block.kind == "tool_use" for block in self._blocks) else "end"


def _name(frame: dict[str, Any]) -> str:
    return f"output {frame.get('output_index')}, item {frame.get('item_id')}"

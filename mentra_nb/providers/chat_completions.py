"""The Chat Completions wire, in the dialects of llama.cpp, vLLM, Ollama, OpenRouter and other compatible servers.

Requests use only what the strictest of them accept; the decoder reads what the most lenient of them send.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mentra_nb.content import Image, Opaque, Role, Sendable, Text, Thinking
from mentra_nb.errors import HttpError, UnsupportedCapability
from mentra_nb.providers.base import (
    ContentBlockStarted,
    ContentBlockStopped,
    ProviderToolSpec,
    Request,
    ResponseFormat,
)
from mentra_nb.providers.decoding import DONE, Decoder, check_size
from mentra_nb.providers.failures import stream_error
from mentra_nb.providers.json import compact, encode, join_body
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
from mentra_nb.providers.think_tags import ThinkTags

REASONING = ("reasoning_content", "reasoning")
"""Members of a message that hold reasoning. A thinking block of this wire has the name of its member as id."""
PARTS = "content"
"""The member of reasoning that came as a part of the content: Mistral's way, which also goes back so."""
DETAILS = "reasoning_details"
"""OpenRouter's member beside the reasoning: signed or encrypted, to be sent back unchanged."""
BROKEN_OFF = ("error", "abort", "insufficient_system_resource")
"""Finish reasons of an answer that is incomplete: OpenRouter's, vLLM's, DeepSeek's."""


RESULT_IMAGES = "Images of the results above:"
LEFT_OUT = Text(text="\n[a picture is left out: this model takes none]")


class ChatCompletionsProvider(OpenAIProvider):
    """A server that answers `POST …/chat/completions`.

    `max_tokens_field` is `max_completion_tokens` for OpenAI's own reasoning models. A server that refuses
    `stream_options` is asked again without it, once.
    """

    wire = "chat_completions"
    endpoint = "chat/completions"

    def __init__(self, id: str, base_url: str, *, max_tokens_field: str = "max_tokens", **options: Any) -> None:
        super().__init__(id, base_url, **options)
        self._max_tokens_field = max_tokens_field
        self._stream_options: dict[str, Any] | None = {"include_usage": True}
        self._blind: set[str] = set()
        """Models that have refused images, for which they are left out: a tool may show any model one."""

    def learn(self, error: HttpError, model: str) -> None:
        if error.status == 400 and "stream_options" in error.body:
            self._stream_options = None
        if error.status in (400, 404, 415, 422, 500) and "image" in error.body.lower():
            self._blind.add(model)

    def takes_images(self, model: str) -> bool:
        return super().takes_images(model) and model not in self._blind

    def form_key(self, request: Request) -> str:
        return super().form_key(request) + (":without images" if request.model in self._blind else "")

    def body(self, request: Request) -> bytes:
        forms = self.forms(request, lambda message: self._form(message, request.model))
        system = [encode({"role": "system", "content": request.system})] if request.system else []
        return join_body(
            {
                "model": request.model,
                "stream": True,
                "stream_options": self._stream_options,
                "tool_choice": tool_choice(request, lambda name: {"type": "function", "function": {"name": name}}),
                "temperature": request.temperature,
                self._max_tokens_field: request.max_output_tokens,
                "reasoning_effort": request.reasoning_effort,
                "response_format": _format(request.response_format) if request.response_format else None,
                "parallel_tool_calls": parallel_tool_calls(request),
                "prompt_cache_key": request.prompt_cache_key,
            },
            tools=self.tool_fragments(request, _tool) if request.tools else None,
            messages=[*system, *_merged(forms)],
        )

    def check(self, request: Request) -> None:
        super().check(request)
        if request.reasoning_summary is not None:
            raise UnsupportedCapability(self.descriptor.id, "reasoning_summary")

    def decoder(self, request: Request) -> ChatDecoder:
        return ChatDecoder(request.model)

    def _form(self, message: Sendable, model: str) -> _Form:
        results = [
            encode({"role": "tool", "tool_call_id": result.tool_use_id, "content": result_text(result)})
            for result in message.tool_results()
        ]
        content = [LEFT_OUT if model in self._blind and isinstance(x, Image) else x for x in message.content]
        images = [block for block in content if isinstance(block, Image)]
        if message.role is Role.USER:
            shown = [image for result in message.tool_results() for image in result.images if model not in self._blind]
            if not images and not shown:
                text = "".join(block.text for block in content if isinstance(block, Text))
                return _Form.of(results, encode(text) if text else b"")
            # a tool message may only hold text: its pictures follow in a user message
            blocks = [*([Text(text=RESULT_IMAGES)] if shown else []), *shown, *content]
            return _Form.of(results, encode([self._part(x) for x in blocks if isinstance(x, Text | Image)]))
        if images:
            raise self.misplaced_image()
        ours = (self.descriptor.id, model)
        answer: dict[str, Any] = {"role": "assistant", "content": _content(message, ours)}
        calls = [
            {"id": use.id, "type": "function", "function": {"name": use.name, "arguments": arguments_text(use)}}
            for use in message.tool_uses()
        ]
        if calls:
            answer["tool_calls"] = calls
        answer |= _reasoning(message, ours)
        return _Form.of([encode(answer), *results] if message.text() or calls else results)

    def _part(self, block: Text | Image) -> dict[str, Any]:
        if isinstance(block, Text):
            return {"type": "text", "text": block.text}
        return {"type": "image_url", "image_url": {"url": self.image_url(block)}}


# ---- messages ---------------------------------------------------------------------------------------------------


_USER = b'{"role":"user","content":'


class _Form(bytes):
    """A message on this wire: JSON messages joined by commas, of which a user message is the last."""

    __slots__ = ()

    @classmethod
    def of(cls, fixed: Sequence[bytes] = (), content: bytes = b"") -> _Form:
        """Join `fixed` messages and a user message with `content`: a JSON string, or a list of parts."""
        if not content:
            return cls(b",".join(fixed))
        return (_EndsWithUser if fixed else _User)(b",".join([*fixed, _USER + content + b"}"]))


class _EndsWithUser(_Form):
    """Results of tools, and then a user message."""

    __slots__ = ()

    def followed_by(self, user: _User) -> _EndsWithUser:
        """Return it with the content of another user message added to its last."""
        at = self.rindex(_USER) + len(_USER)  # inside a text its quotes would be escaped
        first, second = self[at:-1], user[len(_USER) : -1]
        if first.startswith(b'"') and second.startswith(b'"'):
            content = first[:-1] + rb"\n\n" + second[1:]
        else:
            content = b"[%s,%s]" % (_parts(first), _parts(second))
        return type(self)(self[:at] + content + b"}")


class _User(_EndsWithUser):
    """A user message and nothing else."""

    __slots__ = ()


def _parts(content: bytes) -> bytes:
    return b'{"type":"text","text":' + content + b"}" if content.startswith(b'"') else content[1:-1]


def _content(message: Sendable, ours: tuple[str, str]) -> Any:
    """Return an answer's text, or `None` without text; as a list of parts if this model's reasoning is part of it."""
    parts: list[dict[str, Any]] = []
    for block in message.content:
        match block:
            case Text() if block.text:
                parts.append({"type": "text", "text": block.text})
            case Thinking(id="content") if block.text and (block.provider, block.model) == ours:
                parts.append({"type": "thinking", "thinking": [{"type": "text", "text": block.text}]})
    return parts if any(part["type"] == "thinking" for part in parts) else message.text() or None


def _reasoning(message: Sendable, ours: tuple[str, str]) -> dict[str, Any]:
    """Return this model's reasoning in the members it came in: DeepSeek and OpenRouter need it back."""
    found: dict[str, str] = {}
    for block in message.content:
        match block:
            case Opaque() if (block.provider, block.model) == ours and DETAILS in block.data:
                details: dict[str, Any] = json.loads(block.data)
                return details
            case Thinking(id=str(member)) if (block.provider, block.model) == ours and member in REASONING:
                found[member] = found.get(member, "") + block.text
    return found


def _merged(forms: Iterable[_Form]) -> list[bytes]:
    """Return the messages in order, neighbouring user messages merged: strict templates require roles to alternate."""
    messages: list[bytes] = []
    last: _EndsWithUser | None = None
    """The last of them, if it ends with a user message."""
    for form in forms:
        if last is not None and isinstance(form, _User):
            last = messages[-1] = last.followed_by(form)
        elif form:
            messages.append(form)
            last = form if isinstance(form, _EndsWithUser) else None
    return messages


def _tool(tool: ProviderToolSpec, deferred: bool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description:
        function["description"] = tool.description
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _format(wanted: ResponseFormat) -> dict[str, Any]:
    schema = {"name": wanted.name, "schema": wanted.schema, "strict": wanted.strict}
    return {"type": "json_schema", "json_schema": schema}


# ---- answers ----------------------------------------------------------------------------------------------------


@dataclass(eq=False, repr=False, slots=True)
class _Call:
    id: str
    index: int
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    size: int = 0
    started: bool = False


class ChatDecoder(Decoder):
    """One answer's chunks to events: text and reasoning in the order they come, one block per tool call."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._think = ThinkTags()
        self._calls: list[_Call] = []
        self._by_index: dict[Any, _Call] = {}
        self._member: str | None = None
        """The first of `REASONING` that the server sent, even with nothing in it."""
        self._reasoned = False
        self._details: dict[Any, dict[str, Any]] = {}
        self._usage: Any = None
        self._refused = False

    def _take(self, frame: dict[str, Any]) -> None:
        if frame is DONE:
            self._end()
            return
        if frame.get("error"):
            raise stream_error(frame["error"])
        choices = frame.get("choices") or ()
        if not self._started and (choices or frame.get("id") or frame.get("model")):  # Azure's first chunk has none
            self._start(frame.get("id"), frame.get("model"))
        if usage := frame.get("usage"):
            self._usage = usage
        for choice in choices:
            if not choice.get("index"):
                self._choice(choice)
                return
        if self._finish and usage:
            self._end()

    def _choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta") or choice.get("message") or {}
        if len(delta) == 1 and (text := delta.get("content")) and isinstance(text, str):  # nearly all are
            self._content(text)
        elif delta:
            self._members(delta)
        if finish := choice.get("finish_reason"):
            if finish in BROKEN_OFF:
                raise stream_error(choice.get("error") or {"code": finish, "message": "the answer was broken off"})
            self._finish = str(finish)

    def _content(self, text: Any) -> None:
        if self._think.is_over:
            self._say("text", text)
        else:
            for kind, piece in self._think.split(text):
                self._say(kind, piece)

    def _members(self, delta: dict[str, Any]) -> None:
        """Take in whatever a delta holds: reasoning, text, and calls."""
        for member in REASONING:
            if (reasoning := delta.get(member)) is not None:
                self._reason(member, reasoning)
        for detail in delta.get(DETAILS) or ():
            self._detail(detail)
        content = delta.get("content")
        if isinstance(content, list):
            for part in content:
                self._part(part)
        elif content:
            self._content(content)
        if refusal := delta.get("refusal"):
            self._refused = True
            self._say("text", refusal)
        function = delta.get("function_call")
        for call in [{"index": 0, "function": function}] if function else delta.get("tool_calls") or ():
            self._call(call)

    def _part(self, part: Any) -> None:
        """Take in one part of content that is a list; parts other than text and thinking are ignored."""
        if isinstance(part, str):
            part = {"type": "text", "text": part}
        match part.get("type"):
            case "text" if part.get("text"):
                self._content(part["text"])
            case "thinking":
                pieces = part.get("thinking") or ()
                for piece in [pieces] if isinstance(pieces, str) else pieces:
                    self._reason(PARTS, piece if isinstance(piece, str) else piece.get("text"))

    def _reason(self, member: str, text: Any) -> None:
        """Take in reasoning, of one member only: some servers send the same text in both."""
        self._member = self._member or member
        if text and member == self._member:
            self._reasoned = True
            self._think.off()
            self._say("thinking", text, member)

    def _detail(self, piece: Any) -> None:
        """Take in a piece of the `DETAILS`, and show its text where no other member has the reasoning."""
        if not isinstance(piece, dict):
            return
        if isinstance(text := piece.get("text") or piece.get("summary"), str):
            self._reason(DETAILS, text)
        index = piece.get("index")
        known = self._details.setdefault((piece.get("type"), piece.get("id") if index is None else index), {})
        for name, value in piece.items():
            if name in ("text", "summary", "data") and isinstance(known.get(name), str) and isinstance(value, str):
                known[name] += self._keep(value)
            elif value is not None:
                known[name] = value

    def _call(self, piece: dict[str, Any]) -> None:
        """Take in a piece of a call. Its block starts once its name is known."""
        function = piece.get("function") or {}
        name, arguments = function.get("name"), argument_delta(function.get("arguments"))
        id, index = piece.get("id"), piece.get("index")
        call = self._find(id, index, name, arguments)
        if call is None:
            self._close_texts()
            call = _Call(self._call_id(id), self._next_index())
            self._calls.append(call)
            self._by_index[index] = self._by_index[id or call.id] = call
        if not call.started and name:
            call.name = name
            self._begin_call(call)
        if arguments:
            call.arguments.append(arguments)
            call.size += len(arguments)
            check_size(call.size)
            if call.started:
                self._add(call.index, "tool_use", arguments)

    def _find(self, id: str | None, index: int | None, name: str | None, arguments: str) -> _Call | None:
        """Return the call a piece belongs to, `None` for a new one: servers leave out the index, the id, or both.

        Some use one index and id for several calls: another name begins a new one.
        """
        if index is None and id:
            call = self._by_index.get(id)
        else:
            call = self._by_index.get(index) if index is not None else (self._calls[-1] if self._calls else None)
        if call is None or (name and call.started and name != call.name):
            return None
        if id and self._by_index.get(id) is not call:
            return None
        if not id and name and arguments and _is_object("".join(call.arguments)):
            return None
        return call

    def _begin_call(self, call: _Call) -> None:
        call.started = True
        self._emit(ContentBlockStarted(call.index, "tool_use", id=call.id, name=call.name))
        for piece in call.arguments:
            self._add(call.index, "tool_use", piece)

    def _close_texts(self) -> None:
        """Give the text that was held back, and stop its block."""
        for kind, text in self._think.flush():
            self._say(kind, text)
        self._close()

    def _end(self) -> None:
        self._start()
        self._close_texts()
        if self._details:
            kept = compact({DETAILS: list(self._details.values())})
            self._emit(ContentBlockStopped(self._begin("opaque"), encrypted=kept))
        elif self._calls and self._member and not self._reasoned:  # DeepSeek wants back even an empty one
            self._emit(ContentBlockStopped(self._begin("thinking", item_id=self._member)))
        for call in self._calls:
            if not call.started:
                self._begin_call(call)
            self._emit(ContentBlockStopped(call.index))
        self._stop(self._stop_reason(), usage(self._usage))

    def _stop_reason(self) -> str:
        """Return the neutral reason; calls in the answer count for more than the server's word."""
        if self._refused:
            return "refusal"
        reason = STOP_REASONS.get(self._finish or "stop", self._finish or "end")
        if reason in ("end", "tool_use"):
            return "tool_use" if self._calls else "end"
        return reason


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False

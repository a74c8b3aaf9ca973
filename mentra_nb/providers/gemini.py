"""The Gemini wire, `streamGenerateContent` as server-sent events.

A thought signature belongs to a part. It is kept as a `Thinking` block: one with text is a part itself, one without
text signs the part after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

from pydantic import SecretStr

from mentra_nb.content import Image, Opaque, Role, Sendable, Text, Thinking, TokenUsage, ToolResult, ToolUse
from mentra_nb.errors import MalformedStream, RetryableError, UnsupportedCapability
from mentra_nb.ids import clean_name
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
from mentra_nb.providers.json import Fragment, compact, count, encode, join_body, merge_roles
from mentra_nb.providers.wire import WireProvider
from mentra_nb.server_text import message_in

LEVELS = ("minimal", "low", "medium", "high")
BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24576}
"""Tokens of thinking for the models before Gemini 3, which take a number."""
NO_THINKING = re.compile(r"gemini-(1|2\.0)|gemma")
OLDER = re.compile(r"gemini-[12]|gemma")
"""Models that accept a call without its signature, and no images in a result."""
FOREIGN_SIGNATURE = "skip_thought_signature_validator"
"""Accepted by the API in place of a signature, for a call that another model made."""

STOP_REASONS = {
    "STOP": "end",
    "MAX_TOKENS": "max_tokens",
    **dict.fromkeys(("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE"), "content_filter"),
    **dict.fromkeys(("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "MODEL_ARMOR"), "content_filter"),
    **dict.fromkeys(("UNEXPECTED_TOOL_CALL", "TOO_MANY_TOOL_CALLS", "MISSING_THOUGHT_SIGNATURE"), "error"),
    "MALFORMED_RESPONSE": "error",
    **dict.fromkeys(("OTHER", "IMAGE_OTHER", "NO_IMAGE"), "unknown"),
}
COUNTS = {
    "input_tokens": "promptTokenCount",
    "output_tokens": "candidatesTokenCount",
    "total_tokens": "totalTokenCount",
    "cache_read_input_tokens": "cachedContentTokenCount",
    "thoughts_tokens": "thoughtsTokenCount",
    "tool_input_tokens": "toolUsePromptTokenCount",
}


class GeminiProvider(WireProvider):
    """A server that answers `POST …/models/MODEL:streamGenerateContent`; `base_url` ends with the API's version."""

    wire = "gemini_generate_content"
    endpoint = "streamGenerateContent"
    offers: ClassVar[ProviderCapabilities] = ProviderCapabilities.model_construct(
        supports_images=True,
        supports_reasoning_effort=True,
        supports_structured_output=True,
    )

    def authentication(self, key: str) -> dict[str, SecretStr]:
        return {"x-goog-api-key": SecretStr(key)}

    def address(self, request: Request) -> str:
        model = request.model if "/" in request.model else f"models/{request.model}"
        return self.url(f"{quote(model)}:{self.endpoint}", alt="sse")

    def takes_result_images(self, model: str) -> bool:
        return not OLDER.search(model)

    def check(self, request: Request) -> None:
        super().check(request)
        if request.parallel_tool_calls is False and request.tools:
            raise UnsupportedCapability(self.descriptor.id, "parallel_tool_calls=False")
        if request.prompt_cache_key is not None:
            raise UnsupportedCapability(self.descriptor.id, "prompt_cache_key")

    def body(self, request: Request) -> bytes:
        key, messages = self.form_key(request), request.messages
        merged = merge_roles(
            message.encoded(key, lambda m, at=at: self._fragment(m, request.model, messages[:at]))  # type: ignore[misc]
            for at, message in enumerate(messages)
        )
        tools = self.tool_fragments(request, _tool)
        return join_body(
            {
                "systemInstruction": {"parts": [{"text": request.system}]} if request.system else None,
                "toolConfig": _tool_config(request),
                "generationConfig": self._generation(request) or None,
            },
            tools=[join_body({}, functionDeclarations=tools)] if tools else None,
            contents=merged,
        )

    def decoder(self, request: Request) -> GeminiDecoder:
        return GeminiDecoder(request.model)

    async def list_models(self) -> list[ModelInfo]:
        pages = ("models", {"pageSize": "1000"}, "pageToken", lambda page: page.get("nextPageToken"))
        models: dict[str, ModelInfo] = {}
        for entry in filter(_generates, await self.model_entries(*pages)):
            model = _model(entry, self.descriptor.id)
            models.setdefault(model.id, model)
        return list(models.values())

    def _generation(self, request: Request) -> dict[str, Any]:
        options: dict[str, Any] = {
            "temperature": request.temperature,
            "maxOutputTokens": request.max_output_tokens,
            "thinkingConfig": self._thinking(request),
        }
        if request.response_format is not None:
            options["responseMimeType"] = "application/json"
            options["responseJsonSchema"] = request.response_format.schema
        return {name: value for name, value in options.items() if value is not None}

    def _thinking(self, request: Request) -> dict[str, Any] | None:
        effort, model = request.reasoning_effort, request.model
        if effort is None:
            if request.reasoning_summary is None:
                return None
            if NO_THINKING.search(model):
                raise UnsupportedCapability(self.descriptor.id, f"reasoning_summary with {model}")
            return {"includeThoughts": True}
        by_budget = "gemini-2" in model
        if NO_THINKING.search(model) or effort not in (BUDGETS if by_budget else LEVELS):
            raise UnsupportedCapability(self.descriptor.id, f"reasoning_effort '{effort}' with {model}")
        if by_budget:
            return {"thinkingBudget": BUDGETS[effort], "includeThoughts": effort != "none"}
        return {"thinkingLevel": effort, "includeThoughts": True}

    def _fragment(self, message: Sendable, model: str, earlier: Sequence[Sendable]) -> Fragment:
        """Encode one message; results come first. `earlier` holds the messages with their calls."""
        ours = (self.descriptor.id, model)
        parts: list[dict[str, Any] | bytes] = []
        signature: str | None = None
        needs_signature = not OLDER.search(model)
        for block in sorted(message.content, key=lambda block: not isinstance(block, ToolResult)):
            signed = {"thoughtSignature": signature} if signature else {}
            signature = None
            match block:
                case Text() if block.text:
                    parts.append({"text": block.text} | signed)
                case Image():
                    if message.role is not Role.USER:
                        raise self.misplaced_image()
                    parts.append(self._image(block))
                case Thinking(signature=str(own)) if (block.provider, block.model) == ours:
                    if block.text:
                        parts.append({"text": block.text, "thought": True, "thoughtSignature": own})
                    else:
                        signature = own
                case Opaque() if (block.provider, block.model) == ours:
                    parts.append(block.data.encode())
                case ToolUse():
                    call: dict[str, Any] = {"id": block.item_id} if block.item_id else {}
                    if needs_signature and not signed:
                        signed = {"thoughtSignature": FOREIGN_SIGNATURE}
                    needs_signature = False  # only the first of parallel calls has one
                    call |= {"name": clean_name(block.name), "args": block.input}
                    parts.append({"functionCall": call} | signed)
                case ToolResult():
                    parts.append(self._result(block, model, earlier))
        role = "model" if message.role is Role.ASSISTANT else "user"
        return Fragment.of(role, "parts", [part if isinstance(part, bytes) else encode(part) for part in parts])

    def _image(self, image: Image) -> dict[str, Any]:
        if image.data or not image.url:
            media_type, data = self.image_data(image)
            return {"inlineData": {"mimeType": media_type, "data": data}}
        if re.match(r"gs://|https://generativelanguage\.googleapis\.com/", image.url):
            return {"fileData": {"fileUri": image.url}}
        raise UnsupportedCapability(self.descriptor.id, "images by URL; send the image's bytes")

    def _result(self, result: ToolResult, model: str, earlier: Sequence[Sendable]) -> dict[str, Any]:
        if result.images and OLDER.search(model):
            raise UnsupportedCapability(self.descriptor.id, f"images in tool results with {model}")
        calls = (use for message in reversed(earlier) for use in message.tool_uses())
        call = next((use for use in calls if use.id == result.tool_use_id), None)
        if call is None:
            raise self.refusal(f"the tool result {result.tool_use_id} belongs to no call; leave it out")
        id = {"id": call.item_id} if call.item_id else {}
        response: dict[str, Any] = {"response": {"error" if result.is_error else "output": result.content}}
        if result.images:
            response["parts"] = [self._image(image) for image in result.images]
        return {"functionResponse": id | {"name": clean_name(call.name)} | response}


def _tool(tool: ProviderToolSpec, deferred: bool) -> dict[str, Any]:
    described = {"description": tool.description} if tool.description else {}
    return {"name": tool.name, **described, "parametersJsonSchema": tool.input_schema}


def _tool_config(request: Request) -> dict[str, Any] | None:
    choice = request.tool_choice
    if choice is None or not request.tools:
        return None
    if choice.mode == "tool":
        return {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": [choice.name or ""]}}
    return {"functionCallingConfig": {"mode": choice.mode.upper()}}


def _generates(entry: dict[str, Any]) -> bool:
    methods = entry.get("supportedGenerationMethods")
    named = isinstance(entry.get("name"), str) or isinstance(entry.get("baseModelId"), str)
    return named and isinstance(methods, list) and bool({"generateContent", "streamGenerateContent"} & set(methods))


def _model(entry: dict[str, Any], provider: str) -> ModelInfo:
    window = count(entry, "inputTokenLimit")
    return ModelInfo(
        id=str(entry.get("baseModelId") or str(entry["name"]).removeprefix("models/")),
        provider=provider,
        display_name=entry.get("displayName") or None,
        description=entry.get("description") or None,
        context_window=window if window and window > 0 else None,
    )


# ---- answers ----------------------------------------------------------------------------------------------------


class GeminiDecoder(Decoder):
    """One answer's chunks to events: text and thoughts in the order they come, and each call as a separate block."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._has_calls = False
        self._seen: set[str] = set()
        self._counted: dict[str, int] = {}

    def _take(self, frame: dict[str, Any]) -> None:
        if frame.get("error"):
            raise stream_error(frame["error"])
        if frame:
            self._start(frame.get("responseId") or f"gemini-{self._model}", frame.get("modelVersion"))
        usage = frame.get("usageMetadata")
        for name, counter in COUNTS.items() if usage else ():
            if (number := count(usage, counter)) is not None:
                self._counted[name] = number
        for candidate in _objects(frame.get("candidates")):
            if candidate.get("index"):
                continue
            content = candidate.get("content")
            for part in _objects(content.get("parts") if isinstance(content, dict) else None):
                self._part(part)
            if reason := candidate.get("finishReason"):
                self._finished(str(reason), candidate.get("finishMessage"))
        feedback = frame.get("promptFeedback")
        if isinstance(feedback, dict) and feedback.get("blockReason") and self._finish is None:
            blocked = str(feedback["blockReason"])
            self._finish = "refusal" if blocked == "OTHER" else "content_filter"
            self._say_why(blocked, feedback.get("blockReasonMessage"))
        if self._finish and usage:
            self._end()

    def _finished(self, reason: str, detail: Any) -> None:
        if reason == "MALFORMED_FUNCTION_CALL":
            raise RetryableError(f"the model wrote a call that cannot be read ({detail or reason}); ask again")
        if reason != "FINISH_REASON_UNSPECIFIED":
            self._finish = STOP_REASONS.get(reason, reason)
        if self._finish in ("content_filter", "refusal"):
            self._say_why(reason, detail)

    def _say_why(self, reason: str, detail: Any) -> None:
        """Keep what the server says about why it stopped."""
        self._stop_detail = ": ".join(filter(None, (reason, message_in(detail))))

    def _part(self, part: dict[str, Any]) -> None:
        signature, text, call = part.get("thoughtSignature") or None, part.get("text"), part.get("functionCall")
        if isinstance(call, dict):
            self._call(call, signature)
        elif isinstance(text, str) and text:
            kind: BlockKind = "thinking" if part.get("thought") else "text"
            if signature is None:
                self._say(kind, text)
            else:
                self._signed(kind, text, str(signature))
        elif signature or set(part) - {"text", "thought", "thoughtSignature"}:
            self._close()
            self._emit(ContentBlockStopped(self._begin("opaque"), encrypted=compact(part)))

    def _signed(self, kind: BlockKind, text: str, signature: str) -> None:
        """Give a part with a signature as a separate block: it may not be merged with its neighbours."""
        self._close()
        if kind == "text":
            self._carry(signature)
        index = self._begin(kind)
        self._add(index, kind, text)
        self._emit(ContentBlockStopped(index, signature=signature if kind == "thinking" else None))

    def _carry(self, signature: str) -> None:
        """Give the signature of the part that comes next."""
        self._emit(ContentBlockStopped(self._begin("thinking"), signature=signature))

    def _call(self, call: dict[str, Any], signature: Any) -> None:
        """Give a call. Raises `MalformedStream` for one that is not whole: it would run with other arguments."""
        if not call.get("name") or call.get("willContinue") or call.get("partialArgs"):
            raise MalformedStream("a call came without its name or with its arguments in pieces")
        given, arguments = call.get("id") or None, call.get("args")
        text = compact(arguments) if arguments else ""
        check_size(len(text))
        if given is not None:
            again = compact([given, call.get("name"), arguments])
            if again in self._seen:
                return
            self._seen.add(again)
        self._close()
        if signature:
            self._carry(str(signature))
        id = self._call_id(str(given or ""))
        index = self._begin("tool_use", id=id, name=str(call.get("name") or ""), item_id=given)
        if text:
            self._add(index, "tool_use", text)
        self._emit(ContentBlockStopped(index))
        self._has_calls = True

    def _end(self) -> None:
        self._close()
        reason = "tool_use" if self._finish == "end" and self._has_calls else self._finish
        self._stop(reason, TokenUsage(**self._counted) if self._counted else None)


def _objects(values: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects in a value that should be a list of objects."""
    return (value for value in values if isinstance(value, dict)) if isinstance(values, list) else iter(())

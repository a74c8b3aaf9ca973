"""What the two OpenAI wires, Responses and Chat Completions, have in common: model listing, usage, small mappings.

The wires themselves are `responses` and `chat_completions`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from mentra_nb.content import Image, TokenUsage, ToolResult, ToolUse
from mentra_nb.errors import DecodeError, InvalidRequest
from mentra_nb.providers.base import ModelInfo, ProviderToolSpec, Request
from mentra_nb.providers.wire import WireProvider, encode

STOP_REASONS = {
    "stop": "end",
    "length": "max_tokens",
    "max_output_tokens": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "content_filter",
}


class OpenAIProvider(WireProvider):
    """Shared by both wires: `base_url` with or without `/v1`, and `GET models`."""

    def __init__(self, id: str, base_url: str, **options: Any) -> None:
        super().__init__(id, base_url, **options)
        self.base_url = with_version(self.base_url)
        self._tools: tuple[Sequence[ProviderToolSpec], bytes] = ((), b"[]")

    async def list_models(self) -> list[ModelInfo]:
        payload = await self.http.get_json(self.url("models"), self.headers())
        entries = payload.get("data") if isinstance(payload, dict) else None
        if not isinstance(entries, list):
            raise DecodeError(f"{self.descriptor.id} did not list its models as expected; check the base URL")
        return [_model(entry, self.descriptor.id) for entry in entries if isinstance(entry, dict) and entry.get("id")]

    def tools_json(self, request: Request, encode_one: Callable[[ProviderToolSpec], Any]) -> bytes | None:
        """The tools as a JSON array, kept while the same tuple of tools comes back; `None` without tools."""
        if not request.tools:
            return None
        kept, fragment = self._tools
        if kept is not request.tools or not isinstance(kept, tuple):
            fragment = encode([encode_one(tool) for tool in request.tools])
            self._tools = request.tools, fragment
        return fragment


def with_version(base_url: str) -> str:
    """`base_url` with `/v1` appended, unless its path already has a version."""
    parts = urlsplit(base_url)
    if re.search(r"/v\d", parts.path) or parts.path.endswith("/backend-api/codex"):
        return base_url
    return urlunsplit(parts._replace(path=parts.path + "/v1"))


def tool_choice(request: Request, named: Callable[[str], Any]) -> Any:
    """The wire's `tool_choice`, or `None` when there is nothing to choose."""
    choice = request.tool_choice
    if choice is None or not request.tools:
        return None
    if choice.mode == "tool":
        return named(choice.name or "")
    return "required" if choice.mode == "any" else choice.mode


def image_url(image: Image) -> str:
    """The picture's address, or a data URL of its bytes. Raises `InvalidRequest` if it has neither."""
    if image.url:
        return image.url
    if not image.data:
        raise InvalidRequest("an image has neither data nor a URL; give one")
    return f"data:{image.media_type or 'image/png'};base64,{image.data}"


def arguments_text(use: ToolUse) -> str:
    """A call's arguments as the model is to see them again; a call that was malformed has none."""
    return "{}" if use.error is not None else compact(use.input)


def result_text(result: ToolResult) -> str:
    return f"Tool error: {result.display()}" if result.is_error else result.display()


def argument_delta(arguments: Any) -> str:
    """Argument text as it came; some servers send the object itself."""
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return compact(arguments)


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def usage(payload: Any) -> TokenUsage | None:
    """Either wire's usage object; `None` when it says nothing."""
    if not isinstance(payload, Mapping):
        return None

    sent = payload.get("input_tokens_details") or payload.get("prompt_tokens_details")
    made = payload.get("output_tokens_details") or payload.get("completion_tokens_details")
    found = TokenUsage(
        input_tokens=_count(payload, "input_tokens", "prompt_tokens"),
        output_tokens=_count(payload, "output_tokens", "completion_tokens"),
        total_tokens=_count(payload, "total_tokens"),
        cache_read_input_tokens=_count(sent, "cached_tokens"),
        reasoning_tokens=_count(made, "reasoning_tokens"),
    )
    return None if found.is_empty() else found


def _count(source: Any, *names: str) -> int | None:
    values = [source.get(name) for name in names] if isinstance(source, Mapping) else []
    return next((value for value in values if isinstance(value, int)), None)


def _model(entry: dict[str, Any], provider: str) -> ModelInfo:
    owner, created, meta = entry.get("owned_by"), entry.get("created"), entry.get("meta")
    sizes = [entry.get("context_length"), entry.get("max_model_len"), entry.get("max_context_length")]
    if isinstance(meta, dict):
        sizes.append(meta.get("n_ctx"))
    return ModelInfo(
        id=str(entry["id"]),
        provider=provider,
        display_name=_text(entry.get("name")),
        description=_text(entry.get("description")) or (f"Owned by {owner}" if owner else None),
        created_at=_time(created),
        context_window=next((size for size in sizes if isinstance(size, int) and size > 0), None),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _time(seconds: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC) if seconds else None
    except (TypeError, ValueError, OverflowError, OSError):
        return None

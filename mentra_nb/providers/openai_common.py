"""What the two OpenAI wires share: model listing, usage, small mappings.

The wires are `responses` and `chat_completions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from mentra_nb.content import Image, TokenUsage, ToolResult, ToolUse
from mentra_nb.providers.base import ModelInfo, ProviderCapabilities, Request
from mentra_nb.providers.json import compact, count
from mentra_nb.providers.wire import WireProvider, with_version

STOP_REASONS = {
    "stop": "end",
    "length": "max_tokens",
    "model_length": "context_overflow",
    "max_output_tokens": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "content_filter",
}


class OpenAIProvider(WireProvider):
    """Base of both wires: `base_url` with or without `/v1`, and `GET models`."""

    offers: ClassVar[ProviderCapabilities] = ProviderCapabilities.model_construct(
        supports_images=True,
        supports_reasoning_effort=True,
        supports_structured_output=True,
    )

    def __init__(self, id: str, base_url: str, **options: Any) -> None:
        super().__init__(id, base_url, **options)
        self.base_url: str = with_version(self.base_url)

    async def list_models(self) -> list[ModelInfo]:
        entries = await self.model_entries("data", {}, "", lambda page: None)
        return [_model(entry, self.descriptor.id) for entry in entries if entry.get("id")]

    def image_url(self, image: Image) -> str:
        """Return the URL of a picture, or a data URL of its bytes. Raises `InvalidRequest` if it has neither."""
        if image.url:
            return image.url
        media_type, data = self.image_data(image)
        return f"data:{media_type};base64,{data}"


def tool_choice(request: Request, named: Callable[[str], Any]) -> Any:
    """Return the wire's `tool_choice`; `None` without tools or without a choice."""
    choice = request.tool_choice
    if choice is None or not request.tools:
        return None
    if choice.mode == "tool":
        return named(choice.name or "")
    return "required" if choice.mode == "any" else choice.mode


def parallel_tool_calls(request: Request) -> bool | None:
    """Return the wire's option of that name, which may only be sent with tools."""
    return request.parallel_tool_calls if request.tools else None


def arguments_text(use: ToolUse) -> str:
    """Return the arguments of an earlier call as JSON; those of a malformed call are empty."""
    return "{}" if use.error is not None else compact(use.input)


def result_text(result: ToolResult) -> str:
    """Return a result as text; the wire has no member for errors."""
    return f"Tool error: {result.display()}" if result.is_error else result.display()


def argument_delta(arguments: Any) -> str:
    """Return a piece of arguments as text; some servers send an object instead."""
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return compact(arguments)


def usage(payload: Any) -> TokenUsage | None:
    """Return the counts in either wire's usage object, or `None` if it has none."""
    if not isinstance(payload, Mapping):
        return None

    sent = payload.get("input_tokens_details") or payload.get("prompt_tokens_details")
    made = payload.get("output_tokens_details") or payload.get("completion_tokens_details")
    prompt, output = (
        count(payload, "input_tokens", "prompt_tokens"),
        count(payload, "output_tokens", "completion_tokens"),
    )
    total, reasoning = count(payload, "total_tokens"), count(made, "reasoning_tokens")
    if reasoning and None not in (prompt, output, total) and total == (prompt or 0) + (output or 0) + reasoning:
        output = (output or 0) + reasoning  # xAI counts reasoning beside the completion
    found = TokenUsage(
        input_tokens=prompt,
        output_tokens=output,
        total_tokens=total,
        cache_read_input_tokens=count(sent, "cached_tokens"),
        cache_creation_input_tokens=count(sent, "cache_write_tokens"),
        reasoning_tokens=reasoning,
        cost_usd=_cost(payload),
    )
    return None if found.is_empty() else found


def _cost(payload: Mapping[str, Any]) -> float | None:
    """Return what a response costs in US dollars, as OpenRouter reports it, or `None`.

    With the user's own key at the model's company, that company's charge is added.
    """
    details = payload.get("cost_details")
    upstream = details.get("upstream_inference_cost") if payload.get("is_byok") and isinstance(details, dict) else 0
    numbers: list[Any] = [payload.get("cost"), upstream or 0]
    if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
        return None
    cost = float(numbers[0] + numbers[1])
    return cost if 0 <= cost < float("inf") else None


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

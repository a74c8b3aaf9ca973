"""The most that a request may use, before it is sent, and what it has used, once its answer is there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from mentra_nb.amounts import PARTS, Unit
from mentra_nb.budget.meter import Meter
from mentra_nb.content import (
    Image,
    Opaque,
    Sendable,
    Text,
    Thinking,
    TokenUsage,
    ToolResult,
    ToolUse,
    prompt_tokens,
)
from mentra_nb.errors import ConfigurationError, HttpError, InvalidRequest, ReplayMiss, Unreachable
from mentra_nb.paths import record_folder
from mentra_nb.pricing import cost_usd, own_prices, price_rows
from mentra_nb.providers.base import ProviderToolSpec

PER_MESSAGE = 32
"""Tokens that a wire may add to a message, and to the description of a tool."""
PER_REQUEST = 1_000
"""Tokens that a wire may add to a request, for instance to explain that there are tools."""
PER_IMAGE = 6_000
"""Tokens of a picture, at most. Only `gpt-4o-mini` counts more."""
MAY_BE_CHARGED = (408, 502, 504)
"""Statuses of answers that a gateway gives while the server behind it may have answered."""


def most_of_messages(messages: Iterable[Sendable]) -> int:
    """Return the most tokens that messages can have: no token is shorter than a byte."""
    return sum(PER_MESSAGE + sum(map(_most_of_block, message.content)) for message in messages)


def most_of_head(system: str | None, tools: Sequence[ProviderToolSpec]) -> int:
    """Return the most tokens that all of a request but its messages can have."""
    described = sum(PER_MESSAGE + len(tool.model_dump_json().encode()) for tool in tools)
    return PER_REQUEST + len((system or "").encode()) + described


def _most_of_block(block: Any) -> int:
    match block:
        case Text():
            return _size(block.text)
        case Image():
            return PER_IMAGE
        case ToolUse():
            return _size(block.name) + _size(block.id) + _size(block.input)
        case ToolResult():
            return _size(block.tool_use_id) + _size(block.content) + sum(map(_most_of_block, block.images))
        case Thinking():
            return sum(_size(text or "") for text in (block.text, block.signature, block.encrypted))
        case Opaque():
            return _size(block.data)
    raise AssertionError(f"{type(block).__name__} has no known size")


def _size(value: Any) -> int:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return len(text.encode("utf-8", "replace"))


def most_of(
    meter: Meter, provider: str, model: str, prompt: int, output: int | None, *, free: bool = False
) -> dict[Unit, int]:
    """Return the most that a request may use of the meter's budgets in money and tokens.

    Args:
        prompt: The most tokens of the request.
        output: The limit of the answer, in tokens.
        free: Whether the answer costs nothing, as one from a tape does.

    Raises:
        ConfigurationError: the model has no known price, or the answer no limit.
    """
    most: dict[Unit, int] = {}
    if not (meter.limits("usd") or meter.limits("tokens")):
        return most
    if output is None:
        raise ConfigurationError("a budget needs a limit for each answer: set max_output_tokens")
    if meter.limits("tokens"):
        most["tokens"] = prompt + output
    if meter.limits("usd"):
        most["usd"] = 0 if free else most_usd(provider, model, prompt, output)
    return most


def most_usd(provider: str, model: str, prompt: int, output: int) -> int:
    """Return the most that a request may cost, in parts of a dollar. Raises `ConfigurationError` without a price."""
    file = record_folder() / "prices.csv"
    changed = file.stat().st_mtime_ns if file.exists() else 0
    rates = _highest_rates(provider, model, datetime.now(UTC).date().isoformat(), str(file.parent), changed)
    if rates is None:
        raise ConfigurationError(
            f"{provider}/{model} has no known price, so a budget in money cannot limit it: set one in tokens, "
            f"or its price in {file}"
        )
    per_token = PARTS["usd"] / 1e6
    costs = [
        min(prompt, up_to) * of_prompt + output * of_output
        for above, up_to, of_prompt, of_output in rates
        if above < prompt
    ]
    return math.ceil(max(costs) * per_token)


@lru_cache(maxsize=64)
def _highest_rates(
    provider: str, model: str, day: str, folder: str, changed: int
) -> list[tuple[int, int, float, float]] | None:
    """Return the highest rates of a day and the next one, by prompt size; `None` if one is not known."""
    from pathlib import Path

    first = datetime.fromisoformat(day).date()
    last, found = first + timedelta(days=1), []
    for row in price_rows(provider, model, own_prices(Path(folder))):
        _, _, since, until, _, _, above, up_to, *rates, _ = row
        if since <= last and until > first:
            if any(rate is None for rate in rates):
                return None
            of_input, of_output, of_read, of_write = rates
            found.append((above, up_to, max(of_input, of_read, of_write), of_output))
    return found


def used(provider: str, model: str, usage: TokenUsage | None, most: Mapping[Unit, int]) -> dict[Unit, int]:
    """Return what a request has used, by the usage of its answer; what that does not say counts as the most."""
    if usage is None:
        return dict(most)
    spent = dict(most)
    is_counted = usage.input_tokens is not None and usage.output_tokens is not None
    if "tokens" in most and is_counted:
        spent["tokens"] = prompt_tokens(provider, usage) + (usage.output_tokens or 0) + (usage.thoughts_tokens or 0)
    if "usd" in most and (is_counted or usage.cost_usd is not None):
        cost = cost_usd(provider, model, usage)
        spent["usd"] = most["usd"] if cost is None else math.ceil(round(cost * PARTS["usd"], 3))
    return spent


def is_free_of_charge(error: BaseException) -> bool:
    """Return whether a request that failed before its stream was open was never sent, or refused."""
    if isinstance(error, HttpError):
        return error.status not in MAY_BE_CHARGED
    return isinstance(error, InvalidRequest | ReplayMiss | Unreachable)

"""What is known of the Claude models: how they think, and how much they may say.

The wire is one, but which options it takes depends on the model. One that is not named here is taken for a newer one.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from mentra_nb.errors import InvalidRequest, UnsupportedCapability
from mentra_nb.providers.base import ModelInfo, Request
from mentra_nb.providers.json import count

DEFAULT_MAX_TOKENS = 8192
"""The API must be told a limit; the oldest models allow half of this."""
HALF_LIMIT = re.compile(r"claude-3-(opus|sonnet|haiku)")

NO_THINKING = re.compile(r"claude-(instant|2|3-(opus|sonnet|haiku|5))")
EFFORT_ONLY = re.compile(r"claude-opus-4-5")
"""Takes an effort, but does not choose by itself when to think."""
BY_BUDGET = re.compile(r"claude-(3-7|(opus|sonnet|haiku)-4(-[015])?(-\d{8}|$|@))")
"""Thinks within a budget of tokens. Every other model decides by itself how much thinking an effort needs."""
NO_XHIGH = re.compile(r"claude-(mythos-preview|(opus|sonnet)-4-6)")

BUDGETS = {"low": 0.2, "medium": 0.5, "high": 0.8}
"""The share of an answer's `max_tokens` that may be thinking."""
MIN_BUDGET = 1024
"""Tokens; the API takes no smaller budget."""


def default_max_tokens(model: str) -> int:
    """Tokens of an answer for which nothing was asked."""
    return DEFAULT_MAX_TOKENS // 2 if HALF_LIMIT.search(model) else DEFAULT_MAX_TOKENS


def thinking(request: Request, max_tokens: int, provider: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """`thinking` and `output_config` for the request's effort.

    Raises `UnsupportedCapability` for an effort the model does not know, and `InvalidRequest` for options that cannot
    go with it.
    """
    effort, model = request.reasoning_effort, request.model
    if effort is None:
        return None, {}
    effort_only = EFFORT_ONLY.search(model)
    by_budget = not effort_only and BY_BUDGET.search(model)
    known = ("low", "medium", "high", *(() if by_budget or effort_only else ("xhigh", "max")))
    if NO_THINKING.search(model) or effort not in known or (effort == "xhigh" and NO_XHIGH.search(model)):
        raise UnsupportedCapability(provider, f"reasoning_effort '{effort}' with {model}")
    if effort_only:
        return None, {"effort": effort}
    is_forced = request.tool_choice is not None and request.tool_choice.mode in ("any", "tool") and request.tools
    if is_forced or request.temperature not in (None, 1):
        option = "a forced tool_choice" if is_forced else "temperature"
        raise InvalidRequest(f"{provider} cannot combine reasoning_effort with {option}; leave one out")
    if not by_budget:
        return {"type": "adaptive", "display": "summarized"}, {"effort": effort}
    if max_tokens <= MIN_BUDGET:
        raise InvalidRequest(f"{provider} needs max_output_tokens over {MIN_BUDGET} for reasoning_effort; raise it")
    return {"type": "enabled", "budget_tokens": max(MIN_BUDGET, int(max_tokens * BUDGETS[effort]))}, {}


def model_info(entry: dict[str, Any], provider: str) -> ModelInfo:
    """A model as the API lists it."""
    window = count(entry, "max_input_tokens", "context_window")
    name = entry.get("display_name")
    return ModelInfo(
        id=str(entry["id"]),
        provider=provider,
        display_name=name if isinstance(name, str) and name else None,
        created_at=_time(entry.get("created_at")),
        context_window=window if window and window > 0 else None,
    )


def _time(text: Any) -> datetime | None:
    try:
        when = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return when.replace(tzinfo=when.tzinfo or UTC).astimezone(UTC)

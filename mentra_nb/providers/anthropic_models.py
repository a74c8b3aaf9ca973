"""Options that depend on the Claude model: how it thinks, and how long its answers may be.

A model that is not named here is treated as a newer one.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from mentra_nb.errors import InvalidRequest, UnsupportedCapability
from mentra_nb.providers.base import ModelInfo, Request
from mentra_nb.providers.json import count

DEFAULT_MAX_TOKENS = 8192
"""Tokens. The API requires a limit; the oldest models allow half of this."""
HALF_LIMIT = re.compile(r"claude-3-(opus|sonnet|haiku)")

NO_THINKING = re.compile(r"claude-(instant|2|3-(opus|sonnet|haiku|5))")
EFFORT_ONLY = re.compile(r"claude-opus-4-5")
"""Accepts an effort, but has no adaptive thinking."""
BY_BUDGET = re.compile(r"claude-(3-7|(opus|sonnet|haiku)-4(-[015])?(-\d{8}|$|@))")
"""Thinks within a budget of tokens. Every other model has adaptive thinking."""
NO_XHIGH = re.compile(r"claude-(mythos-preview|(opus|sonnet)-4-6)")

BUDGETS = {"low": 0.2, "medium": 0.5, "high": 0.8}
"""The share of an answer's `max_tokens` that may be thinking."""
MIN_BUDGET = 1024
"""Tokens: the smallest budget the API accepts."""


def default_max_tokens(model: str) -> int:
    """Return the limit of an answer, in tokens, for a request that sets none."""
    return DEFAULT_MAX_TOKENS // 2 if HALF_LIMIT.search(model) else DEFAULT_MAX_TOKENS


def thinking(request: Request, max_tokens: int, provider: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return `thinking` and `output_config` for the request's effort.

    Raises `UnsupportedCapability` for an effort the model does not have, and `InvalidRequest` for options that cannot
    be combined with it.
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
    """Return a model from its entry in the API's list."""
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

"""What the headers of an answer say of the provider's rate limits.

OpenAI and servers like it write `x-ratelimit-remaining-requests: 42` and `x-ratelimit-reset-requests: 1m30s`;
Anthropic writes `anthropic-ratelimit-requests-remaining: 42` and `anthropic-ratelimit-requests-reset:
2026-11-30T10:00:00Z`. Both count tokens in the same way. Gemini sends no such headers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, NamedTuple

Counted = Literal["requests", "tokens"]

_NUMBER = re.compile(r"[0-9]{1,15}")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Allowance(NamedTuple):
    """How much of one limit is left."""

    left: int
    limit: int | None
    """How much there is when nothing is used; `None` if the server does not say it."""
    full_in: float
    """Seconds until all of it is there again. It fills steadily until then."""

    @property
    def per_second(self) -> float:
        """How much comes back each second; 0 if that is not known."""
        missing = 0 if self.limit is None else self.limit - self.left
        return missing / self.full_in if missing > 0 and self.full_in > 0 else 0.0

    @property
    def wait(self) -> float:
        """Seconds until there is some of it."""
        if self.left > 0:
            return 0.0
        return 1 / self.per_second if self.per_second else self.full_in


class RateLimits(NamedTuple):
    """What is left of a provider's limits; `None` where it says nothing."""

    requests: Allowance | None
    tokens: Allowance | None

    @property
    def wait(self) -> float:
        """Seconds until another request may be sent."""
        return max((each.wait for each in self if each is not None), default=0.0)


def limits_in(headers: Mapping[str, str]) -> RateLimits | None:
    """Return what these headers, with names in lower case, say of rate limits; `None` if they say nothing."""
    found = RateLimits(_allowance(headers, "requests"), _allowance(headers, "tokens"))
    return None if found == (None, None) else found


def _allowance(headers: Mapping[str, str], what: Counted) -> Allowance | None:
    parts = ("remaining", "limit", "reset")
    for pattern in ("x-ratelimit-{part}-{what}", "anthropic-ratelimit-{what}-{part}"):
        left, limit, reset = (headers.get(pattern.format(part=part, what=what)) for part in parts)
        seconds = None if reset is None else _seconds(reset.strip())
        if (number := _number(left)) is not None and seconds is not None:
            return Allowance(number, _number(limit), seconds)
    return None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _NUMBER.fullmatch(text.strip()) else None


def _seconds(text: str) -> float | None:
    """Return the seconds until a time, written as `6m0s`, as a number of seconds, or as a date; `None` for others."""
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    try:
        return max(0.0, float(text)) if text.replace(".", "", 1).isdecimal() else _until(text)
    except ValueError:
        return None


def _until(text: str) -> float:
    when = datetime.fromisoformat(text)
    return max(0.0, when.replace(tzinfo=when.tzinfo or UTC).timestamp() - time.time())

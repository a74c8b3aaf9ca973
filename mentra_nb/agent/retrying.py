"""When a request that failed is sent again."""

from __future__ import annotations

import random

import anyio

from mentra_nb.agent.limits import RunOptions
from mentra_nb.agent.turn import Turn
from mentra_nb.errors import HttpError, ProviderError, RetryableError
from mentra_nb.event import types as e


async def wait_before_retry(turn: Turn, error: ProviderError, attempt: int, attempts: int | None = None) -> None:
    """Announce the next attempt and wait until it is due. `attempts` is their number, if the options do not say it."""
    delay = retry_delay(error, attempt, random.random(), turn.limits.options)  # noqa: S311  # not a secret
    turn.emit(
        e.RetryAttempt(
            agent_id=turn.agent_id,
            error_message=str(error),
            attempt=attempt,
            max_attempts=most_retries(error, turn.limits.options) if attempts is None else attempts,
            next_delay_ms=int(delay * 1000),
        )
    )
    await anyio.sleep(delay)


def most_retries(error: ProviderError, options: RunOptions) -> int:
    """Return how often a request that failed in this way is sent again at most."""
    budget: int = options.retry_budget
    return budget if error.most_retries is None else min(budget, error.most_retries)


def retry_delay(error: ProviderError, attempt: int, chance: float, options: RunOptions) -> float:
    """Return the seconds to wait after a failed attempt.

    They are the share `chance`, in [0, 1], of a time that doubles with each attempt, so that many clients do not retry
    at the same moment; but no less than the server asks for, up to `retry_after_cap`.
    """
    longest: float = min(options.retry_base * 2 ** min(attempt - 1, 10), options.retry_max)
    return max(chance * longest, min(asked_wait(error), options.retry_after_cap))


def asked_wait(error: ProviderError) -> float:
    """Return the seconds that the server asks to wait before another request, 0 if it names no time."""
    asked = error.delay if isinstance(error, RetryableError) else None
    return (error.retry_after if isinstance(error, HttpError) else asked) or 0.0

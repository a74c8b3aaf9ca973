"""How far a run may go: its options, the token that stops it, and the counters that bound it.

Nothing here waits; the agent enters `stoppable()` once per run and everything inside is cancelled with it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

from mentra_nb.errors import DeadlineExceeded, MaxRoundsExceeded, ModelBudgetExceeded, ToolBudgetExceeded


class CancellationToken:
    """A sticky stop signal, safe to trip from any thread. Tripping it cancels the scopes bound to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._reason: str | None = None

    @property
    def is_cancelled(self) -> bool:
        return self._reason is not None

    @property
    def reason(self) -> str:
        return self._reason or "stopped"

    def cancel(self, reason: str = "stopped") -> None:
        """Stop what is bound to this token. Later calls change nothing."""
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    @contextmanager
    def bound_to(self, scope: anyio.CancelScope) -> Iterator[None]:
        """While inside, tripping the token cancels `scope`. Must be entered on the scope's own event loop."""
        loop = asyncio.get_running_loop()

        def callback() -> None:
            loop.call_soon_threadsafe(scope.cancel)

        with self._lock:
            already = self._reason is not None
            self._callbacks.append(callback)
        if already:
            scope.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)


@dataclass(frozen=True)
class RunOptions:
    """Limits of one run. `None` is no limit.

    `deadline` is in Unix seconds. `retry_budget` is re-attempts per model request; `tool_budget` and `model_budget`
    count tool calls and model requests (failed attempts included) of the whole run; `max_rounds` counts model answers.
    """

    cancellation: CancellationToken | None = None
    deadline: float | None = None
    retry_budget: int = 5
    tool_budget: int | None = None
    model_budget: int | None = None
    max_rounds: int | None = None

    @contextmanager
    def stoppable(self) -> Iterator[anyio.CancelScope]:
        """The run's one cancel scope: left early when the token trips or the deadline passes."""
        token = self.cancellation or CancellationToken()
        with anyio.CancelScope() as scope, token.bound_to(scope):
            if self.deadline is not None:
                scope.deadline = anyio.current_time() + (self.deadline - time.time())
            yield scope


class RunLimits:
    """The counters of one run, checked before the thing they count happens."""

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        self.rounds = self.requests = self.tools = 0

    def begin_round(self) -> None:
        """Raises `DeadlineExceeded` or `MaxRoundsExceeded`."""
        if self.options.deadline is not None and time.time() >= self.options.deadline:
            raise DeadlineExceeded
        if self.options.max_rounds is not None and self.rounds >= self.options.max_rounds:
            raise MaxRoundsExceeded(self.options.max_rounds)
        self.rounds += 1

    def count_request(self) -> None:
        """Raises `ModelBudgetExceeded` instead of letting one request too many go out."""
        if self.options.model_budget is not None and self.requests >= self.options.model_budget:
            raise ModelBudgetExceeded(self.options.model_budget)
        self.requests += 1

    def count_tools(self, batch: int) -> None:
        """Raises `ToolBudgetExceeded` when `batch` more calls would pass the budget; then none of them runs."""
        if self.options.tool_budget is not None and self.tools + batch > self.options.tool_budget:
            raise ToolBudgetExceeded(self.options.tool_budget)
        self.tools += batch

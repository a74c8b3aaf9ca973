"""How far a run may go: its options, the tokens that stop it, and the counters that bound it.

Nothing here waits; the agent enters `stoppable()` once per run and everything inside is cancelled with it. Two kinds of
bounds: hard ones fail the run before what they count happens; soft ones let a round finish and end the run well.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import anyio

from mentra_nb.agent.strategy import RoundStrategy
from mentra_nb.errors import Cancelled, DeadlineExceeded, MaxRoundsExceeded, ModelBudgetExceeded, ToolBudgetExceeded


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
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """While inside, call `callback` when the token is tripped, at once if it was before. Any thread may."""
        with self._lock:
            already = self._reason is not None
            self._callbacks.append(callback)
        if already:
            callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)

    @contextmanager
    def bound_to(self, scope: anyio.CancelScope) -> Iterator[None]:
        """While inside, tripping the token cancels `scope`. Must be entered on the scope's own event loop."""
        loop = asyncio.get_running_loop()
        if self.is_cancelled:
            scope.cancel()

        def cancel() -> None:
            loop.call_soon_threadsafe(scope.cancel)

        with self.calling(cancel):
            yield


EarlyEnd = Literal["stop_requested", "token_budget", "cost_budget"]
"""Why a run ended well before the model was done."""


@dataclass
class Spent:
    """What a run and the runs it delegated have used so far. `cost` is in USD."""

    requests: int = 0
    tools: int = 0
    tokens: int = 0
    cost: float = 0.0


@dataclass
class _End:
    reason: EarlyEnd | None = None


@dataclass(frozen=True)
class RunOptions:
    """Limits of one run. `None` is no limit. An object serves one run at a time, and counts anew for the next.

    Hard, the run fails: `cancellation`; `deadline`, in Unix seconds; `tool_budget` and `model_budget`, tool calls and
    model requests (failed attempts included); `max_rounds`, model answers. Soft, the round that crosses them is
    finished and kept: `stop`, a second token; `token_budget`, input and output tokens as providers count them;
    `cost_budget`, USD by the price list. Budgets are shared with delegated runs.

    `retry_budget` is re-attempts per model request. The wait before one doubles from `retry_base` to `retry_max`
    seconds; a server may ask for up to `retry_after_cap`.

    `round_strategy` is asked between the rounds how the run goes on; delegated runs have none.
    """

    cancellation: CancellationToken | None = None
    stop: CancellationToken | None = None
    deadline: float | None = None
    retry_budget: int = 5
    tool_budget: int | None = None
    model_budget: int | None = None
    token_budget: int | None = None
    cost_budget: float | None = None
    max_rounds: int | None = None
    retry_base: float = 0.5
    retry_max: float = 5.0
    retry_after_cap: float = 60.0
    round_strategy: RoundStrategy | None = None
    spent: Spent = field(default_factory=Spent, compare=False, repr=False)
    is_child: bool = field(default=False, repr=False)
    _end: _End = field(default_factory=_End, compare=False, repr=False)

    @property
    def ended_early(self) -> EarlyEnd | None:
        """Why the last run with these options ended before the model was done; `None` when it was."""
        return self._end.reason

    def child(self, *, max_rounds: int | None = None) -> RunOptions:
        """Options of a run delegated by this one: the same tokens, deadline, budgets and counters, its own rounds."""
        return replace(self, max_rounds=max_rounds, round_strategy=None, is_child=True, _end=_End())

    def is_over(self) -> bool:
        """Whether it is too late to begin."""
        cancelled = self.cancellation is not None and self.cancellation.is_cancelled
        return cancelled or (self.deadline is not None and time.time() >= self.deadline)

    @contextmanager
    def stoppable(self) -> Iterator[anyio.CancelScope]:
        """Run the block in a cancel scope that ends when the token is cancelled or the deadline passes.

        Raises:
            Cancelled: the token was cancelled before the block had ended.
            DeadlineExceeded: the deadline passed before the block had ended.
        """
        token = self.cancellation or CancellationToken()
        with anyio.CancelScope() as scope, token.bound_to(scope):
            if self.deadline is not None:
                scope.deadline = anyio.current_time() + (self.deadline - time.time())
            yield scope
        if scope.cancelled_caught:
            raise Cancelled(token.reason) if token.is_cancelled else DeadlineExceeded


class TurnLimits:
    """The counters of one run, checked before the thing they count happens."""

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        self.spent: Spent = options.spent
        self.rounds: int = 0
        options._end.reason = None
        if not options.is_child:
            self.spent.requests = self.spent.tools = self.spent.tokens = 0
            self.spent.cost = 0.0

    def begin_round(self) -> None:
        """Raises `DeadlineExceeded`, `MaxRoundsExceeded` or `ModelBudgetExceeded` before anything is taken up."""
        self._check_round()
        self.rounds += 1

    def _check_round(self) -> None:
        if self.options.deadline is not None and time.time() >= self.options.deadline:
            raise DeadlineExceeded
        if self.options.max_rounds is not None and self.rounds >= self.options.max_rounds:
            raise MaxRoundsExceeded(self.options.max_rounds)
        self._check_requests()

    def has_room(self) -> bool:
        """Whether another round may begin."""
        try:
            self._check_round()
        except (DeadlineExceeded, MaxRoundsExceeded, ModelBudgetExceeded):
            return False
        return True

    def _check_requests(self) -> None:
        if self.options.model_budget is not None and self.spent.requests >= self.options.model_budget:
            raise ModelBudgetExceeded(self.options.model_budget)

    def count_request(self) -> None:
        """Raises `ModelBudgetExceeded` instead of letting one request too many go out."""
        self._check_requests()
        self.spent.requests += 1

    def count_tools(self, batch: int) -> None:
        """Raises `ToolBudgetExceeded` when `batch` more calls would pass the budget; then none of them runs."""
        if self.options.tool_budget is not None and self.spent.tools + batch > self.options.tool_budget:
            raise ToolBudgetExceeded(self.options.tool_budget)
        self.spent.tools += batch

    def count_usage(self, tokens: int, cost: float) -> None:
        self.spent.tokens += tokens
        self.spent.cost += cost

    def early_end(self) -> EarlyEnd | None:
        """Why the run is to end at the end of a round, if it is."""
        options = self.options
        if options.stop is not None and options.stop.is_cancelled:
            return "stop_requested"
        if options.token_budget is not None and self.spent.tokens >= options.token_budget:
            return "token_budget"
        if options.cost_budget is not None and self.spent.cost >= options.cost_budget:
            return "cost_budget"
        return None

    def ends_early(self) -> bool:
        """Whether the run is to end here; says why on the options."""
        self.options._end.reason = self.early_end()
        return self.options._end.reason is not None

    def stop(self) -> None:
        """Say on the options that the run was asked to end here."""
        self.options._end.reason = "stop_requested"

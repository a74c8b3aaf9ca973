"""The limits of a turn: its options, the tokens that stop it, and the counters of its budgets.

A hard limit fails the turn before what it counts happens. A soft limit lets the round finish, and then ends the turn as
finished.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import anyio

from mentra_nb.errors import Cancelled, DeadlineExceeded, MaxRoundsExceeded, ModelBudgetExceeded, ToolBudgetExceeded

if TYPE_CHECKING:
    from mentra_nb.agent.strategy import RoundStrategy
    from mentra_nb.budget.meter import Meter


class CancellationToken:
    """A stop signal that cannot be taken back. Safe to use from any thread.

    Example:
        >>> token = mn.CancellationToken()
        >>> token.cancel("enough")
        >>> token.is_cancelled, token.reason
        (True, 'enough')
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._reason: str | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._reason is not None

    @property
    def reason(self) -> str:
        """The reason given to `cancel`, or `stopped`."""
        return self._reason or "stopped"

    def cancel(self, reason: str = "stopped") -> None:
        """Cancel every scope bound to this token. Later calls change nothing.

        Example:
            >>> token = mn.CancellationToken()
            >>> token.cancel("out of time")
            >>> token.cancel("too late")
            >>> token.reason
            'out of time'
        """
        with self._lock:
            if self._reason is not None:
                return
            self._reason = reason
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call `callback` when the token is cancelled inside the block, or was before. It runs on any thread."""
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
        """Cancel `scope` when the token is cancelled inside the block. Must be entered on the scope's event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        if self.is_cancelled:
            scope.cancel()

        def cancel() -> None:
            loop.call_soon_threadsafe(scope.cancel)

        with self.calling(cancel):
            yield


EarlyEnd = Literal["stop_requested", "token_budget", "cost_budget", "budget"]
"""Why a turn was ended as finished before the model was done."""


@dataclass
class Spent:
    """What a turn and the turns of its subagents have used so far. `cost` is in USD."""

    requests: int = 0
    tools: int = 0
    tokens: int = 0
    cost: float = 0.0
    _meter: Meter | None = field(default=None, init=False, compare=False, repr=False)


class _End:
    def __init__(self) -> None:
        self.reason: EarlyEnd | None = None


@dataclass(frozen=True)
class RunOptions:
    """The limits of one turn. `None` means no limit. Used by one turn at a time; each turn counts from zero.

    Subagents share the tokens, the deadline and the budgets. Soft limits finish and keep the round that reaches them;
    all others fail the turn.

    Example:
        >>> import time
        >>> options = mn.RunOptions(deadline=time.time() + 60, tool_budget=20, cost_budget=0.5)
        >>> options.is_over()
        False
    """

    cancellation: CancellationToken | None = None
    """Stops the turn at once."""
    stop: CancellationToken | None = None
    """Soft: ends the turn after the current round."""
    deadline: float | None = None
    """Unix time in seconds."""
    retry_budget: int = 5
    """Retries per model request."""
    tool_budget: int | None = None
    """Tool calls."""
    model_budget: int | None = None
    """Model requests, failed attempts included."""
    token_budget: int | None = None
    """Soft: input and output tokens, as providers count them."""
    cost_budget: float | None = None
    """Soft: USD, by the price list."""
    budgets: Mapping[Literal["turn", "session", "day", "project", "month"], str] = field(default_factory=dict)
    """What all turns of a period may use, such as `{"turn": "20k tokens", "day": "2usd, 100 calls"}`.

    Amounts are in `usd`, `tokens`, `calls` and `min`. Each request reserves the most it may cost before it is sent.
    Where one does not fit, a person is asked to go on with more; else the turn ends as finished.
    """
    reviewer: str | None = None
    """What advises on the questions put to a person: `model` for the model of the turn, or `provider/model`."""
    plan: bool = False
    """Offer only tools that read until a person has approved the model's answer, a plan; then it is carried out."""
    without_tools: bool = False
    """Let the model call no tool: it is told so, and a call that it makes all the same is refused."""
    context_window: int | None = None
    """The tokens that the model's context holds, where its provider does not tell."""
    max_rounds: int | None = None
    """Model answers."""
    retry_base: float = 0.5
    """Seconds: the longest wait before the first retry. It doubles with each retry."""
    retry_max: float = 5.0
    """Seconds: no wait becomes longer than this, unless the server asks for it."""
    retry_after_cap: float = 60.0
    """Seconds: the longest wait that a server may ask for."""
    round_strategy: RoundStrategy | None = None
    """Decides between the rounds how the turn continues. Subagents have none."""
    spent: Spent = field(default_factory=Spent, compare=False, repr=False)
    is_child: bool = field(default=False, repr=False)
    _end: _End = field(default_factory=_End, compare=False, repr=False)

    @property
    def ended_early(self) -> EarlyEnd | None:
        """Why the last turn with these options ended before the model was done; `None` if the model was done."""
        return self._end.reason

    def child(self, *, max_rounds: int | None = None) -> RunOptions:
        """Return options for a subagent: the same tokens, deadline, budgets and counters, but separate rounds."""
        return replace(self, max_rounds=max_rounds, round_strategy=None, is_child=True, _end=_End())

    def is_over(self) -> bool:
        """Return whether the turn was cancelled, or its deadline has passed."""
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
    """The counters of one turn. Each is checked before what it counts happens."""

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        self.spent: Spent = options.spent
        self.rounds: int = 0
        options._end.reason = None
        if not options.is_child:
            self.spent.requests = self.spent.tools = self.spent.tokens = 0
            self.spent.cost = 0.0
            self.spent._meter = None

    @property
    def meter(self) -> Meter | None:
        """What counts against `RunOptions.budgets`, of which subagents use their parent's; `None` without any."""
        return self.spent._meter

    def use_meter(self, meter: Meter) -> None:
        self.spent._meter = meter

    def begin_round(self) -> None:
        """Count a round. Raises `DeadlineExceeded`, `MaxRoundsExceeded` or `ModelBudgetExceeded` if none may begin."""
        self._check_round()
        self.rounds += 1

    def _check_round(self) -> None:
        if self.options.deadline is not None and time.time() >= self.options.deadline:
            raise DeadlineExceeded
        if self.options.max_rounds is not None and self.rounds >= self.options.max_rounds:
            raise MaxRoundsExceeded(self.options.max_rounds)
        self._check_requests()

    def has_room(self) -> bool:
        """Return whether another round may begin."""
        try:
            self._check_round()
        except (DeadlineExceeded, MaxRoundsExceeded, ModelBudgetExceeded):
            return False
        return True

    def _check_requests(self) -> None:
        if self.options.model_budget is not None and self.spent.requests >= self.options.model_budget:
            raise ModelBudgetExceeded(self.options.model_budget)

    def count_request(self) -> None:
        """Count a model request. Raises `ModelBudgetExceeded` if it would exceed the budget."""
        self._check_requests()
        self.spent.requests += 1

    def count_tools(self, batch: int) -> None:
        """Count `batch` tool calls. Raises `ToolBudgetExceeded` if they would exceed the budget; then none may run."""
        if self.options.tool_budget is not None and self.spent.tools + batch > self.options.tool_budget:
            raise ToolBudgetExceeded(self.options.tool_budget)
        self.spent.tools += batch

    def count_usage(self, tokens: int, cost: float) -> None:
        self.spent.tokens += tokens
        self.spent.cost += cost

    def early_end(self) -> EarlyEnd | None:
        """Return the soft limit that was reached, if any."""
        options = self.options
        if options.stop is not None and options.stop.is_cancelled:
            return "stop_requested"
        if options.token_budget is not None and self.spent.tokens >= options.token_budget:
            return "token_budget"
        if options.cost_budget is not None and self.spent.cost >= options.cost_budget:
            return "cost_budget"
        return None

    def ends_early(self) -> bool:
        """Return whether a soft limit was reached, and set `RunOptions.ended_early`."""
        self.options._end.reason = self.early_end()
        return self.options._end.reason is not None

    def end(self, reason: EarlyEnd) -> None:
        """Set `RunOptions.ended_early`."""
        self.options._end.reason = reason

"""Decisions between the rounds of a turn: what a strategy receives, and what it can return.

A strategy is one async callback in the options of a turn. It is asked after the results of tools were committed, unless
a tool ended the turn, a limit was reached, or steering is waiting; and after an answer without tool calls, unless a
limit was reached, or a source has messages that continue the turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mentra_nb.content import Message


class NamedModel(Protocol):
    """A model and its provider, by their ids; for example a `ModelInfo`."""

    @property
    def id(self) -> str: ...
    @property
    def provider(self) -> str: ...


@dataclass(frozen=True)
class ToolSummary:
    """A call of the round, and whether it failed."""

    id: str
    name: str
    is_error: bool


@dataclass(frozen=True)
class RoundContext:
    """The state of a turn. Its counts do not include subagents."""

    boundary: Literal["tool_results_committed", "assistant_message_committed"]
    message: Message
    """The message that was committed; an answer without content is not."""
    tools: tuple[ToolSummary, ...]
    """The calls of the round, in order; empty after an answer."""
    rounds_completed: int
    """The number of model answers."""
    model_requests: int
    """The number of requests sent, failed attempts included."""
    transport_retries: int
    """The number of those that were retries."""


@dataclass(frozen=True)
class Adjustment:
    """A change of model or effort from the next request on. Stored with the agent, as by its setters."""

    model: NamedModel | None = None
    """The new model; `None` keeps the current one."""
    reasoning_effort: str | None = "keep"
    """The new effort; `None` is the model's default, and `keep` keeps the current one."""


@dataclass(frozen=True)
class Continue:
    """Continue as without a strategy: take another round after tools, end the turn after an answer."""

    adjust: Adjustment | None = None


@dataclass(frozen=True)
class Inject:
    """Append this as a user message, and take another round."""

    content: str | Iterable[Any]
    adjust: Adjustment | None = None


@dataclass(frozen=True)
class Stop:
    """End the turn as finished, like `RunOptions.stop`."""


Decision = Continue | Inject | Stop
RoundStrategy = Callable[[RoundContext], Awaitable[Decision | None]]
"""`None` is `Continue()`. An exception fails the turn."""

"""Deciding between the rounds of a run: what a strategy is told, and what it can say.

A strategy is one async callback in the options of a run. It is asked where nothing else has decided already: after the
results of tools were committed, unless a tool ended the turn, a limit was reached, or a person has something to say
first; and after an answer that calls no tool, unless something else keeps the run going.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mentra_nb.content import Message


class NamedModel(Protocol):
    """A model and its provider, by their ids; such as a `ModelInfo`."""

    @property
    def id(self) -> str: ...
    @property
    def provider(self) -> str: ...


@dataclass(frozen=True)
class ToolSummary:
    """A call of the round, and how it ended."""

    id: str
    name: str
    is_error: bool


@dataclass(frozen=True)
class RoundContext:
    """Where a run stands. It counts what belongs to this run alone, and not to those it delegated."""

    boundary: Literal["tool_results_committed", "assistant_message_committed"]
    message: Message
    """What was committed; an answer without any content was not."""
    tools: tuple[ToolSummary, ...]
    """The calls of the round, in their order; none at an answer."""
    rounds_completed: int
    """Answers of the model."""
    model_requests: int
    """Requests that went out, failed attempts included."""
    transport_retries: int
    """Those of them that repeated a failed one."""


@dataclass(frozen=True)
class Adjustment:
    """What to ask, and how, from the next request of the run on. It is kept with the agent, as by its own setters."""

    model: NamedModel | None = None
    """Another model; `None` leaves it."""
    reasoning_effort: str | None = "keep"
    """Another effort, or `None` for the model's own; `keep` leaves it."""


@dataclass(frozen=True)
class Continue:
    """Go on as without a strategy: after tools with the next round, after an answer to the end."""

    adjust: Adjustment | None = None


@dataclass(frozen=True)
class Inject:
    """Say this as the user, and take another round."""

    content: str | Iterable[Any]
    adjust: Adjustment | None = None


@dataclass(frozen=True)
class Stop:
    """End the run well, as a graceful stop does."""


Decision = Continue | Inject | Stop
RoundStrategy = Callable[[RoundContext], Awaitable[Decision | None]]
"""`None` is `Continue()`. What it raises fails the run."""

"""Giving tasks to subagents during a turn: who made which, by which call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mentra_nb.agent.limits import RunOptions
from mentra_nb.event.types import TurnOrigin
from mentra_nb.tools.template import AgentTemplate
from mentra_nb.tools.tool import Delegate


@dataclass(eq=False, repr=False)
class Delegation:
    """The turn that gives tasks to subagents."""

    parent: Any
    """The agent whose turn it is."""
    options: RunOptions
    run_id: str
    origin: TurnOrigin
    give: Callable[[Delegation, str, str, AgentTemplate | None], Awaitable[str]]
    """Gives a task to a subagent for the call of an id, and returns its answer."""
    made: dict[str, list[str]] = field(default_factory=dict)
    """By call id: the ids of the subagents it has made, until its result takes them."""

    def during(self, call_id: str) -> Delegate:
        """Return what the call of that id gives tasks with."""
        return partial(self.give, self, call_id)

    def take(self, call_id: str) -> tuple[str, ...]:
        """Return the ids of the subagents that a call has made, once."""
        return tuple(self.made.pop(call_id, ()))

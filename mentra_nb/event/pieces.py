"""What all events of an agent are, and the events that are the pieces of an answer.

An answer has thousands of pieces, and nothing writes them down, so they are plain objects that nothing checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar


class AgentEvent:
    """Something that happened in an agent."""

    __slots__ = ()
    is_recorded: ClassVar[bool] = False
    if TYPE_CHECKING:
        agent_id: str


@dataclass(slots=True)
class TextDelta(AgentEvent):
    agent_id: str
    delta: str


@dataclass(slots=True)
class ReasoningDelta(AgentEvent):
    agent_id: str
    delta: str


@dataclass(slots=True)
class ToolUseUpdated(AgentEvent):
    """A piece of a call's arguments."""

    agent_id: str
    index: int
    id: str
    name: str
    delta: str

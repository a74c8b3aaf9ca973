"""What a turn gives back: the answer as a value, with what it used and what it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mentra_nb.content import TokenUsage


@dataclass(frozen=True)
class ToolCallSummary:
    """A call of the turn. `duration_ms` is `None` when it never ran."""

    name: str
    summary: str
    is_error: bool
    duration_ms: int | None


@dataclass
class Reply:
    """The answer of one turn. `str(reply)` is its text.

    `usage` counts tokens over the whole turn; `seconds` is wall time; `cost` is in US dollars, `None` when no price is
    known for the model.
    """

    text: str
    model: str
    session: str
    turn_id: str
    stop_reason: str
    seconds: float
    usage: TokenUsage
    cost: float | None = None
    tools: list[ToolCallSummary] = field(default_factory=list)
    notice: str | None = None
    shown: bool = False
    """Whether a screen already showed it; then the first display of this value stays silent."""

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        first = self.text.strip().splitlines()[0] if self.text.strip() else "(no text)"
        return f"<Reply {first[:60]!r} from {self.model}, {len(self.tools)} tool calls>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": self.text}

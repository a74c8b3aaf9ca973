"""What a subagent is made from, where it is not as its parent."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class AgentTemplate(NamedTuple):
    """A kind of subagent: a file of Markdown whose body is its system prompt.

    Args:
        name: The name by which a model asks for it.
        description: What it is for, in one line.
        prompt: Its system prompt.
        tools: Names of the tools that it is offered of its parent's; `None` for all.
        model: As `provider/model`; `None` for the parent's.
        max_rounds: How many answers it may take; `None` for the usual number.
        path: Its file, if it has one.

    Example:
        >>> mn.AgentTemplate("reviewer", "Finds mistakes in code.", "You review code.", tools=("read",)).model is None
        True
    """

    name: str
    description: str
    prompt: str
    tools: tuple[str, ...] | None = None
    model: str | None = None
    max_rounds: int | None = None
    path: Path | None = None

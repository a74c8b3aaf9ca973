"""How the teams of a runtime work."""

from __future__ import annotations

from pydantic import Field

from mentra_nb.content import Data


class TeamConfig(Data):
    """How the teams of a runtime work; given to `Runtime.register_context`, for agents with `team_tools`.

    Example:
        >>> async with mn.Runtime(tools=[*mn.team_tools(), *mn.task_tools()], store=mn.VolatileStore()) as runtime:
        ...     runtime.register_context(mn.TeamConfig(claims=True, idle_timeout=60))
    """

    claims: bool = False
    """Whether a teammate without work claims a task of the lead's board that is ready and has no owner."""
    idle_timeout: float | None = Field(default=None, gt=0)
    """Seconds after which a teammate without work shuts down; `None`: it waits on. One whose turn failed waits on."""
    max_members: int = Field(default=20, ge=1)
    """Teammates that work in one team at the same time."""

"""How an agent remembers, and whose memories it shares."""

from typing import Literal

from pydantic import Field

from mentra_nb.content import Data

Scope = Literal["agent", "project", "global"]

GLOBAL = "global"
"""The owner of memories that all agents find."""


class MemoryConfig(Data):
    """How the agents of a runtime remember; given to `Runtime.register_context`, for agents with `memory_tools`.

    Example:
        >>> provider = mn.ScriptedProvider([mn.scripted.text("Hello, Ada.")])
        >>> async with mn.Runtime([provider], tools=mn.memory_tools(), store=mn.VolatileStore()) as runtime:
        ...     runtime.register_context(mn.MemoryConfig(scope="project", auto_recall_limit=5))
        ...     agent = await runtime.spawn("greeter", mn.ModelInfo(id="scripted", provider="scripted"))
        ...     answer = await agent.send("My name is Ada.")
    """

    enabled: bool = True
    """Whether anything is remembered and recalled."""
    scope: Literal["agent", "project", "global"] = "agent"
    """Where what is remembered goes. It is found there and in the narrower scopes."""
    auto_recall_enabled: bool = True
    """Whether each turn is given what a search for its question finds."""
    auto_recall_limit: int = Field(default=3, ge=0)
    """The most memories that a turn is given so."""
    auto_recall_char_budget: int = Field(default=2000, ge=0)
    """The most characters of these, about three for a token."""
    tool_search_limit: int = Field(default=10, ge=1)
    """The most that `memory_search` returns."""
    write_tools_enabled: bool = True
    """Whether the model may pin and forget."""


def project_owner(project: str) -> str:
    """Return the owner of the memories of a project, which is named by its folder."""
    return f"project:{project}"


def owners_in(scope: Scope, agent_id: str, project: str) -> tuple[str, ...]:
    """Return the owners whose memories are found in a scope. The first has what is remembered.

    Example:
        >>> owners_in("project", "agent-1", "/data/sales")
        ('project:/data/sales', 'agent-1')
    """
    widest_last = (agent_id, project_owner(project), GLOBAL)
    return tuple(reversed(widest_last[: 1 + ("agent", "project", "global").index(scope)]))

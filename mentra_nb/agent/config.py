"""The settings of an agent, which are stored with it."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from pydantic import Field

from mentra_nb.content import Data
from mentra_nb.providers.base import ResponseFormat, ToolChoice


class AgentConfig(Data):
    """The settings of an agent. Stored with the agent, and used again when it is resumed.

    Fields without a description mean the same as in `Request`.

    Example:
        >>> config = mn.AgentConfig(system="Answer in French.", tools=("read",), reasoning_effort="low")
        >>> config.offers("shell")
        False
    """

    system: str | None = None
    """The system prompt."""
    tools: tuple[str, ...] | None = None
    """The names of the tools that the agent is offered; `None` is all."""
    hidden_tools: tuple[str, ...] = ()
    """The names of tools that it is not offered, even if they are in `tools`."""
    temperature: float | None = None
    max_output_tokens: int | None = 8192
    """Per answer."""
    reasoning_effort: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    reasoning_summary: str | None = None
    response_format: ResponseFormat | None = None
    parallel_tool_calls: bool | None = None
    tool_search: bool = False
    """Whether the provider searches among the deferred tools; without it `search_tools` does."""
    prompt_cache_key: str | None = None
    tool_choice: ToolChoice = ToolChoice()
    loaded_tools: tuple[str, ...] = ()
    """Set by the agent: deferred tools that a search has found, and others that are offered once they are needed."""
    planning: bool = False
    """Set by the agent: only tools that read are offered until a person has approved the plan of the turn."""

    task_board: str | None = None
    """The name of its task board, which it shares with the agents that have the same; `None` for one of its own."""
    teammate: str | None = None
    """The name of the member of a team that it is, or is a subagent of; a lead has none."""

    def offers(self, name: str) -> bool:
        """Return whether the agent is offered this tool. `hidden_tools` overrides `tools`."""
        return name not in self.hidden_tools and (self.tools is None or name in self.tools)


def stored_config(members: dict[str, Any]) -> AgentConfig:
    """Return the settings that an agent is stored with. Equal settings are one object, as most agents have them."""
    return _stored(json.dumps(members))


@lru_cache(maxsize=64)
def _stored(text: str) -> AgentConfig:
    return AgentConfig.model_validate(json.loads(text))

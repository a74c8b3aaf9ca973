"""A model request: the system text, the conversation, and the tools in a fixed order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pydantic import Field

from mentra_nb.agent.environment import AgentEnvironment
from mentra_nb.content import Data, Sendable
from mentra_nb.providers.base import Request, ResponseFormat, ToolChoice


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
    prompt_cache_key: str | None = None
    tool_choice: ToolChoice = ToolChoice()

    def offers(self, name: str) -> bool:
        """Return whether the agent is offered this tool. `hidden_tools` overrides `tools`."""
        return name not in self.hidden_tools and (self.tools is None or name in self.tools)


def stored_config(members: dict[str, Any]) -> AgentConfig:
    """Return the settings that an agent is stored with. Equal settings are one object, as most agents have them."""
    return _stored(json.dumps(members))


@lru_cache(maxsize=64)
def _stored(text: str) -> AgentConfig:
    return AgentConfig.model_validate(json.loads(text))


def assemble(model: str, config: AgentConfig, messages: Sequence[Sendable], environment: AgentEnvironment) -> Request:
    """Return the next request. Tools are sorted by name, so that the same set is always sent alike and is cached."""
    tools = environment.tools
    offered = [tools[name].spec.wire for name in sorted(tools) if config.offers(name)]
    sections = [config.system, *(section(config.offers) for section in environment.system_sections)]
    return Request(
        model=model,
        system="\n\n".join(section for section in sections if section) or None,
        messages=messages,
        tools=offered,
        tool_choice=_choice(config) if offered else None,
        temperature=config.temperature,
        max_output_tokens=config.max_output_tokens,
        reasoning_effort=config.reasoning_effort,
        reasoning_summary=config.reasoning_summary,
        metadata=config.metadata,
        response_format=config.response_format,
        parallel_tool_calls=config.parallel_tool_calls,
        tool_search=config.tool_search,
        prompt_cache_key=config.prompt_cache_key,
    )


def _choice(config: AgentConfig) -> ToolChoice:
    """Return the configured choice, or the default one if it forces a tool that the agent is not offered."""
    choice = config.tool_choice
    return ToolChoice() if choice.mode == "tool" and not config.offers(choice.name or "") else choice

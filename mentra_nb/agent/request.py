"""A model request: the system text, the conversation, and the tools in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence

from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.environment import AgentEnvironment
from mentra_nb.agent.toolbox import Toolbox
from mentra_nb.content import Sendable
from mentra_nb.providers.base import Request, ToolChoice


def assemble(
    model: str, config: AgentConfig, messages: Sequence[Sendable], environment: AgentEnvironment, toolbox: Toolbox
) -> Request:
    """Return the next request."""
    offered = toolbox.described()
    sections = [config.system, *(section(config.offers) for section in environment.system_sections), toolbox.section()]
    return Request(
        model=model,
        system="\n\n".join(section for section in sections if section) or None,
        messages=messages,
        tools=offered,
        tool_choice=_choice(config, toolbox) if offered else None,
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


def _choice(config: AgentConfig, toolbox: Toolbox) -> ToolChoice:
    """Return the configured choice, or the default one if it forces a tool that the agent is not offered."""
    choice = config.tool_choice
    return ToolChoice() if choice.mode == "tool" and not toolbox.offers(choice.name or "") else choice

"""How the parts of a turn are put together, before it begins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from mentra_nb.agent.calls import Caller
from mentra_nb.agent.delegation import Delegation
from mentra_nb.agent.limits import RunOptions, TurnLimits
from mentra_nb.agent.output import OutputTool
from mentra_nb.agent.scheduler import Scheduler
from mentra_nb.agent.steering import RoundSource
from mentra_nb.agent.toolbox import Toolbox
from mentra_nb.agent.turn import Turn
from mentra_nb.event.types import TurnOrigin
from mentra_nb.ids import new_id
from mentra_nb.providers.base import ToolChoice
from mentra_nb.tools.profile import whatever_is_offered

if TYPE_CHECKING:
    from mentra_nb.agent.config import AgentConfig
    from mentra_nb.agent.environment import AgentEnvironment
    from mentra_nb.agent.strategy import Adjustment
    from mentra_nb.agent.transcript import Transcript
    from mentra_nb.providers.base import Provider

T = TypeVar("T")


class AgentParts(Protocol):
    """What an agent has that a turn uses."""

    id: str
    name: str
    model: str
    config: AgentConfig
    provider: Provider
    environment: AgentEnvironment
    transcript: Transcript
    companions: dict[type[Any], Any]

    @property
    def status(self) -> str: ...
    def add_source(self, source: RoundSource) -> None: ...


def new_turn(
    agent: AgentParts,
    options: RunOptions,
    origin: TurnOrigin,
    answer_tool: OutputTool | None,
    sources: Sequence[RoundSource],
    change: Callable[[dict[str, Any]], Awaitable[None]],
    adjust: Callable[[Adjustment], Awaitable[None]],
) -> Turn:
    """Return a turn of `agent`, not begun yet.

    `change` changes settings of the agent, and `adjust` does what a strategy asks for; both are stored with the agent.
    """
    run_id, limits = new_id("run"), TurnLimits(options)
    config, environment = agent.config, agent.environment
    if answer_tool is not None:
        config, environment = answer_tool.config(config), answer_tool.environment(environment)
    elif options.without_tools:
        config = config.model_copy(update={"tool_choice": ToolChoice("none")})
    for tool in whatever_is_offered(agent.environment.tools).values():
        if tool.companion is not None:
            companion(agent, tool.companion)
    return Turn(
        id=run_id,
        agent_id=agent.id,
        model=agent.model,
        config=config,
        provider=agent.provider,
        environment=environment,
        transcript=agent.transcript,
        limits=limits,
        scheduler=Scheduler(
            environment,
            Caller(agent.id, agent.name, agent.model, run_id),
            limits,
            Toolbox(environment.tools, config, change),
            Delegation(agent, options, run_id, origin, environment.delegate) if environment.delegate else None,
            answer_tool,
            agent.companions,
        ),
        adjust=adjust,
        sources=sources,
        phase=agent.status,
    )


def companion(agent: AgentParts, kind: type[T]) -> T:
    """Return what an agent keeps for the tools with that `Tool.companion`. The first call makes it."""
    if kind not in agent.companions:
        made = agent.companions[kind] = kind(agent)  # type: ignore[call-arg]
        agent.add_source(cast("RoundSource", made))
    return cast("T", agent.companions[kind])

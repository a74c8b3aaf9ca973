"""What owns an agent: it hears of its turns, and makes the agents that live beside it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from mentra_nb.agent.config import AgentConfig
    from mentra_nb.agent.environment import AgentEnvironment
    from mentra_nb.providers.base import ModelInfo
    from mentra_nb.store.records import AgentKind


class AgentMaker(Protocol):
    """Creates and loads agents (`Agent`), with their leases."""

    def create(
        self,
        name: str,
        model: ModelInfo,
        config: AgentConfig,
        environment: AgentEnvironment,
        *,
        kind: AgentKind = "agent",
        parent_id: str | None = None,
    ) -> Awaitable[Any]:
        """Store a new agent and return it. Raises `ProviderNotFound` or `StoreError`."""
        ...

    def load(self, agent_id: str, environment: AgentEnvironment) -> Awaitable[Any]:
        """Load a stored agent. Raises `LeaseUnavailable`, `OperationDenied`, `ProviderNotFound`, `StoreError`."""
        ...


class AgentHome(Protocol):
    """The owner of an agent, notified when a turn begins and has ended, and when the agent is closed."""

    maker: AgentMaker | None
    teams: dict[str, Any]
    """The teams at work, by the id of the lead."""

    def turn_began(self) -> None: ...
    def turn_ended(self, agent: Any) -> None: ...
    async def closed(self, agent: Any) -> None: ...

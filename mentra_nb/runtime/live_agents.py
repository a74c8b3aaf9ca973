"""The agents that live in this runtime, and which of them have their conversations in memory."""

from __future__ import annotations

from weakref import WeakValueDictionary

from mentra_nb.agent.agent import Agent
from mentra_nb.errors import OperationDenied
from mentra_nb.runtime.leases import Leases

WARM = 16
"""Agents whose conversations stay in memory between their turns: those used last."""


class LiveAgents:
    """An `AgentHome`. An agent nobody holds any more is gone from here too."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._agents: WeakValueDictionary[str, Agent] = WeakValueDictionary()
        self._warm: dict[str, None] = {}

    def add(self, agent: Agent) -> Agent:
        """Put it in the place of one of the same id."""
        self._agents[agent.id] = agent
        agent.home = self
        return agent

    def idle(self, agent_id: str) -> Agent | None:
        """The agent as it lives here, if it does. Raises `OperationDenied` while it takes a turn."""
        agent = self._agents.get(agent_id)
        if agent is not None and agent.is_running:
            raise OperationDenied(f"agent '{agent.name}' is taking a turn: stop it first")
        return agent

    def turn_ended(self, agent: Agent) -> None:
        self._warm.pop(agent.id, None)
        self._warm[agent.id] = None
        if len(self._warm) > WARM:
            oldest = self._agents.get(coldest := next(iter(self._warm)))
            del self._warm[coldest]
            if oldest is not None:
                oldest.unload()

    async def closed(self, agent: Agent) -> None:
        self._warm.pop(agent.id, None)
        await self._leases.release(agent.id)

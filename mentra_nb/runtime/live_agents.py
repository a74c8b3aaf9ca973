"""The loaded agents of a runtime, and which of them keep their conversations in memory."""

from __future__ import annotations

from weakref import WeakValueDictionary

from mentra_nb.agent.agent import Agent
from mentra_nb.errors import OperationDenied
from mentra_nb.runtime.leases import Leases

WARM = 16
"""How many of the most recently used agents keep their conversations in memory between turns."""


class LiveAgents:
    """The `AgentHome` of a runtime. It holds agents weakly."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._agents: WeakValueDictionary[str, Agent] = WeakValueDictionary()
        self._warm: dict[str, None] = {}

    def add(self, agent: Agent) -> Agent:
        """Add an agent and return it. It replaces one of the same id."""
        self._agents[agent.id] = agent
        agent.home = self
        return agent

    def idle(self, agent_id: str) -> Agent | None:
        """Return the loaded agent, if any. Raises `OperationDenied` while it takes a turn."""
        agent = self._agents.get(agent_id)
        if agent is not None and agent.is_running:
            raise OperationDenied(f"agent '{agent.name}' is taking a turn: stop it first")
        return agent

    def turn_ended(self, agent: Agent) -> None:
        """Mark an agent as used, and unload the one that was not used for the longest time."""
        self._warm.pop(agent.id, None)
        self._warm[agent.id] = None
        if len(self._warm) > WARM:
            oldest = self._agents.get(coldest := next(iter(self._warm)))
            del self._warm[coldest]
            if oldest is not None:
                oldest.unload()

    async def closed(self, agent: Agent) -> None:
        """Release the lease of an agent."""
        self._warm.pop(agent.id, None)
        await self._leases.release(agent.id)

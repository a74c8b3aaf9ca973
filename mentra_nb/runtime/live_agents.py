"""The loaded agents of a runtime, and which of them keep their conversations in memory."""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.home import AgentMaker
from mentra_nb.errors import OperationDenied
from mentra_nb.runtime.leases import Leases

WARM = 16
"""How many of the most recently used agents keep their conversations in memory between turns, at least.

When more take turns at the same time, as many do until fewer have: these were all in memory at once anyhow, and would
have to be read again for their next turns.
"""


class LiveAgents:
    """The `AgentHome` of a runtime. It holds agents weakly."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self.maker: AgentMaker | None = None
        self.teams: dict[str, Any] = {}
        self._agents: WeakValueDictionary[str, Agent] = WeakValueDictionary()
        self._warm: dict[str, None] = {}
        self._running = self._together = self._together_before = 0
        """How many take turns now, and how many did at the same time since none did and before that."""

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

    def turn_began(self) -> None:
        """Count a turn that runs."""
        if not self._running:
            self._together, self._together_before = 0, self._together
        self._running += 1
        self._together = max(self._together, self._running)

    def turn_ended(self, agent: Agent) -> None:
        """Mark an agent as used, and unload those that were not used for the longest time."""
        self._running -= 1
        self._warm.pop(agent.id, None)
        self._warm[agent.id] = None
        while len(self._warm) > max(WARM, self._together, self._together_before):
            oldest = self._agents.get(coldest := next(iter(self._warm)))
            del self._warm[coldest]
            if oldest is not None:
                oldest.unload()

    async def closed(self, agent: Agent) -> None:
        """Release the lease of an agent."""
        self._warm.pop(agent.id, None)
        await self._leases.release(agent.id)

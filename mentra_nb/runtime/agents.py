"""How the agents of a runtime are created, and loaded from the store under a lease."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from mentra_nb.agent import recovery
from mentra_nb.agent.agent import Agent
from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.environment import AgentEnvironment
from mentra_nb.agent.job_results import JobResults
from mentra_nb.agent.said import SaidKeeper, restore
from mentra_nb.agent.transcript import Transcript
from mentra_nb.background.jobs import Jobs
from mentra_nb.content import Data
from mentra_nb.errors import StoreError
from mentra_nb.ids import new_id
from mentra_nb.providers.base import ModelInfo
from mentra_nb.providers.registry import ProviderRegistry
from mentra_nb.runtime.leases import Leases
from mentra_nb.runtime.live_agents import LiveAgents
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.store.records import AgentKind, AgentRecord, StoredConversation

ModelChoice = ModelInfo | Callable[[ModelInfo | None], Awaitable[ModelInfo]]
"""A model, or a function that chooses one when it is given the stored model (`None` if nothing is stored)."""


async def chosen(choice: ModelChoice, stored: ModelInfo | None) -> ModelInfo:
    """Return the model of a choice."""
    return choice if isinstance(choice, ModelInfo) else await choice(stored)


class PersistedAgentSummary(Data):
    """A stored agent that is not loaded. `history_len` is the number of messages of its active branch.

    `status` is that of `AgentSnapshot`, or `Running`: a turn is running, or its process died.
    """

    id: str
    runtime_identifier: str
    name: str
    is_teammate: bool = False
    status: str
    history_len: int


class Agents:
    """Creates and loads the agents of one runtime."""

    def __init__(
        self,
        store: RuntimeStore,
        providers: ProviderRegistry,
        leases: Leases,
        live: LiveAgents,
        jobs: Jobs,
        identifier: str,
    ) -> None:
        self._store, self._providers, self._jobs = store, providers, jobs
        self._leases, self._live = leases, live
        live.maker = self
        self._identifier = identifier

    async def create(
        self,
        name: str,
        model: ModelInfo,
        config: AgentConfig,
        environment: AgentEnvironment,
        *,
        kind: AgentKind = "agent",
        parent_id: str | None = None,
    ) -> Agent:
        """Store a new agent, take its lease and return it. Raises `ProviderNotFound` or `StoreError`."""
        provider, now = self._providers.get(model.provider), time.time()
        record = AgentRecord(
            id=new_id("agent"),
            runtime_identifier=self._identifier,
            name=name,
            model=model.id,
            provider_id=model.provider,
            config=config.model_dump(mode="json"),
            kind=kind,
            parent_id=parent_id,
            created_at=now,
            updated_at=now,
        )
        await self._leases.take(record.id)
        try:
            await self._store.create_agent(record)
        except BaseException:
            await self._leases.release(record.id)
            raise
        agent = self._live.add(Agent(record, provider, environment))
        await self._jobs.attach(agent.id, environment.bus, has_jobs=False)
        agent.add_source(JobResults(self._jobs, agent.transcript))
        agent.steering.keeper = SaidKeeper(self._store, agent.id)
        return agent

    async def load(self, agent_id: str, environment: AgentEnvironment, model: ModelChoice | None = None) -> Agent:
        """Take the lease of a stored agent, settle its dead turns and return it, on its stored model or another.

        Raises:
            LeaseUnavailable: another process has it; nothing was changed.
            OperationDenied: it is taking a turn in this runtime.
            ProviderNotFound, StoreError
        """
        before, held = self._live.idle(agent_id), self._leases.has(agent_id)
        await self._leases.take(agent_id)
        try:
            stored = await self._stored(agent_id)
            own = ModelInfo(id=stored.agent.model, provider=stored.agent.provider_id)
            used = own if model is None else await chosen(model, own)
            provider = self._providers.get(used.provider)
            settled = recovery.Settled(stored.agent, stored.path_length)
            if before is None:
                settled = await recovery.settle_dead_runs(self._store, stored, environment.bus, environment.holder)
            await self._jobs.attach(agent_id, environment.bus, has_jobs=stored.has_jobs)
        except BaseException:
            if not held:
                await self._leases.release(agent_id)
            raise
        if before is not None:
            before.detach("it was resumed again in this runtime")
        record = settled.agent.model_copy(update={"model": used.id, "provider_id": used.provider})
        transcript = Transcript.stored(agent_id, self._store, record.leaf, settled.path_length)
        agent = Agent(record, provider, environment, transcript)
        agent.settled = settled if settled.end is not None else None
        agent.add_source(JobResults(self._jobs, transcript))
        if stored.has_said:
            failed = stored.latest_run is not None and stored.latest_run.state == "failed"
            await restore(agent.steering, self._store, agent_id, failed=failed)
        agent.steering.keeper = SaidKeeper(self._store, agent_id)
        return self._live.add(agent)

    async def check_free(self, agent_id: str) -> None:
        """Raise `LeaseUnavailable` if another process has a stored agent."""
        await self._leases.check(agent_id)

    async def load_all(
        self, identifier: str | None, environment: Callable[[], AgentEnvironment], *, revive: bool = False
    ) -> list[Agent]:
        """Load every stored agent of a runtime identifier (`None`: of any), or none. Raises as `load`.

        Teammates are not among them. With `revive` those of the agents that were loaded go to work again.
        """
        records = [record for record in await self._store.list_agents(identifier) if record.kind != "teammate"]
        for record in records:
            self._live.idle(record.id)
        loaded: list[Agent] = []
        try:
            for record in records:
                loaded.append(await self.load(record.id, environment()))
            for agent in loaded if revive else ():
                if await self._store.list_members(agent.id):
                    from mentra_nb.teams import joining
                    from mentra_nb.teams.team import team_of

                    await joining.revive(team_of(agent))
        except BaseException:
            for agent in loaded:
                await agent.close()
            raise
        return loaded

    async def summaries(self, identifier: str) -> list[PersistedAgentSummary]:
        """Return the stored agents of a runtime identifier, oldest first."""
        return [
            PersistedAgentSummary(
                id=record.id,
                runtime_identifier=record.runtime_identifier,
                name=record.name,
                is_teammate=record.kind == "teammate",
                status=record.status,
                history_len=await self._store.path_length(record.id, record.leaf),
            )
            for record in await self._store.list_agents(identifier)
        ]

    async def _stored(self, agent_id: str) -> StoredConversation:
        stored = await self._store.load_conversation(agent_id)
        if stored is None:
            raise StoreError(f"there is no stored agent '{agent_id}'")
        return stored

"""How the sessions of a runtime are found, created, and loaded from the store."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from functools import partial

import anyio

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.environment import AgentEnvironment
from mentra_nb.errors import LeaseUnavailable, StoreError
from mentra_nb.ids import new_id
from mentra_nb.permission.asking import AskMode, SessionPermissions
from mentra_nb.providers.base import ModelInfo
from mentra_nb.runtime.agents import Agents, ModelChoice
from mentra_nb.runtime.offers import fitting
from mentra_nb.runtime.session import Session, new_record
from mentra_nb.runtime.wiring import Wiring
from mentra_nb.store.records import SessionRecord
from mentra_nb.tools.tool import Tool

OwnTools = MutableMapping[str, Tool] | None
"""The tools of one session only. The mapping may change later."""


@contextmanager
def _in_use_as(record: SessionRecord, known_as: str) -> Iterator[None]:
    """Let `LeaseUnavailable` name the session, not its agent."""
    try:
        yield
    except LeaseUnavailable as busy:
        named = str(busy).replace(f"agent '{record.agent_id}'", f"conversation '{known_as}'")
        raise LeaseUnavailable(named) from busy


class Sessions:
    """The sessions of one runtime."""

    def __init__(self, wiring: Wiring, agents: Agents) -> None:
        self._wiring, self._store, self._agents = wiring, wiring.store, agents

    async def create(
        self,
        name: str | None,
        model: ModelInfo,
        config: AgentConfig | None,
        project: str | None,
        notebook: str | None,
        ask: AskMode,
        tools: OwnTools,
        session_id: str | None,
    ) -> Session:
        """Store a new agent and a session for it; without a name only its id finds it.

        Raises `ProviderNotFound` or `StoreError`.
        """
        permissions, environment = self._asking(session_id or new_id("session"), project, ask, tools)
        agent = await self._agents.create(name or "mentra", model, config or AgentConfig(), environment)
        record = new_record(permissions.session_id, name or permissions.session_id, agent, project, notebook)
        return await self._stored(record, agent, permissions)

    async def resume(
        self, agent_id: str, project: str | None, ask: AskMode, tools: OwnTools, model: ModelChoice | None
    ) -> Session:
        """Load a session by its id or name or the id of its agent. An agent without a session gets one.

        Raises:
            StoreError: there is no such agent or session.
            LeaseUnavailable: another process has it.
            ProviderNotFound: its model's provider is not registered.
        """
        stored = await self._store.load_conversation(agent_id, project)
        if stored is None:
            raise StoreError(f"there is no stored session '{agent_id}'")
        if stored.session is not None:
            return await self.load(stored.session, agent_id, ask, tools, model)
        permissions, environment = self._asking(new_id("session"), project, ask, tools)
        agent = await self._agents.load(agent_id, environment, model)
        record = new_record(permissions.session_id, agent.name, agent, project, None)
        return await self._stored(record, agent, permissions)

    async def find(
        self, name: str | None, project: str | None, notebook: str | None, *, last: bool
    ) -> SessionRecord | None:
        """Return the stored session of that id or name, or the `last` one of a notebook, if there is one."""
        if last:
            return await self._store.last_session(project, notebook)
        return await self._store.load_session(name, project) if name is not None else None

    async def load(
        self, record: SessionRecord, known_as: str, ask: AskMode, tools: OwnTools, model: ModelChoice | None
    ) -> Session:
        """Load a stored session; errors call it `known_as`. Raises `LeaseUnavailable`, `ProviderNotFound`."""
        permissions, environment = self._asking(record.id, record.project, ask, tools)
        with _in_use_as(record, known_as):
            agent = await self._agents.load(record.agent_id, environment, model)
        return Session(record, agent, permissions, resumed=True)

    async def check_free(self, record: SessionRecord, known_as: str) -> None:
        """Raise `LeaseUnavailable`, which calls it `known_as`, if another process has a stored session."""
        with _in_use_as(record, known_as):
            await self._agents.check_free(record.agent_id)

    async def _stored(self, record: SessionRecord, agent: Agent, permissions: SessionPermissions) -> Session:
        """Store a new session and return it. The agent is released if that fails or is stopped."""
        try:
            await self._store.save_session(record)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await agent.close()
            raise
        return Session(record, agent, permissions, resumed=False)

    def _asking(
        self, session_id: str, project: str | None, ask: AskMode, tools: OwnTools
    ) -> tuple[SessionPermissions, AgentEnvironment]:
        """Return the permissions of a session and the environment of its agent, both on a bus for this session."""
        permissions = SessionPermissions(
            session_id, self._wiring.bus.child(), self._store, inner=self._wiring.authorizer, project=project, ask=ask
        )
        environment = self._wiring.environment(permissions.bus, permissions, tools if tools is not None else {})
        permissions.fits = partial(fitting, environment.tools)
        return permissions, environment

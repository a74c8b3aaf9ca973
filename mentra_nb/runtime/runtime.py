"""The composition root: puts providers, tools, policy, store and record together, and makes agents and sessions.

It wires and does nothing else; what it hands out does the work.
"""

from __future__ import annotations

import time
from collections import ChainMap
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.environment import AgentEnvironment
from mentra_nb.agent.request import AgentConfig
from mentra_nb.agent.subagent import delegate
from mentra_nb.authorization import ToolAuthorizer
from mentra_nb.errors import (
    ConfigurationError,
    LeaseUnavailable,
    OperationDenied,
    StoreError,
)
from mentra_nb.event.bus import AuditStore, EventBus, RuntimeHook, RuntimeHooks
from mentra_nb.event.types import RecoveryPrepared
from mentra_nb.ids import new_id
from mentra_nb.permission.asking import AskMode, SessionPermissions, expired
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers.base import ModelInfo, ModelSelector, Provider, ProviderDescriptor
from mentra_nb.providers.registry import PRESETS, ProviderRegistry, builtin
from mentra_nb.runtime import defaults
from mentra_nb.runtime.agents import Agents, ModelChoice, PersistedAgentSummary, chosen
from mentra_nb.runtime.leases import Leases
from mentra_nb.runtime.live_agents import LiveAgents
from mentra_nb.runtime.models import listed, newest
from mentra_nb.runtime.session import Session, new_record
from mentra_nb.sandbox.executor import LocalExecutor, RuntimeExecutor
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.store.records import SessionRecord
from mentra_nb.tools.pre_hooks import PreExecutionHook
from mentra_nb.tools.tool import Tool, ToolSpec, as_tool

if TYPE_CHECKING:
    from mentra_nb.providers.http import HttpClient
    from mentra_nb.tools.builtin.skills import Skill, Skills

T = TypeVar("T")
OwnTools = MutableMapping[str, Tool] | None
QUESTION_GRACE = 60.0
"""Seconds after its deadline in which only the process that asked a question closes it."""


class Runtime:
    """Providers, tools and stores, and the agents and sessions that use them.

    Use it as an async context manager, or call `close()`. The constructor opens no file and no connection.

    Args:
        providers: The first one is the default.
        tools: Tools or plain functions, offered to every agent.
        builtin_tools: Also offer `read`, `write` and `shell`.
        policy: What tools may do; by default no shell commands.
        hooks: Hear every event after the record did.
        pre_hooks: Are asked before every tool call.
        authorizer: Decides about tool calls before the rules and the person. Without one an agent outside of a session
            only runs what reads; `allow_everything` asks nobody.
        store: By default `state.sqlite` in `MENTRA_HOME`, or what `MENTRA_STATE` names.
        audit: The record; by default `record/` in `MENTRA_HOME`, or what `MENTRA_RECORD` names.
        executor: Runs shell commands.
        skills: Folders of skills.
        working_directory: Of the tools; by default the current one.
        identifier: Stored with agents, so that `resume` finds them.

    Example:
        >>> async with mn.Runtime([mn.ScriptedProvider([mn.scripted.text("Hello.")])]) as runtime:
        ...     agent = await runtime.spawn("greeter", mn.ModelInfo(id="scripted", provider="scripted"))
        ...     print((await agent.send("Say hello.")).text())
        Hello.
    """

    def __init__(
        self,
        providers: Iterable[Provider] = (),
        tools: Iterable[Tool | Callable[..., Any]] = (),
        *,
        builtin_tools: bool = True,
        policy: RuntimePolicy | None = None,
        hooks: Iterable[RuntimeHook] = (),
        pre_hooks: Iterable[PreExecutionHook] = (),
        authorizer: ToolAuthorizer | None = None,
        store: RuntimeStore | None = None,
        audit: AuditStore | None = None,
        executor: RuntimeExecutor | None = None,
        skills: Iterable[Path | str] = (),
        working_directory: Path | None = None,
        identifier: str = "default",
    ) -> None:
        self.id: str = new_id("runtime")
        self.identifier = identifier
        self.policy: RuntimePolicy = policy or RuntimePolicy()
        self.hooks: RuntimeHooks = RuntimeHooks(hooks)
        self.store: RuntimeStore = store or defaults.store()
        self.audit: AuditStore = audit or defaults.record()
        self.working_directory = working_directory
        self._registry = ProviderRegistry(providers)
        self._authorizer, self._pre_hooks = authorizer, list(pre_hooks)
        self._executor = executor or LocalExecutor()
        self._bus = EventBus(self.hooks, self.audit)
        self._tools: dict[str, Tool] = {}
        self._app_contexts: dict[type, Any] = {}
        self._announced = self._prepared = False
        self._leases = Leases(self.store, self.id)
        self._live = LiveAgents(self._leases)
        self._agents = Agents(self.store, self._registry, self._leases, self._live, identifier)
        self._skills: Skills | None = None
        self._http: HttpClient | None = None
        for item in (*(defaults.tools() if builtin_tools else ()), *tools):
            self.register_tool(item)
        for folder in skills:
            self.register_skills_dir(folder)

    def __repr__(self) -> str:
        ids = ", ".join(d.id for d in self.providers()) or "none"
        return f"<Runtime {self.identifier!r}: providers {ids}; tools {', '.join(sorted(self._tools)) or 'none'}>"

    async def __aenter__(self) -> Runtime:
        self._announce()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Release agents, connections, files and threads. A step that fails does not keep the others from running."""
        async with AsyncExitStack() as steps:  # runs them in reverse order
            if (close_audit := getattr(self.audit, "close", None)) is not None:
                steps.callback(close_audit)
            steps.callback(self.store.close)
            steps.push_async_callback(self._leases.close)
            if self._http is not None:
                steps.push_async_callback(self._http.aclose)
            steps.push_async_callback(self._registry.aclose)

    def _announce(self) -> None:
        if not self._announced:
            self._announced = True
            self._bus.emit(RecoveryPrepared(runtime_instance_id=self.id))

    async def _prepare(self) -> None:
        """Close the questions that expired after their process died. Only the first call does."""
        self._announce()
        if not self._prepared:
            self._prepared = True
            for question in await self.store.expire_questions(time.time() - QUESTION_GRACE):
                self._bus.emit(expired(question))

    # ---- tools, application state and skills -------------------------------------------------------------------

    def register_tool(self, tool: Tool | Callable[..., Any]) -> Tool:
        """Offer a tool or function from the next request on; it replaces one of the same name. Raises `InvalidTool`."""
        made = as_tool(tool)
        self._tools[made.spec.name] = made
        return made

    def tools(self) -> list[ToolSpec]:
        """Return the descriptors, sorted by name."""
        return [self._tools[name].spec for name in sorted(self._tools)]

    def tool_descriptor(self, name: str) -> ToolSpec | None:
        return self._tools[name].spec if name in self._tools else None

    def register_context(self, context: object) -> None:
        """Offer `context` to tools as application state. It replaces one of exactly the same type."""
        self._app_contexts[type(context)] = context

    def app_context(self, kind: type[T]) -> T:
        """Return the application state of exactly that type. Raises `ConfigurationError` if there is none."""
        try:
            return self._app_contexts[kind]  # type: ignore[no-any-return]  # keyed by its own type
        except KeyError:
            raise ConfigurationError(
                f"no application context of type {kind.__name__} is registered: give one to register_context"
            ) from None

    def register_skills_dir(self, path: Path | str) -> None:
        """Offer the skills in a folder: their names in the prompt, their texts through `load_skill`.

        Folders add up; a name found in an earlier one stays. Raises `SkillLoadError`, and then nothing is added.
        """
        from mentra_nb.tools.builtin.skills import LoadSkillTool, Skills  # loads the YAML library

        skills = self._skills or Skills()
        skills.add_root(path)
        if self._skills is None:
            self._skills = skills
            self.register_tool(LoadSkillTool(skills))

    def skills(self) -> list[Skill]:
        """Return the skills, sorted by name, without their texts."""
        return self._skills.list() if self._skills is not None else []

    def _skills_section(self, offers: Callable[[str], bool]) -> str | None:
        return self._skills.prompt() if self._skills is not None and offers("load_skill") else None

    # ---- providers and models ---------------------------------------------------------------------------------

    def providers(self) -> list[ProviderDescriptor]:
        """Return the descriptors, sorted by id."""
        return self._registry.descriptors()

    def http(self) -> HttpClient:
        """Return the HTTP client that the providers share. The first call makes it, `close` closes it."""
        if self._http is None:
            from mentra_nb.providers.http import HttpClient

            self._http = HttpClient()
        return self._http

    def provider(self, provider_id: str | None = None) -> Provider:
        """Return a registered provider, by default the first registered. Raises `ProviderNotFound`."""
        return self._registry.get(provider_id)

    def register_provider(self, provider_id: str, api_key: str | None = None) -> None:
        """Register a built-in provider. Raises `ConfigurationError` for an unknown id or a missing key."""
        http = self.http() if provider_id in PRESETS else None
        self._registry.register(builtin(provider_id, api_key, http=http))

    def register_ollama(self) -> None:
        self.register_provider("ollama")

    def register_lmstudio(self) -> None:
        self.register_provider("lmstudio")

    def register_provider_instance(self, provider: Provider) -> None:
        """Register a custom provider. It replaces one of the same id."""
        self._registry.register(provider)

    async def list_models(self, provider_id: str | None = None) -> list[ModelInfo]:
        """Return the models a provider lists. Raises `ProviderNotFound` or `FailedToListModels`."""
        return await listed(self._registry.get(provider_id))

    async def resolve_model(self, provider_id: str, selector: ModelSelector | str) -> ModelInfo:
        """Return the model of an explicit id, without asking; else the newest listed (ties by id).

        Raises:
            ProviderNotFound, FailedToListModels, NoModelsAvailable
        """
        provider = self._registry.get(provider_id)
        wanted = selector if isinstance(selector, str) else selector.id
        if wanted is not None:
            return ModelInfo(id=wanted, provider=provider_id)
        return newest(provider_id, await listed(provider))

    # ---- agents -----------------------------------------------------------------------------------------------

    async def spawn(self, name: str, model: ModelInfo, config: AgentConfig | None = None) -> Agent:
        """Create and return an agent. Without an authorizer it only runs what reads.

        Raises:
            ProviderNotFound, StoreError
        """
        await self._prepare()
        return await self._agents.create(name, model, config or AgentConfig(), self._plain_environment())

    async def resume_agent(self, agent_id: str) -> Agent:
        """Load a stored agent. A turn whose process died is settled; `Agent.resume` continues it.

        If this runtime had loaded it before, the earlier object takes no more turns.

        Raises:
            LeaseUnavailable: another process has it; nothing of it was touched.
            OperationDenied: it is taking a turn in this runtime.
            ProviderNotFound, StoreError
        """
        await self._prepare()
        return await self._agents.load(agent_id, self._plain_environment())

    async def resume(self, runtime_identifier: str | None = None) -> list[Agent]:
        """Load every stored agent of an identifier (default: this runtime's), oldest first. Raises as `resume_agent`.

        After a failure none stays loaded.
        """
        await self._prepare()
        return await self._agents.load_all(runtime_identifier or self.identifier, self._plain_environment)

    async def resume_all(self) -> list[Agent]:
        """Load every stored agent of any identifier, oldest first. Raises as `resume`."""
        await self._prepare()
        return await self._agents.load_all(None, self._plain_environment)

    async def list_persisted_agents(self, runtime_identifier: str | None = None) -> list[PersistedAgentSummary]:
        """Return the stored agents of an identifier (default: this runtime's), oldest first, without loading them."""
        return await self._agents.summaries(runtime_identifier or self.identifier)

    async def set_model(self, agent: Agent, model: ModelInfo) -> None:
        """As `Agent.set_model`."""
        await agent.set_model(model)

    def _plain_environment(self) -> AgentEnvironment:
        """Return the environment of an agent without a session."""
        return self._environment(self._bus, self._authorizer, {})

    def _environment(
        self, bus: EventBus, authorizer: ToolAuthorizer | None, own_tools: MutableMapping[str, Tool]
    ) -> AgentEnvironment:
        return AgentEnvironment(
            bus=bus,
            store=self.store,
            tools=ChainMap(own_tools, self._tools),
            working_directory=(self.working_directory or Path.cwd()).resolve(),
            find_provider=self._registry.get,
            policy=self.policy,
            executor=self._executor,
            authorizer=authorizer,
            pre_hooks=self._pre_hooks,
            services=self._app_contexts,
            system_sections=(self._skills_section,),
            delegate=delegate,
            holder=self.id,
        )

    # ---- sessions ---------------------------------------------------------------------------------------------

    async def create_session(
        self,
        name: str,
        model: ModelInfo,
        config: AgentConfig | None = None,
        project_id: str | None = None,
        *,
        notebook: str | None = None,
        ask: AskMode = "changes",
        tools: OwnTools = None,
        session_id: str | None = None,
    ) -> Session:
        """Create a conversation in which a person can be asked.

        Args:
            ask: When a tool call needs an answer if no rule decides it.
            tools: Offered in this session only, besides the runtime's. The mapping may change later.
            session_id: The id to use, if rules were stored for it already.

        Raises:
            ProviderNotFound, StoreError
        """
        await self._prepare()
        permissions, environment = self._asking(session_id or new_id("session"), project_id, ask, tools)
        agent = await self._agents.create(name, model, config or AgentConfig(), environment)
        record = new_record(permissions.session_id, name, agent, project_id, notebook)
        await self.store.save_session(record)
        return Session(record, agent, permissions, resumed=False)

    async def resume_session(
        self,
        agent_id: str,
        project_id: str | None = None,
        *,
        ask: AskMode = "changes",
        tools: OwnTools = None,
        model: ModelChoice | None = None,
    ) -> Session:
        """Open a stored conversation, with its rules.

        Args:
            agent_id: The id of an agent, or the id or name of a session. An agent without a session (in `project_id`,
                if given) gets one.
            model: Instead of the stored model.

        Raises:
            StoreError: there is no such agent or session.
            LeaseUnavailable: another process has it.
            ProviderNotFound: its model's provider is not registered.
        """
        stored = await self.store.load_conversation(agent_id, project_id)
        if stored is None:
            raise StoreError(f"there is no stored session '{agent_id}'")
        if stored.session is not None:
            return await self._open(stored.session, agent_id, ask, tools, model)
        await self._prepare()
        permissions, environment = self._asking(new_id("session"), project_id, ask, tools)
        agent = await self._agents.load(agent_id, environment, model)
        record = new_record(permissions.session_id, agent.name, agent, project_id, None)
        await self.store.save_session(record)
        return Session(record, agent, permissions, resumed=False)

    async def open_session(
        self,
        name: str | None,
        model: ModelChoice,
        config: AgentConfig | None = None,
        project_id: str | None = None,
        *,
        last: bool = False,
        create: bool = True,
        notebook: str | None = None,
        ask: AskMode = "changes",
        tools: OwnTools = None,
        session_id: str | None = None,
    ) -> Session:
        """Open a stored conversation of the project, or create it. Other arguments as `create_session`.

        Args:
            name: The session's name or id.
            model: A model, or a function that chooses one when it is given the stored model.
            last: Open the newest conversation of `notebook` instead of one by name.
            create: Create the conversation if it is not stored.

        Raises:
            OperationDenied: it is not stored, and `create` is false.
            LeaseUnavailable: another process has it.
            ProviderNotFound, StoreError
        """
        record = None
        if last:
            record = await self.store.last_session(project_id, notebook)
        elif name is not None:
            record = await self.store.load_session(name, project_id)
        if record is not None:
            return await self._open(record, name or record.name, ask, tools, model)
        if not create:
            missing = f"there is no stored conversation '{name}'"
            raise OperationDenied("this notebook has no earlier conversation" if last else missing)
        used, title = await chosen(model, None), name or "mentra"
        return await self.create_session(
            title, used, config, project_id, notebook=notebook, ask=ask, tools=tools, session_id=session_id
        )

    async def _open(
        self, record: SessionRecord, known_as: str, ask: AskMode, tools: OwnTools, model: ModelChoice | None
    ) -> Session:
        await self._prepare()
        permissions, environment = self._asking(record.id, record.project, ask, tools)
        try:
            agent = await self._agents.load(record.agent_id, environment, model)
        except LeaseUnavailable as busy:
            named = str(busy).replace(f"agent '{record.agent_id}'", f"conversation '{known_as}'")
            raise LeaseUnavailable(named) from busy
        return Session(record, agent, permissions, resumed=True)

    def _asking(
        self, session_id: str, project_id: str | None, ask: AskMode, tools: OwnTools
    ) -> tuple[SessionPermissions, AgentEnvironment]:
        """Return the permissions of a session and the environment of its agent, both on a bus for this session."""
        permissions = SessionPermissions(
            session_id, self._bus.child(), self.store, inner=self._authorizer, project=project_id, ask=ask
        )
        return permissions, self._environment(permissions.bus, permissions, tools if tools is not None else {})

"""The composition root: puts providers, tools, policy, store and record together, and makes agents and sessions.

It wires and does nothing else; what it hands out does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.config import AgentConfig
from mentra_nb.authorization import ToolAuthorizer
from mentra_nb.background.jobs import Jobs
from mentra_nb.errors import OperationDenied
from mentra_nb.event.bus import AuditStore, EventBus, RuntimeHook, RuntimeHooks
from mentra_nb.ids import new_id
from mentra_nb.permission.asking import AskMode
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers.base import ModelInfo, ModelSelector, Provider, ProviderDescriptor
from mentra_nb.providers.registry import PRESETS, ProviderRegistry, builtin
from mentra_nb.runtime import defaults
from mentra_nb.runtime.agents import Agents, ModelChoice, PersistedAgentSummary, chosen
from mentra_nb.runtime.leases import Leases
from mentra_nb.runtime.live_agents import LiveAgents
from mentra_nb.runtime.models import listed, resolved
from mentra_nb.runtime.offers import Offers, fitting
from mentra_nb.runtime.session import Session
from mentra_nb.runtime.sessions import OwnTools, Sessions
from mentra_nb.runtime.wiring import Wiring
from mentra_nb.sandbox.executor import LocalExecutor, RuntimeExecutor
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.store.records import SessionRecord
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import Tool

if TYPE_CHECKING:
    from mentra_nb.mcp_client.servers import McpServers
    from mentra_nb.providers.http import HttpClient
    from mentra_nb.settings import McpServer
    from mentra_nb.tools.builtin.skills import Skill
    from mentra_nb.tools.post_hooks import PostExecutionHook
    from mentra_nb.tools.pre_hooks import PreExecutionHook

T = TypeVar("T")


class Runtime:
    """Providers, tools and stores, and the agents and sessions that use them.

    Use it as an async context manager, or call `close()`. The constructor opens no file and no connection.

    Args:
        providers: The first one is the default.
        tools: Tools or plain functions, offered to every agent.
        builtin_tools: Also offer `read`, `write`, `shell` and, if the policy allows them, background commands.
        policy: What tools may do; by default no shell commands.
        hooks: Hear every event after the record did.
        pre_hooks: Are asked before every tool call.
        post_hooks: Are asked what the model reads of every result.
        authorizer: Decides about tool calls before the rules and the person. Without one an agent outside of a session
            only runs what reads; `allow_everything` asks nobody.
        store: By default `state.sqlite` in `MENTRA_HOME`, or what `MENTRA_STATE` names.
        audit: The record; by default `record/` in `MENTRA_HOME`, or what `MENTRA_RECORD` names.
        executor: Runs shell commands.
        skills: Folders of skills.
        mcp: MCP servers, by name. They connect before the first agent or session is opened.
        working_directory: Of the tools; by default the current one.
        identifier: Stored with agents, so that `resume` finds them.

    Example:
        >>> async with mn.Runtime([mn.ScriptedProvider([mn.scripted.text("Hello.")])]) as scripted:
        ...     greeter = await scripted.spawn("greeter", mn.ModelInfo(id="scripted", provider="scripted"))
        ...     print((await greeter.send("Say hello.")).text())
        Hello.

        Providers and models:

        >>> runtime.register_ollama()
        >>> runtime.register_lmstudio()
        >>> runtime.register_provider("openai", api_key="sk-example")
        >>> runtime.register_provider_instance(mn.ScriptedProvider([]))
        >>> [each.id for each in runtime.providers()], runtime.provider().descriptor.id
        (['example', 'lmstudio', 'ollama', 'openai', 'scripted'], 'example')
        >>> [str(each) for each in await runtime.list_models("example")]
        ['example/small']
        >>> str(await runtime.resolve_model("openai", "gpt-5"))
        'openai/gpt-5'

        What the agents are offered:

        >>> tool = runtime.register_tool(mn.tool(lambda: "ready", name="status"))
        >>> runtime.register_skills_dir("skills")
        >>> runtime.register_context({"currency": "EUR"})
        >>> [spec.name for spec in runtime.tools()], runtime.tool_descriptor("read").effect
        (['files', 'load_skill', 'read', 'shell', 'status', 'write'], 'none')
        >>> [skill.name for skill in runtime.skills()], runtime.app_context(dict), runtime.fits("status", {})
        (['report'], {'currency': 'EUR'}, {})

        Servers of the Model Context Protocol (the extra `mcp`):

        >>> import sys
        >>> clock = mn.McpServer(command=sys.executable, args=["-m", "mcp_server_time"])
        >>> (await runtime.mcp.connect("clock", clock)).status
        'connected'

        Stored agents and sessions, also of a process that has ended:

        >>> [each.name for each in await runtime.list_persisted_agents()]
        ['analyst', 'report']
        >>> [each.name for each in await runtime.resume()], len(await runtime.resume_all())
        (['analyst', 'report'], 2)
        >>> agent = await runtime.resume_agent(agent.id)
        >>> await runtime.set_model(agent, mn.ModelInfo(id="large", provider="example"))
        >>> session = await runtime.resume_session("report")
        >>> await runtime.close()
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
        post_hooks: Iterable[PostExecutionHook] = (),
        authorizer: ToolAuthorizer | None = None,
        store: RuntimeStore | None = None,
        audit: AuditStore | None = None,
        executor: RuntimeExecutor | None = None,
        skills: Iterable[Path | str] = (),
        mcp: Mapping[str, McpServer] | None = None,
        working_directory: Path | None = None,
        identifier: str = "default",
    ) -> None:
        self.id: str = new_id("runtime")
        self.identifier = identifier
        self.policy: Final = policy or RuntimePolicy()
        self.hooks: RuntimeHooks = RuntimeHooks(hooks)
        self.store: RuntimeStore = store or defaults.store()
        self.audit: AuditStore = audit or defaults.record()
        self.working_directory: Final = working_directory
        self._registry = ProviderRegistry(providers)
        self._offers = Offers()
        self._leases = Leases(self.store, self.id)
        self.jobs: Jobs = defaults.jobs(self.store, self._leases.holder)
        """The commands that run in the background."""
        self._wiring = Wiring(
            self.id,
            self.store,
            EventBus(self.hooks, self.audit),
            self._registry,
            self._offers,
            self.policy,
            executor or LocalExecutor(),
            authorizer,
            list(pre_hooks),
            list(post_hooks),
            working_directory,
            self.jobs,
        )
        self._agents = Agents(self.store, self._registry, self._leases, LiveAgents(self._leases), self.jobs, identifier)
        self._sessions = Sessions(self._wiring, self._agents)
        self._http: HttpClient | None = None
        self._register((*(defaults.tools(self.policy) if builtin_tools else ()), *tools), skills, mcp or {})

    def _register(
        self,
        tools: Iterable[Tool | Callable[..., Any]],
        skills: Iterable[Path | str],
        mcp: Mapping[str, McpServer],
    ) -> None:
        for item in tools:
            self.register_tool(item)
        for folder in skills:
            self.register_skills_dir(folder)
        if mcp:
            self.mcp.add(mcp)

    def __repr__(self) -> str:
        providers, tools = (d.id for d in self.providers()), (spec.name for spec in self.tools())
        return f"<Runtime {self.identifier!r}: providers {_names(providers)}; tools {_names(tools)}>"

    async def __aenter__(self) -> Runtime:
        self._wiring.announce()
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
            steps.push_async_callback(self._offers.close)
            steps.push_async_callback(self.jobs.close)

    # ---- tools, application state and skills -------------------------------------------------------------------

    def register_tool(self, tool: Tool | Callable[..., Any]) -> Tool:
        """Offer a tool or function from the next request on; it replaces one of the same name. Raises `InvalidTool`."""
        return self._offers.add_tool(tool)

    def tools(self) -> list[ToolSpec]:
        """Return the descriptors, sorted by name."""
        return self._offers.specs()

    def tool_descriptor(self, name: str) -> ToolSpec | None:
        """Return the descriptor of a tool; `None` if no tool has that name."""
        return self._offers.spec(name)

    def fits(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return arguments as a tool reads them. Raises `ToolError` where they do not fit, or `OperationDenied`."""
        return fitting(self._offers.tools, tool, arguments)

    @property
    def mcp(self) -> McpServers:
        """The MCP servers. Those given to the constructor connect before the first agent or session is opened."""
        return self._offers.mcp

    def register_context(self, context: object) -> None:
        """Offer `context` to tools as application state. It replaces one of exactly the same type."""
        self._offers.contexts[type(context)] = context

    def app_context(self, kind: type[T]) -> T:
        """Return the application state of exactly that type. Raises `ConfigurationError` if there is none."""
        return self._offers.context(kind)

    def register_skills_dir(self, path: Path | str) -> None:
        """Offer the skills in a folder: their names in the prompt, their texts through `load_skill`.

        Folders add up; a name found in an earlier one stays. Raises `SkillLoadError`, and then nothing is added.
        """
        self._offers.add_skills(path)

    def skills(self) -> list[Skill]:
        """Return the skills, sorted by name, without their texts."""
        return self._offers.skills()

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
        """Register the server of Ollama on this machine, as provider `ollama`."""
        self.register_provider("ollama")

    def register_lmstudio(self) -> None:
        """Register the server of LM Studio on this machine, as provider `lmstudio`."""
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
        return await resolved(self._registry.get(provider_id), selector)

    # ---- agents -----------------------------------------------------------------------------------------------

    async def spawn(self, name: str, model: ModelInfo, config: AgentConfig | None = None) -> Agent:
        """Create and return an agent. Without an authorizer it only runs what reads.

        Raises:
            ProviderNotFound, StoreError
        """
        await self._wiring.prepare()
        return await self._agents.create(name, model, config or AgentConfig(), self._wiring.plain_environment())

    async def resume_agent(self, agent_id: str) -> Agent:
        """Load a stored agent. A turn whose process died is settled; `Agent.resume` continues it.

        If this runtime had loaded it before, the earlier object takes no more turns.

        Raises:
            LeaseUnavailable: another process has it; nothing of it was touched.
            OperationDenied: it is taking a turn in this runtime.
            ProviderNotFound, StoreError
        """
        await self._wiring.prepare()
        return await self._agents.load(agent_id, self._wiring.plain_environment())

    async def resume(self, runtime_identifier: str | None = None) -> list[Agent]:
        """Load every stored agent of an identifier (default: this runtime's), oldest first. Raises as `resume_agent`.

        Their teammates go to work again. After a failure none stays loaded.
        """
        await self._wiring.prepare()
        wanted = runtime_identifier or self.identifier
        return await self._agents.load_all(wanted, self._wiring.plain_environment, revive=True)

    async def resume_all(self) -> list[Agent]:
        """Load every stored agent of any identifier, oldest first. Raises as `resume`."""
        await self._wiring.prepare()
        return await self._agents.load_all(None, self._wiring.plain_environment)

    async def list_persisted_agents(self, runtime_identifier: str | None = None) -> list[PersistedAgentSummary]:
        """Return the stored agents of an identifier (default: this runtime's), oldest first, without loading them."""
        return await self._agents.summaries(runtime_identifier or self.identifier)

    async def set_model(self, agent: Agent, model: ModelInfo) -> None:
        """Do what `Agent.set_model` does."""
        await agent.set_model(model)

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

        Example:
            >>> await runtime.create_session("summary", model)
            <Session 'summary' session-... on example/small, 0 turns>
        """
        await self._wiring.prepare()
        return await self._sessions.create(name, model, config, project_id, notebook, ask, tools, session_id)

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
        await self._wiring.prepare()
        return await self._sessions.resume(agent_id, project_id, ask, tools, model)

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
            last: Open the conversation of `notebook` that was used last instead of one by name.
            create: Create the conversation if it is not stored.

        Raises:
            OperationDenied: it is not stored, and `create` is false.
            LeaseUnavailable: another process has it.
            ProviderNotFound, StoreError

        Example:
            >>> (await runtime.open_session("report", model)).id == session.id
            True
        """
        await self._wiring.prepare()
        record = await self._sessions.find(name, project_id, notebook, last=last)
        if record is not None:
            return await self._sessions.load(record, name or record.name, ask, tools, model)
        if not create:
            missing = f"there is no stored conversation '{name}'"
            raise OperationDenied("this notebook has no earlier conversation" if last else missing)
        used = await chosen(model, None)
        return await self._sessions.create(name, used, config, project_id, notebook, ask, tools, session_id)

    async def check_free(self, session: SessionRecord, known_as: str) -> None:
        """Raise `LeaseUnavailable`, which calls the session `known_as`, if another process has it.

        Example:
            >>> [stored, *_] = await runtime.store.list_sessions()
            >>> await runtime.check_free(stored, "report")
        """
        await self._sessions.check_free(session, known_as)


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"

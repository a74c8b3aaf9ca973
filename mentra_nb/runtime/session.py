"""A session: one agent, its permission questions, and the events that a screen shows."""

from __future__ import annotations

import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.limits import RunOptions
from mentra_nb.agent.output import OutputOptions
from mentra_nb.authorization import PermissionDecision, PermissionRule
from mentra_nb.content import Message
from mentra_nb.event import types as e
from mentra_nb.permission.asking import SessionPermissions
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers.base import ModelInfo
from mentra_nb.store.records import SessionRecord
from mentra_nb.who import person
from mentra_nb.words import counted

if TYPE_CHECKING:
    from mentra_nb.event.screen import SessionEvent


class Session:
    """A conversation with an agent. Made by `Runtime.create_session`, `resume_session` or `open_session`.

    Example:
        >>> provider = mn.ScriptedProvider([mn.scripted.text("Hello.")])
        >>> async with mn.Runtime([provider], store=mn.VolatileStore()) as runtime:
        ...     session = await runtime.create_session("greeter", mn.ModelInfo(id="scripted", provider="scripted"))
        ...     unsubscribe = session.subscribe(lambda event: print(event.type))
        ...     answer = await session.append_turn("Say hello.")
        session_started
        user_message
        assistant_token_delta
        ...
    """

    def __init__(self, record: SessionRecord, agent: Agent, permissions: SessionPermissions, *, resumed: bool) -> None:
        self.id: str = record.id
        self.name: str = record.name
        self.project: str | None = record.project
        self.notebook: str | None = record.notebook
        self.created_at: float = record.created_at
        self.agent = agent
        self.permissions = permissions
        self._bus = permissions.bus
        self.turn_count: int = 0
        self._is_unheard = not resumed
        if not resumed:
            self._bus.emit(self._started())

    def __repr__(self) -> str:
        return f"<Session {self.name!r} {self.id} on {self.model}, {counted(self.turn_count, 'turn')}>"

    @property
    def model(self) -> ModelInfo:
        """The model of the next request."""
        return ModelInfo(id=self.agent.model, provider=self.agent.provider.descriptor.id)

    def use_model(self, model: ModelInfo) -> None:
        """Use another model from the next request on. Not stored. Raises `ProviderNotFound`.

        Example:
            >>> session.use_model(mn.ModelInfo(id="large", provider="example"))
            >>> str(session.model)
            'example/large'
        """
        self.agent.use_model(model, self.agent.environment.find_provider(model.provider))

    def use_policy(self, policy: RuntimePolicy) -> None:
        """Use another policy from the next turn on. Not stored.

        Example:
            >>> session.use_policy(mn.RuntimePolicy(read_only=True))
            >>> session.agent.environment.policy.read_only
            True
        """
        self.agent.environment = replace(self.agent.environment, policy=policy)

    def use_profile(self, profile: Sequence[str]) -> None:
        """Offer only the tools of a profile, and those of this session, from the next turn on. Not stored.

        Args:
            profile: Names of tools, `*` in them for any characters; `-NAME` offers all but that. Empty offers all.

        Example:
            >>> session.use_profile(["-shell", "-mcp__*"])
            >>> "shell" in session.agent.environment.tools, "read" in session.agent.environment.tools
            (False, True)
            >>> session.use_profile([])
            >>> "shell" in session.agent.environment.tools
            True
        """
        from mentra_nb.tools.profile import ProfiledTools, whatever_is_offered

        environment = self.agent.environment
        base = whatever_is_offered(environment.tools)
        if profile:
            assert isinstance(base, ChainMap)  # as a session is made
            self.agent.environment = replace(environment, tools=ProfiledTools(base, tuple(profile)))
        elif base is not environment.tools:
            self.agent.environment = replace(environment, tools=base)

    def subscribe(self, listener: Callable[[SessionEvent], None]) -> Callable[[], None]:
        """Call `listener` with every session event from now on, in order, on the thread of the session's event loop.

        It must not block. The first listener also gets `session_started`. Returns a function that ends this.
        """
        from mentra_nb.event import screen
        from mentra_nb.event.projections import to_session

        def hear(event: e.AgentEvent) -> None:
            seen = to_session(event)
            if isinstance(seen, screen.UserMessage):
                seen = seen.model_copy(update={"model": str(self.model)})  # the event has no provider
            if seen is not None:
                listener(seen)

        if self._is_unheard:
            self._is_unheard = False
            hear(self._started())
        return self._bus.tap(hear)

    def _started(self) -> e.SessionStarted:
        return e.SessionStarted(
            agent_id=self.agent.id,
            session_id=self.id,
            title=self.name,
            model=f"{self.agent.provider.descriptor.id}/{self.agent.model}",
            project=self.project,
            notebook=self.notebook,
        )

    @contextmanager
    def listening(
        self, listener: Callable[[SessionEvent], None], tap: Callable[[e.AgentEvent], None]
    ) -> Iterator[None]:
        """While inside, call `listener` with every session event and `tap` with every event of the agent."""
        with ExitStack() as stack:
            stack.callback(self.subscribe(listener))
            stack.callback(self._bus.tap(tap))
            yield

    @contextmanager
    def speaking_as(self, system: str | None) -> Iterator[None]:
        """While inside, use this system prompt instead of the stored one; with `None` the stored one."""
        agent, before = self.agent, self.agent.config.system
        if system is not None:
            agent.config = agent.config.model_copy(update={"system": system})
        try:
            yield
        finally:
            agent.config = agent.config.model_copy(update={"system": before})

    async def append_turn(
        self, content: str | Iterable[Any], options: RunOptions | None = None, origin: e.TurnOrigin | None = None
    ) -> Message:
        """Take a turn and return the final message. Raises as `Agent.run`."""
        message = await self.agent.run(content, options, self._from_here(origin))
        self.turn_count += 1
        return message

    async def run_to_output(
        self,
        content: str | Iterable[Any],
        output: Any,
        options: RunOptions | None = None,
        origin: e.TurnOrigin | None = None,
        **how: Unpack[OutputOptions],
    ) -> Any:
        """Take a turn and return a value of the type `output`. Arguments and errors as `Agent.run_to_output`.

        Example:
            >>> await session.run_to_output("Which of these is a city? Oslo, Norway", list[str])
            ['Oslo']
        """
        value = await self.agent.run_to_output(content, output, options, self._from_here(origin), **how)
        self.turn_count += 1
        return value

    async def resume_turn(self, options: RunOptions | None = None, origin: e.TurnOrigin | None = None) -> Message:
        """Continue the turn that failed or was interrupted. Raises as `Agent.resume`.

        Example:
            >>> await session.resume_turn()
            Traceback (most recent call last):
            ...
            mentra_nb.errors.NoResumableTurn: ...
        """
        message = await self.agent.resume(options, self._from_here(origin))
        self.turn_count += 1
        return message

    async def compact(
        self, matters: str = "", options: RunOptions | None = None, origin: e.TurnOrigin | None = None
    ) -> bool:
        """Send a summary in place of the conversation so far. Arguments and errors as `Agent.compact`.

        Example:
            >>> await session.compact("the names of the columns")
            False
        """
        return await self.agent.compact(matters, options, self._from_here(origin))

    def _from_here(self, origin: e.TurnOrigin | None) -> e.TurnOrigin:
        return (origin or e.TurnOrigin()).model_copy(
            update={"session_id": self.id, "project": self.project, "notebook": self.notebook}
        )

    @property
    def status(self) -> str:
        """Whether it is `created`, `active`, `idle`, `interrupted` or `failed`."""
        if self.agent.is_running:
            return "active"
        return {"Idle": "created", "Interrupted": "interrupted", "Failed": "failed"}.get(self.agent.status, "idle")

    async def close(self) -> None:
        """Release the session, so that another process may open it. Raises `OperationDenied` during a turn.

        Example:
            >>> await session.close()
            >>> session = await runtime.resume_session(session.id)
        """
        await self.agent.close()

    def history(self) -> list[Message]:
        """Return the messages of the active branch. As `Agent.history`.

        Example:
            >>> answer = await session.append_turn("What was the revenue in March?")
            >>> [message.role.value for message in session.history()]
            ['user', 'assistant']
        """
        return self.agent.history()

    async def branch_from(self, entry_id: str | None) -> int:
        """Continue from another entry. As `Agent.branch_from`.

        Example:
            >>> answer = await session.append_turn("What was the revenue in March?")
            >>> await session.branch_from(None)
            2
        """
        return await self.agent.branch_from(entry_id)

    def resolve_permission(self, request_id: str, decision: PermissionDecision) -> None:
        """Answer an open question, from any thread. Raises `OperationDenied` when it is closed.

        Example:
            >>> def answer(event):
            ...     if event.type == "permission_requested":
            ...         session.resolve_permission(event.request_id, mn.PermissionDecision(allow=False))
            >>> unsubscribe = session.subscribe(answer)
            >>> reply = await session.append_turn("Run `echo hello`")
        """
        self.permissions.resolve(request_id, decision)

    async def answer(self, request_id: str, decision: PermissionDecision) -> None:
        """Answer a question, also one of a turn whose process died; `resume_turn` then uses the answer.

        Raises:
            OperationDenied: the question is closed, or there is none with that id.

        Example:
            >>> await session.answer("question-1", mn.PermissionDecision(allow=True))
            Traceback (most recent call last):
            ...
            mentra_nb.errors.OperationDenied: ...
        """
        await self.permissions.answer(request_id, decision)

    async def remembered_rules(self) -> list[PermissionRule]:
        """Return the rules that hold in this session.

        Example:
            >>> await session.remembered_rules()
            []
        """
        return await self.permissions.rules()


def new_record(session_id: str, name: str, agent: Agent, project: str | None, notebook: str | None) -> SessionRecord:
    now = time.time()
    return SessionRecord(
        id=session_id,
        name=name,
        agent_id=agent.id,
        model=agent.model,
        project=project,
        notebook=notebook,
        os_user=person().os_user,
        created_at=now,
        updated_at=now,
    )

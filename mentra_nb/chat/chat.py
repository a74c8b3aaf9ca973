"""Conversations without `await`: `Chat` begins turns on the engine, on a model of its choice.

How a turn is shown is decided by the presenter that the notebook sets (see `turn.py`); a script needs none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_args
from weakref import WeakSet

import anyio

from mentra_nb import paths
from mentra_nb.agent.limits import RunOptions, Spent
from mentra_nb.agent.request import AgentConfig
from mentra_nb.authorization import PermissionRule, PermissionScope
from mentra_nb.chat.engine import Engine, engine
from mentra_nb.chat.reply import Reply, ReplyBuilder
from mentra_nb.chat.turn import RunningTurn, check_words, presenter
from mentra_nb.content import Message
from mentra_nb.errors import Cancelled, ConfigurationError, DeadlineExceeded, OperationDenied
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e
from mentra_nb.event.bus import EventBus
from mentra_nb.ids import new_id
from mentra_nb.permission.remembering import check_tool, remember, revoke, rule_named
from mentra_nb.providers.base import ModelInfo
from mentra_nb.runtime.session import Session
from mentra_nb.tools.tool import Tool, ToolSpec, as_tool

T = TypeVar("T")
SCOPES: tuple[PermissionScope, ...] = get_args(PermissionScope)
"""The scopes in which a conversation can remember an answer."""
SYSTEM = (
    "You are a helpful assistant in a person's notebook. Answer briefly, in Markdown. "
    "Use the tools when they help, and say what their results show."
)


@dataclass(frozen=True)
class _Plan:
    """The arguments of a turn. Without a `prompt` it continues the turn that was not finished."""

    prompt: str | None
    model: str | None = None
    tools: tuple[Tool, ...] = ()
    system: str | None = None
    output: Any = None
    limits: RunOptions | None = None
    origin: e.TurnOrigin | None = None
    can_ask: bool = True


class Chat:
    """A named conversation, stored. The same name in the same project continues it, also after a restart.

    Args:
        name: Without one it is a new conversation.
        model: For turns that name none, as `provider/model`.
        system: The system prompt, instead of the one for notebooks.
        tools: Functions or tools offered in this conversation.
        limits: For turns that name none.
        output: The type of every reply's `value`, for turns that name none.
        notebook: The notebook it belongs to, by default the one that is open.

    Example:
        >>> with mn.Chat("report", system="Answer in one line.") as chat:
        ...     reply = chat.ask("What was the revenue in March?")
        >>> chat.history[-1].text()
        'Revenue in March was 2400 dollars.'
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        model: str | None = None,
        system: str | None = None,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        limits: RunOptions | None = None,
        output: Any = None,
        notebook: str | None = None,
    ) -> None:
        screen = presenter()
        self.name = name
        self.model = model
        self.system = system
        self.limits = limits
        self.output = output
        self.notebook: str | None = notebook or (screen.notebook() if screen is not None else None)
        self.last: Reply | None = None
        """The last reply in this process."""
        self._own_engine: Engine | None = None
        self._tools: dict[str, Tool] = {}
        self._session: Session | None = None
        self._id = new_id("session")  # rules can be made before there is a session
        self._stored = False
        self._opened_in: str | None = None  # the session's project, which `%cd` does not change
        self._turns = 0
        self._running: RunningTurn | None = None
        self._begun: WeakSet[RunningTurn] = WeakSet()
        for tool in tools:
            self.add_tool(tool)

    @property
    def _engine(self) -> Engine:
        return self._own_engine or engine()

    def __repr__(self) -> str:
        return f"<Chat {self.name or '(unnamed)'!r}: {self.turn_count} turns>"

    @property
    def turn_count(self) -> int:
        """Turns answered in this process."""
        return self._turns

    @property
    def history(self) -> list[Message]:
        """The stored messages, oldest first, as the next turn sends them. Empty before the first turn."""

        async def read() -> list[Message]:
            store = self._engine.runtime.store
            stored = await store.load_conversation(await self._session_id())
            if stored is None:
                return []
            return [entry.message for entry in await store.load_path(stored.agent.id, stored.agent.leaf)]

        return self._engine.call(read)

    def tools(self) -> list[ToolSpec]:
        """Return what is offered here beside the runtime's own tools."""
        return [tool.spec for tool in self._tools.values()]

    def add_tool(self, tool: Tool | Callable[..., Any]) -> Tool:
        """Offer a tool in this conversation from the next request on. Raises `InvalidTool`.

        Example:
            >>> def revenue(month: str) -> float:
            ...     "Return the revenue of a month such as 2026-03."
            ...     return 2400.0
            >>> mn.Chat().add_tool(revenue)
            <tool revenue(month: str) -> float>
        """
        made = as_tool(tool)
        self._tools[made.spec.name] = made
        return made

    # ---- turns ------------------------------------------------------------------------------------------------

    def ask(
        self,
        prompt: str,
        *,
        model: str | None = None,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        system: str | None = None,
        output: Any = None,
        limits: RunOptions | None = None,
    ) -> Reply:
        """Take a turn and return its reply. In a notebook it is shown, and may ask about tools.

        Args:
            prompt: What to say.
            model: Asked in this turn, as `provider/model`.
            tools: Offered in this turn only.
            system: The system prompt of this turn.
            output: A type, as pydantic understands it: the reply's `value` is of it. With tools of this conversation
                the model may use them first; else the value is all it can give.
            limits: Of this turn.

        Raises:
            MentraError: what went wrong, in one sentence.

        Example:
            >>> mn.Chat().ask("Which of these is a city? Oslo, Norway", output=list[str]).value
            ['Oslo']
        """
        if self._engine.is_here():
            raise OperationDenied("a tool that runs on the engine cannot wait for a turn here: await Chat.aask(...)")
        screen = presenter()
        origin = screen.origin(prompt) if screen is not None else None
        how: dict[str, Any] = {"model": model, "tools": tools, "system": system, "output": output, "limits": limits}
        turn = self.start(prompt, origin=origin, can_ask=screen is not None, **how)
        reply: Reply = screen.show(turn) if screen is not None else turn.result()
        return reply

    async def aask(self, prompt: str, **how: Any) -> Reply:
        """Take a turn without blocking, on any asyncio event loop, and return its reply.

        No person is asked about tools. Arguments and errors as `ask`. Cancelling the await stops the turn.

        Example:
            >>> (await mn.Chat().aask("What was the revenue in March?")).text
            'Revenue in March was 2400 dollars.'
        """
        turn = self.start(prompt, can_ask=False, **how)
        future = asyncio.wrap_future(turn.future)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            turn.stop()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([future])
            future.exception()
            raise

    def stream(self, prompt: str, **how: Any) -> Iterator[str]:
        """Take a turn and yield its text in pieces; at the end `last` is the reply. No person is asked about tools.

        Arguments and errors as `ask`. Leaving the loop early stops the turn.

        Example:
            >>> list(mn.Chat().stream("What was the revenue in March?"))
            ['Revenue in March ', 'was 2400 dollars.']
        """
        return self.start(prompt, can_ask=False, **how).pieces()

    def start(
        self,
        prompt: str,
        *,
        model: str | None = None,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        system: str | None = None,
        output: Any = None,
        limits: RunOptions | None = None,
        origin: e.TurnOrigin | None = None,
        can_ask: bool = True,
    ) -> RunningTurn:
        """Begin a turn and return its handle at once. Arguments as `ask`.

        Raises:
            InvalidTool: a function that cannot be offered.
            ConfigurationError: an empty prompt.

        Example:
            >>> mn.Chat().start("What was the revenue in March?").result().stop_reason
            'end'
        """
        check_words(prompt, model, self.name)
        made = tuple(map(as_tool, tools))
        plan = _Plan(prompt, model or self.model, made, system, output or self.output, limits, origin, can_ask)
        turn = self._engine.start_turn(self._take_turn, plan)
        self._begun.add(turn)
        return turn

    def resume(self, *, origin: e.TurnOrigin | None = None, can_ask: bool = True) -> RunningTurn:
        """Continue the turn that failed, was stopped, or died with its kernel; return its handle at once.

        A conversation without a name and without a turn opens the notebook's last one. The turn raises
        `NoResumableTurn` or `OperationDenied` if there is nothing to continue.
        """
        turn = self._engine.start_turn(self._take_turn, _Plan(None, self.model, origin=origin, can_ask=can_ask))
        self._begun.add(turn)
        return turn

    async def _take_turn(self, turn: RunningTurn, plan: _Plan) -> Reply:
        limits = plan.limits or self.limits or RunOptions()
        options = replace(limits, cancellation=turn.token, spent=Spent())
        with self._exclusively(turn, plan, limits):
            with options.stoppable() as scope:  # finding the model may wait for a server
                session, model = await self._opened(turn, plan)
            if scope.cancelled_caught:
                raise Cancelled(turn.token.reason) if turn.token.is_cancelled else DeadlineExceeded
            settings, permissions = self._engine.settings, session.permissions
            permissions.ask, permissions.ask_timeout = settings.ask, settings.ask_timeout
            permissions.can_ask = lambda: plan.can_ask
            summary, value = ReplyBuilder(turn.ended), None
            with session.listening(turn.events.put, summary.hear), self._speaking(session, plan.system):
                if plan.prompt is None:
                    await session.resume_turn(options, plan.origin)
                elif plan.output is None:
                    await session.append_turn(plan.prompt, options, plan.origin)
                else:
                    keeps = bool(self._tools)
                    value = await session.run_to_output(
                        plan.prompt, plan.output, options, plan.origin, keeps_tools=keeps
                    )
            self._turns += 1
            self.last = summary.reply(model, session.id, value)
            return self.last

    @contextmanager
    def _exclusively(self, turn: RunningTurn, plan: _Plan, limits: RunOptions) -> Iterator[None]:
        """While inside, refuse other turns, offer the tools of this one and stop it with the token of its limits."""
        if self._running is not None:
            raise OperationDenied(f"conversation '{self.name or 'chat'}' is already taking a turn: wait, or stop it")
        self._running, own = turn, dict(self._tools)
        self._tools.update({tool.spec.name: tool for tool in plan.tools})
        try:
            with ExitStack() as stack:
                if (token := limits.cancellation) is not None:
                    stack.enter_context(token.calling(lambda: turn.token.cancel(token.reason)))
                yield
        finally:
            for tool in plan.tools:
                self._tools.pop(tool.spec.name, None)
            self._tools.update({name: own[name] for name in own if name not in self._tools})
            self._running = None
            self._engine.refresh_record()

    async def _opened(self, turn: RunningTurn, plan: _Plan) -> tuple[Session, ModelInfo]:
        """Open the session if needed, on the model of this turn. Returns both."""
        used = self._engine

        async def choose(stored: ModelInfo | None) -> ModelInfo:
            asked = str(stored) if plan.prompt is None and plan.model is None and stored is not None else plan.model
            model, notice = await used.model(asked)
            for text in filter(None, [notice, *used.settings.ignored]):
                turn.events.put(shown.Notice(severity="info", message=text))
            used.settings.ignored.clear()  # said once
            return model

        session = self._session
        if session is not None:
            model = await choose(_model_of(session))
            session.agent.use_model(model, used.runtime.provider(model.provider))
        else:
            known = self._id if self._stored else self.name
            session = await used.runtime.open_session(
                known,
                choose,
                AgentConfig(system=SYSTEM if self.system is None else self.system),
                str(paths.project_root()),
                last=known is None and plan.prompt is None,
                create=plan.prompt is not None,
                notebook=self.notebook,
                tools=self._tools,
                session_id=self._id,
            )
            self._session, self._id, self._stored = session, session.id, True
            self._opened_in = session.project
            used.opened.add(self)
        turn.session = session
        return session, _model_of(session)

    @contextmanager
    def _speaking(self, session: Session, system: str | None) -> Iterator[None]:
        """While inside, use the system prompt of this turn or conversation instead of the stored one."""
        agent, wanted = session.agent, self.system if system is None else system
        before = agent.config.system
        if wanted is not None:
            agent.config = agent.config.model_copy(update={"system": wanted})
        try:
            yield
        finally:
            agent.config = agent.config.model_copy(update={"system": before})

    # ---- letting go -------------------------------------------------------------------------------------------

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the turn that is running and release the conversation: another process may open it.

        The next turn opens it again.
        """
        for turn in list(self._begun):
            turn.stop()
            turn.wait()
        if (session := self._session) is not None:
            self._engine.call(session.close)
            self.forget_session()

    def forget_session(self) -> None:
        """Open the conversation again for the next turn, because its session was closed."""
        self._session = self._running = None

    # ---- rules ------------------------------------------------------------------------------------------------

    def allow(
        self, tool: str, pattern: str = "*", *, scope: Literal["session", "project", "global"] = "session"
    ) -> PermissionRule:
        """Remember that `tool` may run unasked where its subject fits `pattern`. A denial still wins."""
        return self._remember(tool, pattern, True, scope, None)

    def deny(
        self,
        tool: str,
        pattern: str = "*",
        *,
        scope: Literal["session", "project", "global"] = "session",
        reason: str | None = None,
    ) -> PermissionRule:
        """Remember that `tool` may never run where its subject fits `pattern`; the model gets `reason`."""
        return self._remember(tool, pattern, False, scope, reason)

    def _remember(
        self, tool: str, pattern: str, allow: bool, scope: PermissionScope, reason: str | None
    ) -> PermissionRule:
        if scope not in SCOPES:
            raise ConfigurationError(f"there is no scope {scope!r}; use one of {', '.join(SCOPES)}")
        check_tool(tool, {spec.name for spec in (*self._engine.runtime.tools(), *self.tools())})
        return self._engine.call(lambda: self._change(remember, tool, pattern, allow=allow, scope=scope, reason=reason))

    async def _change(self, how: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Call `remember` or `revoke` for this conversation."""
        bus = EventBus(self._engine.runtime.hooks, self._engine.runtime.audit)
        return await how(self._engine.runtime.store, bus, await self._session_id(), self._project(), *args, **kwargs)

    async def _session_id(self) -> str:
        """Return the id of this conversation, also before its first turn."""
        if self._stored or self.name is None:
            return self._id
        stored = await self._engine.runtime.store.load_session(self.name, str(paths.project_root()))
        return stored.id if stored is not None else self._id

    def _project(self) -> str | None:
        """Return the project of this conversation; before its first turn, that of the current folder."""
        return self._opened_in if self._stored else str(paths.project_root())

    def revoke(self, rule: str | int) -> PermissionRule:
        """Delete a rule and return it. `rule` as in `mn.revoke`; raises `OperationDenied` if there is none like it.

        Example:
            >>> chat = mn.Chat()
            >>> chat.revoke(chat.deny("write").id).tool
            'write'
        """
        found = rule_named(self.rules(), rule)
        self._engine.call(lambda: self._change(revoke, found.id))
        return found

    def rules(self) -> list[PermissionRule]:
        """Return the rules that hold in this conversation."""

        async def read() -> list[PermissionRule]:
            return await self._engine.runtime.store.list_rules(await self._session_id(), self._project())

        return self._engine.call(read)


def _model_of(session: Session) -> ModelInfo:
    return ModelInfo(id=session.agent.model, provider=session.agent.provider.descriptor.id)


def chat_on(engine: Engine, name: str | None = None, **how: Any) -> Chat:
    """Return a conversation on another engine than the one of this process. `how` is as for `Chat`."""
    chat = Chat(name, **how)
    chat._own_engine = engine
    return chat

"""Conversations without `await`: `ask`, `Chat`, and the handle of a turn that is running.

What a turn looks like is not decided here: the notebook hands the engine a presenter, a script needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, get_args

import anyio

from mentra_nb import paths
from mentra_nb.agent.limits import RunOptions
from mentra_nb.authorization import PermissionRule, PermissionScope
from mentra_nb.chat.engine import Engine, engine
from mentra_nb.chat.reply import Reply, ReplyBuilder
from mentra_nb.chat.turn import RunningTurn, presenter
from mentra_nb.errors import Cancelled, ConfigurationError, OperationDenied
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e
from mentra_nb.ids import new_id
from mentra_nb.permission.asking import remember
from mentra_nb.providers.base import ModelInfo
from mentra_nb.runtime.session import Session
from mentra_nb.tools.tool import Tool, ToolSpec, as_tool

SCOPES: tuple[PermissionScope, ...] = get_args(PermissionScope)
"""What a conversation can remember an answer for. Each belongs to a project."""
SYSTEM = (
    "You are a helpful assistant in a person's notebook. Answer briefly, in Markdown. "
    "Use the tools when they help, and say what their results show."
)


class Chat:
    """A named conversation, stored. The same name in the same project continues it, also after a restart.

    Without a name it is a new one. `tools` are functions or tools offered in it; `model` is used for turns that name
    none.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        model: str | None = None,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        notebook: str | None = None,
        engine_: Engine | None = None,
    ) -> None:
        screen = presenter()
        self.name = name
        self.model = model
        self.notebook: str | None = notebook or (screen.notebook() if screen is not None else None)
        self._own_engine = engine_
        self._tools: dict[str, Tool] = {}
        self._session: Session | None = None
        self._new_id = new_id("session")  # known before there is a session, so that rules can be made for it
        self._stored = False
        self._turns = 0
        self._opening, self._busy = anyio.Lock(), False
        self.last: Reply | None = None
        for tool in tools:
            self.add_tool(tool)

    def __repr__(self) -> str:
        return f"<Chat {self.name or '(unnamed)'!r}: {self.turn_count} turns>"

    @classmethod
    def on(cls, engine: Engine, name: str | None = None, **how: Any) -> Chat:
        """A conversation on another engine than the one of this process. `how` is as for `Chat`."""
        return cls(name, engine_=engine, **how)

    @property
    def _engine(self) -> Engine:
        return self._own_engine or engine()

    def forget_session(self) -> None:
        """Open the conversation anew for the next turn: what it was opened on has been closed."""
        if self._session is not None:
            self._stored, self._new_id, self._session = True, self._session.id, None
        self._opening, self._busy = anyio.Lock(), False

    @property
    def turn_count(self) -> int:
        """Turns answered in this process."""
        return self._turns

    def tools(self) -> list[ToolSpec]:
        """What is offered here beside the runtime's own tools."""
        return [tool.spec for tool in self._tools.values()]

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def add_tool(self, tool: Tool | Callable[..., Any]) -> Tool:
        """Offer a tool in this conversation from the next request on. Raises `InvalidTool`."""
        made = as_tool(tool)
        self._tools[made.spec.name] = made
        return made

    def ask(self, prompt: str, *, model: str | None = None, tools: Iterable[Tool | Callable[..., Any]] = ()) -> Reply:
        """Say something and wait for the answer. Nobody is asked about tools unless a screen is attached.

        Raises:
            MentraError: what went wrong, in one sentence.
        """
        screen = presenter()
        origin = screen.origin(prompt) if screen is not None else None
        turn = self.start(prompt, model=model, tools=tools, origin=origin, can_ask=screen is not None)
        reply: Reply = screen.show(turn) if screen is not None else turn.result()
        return reply

    def start(
        self,
        prompt: str,
        *,
        model: str | None = None,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        origin: e.TurnOrigin | None = None,
        can_ask: bool = True,
    ) -> RunningTurn:
        """Begin a turn and return its handle at once. `tools` are offered in this turn only.

        Raises:
            InvalidTool: a function that cannot be offered.
            ConfigurationError: an empty prompt.
        """
        if not prompt.strip():
            raise ConfigurationError("there is nothing to ask: write a prompt")
        return self._begin(prompt, model or self.model, origin, can_ask, tools)

    def resume(self, *, origin: e.TurnOrigin | None = None, can_ask: bool = True) -> RunningTurn:
        """Go on with the turn that failed, was stopped, or died with its kernel; returns its handle at once.

        A conversation without a name that has no turn yet takes up the notebook's last one first. The turn ends with
        `NoResumableTurn` where there is nothing to go on with.
        """
        return self._begin(None, self.model, origin, can_ask, ())

    def _begin(
        self,
        prompt: str | None,
        model: str | None,
        origin: e.TurnOrigin | None,
        can_ask: bool,
        tools: Iterable[Tool | Callable[..., Any]],
    ) -> RunningTurn:
        extra = {made.spec.name: made for made in map(as_tool, tools)}
        turn = RunningTurn()
        self._engine.turns.add(turn)
        turn.future.add_done_callback(lambda _: self._engine.turns.discard(turn))
        running = self._engine.start(self._take_turn, turn, prompt, model, origin, can_ask, extra)
        running.add_done_callback(lambda done: _pass_on(done, turn.future))
        return turn

    async def _take_turn(
        self,
        turn: RunningTurn,
        prompt: str | None,
        model_name: str | None,
        origin: e.TurnOrigin | None,
        can_ask: bool,
        extra: dict[str, Tool],
    ) -> Reply:
        if self._busy:
            raise OperationDenied(f"conversation '{self.name or 'chat'}' is already taking a turn: wait, or stop it")
        self._busy = True
        own = {name: self._tools[name] for name in extra if name in self._tools}
        self._tools.update(extra)
        try:
            return await self._answer(turn, prompt, model_name, origin, can_ask)
        finally:
            for name in extra:  # for this turn only
                del self._tools[name]
            self._tools.update(own)
            self._busy = False
            self._engine.refresh_record()

    async def _answer(
        self, turn: RunningTurn, prompt: str | None, model_name: str | None, origin: e.TurnOrigin | None, can_ask: bool
    ) -> Reply:
        options = RunOptions(cancellation=turn.token)
        with options.stoppable():  # finding the model may take a server's time
            if prompt is None:
                await self._take_up_last()
                model_name = model_name or await self._stored_model()
            model, notice = await self._engine.model(model_name)
            session = turn.session = await self._open(model)
        if notice:
            turn.events.put(shown.Notice(severity="info", message=notice))
        permissions, settings = session.permissions, self._engine.settings
        permissions.ask, permissions.ask_timeout = settings.ask, settings.ask_timeout
        permissions.can_ask = lambda: can_ask
        summary = ReplyBuilder()
        leave = [session.subscribe(turn.events.put), session.agent.environment.bus.tap(summary.hear)]
        try:
            if prompt is None:
                await session.resume_turn(options, origin)
            else:
                await session.append_turn(prompt, options, origin)
        finally:
            for unsubscribe in leave:
                unsubscribe()
        self._turns += 1
        self.last = summary.reply(model, session.id)
        return self.last

    async def _take_up_last(self) -> None:
        """Without a name and before the first turn: be the conversation that this notebook had last."""
        if self.name is not None or self._session is not None:
            return
        project = str(paths.project_root())
        for record in reversed(await self._engine.runtime.store.list_sessions()):
            if record.project == project and record.notebook == self.notebook:
                self._stored, self._new_id = True, record.id
                return
        raise OperationDenied("this notebook has no earlier conversation")

    async def _stored_model(self) -> str | None:
        """The model this conversation was last asked on, where it is stored."""
        store = self._engine.runtime.store
        session = await store.load_session(await self._session_id())
        agent = await store.load_agent(session.agent_id) if session is not None else None
        return str(ModelInfo(id=agent.model, provider=agent.provider_id)) if agent is not None else None

    async def _open(self, model: ModelInfo) -> Session:
        async with self._opening:
            return await self._opened(model)

    async def _opened(self, model: ModelInfo) -> Session:
        runtime, project = self._engine.runtime, str(paths.project_root())
        known = self._new_id if self._stored else self.name
        if self._session is None and known is not None and await runtime.store.load_session(known, project):
            self._session = await runtime.resume_session(known, project, tools=self._tools, model=model)
        if self._session is None:
            from mentra_nb.agent.request import AgentConfig

            self._session = await runtime.create_session(
                self.name or "mentra",
                model,
                AgentConfig(system=SYSTEM),
                project,
                notebook=self.notebook,
                tools=self._tools,
                session_id=self._new_id,
            )
        self._engine.opened.add(self)
        self._session.agent.use_model(model, runtime.provider(model.provider))
        return self._session

    # ---- rules ------------------------------------------------------------------------------------------------

    def allow(self, tool: str, pattern: str = "*", *, scope: PermissionScope = "session") -> PermissionRule:
        """Remember that `tool` may run unasked where its subject fits `pattern`. A denial still wins."""
        return self._remember(tool, pattern, True, scope, None)

    def deny(
        self, tool: str, pattern: str = "*", *, scope: PermissionScope = "session", reason: str | None = None
    ) -> PermissionRule:
        """Remember that `tool` may never run where its subject fits `pattern`; `reason` is told to the model."""
        return self._remember(tool, pattern, False, scope, reason)

    def _remember(
        self, tool: str, pattern: str, allow: bool, scope: PermissionScope, reason: str | None
    ) -> PermissionRule:
        if scope not in SCOPES:
            raise ConfigurationError(f"there is no scope {scope!r}; use one of {', '.join(SCOPES)}")

        async def add() -> PermissionRule:
            store, project = self._engine.runtime.store, str(paths.project_root())
            id = await self._session_id()
            return await remember(store, id, project, tool, pattern, allow=allow, scope=scope, reason=reason)

        return self._engine.call(add)

    async def _session_id(self) -> str:
        """The id of this conversation, also before its first turn."""
        if self._session is not None:
            return self._session.id
        stored = None
        if self.name is not None:
            stored = await self._engine.runtime.store.load_session(self.name, str(paths.project_root()))
        return stored.id if stored is not None else self._new_id

    def revoke(self, rule_id: str) -> None:
        """Forget a rule. Raises `OperationDenied` when there is none with that id."""
        if not self._engine.call(self._engine.runtime.store.revoke_rule, rule_id):
            raise OperationDenied(f"there is no rule '{rule_id}': %mentra rules lists them")

    def rules(self) -> list[PermissionRule]:
        """The rules that hold in this conversation."""

        async def read() -> list[PermissionRule]:
            return await self._engine.runtime.store.list_rules(await self._session_id(), str(paths.project_root()))

        return self._engine.call(read)


def _pass_on(done: Future[Reply], to: Future[Reply]) -> None:
    if done.cancelled():
        to.set_exception(Cancelled("the engine has ended"))
    elif (error := done.exception()) is not None:
        to.set_exception(error)
    else:
        to.set_result(done.result())

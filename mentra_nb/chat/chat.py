"""Conversations without `await`: `Chat` begins turns on the engine, on a model of its choice.

How a turn is shown is decided by the presenter that the notebook sets (see `turn.py`); a script needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Literal
from weakref import WeakSet

from mentra_nb.agent.limits import RunOptions, Spent
from mentra_nb.arguments import check_words
from mentra_nb.authorization import PermissionRule
from mentra_nb.chat.answers import answer as answer_as
from mentra_nb.chat.answers import wanted
from mentra_nb.chat.cell_runs import CellRuns
from mentra_nb.chat.earlier import about_earlier
from mentra_nb.chat.engine import Engine, engine
from mentra_nb.chat.identity import Identity
from mentra_nb.chat.instructions import SYSTEM
from mentra_nb.chat.opening import opened, take_settings
from mentra_nb.chat.reply import Reply, ReplyBuilder
from mentra_nb.chat.rules import Rules
from mentra_nb.chat.turn import RunningTurn, TurnPlan, presenter
from mentra_nb.content import Message
from mentra_nb.errors import OperationDenied
from mentra_nb.event import types as e
from mentra_nb.runtime.session import Session
from mentra_nb.store.records import SessionRecord
from mentra_nb.tools.function import as_tool
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import Tool
from mentra_nb.tools.waiting_thread import waiting_thread
from mentra_nb.words import counted


class Chat:
    """A named conversation, stored. The same name in the same project continues it, also after a restart.

    Args:
        name: Without one it is a new conversation.
        model: For turns that name none, as `provider/model`.
        system: The system prompt, instead of the one for notebooks.
        tools: Functions or tools offered in this conversation.
        limits: For turns that name none.
        as_: The type of every reply's `value`, for turns that name none.
        notebook: The notebook it belongs to, by default the one that is open.

    Example:
        >>> with mn.Chat("report", system="Answer in one line.") as chat:
        ...     reply = chat.ask("What was the revenue in March?")
        >>> chat.history[-1].text()
        'Revenue in March was 2400 dollars.'
        >>> chat.tools()
        []
        >>> chat.close()
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        model: str | None = None,
        system: str | None = None,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        limits: RunOptions | None = None,
        as_: Any = None,
        notebook: str | None = None,
    ) -> None:
        screen = presenter()
        self.name = name
        self.model = model
        self.system = system
        self.limits = limits
        self.as_ = as_
        self.notebook: str | None = notebook or (screen.notebook() if screen is not None else None)
        self.last: Reply | None = None
        """The last reply in this process."""
        self._own_engine: Engine | None = None
        self._tools: dict[str, Tool] = {}
        self._session: Session | None = None
        self._identity = Identity(name)
        self._turns = 0
        self._cells = CellRuns()
        self._running: RunningTurn | None = None
        self._begun: WeakSet[RunningTurn] = WeakSet()
        for tool in tools:
            self.add_tool(tool)

    @property
    def _engine(self) -> Engine:
        return self._own_engine or engine()

    def __repr__(self) -> str:
        return f"<Chat {self.name or '(unnamed)'!r}: {counted(self.turn_count, 'turn')}>"

    @property
    def running(self) -> RunningTurn | None:
        """The turn it takes."""
        return self._running

    @property
    def agent_id(self) -> str | None:
        """The id of its agent, once its session is open."""
        return self._session.agent.id if self._session is not None else None

    @property
    def turn_count(self) -> int:
        """Turns answered in this process."""
        return self._turns

    @property
    def id(self) -> str:
        """The id of its session, which it has before its first turn."""
        return self._engine.call(lambda: self._identity.session_id(self._engine.runtime.store))

    @property
    def history(self) -> list[Message]:
        """The stored messages, oldest first. Empty before the first turn."""
        entries = self._engine.call(lambda: self._identity.entries(self._engine.runtime.store))
        return [entry.message for entry in entries]

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
        *objects: Any,
        model: str | None = None,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        system: str | None = None,
        as_: Any = None,
        limits: RunOptions | None = None,
    ) -> Reply:
        """Take a turn and return its reply. In a notebook it is shown, and may ask about tools.

        Args:
            prompt: What to say.
            *objects: Handed over as data, as `mn.preview` shows it.
            model: Asked in this turn, as `provider/model`.
            tools: Offered in this turn only.
            system: The system prompt of this turn.
            as_: A type, as pydantic understands it: the reply's `value` is of it. `"df"` makes it a DataFrame, `"json"`
                any JSON. With tools of this conversation the model may use them first; else it gives only the value.
            limits: Of this turn.

        Raises:
            MentraError: what went wrong, in one sentence.

        Example:
            >>> mn.Chat().ask("Which of these is a city? Oslo, Norway", as_=list[str]).value
            ['Oslo']
        """
        if self._engine.is_here():
            raise OperationDenied("a tool that runs on the engine cannot wait for a turn here: await Chat.aask(...)")
        screen = presenter()
        origin = screen.origin() if screen is not None else None
        how: dict[str, Any] = {"model": model, "tools": tools, "system": system, "as_": as_, "limits": limits}
        turn = self.start(prompt, *objects, origin=origin, can_ask=screen is not None, waits=True, **how)
        reply: Reply = screen.show(turn) if screen is not None else turn.result()
        return reply

    async def aask(self, prompt: str, *objects: Any, **how: Any) -> Reply:
        """Take a turn without blocking, on any asyncio event loop, and return its reply.

        No person is asked about tools. Arguments and errors as `ask`. Cancelling the await stops the turn.

        Example:
            >>> (await mn.Chat().aask("What was the revenue in March?")).text
            'Revenue in March was 2400 dollars.'
        """
        return await self.start(prompt, *objects, can_ask=False, **how).aresult()

    def stream(self, prompt: str, *objects: Any, **how: Any) -> Iterator[str]:
        """Take a turn and yield its text in pieces; at the end `last` is the reply. No person is asked about tools.

        Arguments and errors as `ask`. Leaving the loop early stops the turn.

        Example:
            >>> list(mn.Chat().stream("What was the revenue in March?"))
            ['Revenue in March ', 'was 2400 dollars.']
        """
        return self.start(prompt, *objects, can_ask=False, waits=True, **how).pieces()

    def start(
        self,
        prompt: str,
        *objects: Any,
        model: str | None = None,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        system: str | None = None,
        as_: Any = None,
        limits: RunOptions | None = None,
        origin: e.TurnOrigin | None = None,
        can_ask: bool = True,
        waits: bool = False,
        in_background: bool = False,
        replaces: bool = False,
    ) -> RunningTurn:
        """Begin a turn and return its handle at once. Arguments as `ask`.

        `waits`: this thread waits for the turn next, and tools that need it may run on it. `in_background`: another
        prompt of this conversation waits for it. `replaces`: it takes the place of the turns that the cell of `origin`
        took when it was run before.

        Raises:
            InvalidTool: a function that cannot be offered.
            ConfigurationError: an empty prompt, or a file that cannot be read.
            OperationDenied: a file that may not be handed over.

        Example:
            >>> mn.Chat().start("What was the revenue in March?").result().stop_reason
            'end'
        """
        check_words(prompt, model, self.name)
        made = tuple(map(as_tool, tools))
        screen = presenter()
        earlier = about_earlier(screen) if self._engine.chats.get(None) is self else ""
        place = screen.place() if screen is not None and can_ask and (waits or in_background) else None
        given = None
        if objects:
            from mentra_nb.chat.references.handing import handed

            given = handed(objects, self._engine.policy)
        of_turn = (prompt, model or self.model, made, system, wanted(self.as_ if as_ is None else as_), limits)
        plan = TurnPlan(*of_turn, origin, can_ask, waits, earlier, place, in_background, given, replaces)
        turn = self._engine.start_turn(self._take_turn, plan)
        self._begun.add(turn)
        for cut in given.cuts() if given is not None else ():
            turn.notice(cut)
        return turn

    def resume(self, *, origin: e.TurnOrigin | None = None, can_ask: bool = True) -> RunningTurn:
        """Continue the turn that failed, was stopped, or died with its kernel; return its handle at once.

        A conversation without a name and without a turn opens the one that the notebook used last. The turn raises
        `NoResumableTurn` or `OperationDenied` if there is nothing to continue.

        Example:
            >>> mn.Chat("sales").resume().result()
            Traceback (most recent call last):
            ...
            mentra_nb.errors.NoResumableTurn: ...
        """
        place = screen.place() if (screen := presenter()) is not None and can_ask else None
        plan = TurnPlan(None, self.model, origin=origin, can_ask=can_ask, waits=can_ask, place=place)
        turn = self._engine.start_turn(self._take_turn, plan)
        self._begun.add(turn)
        return turn

    def compact(self, matters: str = "", *, origin: e.TurnOrigin | None = None) -> RunningTurn:
        """Send a summary in place of the conversation so far from the next turn on; return the handle at once.

        Nothing is deleted. `matters` is kept word for word.

        Example:
            >>> mn.Chat("sales").compact("the names of the columns").result().stop_reason
            'compacted'
        """
        turn = self._engine.start_turn(self._take_turn, TurnPlan(None, self.model, origin=origin, matters=matters))
        self._begun.add(turn)
        return turn

    async def _take_turn(self, turn: RunningTurn, plan: TurnPlan) -> Reply:
        used, limits = self._engine, plan.limits or self.limits or RunOptions()
        if plan.waits:
            turn.jobs.expect()
        options, value = replace(limits, cancellation=turn.token, spent=Spent(), budgets=used.budgets(limits)), None
        window = limits.context_window or used.settings.context_window
        options = replace(options, reviewer=await used.reviewer(limits), context_window=window)
        with options.stoppable():
            await used.waking.enter(self, turn)
        with self._exclusively(turn, plan, limits), self._identity.in_errors():
            with options.stoppable():  # finding the model may wait for a server
                session = await opened(self, turn)
            system = self.system if plan.system is None else plan.system
            if system is None and session.agent.config.system == SYSTEM:  # else it was stored with one of its own
                system = await used.system_prompt(turn)
            await self._cells.go_back(session, turn)
            with waiting_thread(turn.jobs), self._answering(session, turn, plan, system) as answer:
                if plan.prompt is None:
                    await plan.go_on(session, options)
                elif plan.output is None:
                    await session.append_turn(plan.content(session), options, plan.origin)
                else:
                    value = await answer_as(session, plan, options, keeps_tools=bool(self._tools))
            self._turns += 1
            self.last = answer.reply(session.model, session.id, value)
            return self.last

    @contextmanager
    def _exclusively(self, turn: RunningTurn, plan: TurnPlan, limits: RunOptions) -> Iterator[None]:
        """While inside, refuse other turns, offer the tools of this one and stop it with the token of its limits."""
        if self._running is not None:
            raise OperationDenied(f"conversation '{self.name or 'chat'}' is already taking a turn: wait, or stop it")
        self._running, own = turn, dict(self._tools)
        self._begun.add(turn)
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
        self._engine.waking.ended(self, turn)

    @contextmanager
    def _answering(
        self, session: Session, turn: RunningTurn, plan: TurnPlan, system: str | None
    ) -> Iterator[ReplyBuilder]:
        """While inside, let `turn` hear the session and answer its questions, under the system prompt of the turn."""
        take_settings(self, session)
        turn.session, answer = session, ReplyBuilder(turn.ended)
        session.permissions.can_ask = lambda: plan.can_ask and self._running is turn
        with session.listening(turn.events.put, answer.hear), session.speaking_as(system):
            yield answer

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

    def take_up(self, session: SessionRecord) -> None:
        """Go on with a stored session from the next turn on. The one that was open is released."""
        if not (self._identity.is_stored and self._identity.id == session.id):
            self.close()
            self._identity.opened(session)
            self.last = None

    def forget_session(self) -> None:
        """Open the conversation again for the next turn, because its session was closed."""
        self._session = self._running = None

    # ---- rules ------------------------------------------------------------------------------------------------

    @property
    def _rules(self) -> Rules:
        return Rules(self._engine, self._identity, self._tools)

    def allow(
        self,
        tool: str,
        pattern: str = "*",
        *,
        scope: Literal["session", "project", "global"] = "session",
        inside: Sequence[str] | None = None,
    ) -> PermissionRule:
        """Let `tool` run unasked where its subject fits `pattern`, and return the rule. A denial still wins.

        Arguments and errors as `mn.allow`.

        Example:
            >>> mn.Chat("report").allow("read", "data/*").pattern
            'data/*'
        """
        return self._rules.remember(tool, pattern, allow=True, scope=scope, inside=inside)

    def deny(
        self,
        tool: str,
        pattern: str = "*",
        *,
        scope: Literal["session", "project", "global"] = "session",
        reason: str | None = None,
    ) -> PermissionRule:
        """Never let `tool` run where its subject fits `pattern`, and return the rule. The model gets `reason`.

        Arguments and errors as `mn.deny`.

        Example:
            >>> mn.Chat("report").deny("shell", "git push*", reason="ask me first").reason
            'ask me first'
        """
        return self._rules.remember(tool, pattern, allow=False, scope=scope, reason=reason)

    def revoke(self, rule: str | int) -> PermissionRule:
        """Delete a rule and return it. `rule` as in `mn.revoke`; raises `OperationDenied` if there is none like it.

        Example:
            >>> chat = mn.Chat()
            >>> chat.revoke(chat.deny("write").id).tool
            'write'
        """
        return self._rules.revoke(rule)

    def rules(self) -> list[PermissionRule]:
        """Return the rules that hold in this conversation.

        Example:
            >>> chat = mn.Chat()
            >>> rule = chat.allow("read", "data/*")
            >>> rule in chat.rules()
            True
        """
        return self._rules.all()


def chat_on(engine: Engine, name: str | None = None, **how: Any) -> Chat:
    """Return a conversation on another engine than the one of this process. `how` is as for `Chat`."""
    chat = Chat(name, **how)
    chat._own_engine = engine
    return chat

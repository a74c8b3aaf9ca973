"""The handle of a running turn, and the presenter that shows turns.

The notebook sets the presenter. Without one a turn is only waited for, and no person can be asked.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import anyio

from mentra_nb.agent.limits import CancellationToken
from mentra_nb.browser import IN_BROWSER, wait_for
from mentra_nb.errors import ConfigurationError, OperationDenied
from mentra_nb.event import screen as shown
from mentra_nb.tools.waiting_thread import Job, Jobs

if TYPE_CHECKING:
    from mentra_nb.agent.limits import RunOptions
    from mentra_nb.authorization import PermissionDecision, PermissionQuestion
    from mentra_nb.chat.references.handing import Handed
    from mentra_nb.chat.reply import Reply
    from mentra_nb.content import Image, Text
    from mentra_nb.event.types import TurnOrigin
    from mentra_nb.namespace.history import History
    from mentra_nb.providers.base import ModelInfo
    from mentra_nb.runtime.session import Session
    from mentra_nb.tools.tool import Tool


class Place(Protocol):
    """Where a person is shown what comes when no cell waits for it."""

    can_show: bool
    """Whether a turn can be shown here, not only a line."""

    def show(self, turn: RunningTurn) -> None:
        """Show a turn until it ends, on another thread: returns at once."""

    def say(self, text: str) -> None:
        """Show a line."""


@dataclass(frozen=True)
class TurnPlan:
    """The arguments of a turn. Without a `prompt` it continues the turn that was not finished."""

    prompt: str | None
    model: str | None = None
    tools: tuple[Tool, ...] = ()
    system: str | None = None
    output: Any = None
    limits: RunOptions | None = None
    origin: TurnOrigin | None = None
    can_ask: bool = True
    waits: bool = False
    """Whether the thread that begins the turn then waits for it, so that tools can have work done there."""
    earlier: Literal["", "say", "go on"] = ""
    """Whether the notebook's own conversation goes on with that of an earlier kernel, or only says how to."""
    place: Place | None = None
    """Where a turn is shown that begins when a background command of this one has ended; `None`: none begins."""
    in_background: bool = False
    """Whether no cell waits for it. A prompt of its conversation waits until it has ended."""
    handed: Handed | None = None
    """What is handed over with the prompt."""
    replaces: bool = False
    """Whether it takes the place of the turns that its cell took when it was run before."""

    matters: str | None = None
    """What is kept word for word where the turn only makes the conversation shorter; `None` for any other turn."""

    @property
    def woken_by(self) -> str | None:
        """The background commands that began it, if it began by itself."""
        return self.origin.woken_by if self.origin is not None else None

    async def go_on(self, session: Session, options: RunOptions) -> None:
        """Take the turn without a prompt: continue the one that was not finished, or make the conversation shorter."""
        if self.matters is None:
            await session.resume_turn(options, self.origin)
        else:
            await session.compact(self.matters, options, self.origin)

    def content(self, session: Session) -> str | list[Text | Image]:
        """Return the message that begins it."""
        agent, prompt = session.agent, self.prompt or ""
        if self.handed is None:
            return prompt
        return self.handed.content(prompt, with_images=agent.provider.takes_images(agent.model))

    def model_instead_of(self, stored: ModelInfo | None) -> str | None:
        """Return the model to ask: `model`, or for a turn that continues the stored one; `None` for the default."""
        goes_on = self.model is None and (self.prompt is None or self.woken_by is not None)
        return str(stored) if goes_on and stored is not None else self.model


_numbers = count(1)
TakeTurn: TypeAlias = "Callable[[RunningTurn, TurnPlan], Coroutine[Any, Any, Reply]]"
"""Takes a turn on the engine's thread."""


class RunningTurn:
    """The handle of a turn. `events` is filled from the engine's thread; `future` is done when the turn has ended.

    Example:
        >>> turn = mn.Chat().start("What was the revenue in March?")
        >>> turn.result().text
        'Revenue in March was 2400 dollars.'
    """

    def __init__(self) -> None:
        self.plan: TurnPlan = TurnPlan(None)
        self.take: TakeTurn | None = None
        """What takes it."""
        self.began: float = time.time()
        """Unix seconds."""
        self.number: int = next(_numbers)
        """Counts the turns of this process."""
        self.events: queue.SimpleQueue[shown.SessionEvent] = queue.SimpleQueue()
        self.future: Future[Reply] = Future()
        self.token: CancellationToken = CancellationToken()
        self._session: Session | None = None
        self._lock = threading.Lock()
        self._said: list[str] = []
        """What was said before the session was open."""
        self._has_said = False
        self.stop_reason: str | None = None
        """Why it ended, once it has."""
        self.jobs: Jobs = Jobs()
        """Work that tools have for the thread that waits."""

    @property
    def session(self) -> Session | None:
        """The session it is taken in, once that is open."""
        return self._session

    @session.setter
    def session(self, session: Session) -> None:
        with self._lock:
            self._session = session
            for text in self._said:
                session.agent.steering.steer(text)
            self._said.clear()

    def say(self, text: str) -> None:
        """Say something to the model while it works, from any thread: it comes with the next request of the turn.

        What the turn does not get to read goes with the next question of its conversation.

        Raises:
            OperationDenied: the turn has ended.

        Example:
            >>> turn = mn.Chat().start("What was the revenue in March?")
            >>> turn.wait()
            >>> turn.say("In euros, please.")
            Traceback (most recent call last):
            ...
            mentra_nb.errors.OperationDenied: the turn has ended: ask it as a question
        """
        with self._lock:
            if self.future.done():
                raise OperationDenied("the turn has ended: ask it as a question")
            self._has_said = True
            if self._session is None:
                self._said.append(text)
            else:
                self._session.agent.steering.steer(text)
        self.notice(f"You said: {text}")

    @property
    def has_unread(self) -> bool:
        """Whether something was said that the model has not been sent."""
        return self._has_said and (self._session is None or self._session.agent.steering.has_pending())

    def ended(self, stop_reason: str) -> None:
        """Keep why it ended."""
        self.stop_reason = stop_reason

    def notice(self, text: str) -> None:
        """Show a notice above the answer."""
        self.events.put(shown.Notice(severity="info", message=text))

    def answer(self, request_id: str, decision: PermissionDecision) -> None:
        """Answer one of its questions, from any thread. Raises `OperationDenied` when it is closed."""
        if self.session is None:
            raise OperationDenied("no question is open")
        self.session.resolve_permission(request_id, decision)

    def open_questions(self) -> list[PermissionQuestion]:
        """Return the questions that wait for an answer.

        Example:
            >>> turn = mn.Chat().start("What was the revenue in March?")
            >>> for question in turn.open_questions():
            ...     turn.answer(question.request_id, mn.PermissionDecision(allow=True))
        """
        return self.session.permissions.open_questions() if self.session is not None else []

    def stop(self) -> None:
        """Stop the turn, from any thread, with its stream, running command and open question.

        Example:
            >>> turn = mn.Chat().start("What was the revenue in March?")
            >>> turn.stop()
            >>> turn.wait()
            >>> turn.future.done()
            True
        """
        self.token.cancel("stopped by the user")

    def wait(self) -> None:
        """Return when the turn has ended, for whatever reason."""
        if IN_BROWSER:
            wait_for(asyncio.wait, [asyncio.wrap_future(self.future)])
        else:
            wait([self.future])

    def pieces(self) -> Iterator[str]:
        """Yield the text of the answer in pieces, with a blank line where tools ran in between.

        Raises what the turn raised; leaving the loop stops the turn.

        Example:
            >>> list(mn.Chat().start("What was the revenue in March?").pieces())
            ['Revenue in March ', 'was 2400 dollars.']
        """
        if IN_BROWSER:
            self.stop()
            raise ConfigurationError("there are no threads here: an answer comes whole, from `await mn.aask(…)`")
        ended: queue.SimpleQueue[object] = self.events  # type: ignore[assignment]  # `future` in it ends the loop
        self.jobs.take_into(ended)
        self.future.add_done_callback(ended.put)
        has_text, gap = False, ""
        try:
            while (event := ended.get()) is not self.future:
                if isinstance(event, Job):
                    event.run()
                elif isinstance(event, shown.ToolCompleted):
                    gap = "\n\n" if has_text else ""
                elif isinstance(event, shown.AssistantTokenDelta):
                    yield gap + event.delta
                    has_text, gap = True, ""
            self.future.result()
        finally:
            self.stop()
            self.wait()

    def result(self) -> Reply:
        """Wait for the reply and return it. Raises what the turn raised; an interrupt stops the turn first.

        Meanwhile tools that need this thread run on it.
        """
        if IN_BROWSER:
            return wait_for(self.aresult)
        jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.jobs.take_into(jobs)
        self.future.add_done_callback(jobs.put)
        try:
            while (job := jobs.get()) is not self.future:
                job.run()
        except KeyboardInterrupt:
            self.stop()
            raise
        reply: Reply = self.future.result()
        return reply

    async def aresult(self) -> Reply:
        """Await the reply, on any asyncio event loop, and return it. Cancelling the await stops the turn.

        Example:
            >>> (await mn.Chat().start("What was the revenue in March?").aresult()).text
            'Revenue in March was 2400 dollars.'
        """
        future = asyncio.wrap_future(self.future)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self.stop()
            with anyio.CancelScope(shield=True):
                await asyncio.wait([future])
            future.exception()
            raise


@dataclass
class Presenter:
    """How turns are shown.

    `show` shows a turn until it ends and returns the reply. `origin` returns the running cell, `notebook` the notebook
    that is open, and `is_watched` whether a person is at it. `tools` is offered only there; `history` has what turns
    did to the names of the kernel. `place` is where the running cell shows what comes after it has ended; `None` where
    nobody looks. `goes_on`: whether the notebook's own conversation goes on in another kernel.
    """

    show: Callable[[RunningTurn], Reply]
    origin: Callable[[], TurnOrigin]
    notebook: Callable[[], str | None]
    is_watched: Callable[[], bool]
    tools: Callable[[], tuple[Tool, ...]] = tuple
    history: Callable[[], History | None] = lambda: None
    place: Callable[[], Place | None] = lambda: None
    goes_on: Callable[[], bool] = lambda: True


_presenter: Presenter | None = None


def presenter() -> Presenter | None:
    """Return the current presenter; `None` if turns are only waited for."""
    return _presenter


def _forked() -> None:
    """Remove the presenter in the child of a fork: the kernel is the parent's."""
    present_with(None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def present_with(new: Presenter | None) -> None:
    """Set the presenter; `None` removes it."""
    global _presenter
    _presenter = new

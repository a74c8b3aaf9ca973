"""The cell's side of a turn: draw what happens, serve clicks, ask, obey the stop button, hand back the reply.

The turn runs on the engine's thread and knows nothing of notebooks; this loop is all that the cell's thread does.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mentra_nb.authorization import PermissionDecision, PermissionQuestion, PermissionScope
from mentra_nb.errors import Cancelled, MentraError
from mentra_nb.event.screen import QuestionAnswered, QuestionAsked, SessionEvent
from mentra_nb.notebook import asking, kernel
from mentra_nb.notebook.asking import Answer, parse_answer
from mentra_nb.notebook.pump import NullPump, Pump, make_pump
from mentra_nb.notebook.view import CellOut, TurnView

if TYPE_CHECKING:
    from mentra_nb.notebook.approval import ApprovalCard

__all__ = ["RunningTurn", "TurnStopped", "drive", "parse_answer"]

R = TypeVar("R")
T = TypeVar("T")

TICK = 0.05
"""Seconds between looks at the pump while nothing happens."""
ASKING_TICK = 0.02
"""The same while a question is open: a click should be felt at once."""
SETTLE = 1.0
"""Seconds a stopped turn gets to settle before the cell returns without it."""
READY = 3.0
"""Seconds a card gets to appear on a page before the question is put to the input box instead."""


class RunningTurn(Protocol[R]):
    """A turn as `chat` hands it over."""

    @property
    def events(self) -> queue.SimpleQueue[SessionEvent]:
        """What happens, filled from the engine's thread."""

    @property
    def future(self) -> Future[R]:
        """Done when the turn has ended; `Cancelled` when it was stopped."""

    def answer(self, request_id: str, decision: PermissionDecision) -> None:
        """From any thread. Raises `OperationDenied` when the question is closed."""

    def stop(self) -> None:
        """From any thread; `future` is done soon after."""

    def open_questions(self) -> list[PermissionQuestion]: ...


class TurnStopped(KeyboardInterrupt):
    """A person stopped the turn. An interrupt, so that the cells queued after this one do not run."""

    def _render_traceback_(self) -> list[str]:
        return ["Stopped."]


def drive(
    turn: RunningTurn[R],
    *,
    model: str | None = None,
    quiet: bool = False,
    verbose: bool = False,
    hz: float = 12.0,
    scopes: Sequence[PermissionScope] = ("session",),
) -> R:
    """Show `turn` in the running cell until it ends, and return its reply.

    Raises `TurnStopped` when a person stopped it, else whatever the turn raised. `model` is named in the footer;
    `scopes` are what *Always* offers.
    """
    live = kernel.front_end_answers()
    view = TurnView(CellOut(), live=live, hz=hz, quiet=quiet, verbose=verbose)
    with _StopButton() as stop:
        questions = _Questions(turn, view, live=live, terminal=kernel.in_terminal(), scopes=scopes, stop=stop)
        with make_pump(questions.on_command) as pump:
            questions.pump = pump
            _loop(turn, view, questions, stop, model)
    if stop.pressed or turn.future.cancelled() or isinstance(turn.future.exception(), Cancelled):
        raise TurnStopped from None
    return turn.future.result()


def _loop(
    turn: RunningTurn[Any],
    view: TurnView,
    questions: _Questions,
    stop: _StopButton,
    model: str | None,
) -> None:
    began, give_up = time.monotonic(), None
    try:
        while True:
            ended = turn.future.done()  # looked at first: what it said before it ended is in the queue by then
            for event in _arrived(turn.events, 0 if ended else ASKING_TICK if questions.current else TICK):
                view.handle(event)
                questions.handle(event)
            if ended or (give_up is not None and time.monotonic() > give_up):
                break
            if stop.pressed and give_up is None:
                give_up = time.monotonic() + SETTLE
                turn.stop()
            questions.step()
            view.tick()
    except BaseException:
        turn.stop()  # nobody watches any more
        raise
    finally:
        reply = turn.future.result() if _succeeded(turn.future) else None
        view.finish(
            model=getattr(reply, "model", None) or model,
            usage=getattr(reply, "usage", None),
            cost=getattr(reply, "cost", None),
            seconds=time.monotonic() - began,
            stopped=stop.pressed,
        )
        questions.close()


def _arrived(events: queue.SimpleQueue[SessionEvent], timeout: float) -> Iterator[SessionEvent]:
    """Events that are there, after waiting for the first; not for ever, however fast they come."""
    until = time.monotonic() + timeout + TICK
    try:
        yield events.get(timeout=timeout) if timeout else events.get_nowait()
        while time.monotonic() < until or not timeout:
            yield events.get_nowait()
    except queue.Empty:
        return


def _succeeded(future: Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


class _StopButton:
    """Turns the interrupt of this cell into a flag.

    An exception raised anywhere would lose a message the pump has just read, or leave one half sent.
    """

    def __init__(self) -> None:
        self.pressed = False
        self._before: Any = None

    def __enter__(self) -> _StopButton:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _press(self, _signal: int, _frame: object) -> None:
        self.pressed = True

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Around code that waits by itself: an interrupt ends it and counts as pressed."""
        if self._before is None:
            yield
            return
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            yield
        except KeyboardInterrupt:
            self.pressed = True
        finally:
            signal.signal(signal.SIGINT, self._press)


class _Questions:
    """The open questions of a turn, put to the person one at a time, so that `%mentra allow` can mean only one."""

    def __init__(
        self,
        turn: RunningTurn[Any],
        view: TurnView,
        *,
        live: bool,
        terminal: bool,
        scopes: Sequence[PermissionScope],
        stop: _StopButton,
    ) -> None:
        self.pump: Pump = NullPump()
        self.current: PermissionQuestion | None = None
        self._turn, self._view, self._stop = turn, view, stop
        self._live, self._terminal, self._scopes = live, terminal, scopes
        self._waiting: deque[PermissionQuestion] = deque()
        self._card: ApprovalCard | None = None
        self._shown_at = 0.0
        self._typing = False

    def handle(self, event: SessionEvent) -> None:
        match event:
            case QuestionAsked(question=PermissionQuestion() as question):
                self._view.question(question, None)
                self._waiting.append(question)
                self._next()
            case QuestionAnswered(request_id=request_id):
                self._waiting = deque(q for q in self._waiting if q.request_id != request_id)
                if self.current is not None and self.current.request_id == request_id:
                    self._put_away()
                self._next()

    def step(self) -> None:
        """Serve clicks and commands; where no card appears, ask in the input box."""
        self.pump.step()
        question = self.current
        if question is None or self._card is None or not self.pump.can_ask:
            return
        if not self._typing and not self._card.ready.is_set() and time.monotonic() > self._shown_at + READY:
            self._ask_in_box(question)
        elif self._typing and (text := self.pump.poll_stdin()) is not None:
            answer = asking.parse_reply(text)
            if answer is None:
                self._ask_in_box(question)
            else:
                self._answer(question, answer)

    def on_command(self, code: str) -> Callable[[], str] | None:
        """`%mentra allow`, `deny` or `stop` from another cell, while a question is shown."""
        answer, question = parse_answer(code), self.current
        if answer is None or question is None:
            return None
        return lambda: self._answer(question, answer)

    def close(self) -> None:
        self._waiting.clear()
        self._put_away()

    def _next(self) -> None:
        while self.current is None and self._waiting:
            question = self.current = self._waiting.popleft()
            if self._live:
                self._show_card(question)
                return
            answer: Answer = PermissionDecision(allow=False, by="headless", reason="nobody could be asked")
            if self._terminal:
                with self._stop.raising():
                    answer = asking.ask(question)
            if not self._stop.pressed:
                self._answer(question, answer)
            return

    def _show_card(self, question: PermissionQuestion) -> None:
        from mentra_nb.notebook.approval import ApprovalCard

        # Made, with its callback, before it is shown: a click may come on another thread the moment it is.
        self._card = ApprovalCard(question, lambda answer: self._decide(question, answer), scopes=self._scopes)
        self._typing = False
        self.pump.question_shown()
        self._view.question(question, self._card.bundle())
        self._shown_at = time.monotonic()

    def _put_away(self) -> None:
        self.pump.question_closed()
        self.current = None
        if self._card is not None:
            self._card.close()
            self._card = None

    def _ask_in_box(self, question: PermissionQuestion) -> None:
        self._typing = True
        self.pump.ask_stdin(f"{asking.headline(question)} — {asking.subject(question)}\n{asking.CHOICES}: ")

    def _decide(self, question: PermissionQuestion, answer: Answer) -> None:
        if answer == "stop":
            self._turn.stop()
        else:
            self._turn.answer(question.request_id, answer)

    def _answer(self, question: PermissionQuestion, answer: Answer) -> str:
        """Decide, and say in one line what came of it."""
        try:
            self._decide(question, answer)
        except MentraError as error:
            return str(error)
        if answer == "stop":
            return "Stopping."
        return f"{'Allowed' if answer.allow else 'Denied'}: {asking.subject(question)}"

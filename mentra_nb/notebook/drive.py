"""The cell's side of a turn: shows its events, serves clicks, asks the user, obeys the stop button, returns the reply.

The turn itself runs on the engine's thread. All of this runs on the cell's thread.
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
from typing import TYPE_CHECKING, Any

from mentra_nb.authorization import PermissionDecision, PermissionQuestion, PermissionScope
from mentra_nb.chat.identity import resume_command
from mentra_nb.chat.jobs import stop_jobs_soon
from mentra_nb.errors import Cancelled, MentraError
from mentra_nb.event.screen import QuestionAdvised, QuestionAnswered, QuestionAsked, SessionEvent
from mentra_nb.notebook import asking, editing, ended, kernel, prompting, typed
from mentra_nb.notebook.commands.command import Answer
from mentra_nb.notebook.output import CellOut, Screen
from mentra_nb.notebook.prompting import Prompt
from mentra_nb.notebook.pump import NullPump, Pump, Served, make_pump
from mentra_nb.notebook.saying import SAID, UNREAD, SayLine
from mentra_nb.notebook.terminal import TerminalView
from mentra_nb.notebook.view import TurnView
from mentra_nb.notebook.wide import tell_first
from mentra_nb.tools.waiting_thread import Job

if TYPE_CHECKING:
    from mentra_nb.chat.reply import Reply
    from mentra_nb.chat.turn import RunningTurn
    from mentra_nb.notebook.approval import ApprovalCard

TICK = 0.05
"""Seconds between two steps of the pump while nothing happens."""
ASKING_TICK = 0.02
"""The same while a question is open, so that a click acts at once."""
LATE_PRESS = 2.0
"""Seconds after a stopped turn in which another press of the stop button still means that turn."""
STOP_TIMEOUT = 1.0
"""Seconds a stopped turn may take to end; then the cell returns without it."""
CARD_TIMEOUT = 3.0
"""Seconds a page may take to draw a card; then the input box asks instead, or the call is denied where none can."""
FROM_A_THREAD = "asked from a thread while the cell waits, where no click is served; ask in the cell itself"
NOT_DRAWN = "no page has drawn the question"


class TurnStopped(KeyboardInterrupt):
    """The user stopped the turn. A `KeyboardInterrupt`, so that the cells queued after this one do not run."""

    def _render_traceback_(self) -> list[str]:
        return ["Stopped."]


def drive(
    turn: RunningTurn,
    *,
    hz: float,
    quiet: bool = False,
    verbose: bool = False,
    scopes: Sequence[PermissionScope] = ("session",),
    since: float | None = None,
) -> Reply:
    """Show `turn` in the running cell until it ends, and return its reply.

    Args:
        hz: The most screen updates a second.
        quiet: Show only the text and the questions.
        verbose: Show tool results and thinking as well.
        scopes: The scopes an answer of *Always* can have.
        since: The `time.monotonic()` at which the turn was asked for. The default is now.

    Raises:
        TurnStopped: The user stopped the turn.
        MentraError: The turn failed.
    """
    began, screen = time.monotonic() if since is None else since, kernel.screen()
    if screen == "terminal":
        view: TurnView = TerminalView(hz=hz, quiet=quiet, verbose=verbose, since=began)
    else:
        live = screen == "page" and not kernel.is_captured()  # each update would be collected as an output more
        view = TurnView(CellOut(), live=live, hz=hz, quiet=quiet, verbose=verbose, since=began)
    turn.jobs.take_into(turn.events)
    with StopButton() as stop:
        questions = Questions(turn, view, screen, scopes=scopes, stop=stop)
        with make_pump(questions.on_command) as pump:
            questions.pump = pump
            if pump.can_serve and view.live:
                questions.saying = SayLine(turn, view)
            follow(turn, view, questions, stop, began)
    if stop.pressed or turn.future.cancelled() or isinstance(turn.future.exception(), Cancelled):
        raise TurnStopped from None
    return turn.future.result()


def follow(turn: RunningTurn, view: TurnView, questions: Questions, stop: StopButton, began: float) -> None:
    """Show a turn until it has ended, and ask its questions. It began at `began`, as `time.monotonic()` counts."""
    give_up = None
    try:
        while True:
            done = turn.future.done()  # before reading the queue: all events are in it once the turn has ended
            for event in _arrived(turn.events, 0 if done else ASKING_TICK if questions.current else TICK):
                if isinstance(event, Job):
                    view.make_room()
                    with stop.raising():
                        event.run()
                    continue
                view.handle(event)
                questions.handle(event)
            if done or (give_up is not None and time.monotonic() > give_up):
                break
            if stop.pressed and give_up is None:
                give_up = time.monotonic() + STOP_TIMEOUT
                turn.stop()
            questions.step()
            view.tick()
    except BaseException:
        turn.stop()
        raise
    finally:
        reply = turn.future.result() if _succeeded(turn.future) else None
        if turn.has_unread:
            view.note(UNREAD, "ℹ")
        view.finish(
            model=reply.model if reply is not None else None,
            usage=reply.usage if reply is not None else None,
            cost=reply.cost if reply is not None else None,
            seconds=time.monotonic() - began,
            why=None if stop.pressed else ended.why(turn.stop_reason, _error(turn.future)),
            failed=not stop.pressed and _error(turn.future) is not None,
        )
        questions.close()


def _arrived(events: queue.SimpleQueue[Any], timeout: float) -> Iterator[SessionEvent | Job]:
    """Yield the events that have arrived, after waiting `timeout` seconds for the first.

    Ends `TICK` seconds later even if more keep coming, unless `timeout` is 0.
    """
    until = time.monotonic() + timeout + TICK
    try:
        yield events.get(timeout=timeout) if timeout else events.get_nowait()
        while time.monotonic() < until or not timeout:
            yield events.get_nowait()
    except queue.Empty:
        return


def _error(future: Future[Any]) -> BaseException | None:
    return future.exception() if future.done() and not future.cancelled() else None


def _succeeded(future: Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


class StopButton:
    """Turns the interrupt of this cell into a flag.

    A `KeyboardInterrupt` at any point could lose a message the pump has just read, or leave one half sent. One right
    after the turn could end the kernel's work on the reply to this cell, so a late press is ignored.
    """

    def __init__(self) -> None:
        self.pressed: bool = False
        self._before: Any = None

    def __enter__(self) -> StopButton:
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(signal.SIGINT, self._press)
            self._before = before.before if isinstance(before, _LatePress) else before
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, _LatePress(self._before) if self.pressed else self._before)

    def _press(self, _signal: int, _frame: object) -> None:
        self.pressed = True

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Let an interrupt end the code inside, which blocks; it then counts as pressed."""
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


class _LatePress:
    """The handler of interrupts after a stopped turn. After `LATE_PRESS` seconds it is again the one from `before`."""

    def __init__(self, before: Any) -> None:
        self.before, self._until = before, time.monotonic() + LATE_PRESS

    def __call__(self, number: int, _frame: object) -> None:
        if time.monotonic() >= self._until:
            signal.signal(signal.SIGINT, self.before)
            signal.raise_signal(number)


class Questions:
    """The open questions of a turn, shown one at a time so that `%mentra allow` answers exactly one."""

    def __init__(
        self,
        turn: RunningTurn,
        view: TurnView,
        screen: Screen,
        *,
        scopes: Sequence[PermissionScope],
        stop: StopButton,
        patience: float | None = None,
    ) -> None:
        self.pump: Pump = NullPump()
        self.current: PermissionQuestion | None = None
        self._turn, self._view, self._stop, self._screen, self._scopes = turn, view, stop, screen, scopes
        self._waiting: deque[PermissionQuestion] = deque()
        self._card: ApprovalCard | None = None
        self._advice: dict[str, tuple[str, str]] = {}
        self._display: str | None = None
        """The display id of the card."""
        self._began = time.monotonic()
        self._shown_at = 0.0
        self._given = patience
        self.saying: SayLine | None = None
        """The line in which a person can say something to the model."""
        self._lock = threading.RLock()
        """Held while the open questions change: a click may come on another thread than the events."""
        self._patience = CARD_TIMEOUT
        """Seconds the page may take to draw the card."""
        self._prompt: Prompt | None = None
        """The question in the input box, once no page has drawn its card."""

    def handle(self, event: SessionEvent) -> None:
        if isinstance(event, (QuestionAsked, QuestionAnswered)):
            with self._lock:
                self._handle(event)
        elif isinstance(event, QuestionAdvised):
            with self._lock:
                self._advice[event.request_id] = (event.risk, event.reason)
                self._relist()

    def _handle(self, event: QuestionAsked | QuestionAnswered) -> None:
        match event:
            case QuestionAsked(request_id=request_id):
                for question in self._turn.open_questions():  # empty if it was answered meanwhile
                    if question.request_id == request_id:
                        self._view.question(question, None, resume_command(self._turn.session))
                        self._waiting.append(question)
                self._next()
                self._relist()
            case QuestionAnswered(request_id=request_id):
                self._waiting = deque(q for q in self._waiting if q.request_id != request_id)
                if self.current is not None and self.current.request_id == request_id:
                    self._put_away()
                self._next()
                self._relist()

    def _relist(self) -> None:
        if self._card is not None:
            self._card.relist(self.open)
            if self.current is not None and self.current.request_id in self._advice:
                self._card.advise(*self._advice[self.current.request_id])

    def step(self) -> None:
        """Serve clicks and commands. If no page draws the card in time, ask in the input box, or deny."""
        self.pump.step()
        question = self.current
        if question is None or self._card is None:
            if self.saying is not None:
                self.saying.step()
            return
        is_late = time.monotonic() > self._shown_at + self._patience
        if self._prompt is None and is_late and not self._card.ready.is_set():
            if self.pump.can_ask:
                self._ask_in_box(question)
            else:
                in_cell = threading.current_thread() is threading.main_thread()
                reason = NOT_DRAWN if in_cell else FROM_A_THREAD
                self._answer(question, PermissionDecision(allow=False, by="headless", reason=reason))
        elif self._prompt is not None and (text := self.pump.poll_stdin()) is not None:
            answer = self._prompt.reply(text)
            if answer is None or not self._is_taken(self._prompt, answer):
                self.pump.ask_stdin(self._prompt.text())

    def on_command(self, code: str, has_read: bool) -> Callable[[], Served] | None:
        """Return what to do for a command from another cell: an answer, or a look at the turn; `None` for others."""
        answer, question = typed.parse_answer(code), self.current
        if answer is not None and question is not None and has_read:
            return lambda: Served(self._answer(question, answer))
        if (numbered := typed.parse_numbered(code)) is not None and has_read:
            return lambda: Served(self._answer_numbered(*numbered))
        if (why := typed.refused_answer(code)) is not None and has_read:
            return lambda: Served(why)
        if (text := typed.parse_said(code)) is not None:
            return lambda: Served(self._say(text))
        return self._look if typed.looks_at_turn(code) else None

    def _say(self, text: str) -> str:
        """Say something to the model, and return what becomes of it in one line."""
        try:
            self._turn.say(text)
        except MentraError as error:
            return str(error)
        return SAID

    @property
    def open(self) -> list[PermissionQuestion]:
        """The open questions of the turn, in the order they were asked."""
        current = [self.current] if self.current is not None else []
        return sorted([*current, *self._waiting], key=lambda question: (question.asked_at, question.request_id))

    def _answer_numbered(self, number: int, answer: PermissionDecision) -> str:
        """Answer the question of that number in the list of the card, and return the outcome in one line."""
        found = self.open[number - 1 : number]
        return self._answer(found[0], answer) if found else f"There is no question {number}: %mentra lists them."

    def _pick(self, request_id: str) -> None:
        """Show the card of another open question instead."""
        with self._lock:
            self._show_instead(request_id)

    def _show_instead(self, request_id: str) -> None:
        picked = next((each for each in self._waiting if each.request_id == request_id), None)
        if picked is None or self.current is None:
            return
        before = self.current
        self._waiting.remove(picked)
        self._put_away()
        self._view.hide_card(before.request_id)
        self._waiting.appendleft(before)
        self.current = picked
        self._show_card(picked, focus=True)

    def _allow_all(self, request_ids: Sequence[str], reason: str | None) -> None:
        for question in [each for each in self.open if each.request_id in request_ids]:
            self._turn.answer(question.request_id, PermissionDecision(allow=True, reason=reason))

    def _look(self) -> Served:
        """Return what the turn does, and the card of the open question once more: a reloaded page may have lost it."""
        runs = f"A turn is running: {time.monotonic() - self._began:.0f} s."
        if self.current is None or self._card is None:
            return Served(f"{runs} No question is open. To stop it: %mentra stop")
        asked = f"{asking.headline(self.current)} — {asking.subject(self.current)}"
        rows = [f"{n}  {editing.short_row(each)}" for n, each in enumerate(self.open, 1)] if self._waiting else []
        return Served("\n".join([f"{runs} It asks: {asked}", *rows]), self._card.bundle(), self._display)

    def close(self) -> None:
        if self.saying is not None:
            self.saying.close()
        self._waiting.clear()
        self._put_away()

    def _next(self) -> None:
        while self.current is None and self._waiting:
            question = self.current = self._waiting.popleft()
            if self._screen == "page":
                self._show_card(question)
                return
            if self._screen == "terminal":
                self._ask_at_terminal(question)
            else:
                reason = "nobody could be asked"
                self._answer(question, PermissionDecision(allow=False, by="headless", reason=reason))
            return

    def _ask_at_terminal(self, question: PermissionQuestion) -> None:
        """Ask until an answer is taken, or the stop key is pressed."""
        prompt, answer = Prompt(question, self._project, asking.question_text(question), repeats=False), None
        while answer is None or not (self._stop.pressed or self._is_taken(prompt, answer)):
            with self._stop.raising():
                answer = prompting.ask(prompt)
            if self._stop.pressed:
                return

    def _show_card(self, question: PermissionQuestion, *, focus: bool = False) -> None:
        from mentra_nb.notebook.approval import ApprovalCard, Others

        resume = resume_command(self._turn.session)
        # The card is complete before it is shown: a click may then come at any time, on another thread.
        self._card = ApprovalCard(
            question,
            lambda answer: self._decide(question, answer),
            scopes=self._scopes,
            project=self._project,
            resume=resume,
            others=Others(self.open, self._pick, self._allow_all, focus=focus),
        )
        if question.request_id in self._advice:
            self._card.advise(*self._advice[question.request_id])
        self._prompt = None
        self.pump.question_shown()
        self._patience = self._given or (0.0 if kernel.is_captured() else CARD_TIMEOUT)
        self._display = self._view.question(question, self._card.bundle() if self._patience else None, resume)
        self._shown_at = time.monotonic()

    def _put_away(self) -> None:
        self.pump.question_closed()
        self.current = None
        if self._card is not None:
            self._card.close()
            self._card = None

    def _ask_in_box(self, question: PermissionQuestion) -> None:
        self._prompt = Prompt(question, self._project, asking.short_text(question), repeats=True)
        self.pump.ask_stdin(self._prompt.text())

    @property
    def _project(self) -> str | None:
        return self._turn.session.project if self._turn.session is not None else None

    def _is_taken(self, prompt: Prompt, answer: Answer) -> bool:
        """Decide by what was typed. Returns whether it was taken; if not, the prompt asks again and says why."""
        try:
            self._decide(prompt.question, answer)
        except MentraError as error:
            prompt.refuse(str(error))
            return False
        return True

    def _decide(self, question: PermissionQuestion, answer: Answer) -> None:
        tell_first(question, answer)
        if isinstance(answer, str):
            self._turn.stop()
            if answer == "stop all":
                stop_jobs_soon()
        else:
            self._turn.answer(question.request_id, answer)

    def _answer(self, question: PermissionQuestion, answer: Answer) -> str:
        """Decide, and return the outcome in one line."""
        try:
            self._decide(question, answer)
        except MentraError as error:
            return str(error)
        if isinstance(answer, str):
            return "Stopping."
        return asking.outcome(question, answer)

"""A turn on the page, drawn from `SessionEvent`s: streaming text, tool calls, decisions, the footer.

The work for a delta does not grow with the text before it: finished blocks are not drawn again.
"""

from __future__ import annotations

import time
from uuid import uuid4

from mentra_nb.authorization import PermissionQuestion
from mentra_nb.content import TokenUsage
from mentra_nb.event.screen import (
    AssistantMessageCompleted,
    AssistantReasoningDelta,
    AssistantTokenDelta,
    CompactionCompleted,
    MemoryRecalled,
    Notice,
    QuestionAnswered,
    RetryNotice,
    SessionEvent,
    SessionStarted,
    TasksUpdated,
    TaskUpdated,
    ToolCompleted,
    ToolDecided,
    ToolProgress,
    ToolQueued,
    ToolStarted,
    UsageReported,
    UserMessage,
)
from mentra_nb.notebook import asking
from mentra_nb.notebook.calls import MAX_SUBJECT, Call, decision
from mentra_nb.notebook.checklist import Checklist
from mentra_nb.notebook.footer import footer
from mentra_nb.notebook.output import EMPTY, Out
from mentra_nb.notebook.subagent_rows import SubagentRow
from mentra_nb.notebook.text_blocks import TextBlocks
from mentra_nb.page.escaping import cut
from mentra_nb.page.render import Bundle, bundle, count_code, growing, line
from mentra_nb.permission.advice import calls_to_allow

LIFE_AFTER = 0.2
"""Seconds without an event after which a line says what is being waited for."""
MAX_GROWTH = 24_000
"""Characters of HTML a second that a growing block may send: the longer it is, the longer until it is drawn again."""


class TurnView:
    """Draws one turn. All calls must come from one thread: `tick` often, and `finish` once.

    With `live` the output is updated in place, at most `hz` times a second. Otherwise each piece is shown once it is
    complete. Without `timed` there are no times, durations and costs, so that the outputs of two automatic runs can be
    compared. `since` is the `time.monotonic()` at which the turn was asked for; the default is now.
    """

    def __init__(
        self,
        out: Out,
        *,
        live: bool,
        hz: float,
        timed: bool | None = None,
        quiet: bool = False,
        verbose: bool = False,
        since: float | None = None,
    ) -> None:
        self.out: Out = out
        self.live: bool = live
        self.timed: bool = live if timed is None else timed
        self._pause, self._next = 1.0 / hz, 0.0
        self._since = time.monotonic() if since is None else since
        self._retry: str | None = None
        self._free: str | None = None
        """The display of the living line or of a closed card, if it is the last: what comes next takes its place."""
        self._last: str | None = None
        self._second = -1
        self._thinking = False
        self._quiet, self._verbose = quiet, verbose
        self._model = ""
        self._text = TextBlocks(self._close_block)
        self._codes = 0
        self._display: str | None = None
        self._dirty = self._any_text = False
        self._thoughts: list[str] = []
        self._later: list[Bundle] = []
        """Lines that wait for the end of the text that is being written."""
        self._calls: dict[str, Call] = {}
        self._questions: dict[str, tuple[PermissionQuestion, str | None]] = {}
        self._usage = self._last_usage = TokenUsage()
        self._tasks = Checklist()
        self._subagents: dict[str, SubagentRow] = {}
        self._agent = ""
        """The agent whose turn it is, once it has answered."""

    def handle(self, event: SessionEvent) -> None:
        """Show an event. Text and the progress of tools are kept until the next `tick`."""
        if not isinstance(event, RetryNotice):
            self._retry = None
        if not isinstance(event, (AssistantReasoningDelta, SessionStarted, UserMessage)):
            self._since, self._second, self._thinking = time.monotonic(), -1, False
        match event:
            case AssistantTokenDelta(delta=delta):
                self._end_thoughts()
                self._any_text = self._dirty = True
                self._feed(delta)
            case AssistantReasoningDelta(delta=delta):
                self._thinking = True
                if self._verbose:
                    self._thoughts.append(delta)
            case AssistantMessageCompleted(text=text) if not self._any_text:
                self._feed(text)  # a model that does not stream
            case UserMessage(model=model):
                self._model, self._second = model, -1
            case UsageReported():
                self._agent = self._agent or event.agent_id
                if event.agent_id == self._agent:  # else it is a subagent's
                    self._last_usage = _tokens(event)
                self._usage += _tokens(event)
            case RetryNotice() if not self._quiet and self.timed:
                self._draw_retry(event)
            case Notice():
                self._say_later(line(event.message, "⚠" if event.severity == "warning" else "ℹ"))
            case TaskUpdated(kind="background_task", status=status):
                if status != "running" and not self._quiet:  # the row of its call says that it runs
                    self._say_later(line(f"background task {event.title}: {event.detail or status}", "▸"))
            case TasksUpdated():
                self._tasks.take(event.tasks)
            case TaskUpdated(kind="subagent" | "teammate"):
                self._hear_subagent(event)
            case TaskUpdated() if not self._quiet:
                self.note(f"{event.title}: {event.status}", "▸", event.detail or "")
            case MemoryRecalled(lines=lines) if not self._quiet:
                self.note(
                    f"{len(lines)} {'memory' if len(lines) == 1 else 'memories'} recalled", "…", detail="\n".join(lines)
                )
            case CompactionCompleted() if not self._quiet:
                self.note(f"history shortened: {event.replaced_items} entries became a summary", "ℹ")
            case _:
                self._handle_call(event)

    def _handle_call(self, event: SessionEvent) -> None:
        match event:
            case ToolQueued():
                self._calls[event.tool_call_id] = Call(event.tool_name, event.input_json)
            case ToolStarted():
                call = self._calls.setdefault(event.tool_call_id, Call(event.tool_name))
                call.began = time.monotonic()
                self.settle()  # also when quiet: the texts of two rounds are not one text
            case ToolProgress() if event.tool_call_id in self._calls:
                self._calls[event.tool_call_id].set_progress(event.progress)
            case ToolDecided() if event.tool_call_id in self._calls:
                self._calls[event.tool_call_id].decided(event)
            case ToolCompleted():
                call = self._calls.pop(event.tool_call_id, Call(event.tool_name))
                call.completed(event)
                self._draw_call(call)
            case QuestionAnswered():
                self._draw_answer(event)

    def _feed(self, text: str) -> None:
        """Add text of the model."""
        self._text.feed(text)

    def tick(self) -> None:
        """Draw what has come since the last drawing, at most `hz` times a second, and the seconds of what runs."""
        now = time.monotonic()
        if not self.live or now < self._next:
            return
        self._next = now + self._pause
        if self._dirty:
            self._dirty = False
            self._next += self._draw_text(*self._text.open_block(), grows=True) / MAX_GROWTH
        for call in self._calls.values():
            # Not at once: until then the question of a call may come.
            if call.began is not None and now - call.began >= LIFE_AFTER and not call.waits and call.is_stale(now):
                self._draw_call(call)
        self._draw_tasks()
        self._draw_subagents()
        if (words := self._life(now)) is not None:
            data = line(words[0], "⋯", note=words[1])
            if self._free is None:
                self._free = self._put(data)
            else:
                self.out.update(data, self._free)

    def _life(self, now: float) -> tuple[str, str] | None:
        """Return what is being waited for and since when, once a second, if nothing else on the page shows it."""
        waited = now - self._since
        if waited < LIFE_AFTER or self._display is not None or self._questions:
            return None
        if any(call.display is not None for call in self._calls.values()):
            return None
        if self._second == int(waited):
            return None
        self._second = int(waited)
        what = next((call.name for call in self._calls.values()), "thinking" if self._thinking else "")
        return " · ".join(filter(None, (self._model, what))) or "model", f"{self._second} s"

    def _put(self, data: Bundle) -> str:
        """Show an output in place of the living line, else below all others. Returns its display id."""
        display, self._free = self._free, None
        if display is not None:
            self.out.update(data, display)
        else:
            display = uuid4().hex if self.live else ""
            self.out.show(data, display or None)
        self._last = display
        return display

    def _draw_tasks(self) -> None:
        """Show the task board, if it has changed."""
        if self._quiet or not self._tasks.changed:
            return
        if self._tasks.display is None or not self.live:
            self.settle()
            self._tasks.display = self._put(self._tasks.bundle())
        else:
            self.out.update(self._tasks.bundle(), self._tasks.display)

    def _hear_subagent(self, event: TaskUpdated) -> None:
        if event.status == "spawned":
            self._subagents[event.task_id] = SubagentRow(event)
        elif (row := self._subagents.get(event.task_id)) is not None:
            row.take(event)

    def _draw_subagents(self) -> None:
        """Show the subagents of which something is new; without `live` those that have ended."""
        for row in self._subagents.values():
            if self._quiet or not row.changed or not (self.live or row.is_over):
                continue
            if row.display is None:
                self.settle()
                row.display = self._put(row.bundle())
            else:
                self.out.update(row.bundle(), row.display)

    def _draw_retry(self, event: RetryNotice) -> None:
        """Say that a request is sent again, in place of the line that said so of the attempt before."""
        seconds = round(event.next_delay_ms / 1000)
        when = f"again in {seconds} s" if seconds else "again at once"
        data = line(event.error_message, "↻", note=f"{when} ({event.attempt} of {event.max_attempts})")
        if self._retry is None:
            self.settle()
            self._retry = self._put(data)
        else:
            self.out.update(data, self._retry)

    def note(self, text: str, mark: str = "", note: str = "", detail: str = "") -> None:
        """Show one line below the text so far."""
        self.settle()
        self._put(line(text, mark, note=note, detail=detail))

    def make_room(self) -> None:
        """Show all that came before, so that what code prints into the cell comes below it."""
        self.settle()
        for call in self._calls.values():
            if call.began is not None and not call.waits:
                self._draw_call(call)
        if self._free is not None:
            self._put(EMPTY)
        self._last = None

    def settle(self) -> None:
        """Finish the growing block, so that the next output comes below it."""
        self._end_thoughts()
        self._text.end()
        while self._later:
            self._put(self._later.pop(0))

    def _say_later(self, data: Bundle) -> None:
        """Show a line, once the text that is being written has ended."""
        self._later.append(data)
        if not any(self._text.open_block()):
            self.settle()

    def offer(self, data: Bundle) -> str | None:
        """Show an output unless text is being written. Returns its display id if it is shown."""
        if not self.live or any(self._text.open_block()):
            return None
        self.settle()
        return self._put(data)

    def question(
        self, question: PermissionQuestion, shown: Bundle | None, resume: str = "%mentra resume"
    ) -> str | None:
        """Show an open question as `shown`, such as a card, below the row of its call. Returns its display id.

        `resume` is the command that goes on if the kernel is gone.
        """
        self.settle()
        if (call := self._calls.get(question.tool_call_id)) is not None:
            call.waits, call.judged = resume, question.effect
            if shown:
                self._draw_call(call)
        display = self._put(shown) if shown else None
        self._questions[question.request_id] = question, display
        return display

    def hide_card(self, request_id: str) -> None:
        """Show nothing more of a question but the row of its call, while another is shown."""
        question, display = self._questions.get(request_id, (None, None))
        if question is not None and display is not None:
            self.out.update(EMPTY, display)
            self._questions[request_id] = question, None

    def finish(
        self,
        *,
        model: str | None = None,
        usage: TokenUsage | None = None,
        cost: float | None = None,
        seconds: float | None = None,
        why: tuple[str, str] | None = None,
        failed: bool = False,
    ) -> None:
        """Close all that is still open and show the footer.

        Args:
            model: The model that answered; `None` if it did not.
            usage: The tokens of the turn.
            cost: In US dollars; nothing is shown if it is unknown or 0.
            seconds: How long the turn took.
            why: Why the answer is not whole, and what to do about it.
            failed: Whether an error follows. Without tokens there is no footer then.
        """
        self._close_all()
        if why is not None:
            self.note(why[0], "⚠", why[1])
        usage = usage or self._usage
        asked = self._model if self.timed and not failed else None
        if self._quiet or (usage.is_empty() and not (model or asked)):
            if self._free is not None:
                self._put(EMPTY)
            return
        text = footer(model or self._model, usage, self._last_usage, cost=cost, seconds=seconds, timed=self.timed)
        self._put(line("", note=text))

    def _close_all(self) -> None:
        """Finish the text, and close the questions and calls that are still open."""
        self.settle()
        self._draw_tasks()
        self._draw_subagents()
        for request_id, (question, _) in list(self._questions.items()):
            self._draw_answer(
                QuestionAnswered(
                    request_id=request_id,
                    tool_call_id=question.tool_call_id,
                    tool_name=question.tool_name,
                    outcome="denied",
                    decided_by="cancelled",
                )
            )
        for call in self._calls.values():
            call.closed()
            self._draw_call(call)
        self._calls.clear()

    def _draw_text(self, text: str, opener: str, *, grows: bool = False) -> int:
        """Draw a block. Returns the characters of its HTML."""
        if not text.strip():
            return 0
        data = (growing if grows else bundle)(text, opener=opener, first_code=self._codes + (not opener))
        if self._display is None or not self.live:
            self._display = self._put(data)
        else:
            self.out.update(data, self._display)
        return len(data["text/html"])

    def _close_block(self, text: str, opener: str) -> None:
        self._draw_text(text, opener)
        self._codes += count_code(opener + text) - bool(opener)
        self._display, self._dirty = None, False

    def _end_thoughts(self) -> None:
        if self._thoughts:
            thoughts, self._thoughts = "".join(self._thoughts), []
            self.note("thinking", "…", detail=thoughts)

    def _draw_call(self, call: Call) -> None:
        if self._quiet or not (self.live or call.mark) or (call.is_answer and call.mark != "✗"):
            return
        data = call.bundle(timed=self.timed, is_open=self._verbose)
        if call.display is None:
            self.settle()
            call.display = self._put(data)
        else:
            self.out.update(data, call.display)

    def _draw_answer(self, answer: QuestionAnswered) -> None:
        question, display = self._questions.pop(answer.request_id, (None, None))
        call = self._calls.get(answer.tool_call_id)
        clock = time.strftime("%H:%M") if self.timed else ""
        if answer.decided_by == "headless" and question:
            calls = calls_to_allow(question) if question.form is None else None
            advice = f"nobody could be asked; to allow it beforehand: {calls}" if calls else "nobody could be asked"
            answer = answer.model_copy(update={"reason": advice})
        if display is not None:
            self.out.update(EMPTY, display)
            if display == self._last:
                self._free = display
        if call is not None:
            if question is not None and question.form is not None:
                call.filled_in(answer)
            else:
                call.answered(answer, clock)
            call.began = time.monotonic()
            if self.live:
                self._draw_call(call)
        if call is None or self._quiet:
            self.settle()
            what = asking.subject(question) if question else answer.tool_name
            note = decision(answer, clock, question.effect if question else None)
            if question is not None and question.form is not None:
                what = cut(what, MAX_SUBJECT)
                note = f"{question.form.yes}: {note}" if answer.outcome == "allowed" else note
            self._put(
                line(
                    what,
                    "✓" if answer.outcome == "allowed" else "✗",
                    note=note,
                )
            )


def _tokens(event: UsageReported) -> TokenUsage:
    return TokenUsage(
        input_tokens=event.input_tokens,
        output_tokens=event.output_tokens,
        cache_read_input_tokens=event.cache_read_tokens,
        cache_creation_input_tokens=event.cache_creation_tokens,
    )

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
    Notice,
    QuestionAnswered,
    RetryNotice,
    SessionEvent,
    TaskUpdated,
    ToolCompleted,
    ToolProgress,
    ToolQueued,
    ToolStarted,
    UsageReported,
)
from mentra_nb.notebook import asking
from mentra_nb.notebook.output import Out
from mentra_nb.notebook.render import Bundle, bundle, line
from mentra_nb.notebook.text_blocks import TextBlocks
from mentra_nb.permission.asking import calls_to_allow

LIFE_AFTER = 0.2
"""Seconds without an event after which a line says what is being waited for."""


class TurnView:
    """Draws one turn. All calls must come from one thread: `tick` often, and `finish` once.

    With `live` the output is updated in place, at most `hz` times a second. Otherwise each piece is shown once it is
    complete, without times, durations and costs, so that the outputs of two automatic runs can be compared.
    """

    def __init__(self, out: Out, *, live: bool, hz: float, quiet: bool = False, verbose: bool = False) -> None:
        self.out: Out = out
        self.live: bool = live
        self._pause, self._next = 1.0 / hz, 0.0
        self._since = time.monotonic()
        self._life: str | None = None
        self._retry: str | None = None
        self._second = -1
        self._thinking = False
        self._quiet, self._verbose = quiet, verbose
        self._text = TextBlocks(self._close_block)
        self._display: str | None = None
        self._dirty = self._any_text = False
        self._thoughts: list[str] = []
        self._calls: dict[str, _Call] = {}
        self._questions: dict[str, tuple[PermissionQuestion, str | None]] = {}
        self._usage = TokenUsage()

    def handle(self, event: SessionEvent) -> None:
        """Show an event. Text and the progress of tools are kept until the next `tick`."""
        if not isinstance(event, RetryNotice):
            self._retry = None
        if not isinstance(event, AssistantReasoningDelta):
            self._since, self._thinking = time.monotonic(), False
        match event:
            case AssistantTokenDelta(delta=delta):
                self._end_thoughts()
                self._any_text = self._dirty = True
                self._text.feed(delta)
            case AssistantReasoningDelta(delta=delta):
                self._thinking = True
                if self._verbose:
                    self._thoughts.append(delta)
            case AssistantMessageCompleted(text=text) if not self._any_text:
                self._text.feed(text)  # a model that does not stream
            case ToolQueued():
                self._calls[event.tool_call_id] = _Call(event.tool_name, event.summary, event.input_json)
            case ToolStarted():
                call = self._calls.setdefault(event.tool_call_id, _Call(event.tool_name))
                call.began = time.monotonic()
                self.settle()  # also when quiet: the texts of two rounds are not one text
            case ToolProgress() if event.tool_call_id in self._calls:
                self._calls[event.tool_call_id].set_progress(event.progress)
            case ToolCompleted():
                call = self._calls.pop(event.tool_call_id, _Call(event.tool_name))
                call.mark, call.progress = "✗" if event.is_error else "✓", ""
                call.result = event.output or event.summary
                call.duration_ms = event.duration_ms
                if event.is_error and event.duration_ms is None:
                    call.progress = "not run"
                self._draw_call(call)
            case QuestionAnswered():
                if (asked := self._calls.get(event.tool_call_id)) is not None:
                    asked.waits, asked.began = False, time.monotonic()
                self._draw_answer(event, asked)
            case UsageReported():
                self._usage += TokenUsage(input_tokens=event.input_tokens, output_tokens=event.output_tokens)
            case RetryNotice() if not self._quiet and self.live:
                self._draw_retry(event)
            case Notice():
                self.note(event.message, "⚠" if event.severity == "warning" else "ℹ")
            case TaskUpdated() if not self._quiet:
                self.note(f"{event.title}: {event.status}", "▸", event.detail or "")
            case CompactionCompleted() if not self._quiet:
                self.note(f"history shortened: {event.replaced_items} entries became a summary", "ℹ")

    def tick(self) -> None:
        """Draw what has come since the last drawing, at most `hz` times a second, and the seconds of what runs."""
        now = time.monotonic()
        if not self.live or now < self._next:
            return
        self._next = now + self._pause
        if self._dirty:
            self._dirty = False
            self._draw_text(*self._text.open_block(), coloured=False)
        for call in self._calls.values():
            # Not at once: until then the question of a call may come, and its card becomes the call's line.
            if call.began is not None and now - call.began >= LIFE_AFTER and not call.waits and call.is_stale(now):
                self._draw_call(call)
        self._draw_life(now)

    def _draw_life(self, now: float) -> None:
        """Show what is being waited for, if nothing else on the page shows it. What comes next takes its place."""
        waited = now - self._since
        if waited < LIFE_AFTER or self._display is not None or self._questions:
            return
        if any(call.display is not None for call in self._calls.values()):
            return
        if self._life is not None and int(waited) == self._second:
            return
        self._second = int(waited)
        what = next((call.name for call in self._calls.values()), "thinking" if self._thinking else "model")
        data = line(what, "⋯", note=f"{self._second} s")
        if self._life is None:
            self._life = uuid4().hex
            self.out.show(data, self._life)
        else:
            self.out.update(data, self._life)

    def _put(self, data: Bundle) -> str:
        """Show an output in place of the living line, else below all others. Returns its display id."""
        display, self._life = self._life, None
        if display is not None:
            self.out.update(data, display)
        else:
            display = uuid4().hex if self.live else ""
            self.out.show(data, display or None)
        return display

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

    def settle(self) -> None:
        """Finish the growing block, so that the next output comes below it."""
        self._end_thoughts()
        self._text.end()

    def question(self, question: PermissionQuestion, shown: Bundle | None) -> None:
        """Show an open question as `shown`, such as a card. The decision will replace it."""
        self.settle()
        display = self._put(shown) if shown else None
        if (call := self._calls.get(question.tool_call_id)) is not None:
            call.waits = True
        self._questions[question.request_id] = question, display

    def finish(
        self,
        *,
        model: str | None = None,
        usage: TokenUsage | None = None,
        cost: float | None = None,
        seconds: float | None = None,
        stopped: bool = False,
        why: tuple[str, str] | None = None,
    ) -> None:
        """Close all that is still open and show the footer.

        Args:
            model: The model that answered.
            usage: The tokens of the turn.
            cost: In US dollars; `None` if unknown, which shows nothing.
            seconds: How long the turn took.
            stopped: Whether the user stopped it.
            why: Why the answer is not whole, and what to do about it.
        """
        self._close_all(stopped)
        if why is not None:
            self.note(why[0], "⚠", why[1])
        usage = usage or self._usage
        if self._quiet or (model is None and usage.is_empty() and not stopped):
            if self._life is not None:
                self._put({"text/html": "", "text/plain": ""})
            return
        parts = [model or ""]
        if not usage.is_empty():
            parts.append(f"{_count(usage.input_tokens)} in / {_count(usage.output_tokens)} out")
        if self.live:
            parts.append("" if cost is None else _dollars(cost))
            parts.append("" if seconds is None else f"{seconds:.1f} s")
        if stopped:
            parts.append("stopped")
        self._put(line("", note=" · ".join(filter(None, parts))))

    def _close_all(self, stopped: bool) -> None:
        """Finish the text, and close the questions and calls that are still open."""
        self.settle()
        for request_id, (question, _) in list(self._questions.items()):
            self._draw_answer(
                QuestionAnswered(
                    request_id=request_id,
                    tool_call_id=question.tool_call_id,
                    tool_name=question.tool_name,
                    outcome="denied",
                    decided_by="cancelled",
                ),
                None,
            )
        for call in self._calls.values():
            call.mark, call.progress = "✗", "stopped" if stopped else "not run"
            self._draw_call(call)
        self._calls.clear()

    def _draw_text(self, text: str, opener: str, *, coloured: bool = True) -> None:
        if not text.strip():
            return
        data = bundle(text, opener=opener, coloured=coloured)
        if self._display is None or not self.live:
            self._display = self._put(data)
        else:
            self.out.update(data, self._display)

    def _close_block(self, text: str, opener: str) -> None:
        self._draw_text(text, opener)
        self._display, self._dirty = None, False

    def _end_thoughts(self) -> None:
        if self._thoughts:
            thoughts, self._thoughts = "".join(self._thoughts), []
            self.note("thinking", "…", detail=thoughts)

    def _draw_call(self, call: _Call) -> None:
        if self._quiet or not (self.live or call.mark):
            return
        data = call.bundle(timed=self.live, full=self._verbose)
        if call.display is None:
            self.settle()
            call.display = self._put(data)
        else:
            self.out.update(data, call.display)

    def _draw_answer(self, answer: QuestionAnswered, call: _Call | None) -> None:
        question, display = self._questions.pop(answer.request_id, (None, None))
        clock = time.strftime("%H:%M") if self.live else ""
        if call is not None and answer.outcome == "allowed" and not self._quiet:
            call.allowed = " ".join(filter(None, (_allowed(answer), clock)))
            call.display = call.display or display  # the card becomes the line of the call
            self._draw_call(call)
            return
        what = asking.subject(question) if question else answer.tool_name
        text = " · ".join(filter(None, (_decision(answer), clock, what)))
        note = answer.reason or ""
        if answer.decided_by == "headless" and question:
            note = f"to allow it beforehand: {calls_to_allow(question)}"
        data = line(text, "✓" if answer.outcome == "allowed" else "✗", note=note)
        if display is not None:
            self.out.update(data, display)
        else:
            self.settle()
            self._put(data)


class _Call:
    """The line of one tool call."""

    def __init__(self, name: str, summary: str = "", arguments: str = "") -> None:
        self.name, self.summary, self.arguments = name, summary, arguments
        self.mark = self.progress = self.result = ""
        self.duration_ms: int | None = None
        self.display: str | None = None
        self.allowed = ""
        """Who allowed it, if a person was asked."""
        self.began: float | None = None
        self.waits = False
        """Whether a person is asked about it."""
        self._drawn: tuple[str, int] = "", -1

    def set_progress(self, text: str) -> None:
        """Keep the last progress for the next drawing."""
        self.progress = text

    def is_stale(self, now: float) -> bool:
        """Return whether its progress or its seconds are others than those drawn, and take them as drawn."""
        before, self._drawn = self._drawn, (self.progress, int(now - (self.began or now)))
        return before != self._drawn

    def bundle(self, *, timed: bool, full: bool) -> Bundle:
        summary = self.summary.removeprefix(self.name).lstrip(" :")
        note = self.progress
        if timed and not note and self.duration_ms is not None:
            note = f"{self.duration_ms / 1000:.1f} s"
        elif timed and not self.mark and self._drawn[1] > 0:
            note = " · ".join(filter(None, (f"{self._drawn[1]} s", note)))
        note = " · ".join(filter(None, (note, self.allowed)))
        detail = "\n".join(filter(None, (self.arguments, self.result))) if self.mark else ""
        data = line("  ".join(filter(None, (self.name, summary))), self.mark or "⋯", note=note, detail=detail)
        if full and self.result:
            data["text/html"] = data["text/html"].replace("<details>", "<details open>", 1)
        return data


_HOW = {"session": "for this session", "project": "for this project", "global": "everywhere"}
_WHO = {
    "user": "by you",
    "timeout": "no answer in time",
    "cancelled": "cancelled",
    "headless": "nobody could be asked",
}


def _allowed(answer: QuestionAnswered) -> str:
    who = "you" if answer.decided_by == "user" else answer.decided_by
    return f"{who}, {_HOW[answer.rule_scope] if answer.rule_scope else 'once'}"


def _decision(answer: QuestionAnswered) -> str:
    verb = "Allowed" if answer.outcome == "allowed" else "Denied"
    if answer.outcome == "allowed":
        verb += f" {_HOW[answer.rule_scope]}" if answer.rule_scope else " once"
    who = _WHO.get(answer.decided_by, f"by {answer.decided_by}")
    return f"{verb} {who}" if who.startswith("by ") else f"{verb}: {who}"


def _count(tokens: int | None) -> str:
    if tokens is None:
        return "?"
    return str(tokens) if tokens < 1000 else f"{tokens / 1000:.1f}k" if tokens < 999_950 else f"{tokens / 1e6:.1f}M"


def _dollars(cost: float) -> str:
    return (
        f"${cost:.2f}" if cost >= 1 else f"${cost:.4f}".rstrip("0").rstrip(".") if cost >= 0.0001 else "under $0.0001"
    )

"""The row of one tool call: what it does, how long it took, who allowed it, and in a fold all it was given and gave.

`✓ shell  head -2 sales.csv  0.1 s · rule head *`
"""

from __future__ import annotations

import json
import re
from collections import deque
from typing import Any

from mentra_nb.agent.results import NOT_RUN, STOPPED, STOPPED_TRIAL
from mentra_nb.authorization import CallEffect
from mentra_nb.event.projections import subject_of
from mentra_nb.event.screen import QuestionAnswered, ToolCompleted, ToolDecided
from mentra_nb.notebook import asking
from mentra_nb.page.escaping import cut
from mentra_nb.page.render import Bundle, Folded, line
from mentra_nb.tools.clipping import as_printed
from mentra_nb.tools.spec import ANSWERS
from mentra_nb.words import counted

MAX_SUBJECT = 80
"""Characters of a command or path in a row. The fold has all of it."""
SHORTEST = 50
"""Milliseconds of the shortest call that says how long it took."""
MAX_REASON = 200
"""Characters of a reason in a row."""
MAX_TAIL = 8
"""Lines of the output of a running call that are shown beneath its row."""
MAX_TAIL_LINE = 200
"""Characters of such a line."""
CODE: dict[str, tuple[str, str]] = {
    "python": ("code", "python"),
    "shell": ("command", "bash"),
    "background_run": ("command", "bash"),
}
"""The tools that run code: the argument that has it, and its language."""
MAX_ADVICE = 1_200
"""Characters of the advice how to allow a call where nobody can be asked: it quotes what the call acts on."""

_ENDING = re.compile(r"\[(exit status \d+|timed out after [^\]]*|killed by a signal)\]\Z")
_CHANGED = re.compile(r"(?:(?:\A|\n)\[(?:files: |names: |undo )[^\n]*\])+\Z")
_PREFIX = re.compile(r"\A(?:Tool execution (?:denied|requires approval)|Blocked by pre-execution hook): ")
_SCOPES = {"session": "for this session", "project": "for this project", "global": "everywhere"}
_DENIED = {
    "user": "denied by you",
    "timeout": "denied: no answer in time",
    "cancelled": "not run",
    "runtime": "not run",
}


class Call:
    """The row of one tool call."""

    def __init__(self, name: str, input_json: str = "{}") -> None:
        self.is_answer: bool = name.startswith(ANSWERS)
        """Whether its arguments are the typed answer of the turn."""
        self.name: str = "answer" if self.is_answer else name
        given = json.loads(input_json)
        self.arguments: dict[str, Any] = given if isinstance(given, dict) else {"": given}
        self.mark: str = ""
        self.progress: str = ""
        self.result: str = ""
        self.duration_ms: int | None = None
        self.display: str | None = None
        self.decision: str = ""
        """Who allowed or denied it."""
        self.denied: bool = False
        self.began: float | None = None
        self.judged: CallEffect | None = None
        """What it did in the sandbox, if a person was asked about that."""
        self.waits: str = ""
        """While a person is asked about it, the command that goes on if the kernel is gone."""
        self._drawn: tuple[tuple[str, ...], int] = (), -1
        self._tail: deque[str] = deque(maxlen=MAX_TAIL)
        self._redrawn = False
        """Whether the last line of the tail is one that is redrawn, such as that of a progress bar."""

    @property
    def subject(self) -> str:
        """What it acts on, on one line: its command or path, its operations on files, else its arguments."""
        if (found := subject_of(self.arguments)) is not None:
            return cut(_first_line(found) if found == self.arguments.get("code") else found, MAX_SUBJECT)
        parts = (f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in self.arguments.items())
        return cut(", ".join(parts), MAX_SUBJECT)

    def set_progress(self, text: str) -> None:
        """Keep a progress, as a terminal would show it, for the next drawing: its last line, and those before it."""
        lines = as_printed(text).strip().splitlines()
        self.progress = cut(lines[-1], MAX_SUBJECT) if lines else ""
        if self._redrawn and self._tail:
            self._tail.pop()
        self._tail.extend(cut(line, MAX_TAIL_LINE) for line in lines[-MAX_TAIL:])
        self._redrawn = bool(lines) and text.endswith("\r")

    def is_stale(self, now: float) -> bool:
        """Return whether its progress or its seconds are others than those drawn, and take them as drawn."""
        before, self._drawn = self._drawn, ((*self._tail, self.progress), int(now - (self.began or now)))
        return before != self._drawn

    def answered(self, answer: QuestionAnswered, clock: str) -> None:
        """Take in the answer of a person, or why there is none."""
        self.waits, self.denied = "", answer.outcome == "denied"
        self.decision = decision(answer, clock, self.judged)

    def filled_in(self, answer: QuestionAnswered) -> None:
        """Take in what became of the values that the call, which was let before, asked a person for."""
        self.waits = ""
        what = "values not filled in" if answer.outcome == "denied" else f"values by {_who(answer)}"
        self.decision = " · ".join(filter(None, (self.decision, _with_reason(what, answer.reason or ""))))

    def decided(self, event: ToolDecided) -> None:
        """Take in who decided, where nobody was asked."""
        if self.decision:
            return
        if event.allowed:
            named = {
                "rule": f"rule {event.pattern or ''}".rstrip(),
                "setting": "setting ask='changes'",
                "sandbox": "changed nothing",
                "user": "you, earlier",
                "runtime": "",
            }
            self.decision = named.get(event.decided_by, event.decided_by)
        else:
            self.denied = True
            self.decision = _denied(event.decided_by, event.reason, event.pattern)

    def completed(self, event: ToolCompleted) -> None:
        """Take in the result."""
        self.mark, self.progress = "✗" if event.is_error else "✓", ""
        self.result, self.duration_ms = event.output or event.summary, event.duration_ms
        if self.name == "python" and self.duration_ms is not None:
            self.progress = _of_code(self.result, is_error=event.is_error)
            return
        if not event.is_error:
            return
        ending = _ENDING.search(self.result.rstrip())
        if self.result == STOPPED_TRIAL:
            self.progress = self.result
        elif self.result.startswith((NOT_RUN, STOPPED)):
            self.progress = "not run" if self.result.startswith(NOT_RUN) else "not finished"
        elif ending is not None:
            self.progress = ending[1]
        elif self.duration_ms is None and not self.decision:
            self.progress = _with_reason("not run", _PREFIX.sub("", self.result))
        elif self.duration_ms is not None:
            self.progress = cut(self.result.strip().partition("\n")[0], MAX_REASON)

    def closed(self) -> None:
        """Take in that the turn has ended before it."""
        self.mark, self.progress = "✗", ""
        if not self.denied:
            self.progress = "not run" if self.waits or self.began is None else "not finished"
        self.waits = ""

    def bundle(self, *, timed: bool, is_open: bool) -> Bundle:
        """Return the row as it is now. `timed`: with seconds; `is_open`: with its result unfolded.

        While it runs, the last lines of its output are beneath it, if there are several.
        """
        took = ""
        if timed and self.mark and (self.duration_ms or 0) >= SHORTEST:
            took = f"{(self.duration_ms or 0) / 1000:.1f} s"
        elif timed and not self.mark and self._drawn[1] > 0 and not self.waits:
            took = f"{self._drawn[1]} s"
        waits = f"waits for your answer; if the kernel is gone: {self.waits}" if self.waits else ""
        parts = dict.fromkeys(filter(None, (took, waits or self.progress, self.decision)))
        detail: tuple[Folded, ...] = ()
        if self.mark:
            detail = self._folded()
        elif len(self._tail) > 1 and not self.waits:
            detail = (Folded("\n".join(self._tail)),)
        return line(
            self.name,
            self.mark or "⋯",
            code=self.subject,
            note=" · ".join(parts),
            detail=detail,
            is_open=bool(detail) if not self.mark else is_open and bool(self.result),
        )

    def _folded(self) -> tuple[Folded, ...]:
        """Return what was given and what came of it: code by itself, and the end of its output first."""
        key, language = CODE.get(self.name, ("", ""))
        code = self.arguments.get(key)
        if not isinstance(code, str):
            given = asking.written_out(self.arguments)
            return (Folded("\n\n".join(filter(None, (given, self.result)))),)
        others = asking.written_out({name: value for name, value in self.arguments.items() if name != key})
        return Folded(asking.in_sight(code), language), Folded(others), Folded(self.result, from_end=True)


def _first_line(code: str) -> str:
    """Return the first line of code, and how many follow."""
    first, *more = code.strip().split("\n")
    return f"{cut(first, MAX_SUBJECT - 20)} … {counted(len(more), 'more line')}" if more else first


def _of_code(result: str, *, is_error: bool) -> str:
    """Return the error that code raised, what it did to files and names, and last what undo cannot do about it."""
    found = _CHANGED.search(result)
    said = result[: found.start()] if found else result
    error = said.strip().rpartition("\n")[2] if is_error else ""
    error = "not finished" if said.startswith(STOPPED) else error
    lines = [line[1:-1] for line in found[0].strip().split("\n")] if found else []
    changed = [re.sub(r"\A(?:files|names): ", "", line) for line in sorted(lines, key=lambda line: line[:5] == "undo ")]
    return cut(" · ".join(filter(None, (error, *changed))), MAX_REASON)


def decision(answer: QuestionAnswered, clock: str, judged: CallEffect | None = None) -> str:
    """Return how a question was closed: `you, once 14:02`, `denied by you: too late`, `2 files kept by you 14:02`."""
    files = counted(len(judged.files), "file") if judged is not None and not judged.outside else ""
    if answer.decided_by.startswith("rule:"):  # made with the answer to another question
        return f"{'allowed' if answer.outcome == 'allowed' else 'denied'} by the new rule {clock}".rstrip()
    if answer.outcome == "denied":
        denied = _denied(answer.decided_by, answer.reason)
        return f"{files} discarded, {denied}" if files else denied
    how = _SCOPES[answer.rule_scope] if answer.rule_scope else "once"
    if answer.rule_scope and answer.pattern:
        how += f" {answer.pattern}"
    if files:
        return f"{files} kept by {_who(answer)}{f', {how}' if answer.rule_scope else ''} {clock}".rstrip()
    return f"{_who(answer)}, {how} {clock}".rstrip()


def _who(answer: QuestionAnswered) -> str:
    return "you" if answer.decided_by == "user" else answer.decided_by


def _denied(by: str, reason: str | None, pattern: str | None = None) -> str:
    text = _DENIED.get(by, f"denied by {by}" + (f" {pattern}" if pattern else ""))
    if by == "headless" and reason:
        return f"denied: {cut(reason, MAX_ADVICE)}"
    if by in ("timeout", "cancelled"):
        return STOPPED_TRIAL if reason == STOPPED_TRIAL else text
    return _with_reason(text, reason)


def _with_reason(text: str, reason: str | None) -> str:
    return f"{text}: {cut(reason, MAX_REASON)}" if reason else text

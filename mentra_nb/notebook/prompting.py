"""A question at a prompt, of a terminal or of an input box: what is written, and what a person types for an answer.

*Always* leads to the patterns that the card proposes, and a form to its fields, one after another.
"""

from __future__ import annotations

import contextlib
import sys
from typing import Any, Literal

from mentra_nb.authorization import PermissionDecision, PermissionQuestion
from mentra_nb.errors import MentraError, OperationDenied
from mentra_nb.notebook import asking
from mentra_nb.notebook.commands.command import Answer
from mentra_nb.notebook.typed import is_always, parse_reply, says_yes
from mentra_nb.notebook.wide import told
from mentra_nb.page.escaping import visible

NOT_AN_ANSWER = "That is not an answer. Type "
_REPLIES = "a, w, d or s, or: deny because REASON"


class Prompt:
    """One question at a prompt. `text` is what to write next; `reply` takes what was typed."""

    def __init__(self, question: PermissionQuestion, project: str | None, whole: str, *, repeats: bool) -> None:
        """`whole` is the question as text, which is written above the first prompt, or above each that `repeats` it."""
        self.question = question
        self._project = project
        self._whole, self._repeats = whole, repeats
        self._said = ""
        self._asks: Literal["answer", "pattern", "field"] = "answer"
        self._patterns: list[dict[str, str]] = []
        self._values: dict[str, Any] = {}
        self._number = 0
        """Of the field that is asked for."""

    def text(self) -> str:
        """Return what to write before the person types."""
        said = "".join(f"{text}\n" for text in (self._said, self._whole) if text)
        self._said, self._whole = "", self._whole if self._repeats else ""
        match self._asks:
            case "pattern":
                return f"{said}Number, a pattern of your own (* any text, ? one character), or nothing to go back: "
            case "field":
                return f"{said}{asking.field_line(self._form.fields[self._number])}: "
        return f"{said}{asking.choices(self.question)}: "

    def refuse(self, why: str) -> None:
        """Have the next prompt say why the answer was not taken."""
        self._said, self._asks = visible(why), "answer"

    def reply(self, text: str) -> Answer | None:
        """Take what was typed. Returns the answer, or `None` if `text` is to be asked next."""
        match self._asks:
            case "pattern":
                return self._chosen(text.strip())
            case "field":
                return self._filled(text.strip())
        if is_always(text) and self._propose():
            return None
        answer = parse_reply(text, self.question.form)
        if answer is None:
            valid = _REPLIES if self.question.form is None else asking.choices(self.question)
            self._said = f"{NOT_AN_ANSWER}{valid}"
        elif says_yes(answer) and self.question.form is not None and self.question.form.fields:
            self._asks, self._number, self._values = "field", 0, {}
            return None
        return answer

    @property
    def _form(self) -> Any:
        assert self.question.form is not None
        return self.question.form

    def _can_be_remembered(self) -> bool:
        done = self.question.effect
        return self.question.form is None and (done is None or bool(asking.folders(self.question)))

    def _propose(self) -> bool:
        """Write the patterns to remember the call by, if it can be remembered by one."""
        from mentra_nb.chat.engine import engine
        from mentra_nb.chat.proposals import proposals

        try:
            self._patterns = proposals(engine(), self.question, self._project) if self._can_be_remembered() else []
        except MentraError:
            self._patterns = []
        told(self.question, (each["pattern"] for each in self._patterns))
        rows = [
            "  ".join(filter(None, (f"  {n}", visible(each["pattern"]), _broad(each), visible(each["covered"]))))
            for n, each in enumerate(self._patterns, 1)
        ]
        self._said = "\n".join(["Each covers this call in this conversation from now on, from narrow to wide:", *rows])
        self._asks = "pattern" if self._patterns else "answer"
        return bool(self._patterns)

    def _chosen(self, text: str) -> Answer | None:
        self._asks = "answer"
        if not text:
            return None
        if text.isdecimal() and len(text) == 1:
            if not 1 <= int(text) <= len(self._patterns):
                self._said, self._asks = f"There is no pattern {text}.", "pattern"
                return None
            text = self._patterns[int(text) - 1]["pattern"]
        return PermissionDecision(allow=True, remember="session", pattern=text)

    def _filled(self, text: str) -> Answer | None:
        field = self._form.fields[self._number]
        try:
            if text or (field.required and field.default is None):
                self._values[field.name] = self._form.checked(field.name, text)
        except OperationDenied as error:
            self._said = visible(str(error))
            return None
        self._number += 1
        if self._number < len(self._form.fields):
            return None
        self._asks = "answer"
        return PermissionDecision(allow=True, values=self._values)


def _broad(pattern: dict[str, str]) -> str:
    return f"⚠ broad: {visible(pattern['broad'])};" if pattern["broad"] else ""


def ask(prompt: Prompt) -> Answer:
    """Ask at a terminal until there is an answer. The end of input is a denial; Ctrl-C raises `KeyboardInterrupt`."""
    _drop_typed_ahead()
    while True:
        *lines, last = prompt.text().split("\n")
        print(*lines, sep="\n", end="\n" * bool(lines), flush=True)  # noqa: T201
        try:
            answer = prompt.reply(input(last))
        except EOFError:
            return PermissionDecision(allow=False, by="headless", reason="nobody could be asked")
        if answer is not None:
            return answer


def _drop_typed_ahead() -> None:
    """Drop what was typed at the terminal before the question was there to read."""
    try:
        import termios
    except ImportError:  # Windows
        return
    with contextlib.suppress(OSError, ValueError, termios.error):
        if sys.stdin.isatty():
            termios.tcflush(sys.stdin, termios.TCIFLUSH)

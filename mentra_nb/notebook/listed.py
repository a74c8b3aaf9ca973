"""The open questions of this home as `%mentra` lists them, with a card to answer them by, and the answers typed here.

A question can only be answered by its number once it has been listed in this kernel, and by a cell that was sent after
its list could be read: a cell of one *Run all* answers nothing that nobody has seen.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from mentra_nb.authorization import PermissionDecision, PermissionScope
from mentra_nb.chat import questions
from mentra_nb.chat.questions import Waiting
from mentra_nb.errors import OperationDenied
from mentra_nb.notebook import asking, kernel
from mentra_nb.notebook.editing import short_row
from mentra_nb.notebook.wide import tell_first
from mentra_nb.page.escaping import visible
from mentra_nb.who import person
from mentra_nb.words import counted

if TYPE_CHECKING:
    from mentra_nb.notebook.approval import ApprovalCard
    from mentra_nb.notebook.commands.command import Answer
    from mentra_nb.store.records import ConversationSummary

MOST = 9
"""Questions that are listed."""
_ALONE = re.compile(r"\s*%mentra[ \t]+(?:allow|deny|answer)\b[^\n]*\s*")
NONE = "no question is open here: %mentra lists those of other notebooks"


@dataclass
class _List:
    """What was listed last in this kernel, by which cell, and when."""

    waiting: Sequence[Waiting] = ()
    cell: dict[str, Any] = field(default_factory=dict)
    shown: tuple[float, float] = 0.0, 0.0
    """Seconds after the command began, and Unix seconds."""


_last = _List()


def lines(waiting: Sequence[Waiting], own: str | None = None) -> str:
    """Return the list as text; empty for none. `own` is the id of the session whose conversation is not named."""
    if not waiting:
        return ""
    rows = [row for number, each in enumerate(waiting[:MOST], 1) for row in _rows(number, each, own)]
    more = [f"   and {counted(len(waiting) - MOST, 'more question')}"] if len(waiting) > MOST else []
    return "\n".join([f"{counted(len(waiting), 'question')} to answer:", *rows, *more])


def _rows(number: int, each: Waiting, own: str | None) -> Iterator[str]:
    """Yield the row of a question, and for values that it asks for, how they are typed."""
    yield f"{number}  {_row(each, own)}"
    if (form := each.question.form) is not None and form.fields:
        yield f"   %mentra answer {number} {asking.values_line(form)}"


def _row(each: Waiting, own: str | None) -> str:
    where = f" in '{visible(each.conversation)}'" if each.question.session_id != own else ""
    place = f" of {visible(each.notebook)}" if where and each.notebook else ""
    if where and each.os_user not in (None, person().os_user):
        place += f", begun by {visible(str(each.os_user))}"
    return f"{short_row(each.question)}{where}{place}, {max(0, each.left) / 60:.0f} min left"


def show_open(began: float) -> str:
    """Return the list of open questions as text, and show a card for them on a page.

    Args:
        began: The `time.monotonic()` at which the command began.
    """
    global _last
    waiting = questions.open_questions()
    _last = _List(waiting, kernel.cell_request(), (time.monotonic() - began, time.time()))
    if not waiting:
        return ""
    if kernel.screen() == "page" and not kernel.is_captured():
        _Cards(waiting[:MOST]).show()
    how = "To answer: click on the card, or type %mentra allow 1, or %mentra deny 1 because …"
    return f"{lines(waiting)}\n{how}"


def was_asked(conversation: ConversationSummary) -> str:
    """Return what the last turn of a conversation asked when it was stopped, as text; empty for nothing."""
    found = questions.stopped(conversation)
    if not found:
        return ""
    rows = [f"   {short_row(each)}" for each in found[:MOST]]
    waits = "a question was" if len(found) == 1 else f"{len(found)} questions were"
    return "\n".join(
        [f"When its last turn was stopped, {waits} open:", *rows, "To be asked again: %mentra resume", "", ""]
    )


def answer_typed(number: int | None, decision: PermissionDecision) -> str:
    """Answer a question that was listed here, and return the outcome in one line.

    Raises:
        OperationDenied: it was not listed, its list could not be read yet, no person typed it, or it is closed.
    """
    from mentra_nb.notebook.pump import sent_after_reading

    if not _last.waiting:
        raise OperationDenied(NONE)
    request = kernel.cell_request()
    if not kernel.is_watched():
        raise OperationDenied("a question is answered by a person: no one is at this notebook")
    if request:
        code = str(request.get("content", {}).get("code", ""))
        if _ALONE.fullmatch(code) is None:
            raise OperationDenied("an answer counts only if it is alone in its cell: %mentra allow 1")
        if not sent_after_reading(request["header"], _last.cell, *_last.shown):
            raise OperationDenied("list the questions with %mentra and read them first; then answer in another cell")
    return answer_numbered(number, decision)


def answer_numbered(number: int | None, decision: PermissionDecision) -> str:
    """Answer a question by its number in the last list, and return the outcome in one line. Raises `MentraError`."""
    waiting = _last.waiting
    if number is None:
        if len(waiting) != 1:
            raise OperationDenied(f"which one? {counted(len(waiting), 'question')} were listed: %mentra allow 1")
        number = 1
    if number > len(waiting):
        raise OperationDenied(f"there is no question {number}: %mentra lists them")
    found = waiting[number - 1]
    tell_first(found.question, decision)
    questions.answer(found, decision)
    return asking.outcome(found.question, decision)


class _Cards:
    """A card for the questions of a list: one at a time, the others by their numbers."""

    def __init__(self, waiting: Sequence[Waiting]) -> None:
        self._waiting = list(waiting)
        self._display = uuid4().hex
        self._card: ApprovalCard | None = None

    def show(self) -> None:
        """Show the card in the running cell."""
        from IPython.display import display

        made = self._make(self._waiting[0])
        display(made.bundle(), raw=True, display_id=self._display)  # type: ignore[no-untyped-call]

    def _make(self, shown: Waiting, *, focus: bool = False) -> ApprovalCard:
        from mentra_nb.chat.rules import SCOPES
        from mentra_nb.notebook.approval import ApprovalCard, Others

        scopes: list[PermissionScope] = [scope for scope in SCOPES if scope != "project" or shown.project]
        others = Others([each.question for each in self._waiting], self._pick, self._allow_all, focus=focus)
        self._card = ApprovalCard(
            shown.question,
            lambda answer: self._decide(shown, answer),
            scopes=scopes,
            project=shown.project,
            resume="%mentra",
            others=others,
            on_ready=self._look,
            can_stop=False,
        )
        return self._card

    def _pick(self, request_id: str) -> None:
        """Show another question of the list instead."""
        found = next((each for each in self._waiting if each.question.request_id == request_id), None)
        if found is not None:
            self._replace(found, focus=True)

    def _decide(self, asked: Waiting, answer: Answer) -> None:
        assert isinstance(answer, PermissionDecision)  # the card has no other button
        tell_first(asked.question, answer)
        questions.answer(asked, answer)
        self._gone({asked.question.request_id: asking.outcome(asked.question, answer)})

    def _allow_all(self, request_ids: Sequence[str], reason: str | None) -> None:
        said = {}
        for each in [each for each in self._waiting if each.question.request_id in request_ids]:
            questions.answer(each, decision := PermissionDecision(allow=True, reason=reason))
            said[each.question.request_id] = asking.outcome(each.question, decision)
        self._gone(said)

    def _look(self) -> None:
        """Take the questions off that were closed elsewhere: the card asks for it as long as it is on a page."""
        said = {}
        for each in self._waiting:
            decision = questions.decided(each.question.request_id)
            if decision is not None:
                by = f" by {decision.user}@{decision.host}" if decision.user else f": {decision.by}"
                said[each.question.request_id] = f"{asking.outcome(each.question, decision)} (answered{by})"
            elif each.left <= 0:
                said[each.question.request_id] = f"Too late: {asking.subject(each.question)}"
        if said:
            self._gone(said)

    def _gone(self, said: dict[str, str]) -> None:
        """Go on with the next question that is open, or say what became of the last."""
        self._waiting = [each for each in self._waiting if each.question.request_id not in said]
        self._replace(self._waiting[0] if self._waiting else None, " · ".join(said.values()))

    def _replace(self, shown: Waiting | None, said: str = "", *, focus: bool = False) -> None:
        from IPython.display import update_display

        from mentra_nb.page.render import line

        before = self._card
        bundle = self._make(shown, focus=focus).bundle() if shown is not None else line(said)
        update_display(bundle, raw=True, display_id=self._display)  # type: ignore[no-untyped-call]
        if before is not None:
            before.close()

"""Patterns that cover more than they look like: a person is told so before one that they wrote is remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from mentra_nb.authorization import PermissionDecision, PermissionQuestion
from mentra_nb.errors import OperationDenied
from mentra_nb.notebook.commands.command import Answer
from mentra_nb.page.escaping import visible

MOST = 1_000
"""Patterns that are known to have been told."""
_told: OrderedDict[tuple[str, str], None] = OrderedDict()
"""The ids of questions and the patterns that a person was told about there."""


def told(question: PermissionQuestion, patterns: Iterable[str]) -> None:
    """Take in that a person has read what these patterns cover."""
    for pattern in patterns:
        _told[question.request_id, pattern] = None
    while len(_told) > MOST:
        _told.popitem(last=False)


def tell_first(question: PermissionQuestion, answer: Answer) -> None:
    """Return at once for an answer that may be taken as it is.

    Raises:
        OperationDenied: it would be remembered by a pattern that covers more than it looks like, and the person was
            not told yet. The same answer again may be taken.
    """
    if not isinstance(answer, PermissionDecision) or not answer.allow or not answer.remember or not answer.pattern:
        return
    from mentra_nb.permission.breadth import breadth

    said = breadth(answer.pattern, question.subject.kind)
    if said is None or (question.request_id, answer.pattern) in _told:
        return
    told(question, [answer.pattern])
    raise OperationDenied(
        f"'{visible(answer.pattern)}' is broad: {visible(said)}. To remember it all the same, give this answer again"
    )

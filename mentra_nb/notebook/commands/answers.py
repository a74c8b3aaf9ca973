"""`allow` and `deny`: answers to an open question, typed in any other cell or notebook. `stop` is in `jobs.py`.

While a turn waits, its own cell reads them (`typed.parse_answer`). Where nothing waits they run as cells, and answer a
question that `%mentra` has listed there.
"""

from __future__ import annotations

from mentra_nb.authorization import PermissionDecision
from mentra_nb.notebook.commands.command import Answer, Context, Words, say

WHICH = r"(?: (?P<which>[1-9]\d?))?"
"""The number of a question in the list of `%mentra`."""


def allowed(words: Words) -> Answer:
    """Return the answer of `allow`."""
    always = words["how"] == "always"
    return PermissionDecision(allow=True, remember="session" if always else None, reason=words["reason"])


def denied(words: Words) -> Answer:
    """Return the answer of `deny`."""
    return PermissionDecision(allow=False, reason=words["reason"])


def answer_listed(_context: Context, words: Words) -> None:
    """Answer a question that was listed here: of a turn in the background or elsewhere, or of one that has died."""
    from mentra_nb.notebook import listed

    decision = allowed(words) if "how" in words else denied(words)
    assert isinstance(decision, PermissionDecision)
    which = words["which"]
    say(listed.answer_typed(int(which) if which is not None else None, decision))

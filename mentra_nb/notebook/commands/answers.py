"""`allow` and `deny`: answers to an open question, typed in any other cell. `stop` is in `jobs.py`.

While a turn waits, its own cell reads them (`asking.parse_answer`). They only run as cells where nothing waits.
"""

from __future__ import annotations

from typing import NoReturn

from mentra_nb.authorization import PermissionDecision
from mentra_nb.errors import OperationDenied
from mentra_nb.notebook.commands.command import Answer, Context, Words


def allowed(words: Words) -> Answer:
    """Return the answer of `allow`."""
    return PermissionDecision(allow=True, remember="session" if words["how"] == "always" else None)


def denied(words: Words) -> Answer:
    """Return the answer of `deny`."""
    return PermissionDecision(allow=False, reason=words["reason"])


def no_question(_context: Context, _words: Words) -> NoReturn:
    """Run `allow` or `deny` as a cell: no question is open then."""
    raise OperationDenied("no question is open here: type it in another cell while one waits")

"""`allow`, `deny` and `answer`: answers to an open question, typed in any cell or notebook. `stop` is in `jobs.py`.

While a turn waits, its own cell reads them (`typed.parse_answer`). Where nothing waits they run as cells, and answer a
question that `%mentra` has listed there.
"""

from __future__ import annotations

import re
from typing import Any

from mentra_nb.authorization import PermissionDecision
from mentra_nb.notebook.commands.command import Answer, Context, Words, say

WHICH = r"(?: (?P<which>[1-9]\d?))?"
"""The number of a question in the list of `%mentra`."""
_QUOTED = """"[^"]*"|'[^']*'"""
VALUE = rf"""(?:{_QUOTED}|[^\s='"]+)=(?:{_QUOTED}|(?:[^\s'"]\S*)?)"""
"""A value for a form: `days=3`, `city="Santa Fe"`."""
_VALUE = re.compile(rf"""(?P<name>{_QUOTED}|[^\s='"]+)=(?P<text>{_QUOTED}|(?:[^\s'"]\S*)?)""")

MEANT = (
    r"(?:#?[-+]?\d+[.,:]? )?(?:(?:once|always|because)\b|(?:it|all|both|them|this|that|yes|everything|please)[.!]?$)"
    r"|#?\d+(?:,? (?:and |or )?#?\d+)+[.!]?$"
)
"""What follows `allow` or `deny` where an answer is meant."""


def allowed(words: Words) -> Answer:
    """Return the answer of `allow`."""
    always = words["how"] is not None and words["how"] != "once"
    remember: dict[str, Any] = {"remember": "session", "pattern": words["pattern"]} if always else {}
    return PermissionDecision(allow=True, reason=words["reason"], **remember)


def filled_in(words: Words) -> Answer:
    """Return the answer of `answer`, with the values as texts."""
    found = _VALUE.finditer(words["values"] or "")
    return PermissionDecision(allow=True, values={_bare(each["name"]): _bare(each["text"]) for each in found})


def filled_twice(words: Words) -> str | None:
    """Return why values are refused of which one is given twice."""
    names = [_bare(each["name"]) for each in _VALUE.finditer(words["values"] or "")]
    twice = next((name for n, name in enumerate(names) if name in names[:n]), None)
    return None if twice is None else f"'{twice}' is given twice"


def _bare(word: str) -> str:
    return word[1:-1] if word[:1] in ("'", '"') else word


def denied(words: Words) -> Answer:
    """Return the answer of `deny`."""
    return PermissionDecision(allow=False, reason=words["reason"])


def answer_listed(_context: Context, words: Words) -> None:
    """Answer a question that was listed here: of a turn in the background or elsewhere, or of one that has died."""
    from mentra_nb.notebook import listed

    decision = filled_in(words) if "values" in words else allowed(words) if "how" in words else denied(words)
    assert isinstance(decision, PermissionDecision)
    which = words["which"]
    say(listed.answer_typed(int(which) if which is not None else None, decision))

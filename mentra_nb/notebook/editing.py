"""A question as a row of a list, and what a person changes in its arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mentra_nb.authorization import PermissionQuestion
from mentra_nb.errors import OperationDenied
from mentra_nb.notebook import asking
from mentra_nb.page.escaping import cut, visible

MAX_ROW = 160
"""Characters of a question in a list."""
MAX_EDITED = 100_000
"""Characters of an argument that can be changed on a card."""


def short_row(question: PermissionQuestion) -> str:
    """Return the question for one row of a list."""
    return f"{asking.headline(question)} — {cut(asking.subject(question), MAX_ROW)}"


def is_short(question: PermissionQuestion) -> bool:
    """Return whether one row of a list shows all that the call acts on."""
    text = str(question.subject)
    return len(text) <= MAX_ROW - len(question.tool_name) - 2 and visible(text) == text and "\n" not in text


def editable(question: PermissionQuestion) -> list[tuple[str, str, bool]]:
    """Return the arguments that a person may change: the name, the text to edit, and whether the value is text itself.

    None if one of them cannot be shown as it is, as an edit would then hide what runs.
    """
    if question.form is not None or question.effect is not None or question.again:
        return []
    found = []
    for name, value in question.arguments.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if visible(name) != name or visible(text) != text or "\r" in text or len(text) > MAX_EDITED:
            return []
        found.append((name, text, isinstance(value, str)))
    return found


def edited(question: PermissionQuestion, texts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments with these texts for their values; `None` if nothing was changed.

    Raises:
        OperationDenied: one is not JSON, though its value is not text, or is not an argument that can be changed.
    """
    made = dict(question.arguments)
    known = {name: (text, is_text) for name, text, is_text in editable(question)}
    for name, text in texts.items():
        if name not in known or not isinstance(text, str):
            raise OperationDenied(f"the argument '{name}' cannot be changed here")
        before, is_text = known[name]
        if text == before:
            continue
        try:
            made[name] = text if is_text else json.loads(text)
        except (ValueError, RecursionError):
            raise OperationDenied(f"'{name}' is not JSON: {cut(text, MAX_ROW)}") from None
    return made if made != question.arguments else None

"""Proposals of patterns for a question, each with what it would have covered among the calls on record."""

from __future__ import annotations

from functools import cache

from mentra_nb.authorization import PermissionQuestion, Subject
from mentra_nb.chat.engine import Engine
from mentra_nb.errors import MentraError
from mentra_nb.permission.proposals import covers, proposed
from mentra_nb.words import counted

MAX_CALLS = 5_000
"""Of the calls on record, the latest that are compared."""
MAX_EXAMPLES = 2
MAX_EXAMPLE = 60
"""Characters of an example."""


def proposals(engine: Engine, question: PermissionQuestion, project: str | None) -> list[dict[str, str]]:
    """Return up to three patterns for a call, from narrow to wide.

    Each has a `pattern`; `broad`, what it covers beyond what it looks like; and `covered`, what it would have covered
    among the calls on record. The last two are words, or empty.
    """
    store = engine.runtime.store
    rules = engine.call(store.list_rules, question.session_id, project)
    found = proposed(question, rules)
    seen = _recorded(question) if found else []
    texts = []
    for each in found:
        fits = cache(
            lambda text, pattern=each.pattern: covers(
                pattern, question.tool_name, _like(question, text), rules, on_effects=question.effect is not None
            )
        )
        texts.append([text for text in seen if fits(text)])
    return [
        {"pattern": each.pattern, "broad": each.breadth or "", "covered": _said(question, covered, len(seen))}
        for each, covered in zip(found, texts, strict=True)
    ]


def _recorded(question: PermissionQuestion) -> list[str]:
    """Return the subjects of the tool's calls on record that were kept whole, the latest last."""
    from mentra_nb.record.read.reports import decided_calls

    try:
        calls = decided_calls(tool=question.tool_name)
    except MentraError:  # nothing is recorded, or not in a folder
        return []
    return [str(text) for text in calls.subject[calls.whole.fillna(False).astype(bool)].tail(MAX_CALLS)]


def _like(question: PermissionQuestion, text: str) -> Subject:
    match question.subject.kind:
        case "shell":
            return Subject.shell(text)
        case "path":
            return Subject.path(*text.split("\n"))
    return Subject.text(text)


def _said(question: PermissionQuestion, covered: list[str], of: int) -> str:
    if not of:
        return ""
    own = str(question.subject)
    others = [text for text in dict.fromkeys(reversed(covered)) if text != own]
    shown = [text if len(text) <= MAX_EXAMPLE else f"{text[: MAX_EXAMPLE - 1]}…" for text in others[:MAX_EXAMPLES]]
    such = f", such as {' and '.join(shown)}" if shown else ""
    return f"would have covered {len(covered)} of {counted(of, 'call')} on record{such}"

"""Which open questions are alike: about the same tool, and of one pattern, so that one answer can be meant for all."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import Any

from mentra_nb.authorization import PermissionQuestion, ToolCapability
from mentra_nb.permission.splitting import commands_in, simple_commands


def alike(shown: PermissionQuestion, questions: Iterable[PermissionQuestion]) -> list[PermissionQuestion]:
    """Return those of `questions` that are alike, with the one that is shown; none if it stands for itself.

    Their calls differ in nothing but what they act on.
    """
    kind = _kind(shown)
    return [each for each in questions if _kind(each) == kind] if kind is not None else []


def _kind(question: PermissionQuestion) -> tuple[Any, ...] | None:
    subject, read_only = question.subject, str(ToolCapability.READ_ONLY) in question.capabilities
    if question.form is not None or question.effect is not None or question.again or subject.protected:
        return None
    match subject.kind:
        case "shell":
            lines = [part for part in subject.parts if simple_commands(part) is not None]
            pattern = tuple(words[0] for line in lines for words in commands_in(line) if words)
            if len(lines) != len(subject.parts) or not pattern:
                return None
        case "path" if read_only:
            pattern = tuple(posixpath.dirname(path) for path in subject.parts)
        case "path":
            return None  # a path does not say what is written there
        case _:
            return question.session_id, question.tool_name
    rest = {name: value for name, value in question.arguments.items() if value not in subject.parts}
    return question.session_id, question.tool_name, pattern, repr(sorted(rest.items()))

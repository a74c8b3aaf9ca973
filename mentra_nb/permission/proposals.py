"""Patterns that are proposed to remember an allowance by: the narrowest that covers the call, and two wider ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mentra_nb.authorization import PermissionQuestion, PermissionRule, Subject
from mentra_nb.permission.breadth import breadth
from mentra_nb.permission.patterns import exactly
from mentra_nb.permission.rules import find_rule
from mentra_nb.permission.splitting import simple_commands, without_redirections

MOST = 3
_WORD = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""")


@dataclass(frozen=True)
class Proposal:
    """A pattern that covers a call. `breadth` says in words what it covers beyond what it looks like."""

    pattern: str
    breadth: str | None = None


def proposed(question: PermissionQuestion, rules: Sequence[PermissionRule] = ()) -> list[Proposal]:
    """Return up to three patterns that cover a call, from narrow to wide; none if no pattern covers it.

    Args:
        question: The question about the call.
        rules: Those that hold. Beside their denials a wider pattern may not cover it, and is then not proposed.
    """
    subject, tool = question.subject, question.tool_name
    if len(subject.parts) > 1:  # each of them is remembered by its exact text
        return []
    found: list[Proposal] = []
    on_effects = question.effect is not None
    for pattern in dict.fromkeys(_patterns(subject, on_effects=on_effects)):
        if len(found) < MOST and covers(pattern, tool, subject, rules, on_effects=on_effects):
            found.append(Proposal(pattern, breadth(pattern, subject.kind)))
    return found


def covers(
    pattern: str, tool: str, subject: Subject, rules: Sequence[PermissionRule], *, on_effects: bool = False
) -> bool:
    """Return whether an allowance by this pattern, or one on effects, would cover a call beside those that deny."""
    rule = PermissionRule(id="", tool=tool, pattern=pattern, allow=True, folders=() if on_effects else None)
    denials = [each for each in rules if not each.allow]
    return find_rule([rule, *denials], tool, subject, on_effects=on_effects) is rule


def _patterns(subject: Subject, *, on_effects: bool) -> Iterator[str]:
    """Yield patterns from narrow to wide, the first of which covers the very call."""
    text = subject.parts[0] if subject.parts else ""
    if text:
        yield exactly(text)
    if subject.kind == "shell":
        yield from _of_line(without_redirections(text).strip() if on_effects else text)
    elif subject.kind == "path":
        folder, slash, name = text.rpartition("/")
        ending = name.rpartition(".")[2] if "." in name.lstrip(".") else ""
        place = f"{exactly(folder)}{slash}"
        if ending:
            yield f"{place}*.{exactly(ending)}"
        if slash:
            yield f"{place}*"
    yield "*"


def _of_line(line: str) -> Iterator[str]:
    commands = simple_commands(line) or []
    words = _WORD.findall(commands[0]) if commands else []
    if not words or " ".join(words) != commands[0]:
        return
    heads = [exactly(" ".join(words[:size])) for size in (2, 1) if len(words) >= size]
    if len(commands) == 1:
        yield from (f"{head}{'*' if head == exactly(line) else ' *'}" for head in heads)
    else:
        yield f"{exactly(words[0])} *"

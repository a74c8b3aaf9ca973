"""Remembered answers: whether a rule covers a call. Pure functions over frozen rules.

A pattern is matched against the whole subject: `*` is any run of characters, `?` is one, everything else is literal.
A shell line is matched command by command, and a line that cannot be taken apart safely is covered by no wildcard.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from mentra_nb.authorization import PermissionRule


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = (".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern)
    return re.compile("".join(parts), re.DOTALL)


def matches(pattern: str, subject: str) -> bool:
    """Whether `pattern` covers the whole of `subject`."""
    return _compiled(pattern).fullmatch(subject) is not None


def simple_commands(line: str) -> list[str] | None:
    """The simple commands of a shell line, each as written, or `None` when it cannot be split with certainty.

    Splits at `;`, `&`, `&&`, `|` and `||` outside quotes. Substitutions, variables, escapes, redirections, groups,
    comments, line breaks and open quotes are not split: what such a line runs cannot be read off it.
    """
    commands, start, quote, i = [], 0, "", 0
    while i < len(line):
        char = line[i]
        if char in "\n\r\0" or (quote != "'" and char in "$`\\"):
            return None
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "()<>{}!#":
            return None
        elif char in ";&|":
            commands.append(line[start:i].strip())
            i += line[i : i + 2] in ("&&", "||")
            start = i + 1
        i += 1
    last = line[start:].strip()
    if last or not commands:  # nothing needs to follow a closing `;` or `&`
        commands.append(last)
    return None if quote or not all(commands) else commands


def find_rule(
    rules: Iterable[PermissionRule], tool: str, subject: str, *, shell: bool = False
) -> PermissionRule | None:
    """The rule that decides a call, or `None`. A denial wins over any allowance; then the longest pattern."""
    own = sorted((r for r in rules if r.tool == tool), key=lambda r: (r.allow, -len(r.pattern)))
    commands = simple_commands(subject) if shell else None
    for rule in own:
        if not rule.allow and any(matches(rule.pattern, text) for text in (subject, *(commands or ()))):
            return rule
    allowing = [rule for rule in own if rule.allow]
    if not shell:
        return next((rule for rule in allowing if matches(rule.pattern, subject)), None)
    if commands is None:  # only the very line that was allowed, never a wildcard
        return next((rule for rule in allowing if rule.pattern == subject and not set("*?") & set(subject)), None)
    covering = [next((r for r in allowing if matches(r.pattern, command)), None) for command in commands]
    return covering[0] if all(covering) else None

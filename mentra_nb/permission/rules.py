"""Whether a rule covers a call: pure functions over frozen rules.

A pattern is matched against the whole subject: `*` is any run of characters, `?` is one, `[*]` and `[?]` are those
characters themselves, everything else is literal. A shell line is matched command by command, and a line that cannot
be taken apart safely is covered by no wildcard.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from mentra_nb.authorization import PermissionRule, Subject

_PATTERN = re.compile(r"\[[*?]\]|.", re.DOTALL)

# A word that is a command's name and nothing else: no quotes, globs, assignments or words of the shell's own grammar.
_NAME = re.compile(r"[\w./~+:@%,-]+(?=[ \t]|$)")
_GRAMMAR = re.compile(r"if|then|elif|else|fi|for|while|until|do|done|case|esac|in|function|select|time")


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    wildcards = {"*": ".*", "?": "."}
    parts = (
        wildcards.get(part) or re.escape(part[1] if len(part) == 3 else part) for part in _PATTERN.findall(pattern)
    )
    return re.compile("".join(parts), re.DOTALL)


def exactly(subject: str) -> str:
    """Return the pattern that covers this text and no other."""
    return re.sub(r"[*?]", r"[\g<0>]", subject)


def matches(pattern: str, subject: str) -> bool:
    """Return whether `pattern` covers the whole of `subject`."""
    return _compiled(pattern).fullmatch(subject) is not None


def simple_commands(line: str) -> list[str] | None:
    """Return the simple commands of a shell line, each as written, or `None` when it cannot be split with certainty.

    Splits at `;`, `&`, `&&`, `|` and `||` outside quotes. Substitutions, variables, escapes, redirections, groups,
    comments, line breaks, open quotes, assignments, shell keywords and names that are quoted or globbed are not
    split: what such a line runs cannot be read off it.
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
    return None if quote or not all(map(_is_plain, commands)) else commands


def _is_plain(command: str) -> bool:
    name = _NAME.match(command)
    return name is not None and not _GRAMMAR.fullmatch(name.group())


def find_rule(rules: Iterable[PermissionRule], tool: str, subject: Subject) -> PermissionRule | None:
    """Return the rule that decides a call, or `None`.

    A denial that matches any part wins. Otherwise every part must be covered by an allowance, the longest pattern
    first; the one that covers the first part is returned.
    """
    own = sorted((rule for rule in rules if rule.tool == tool), key=lambda rule: -len(rule.pattern))
    denying = [rule for rule in own if not rule.allow]
    allowing = [rule for rule in own if rule.allow]
    parts = subject.parts or ("",)  # a call without a subject is covered by `*` only
    texts = [text for part in parts for text in _texts(part, subject.kind)]
    for rule in denying:
        if any(matches(rule.pattern, text) for text in texts):
            return rule
    covering = [_covering(allowing, part, subject.kind) for part in parts]
    return covering[0] if all(covering) else None


def _texts(part: str, kind: str) -> list[str]:
    """Return what a denial is matched against: the part itself, and the simple commands of a shell line."""
    return [part, *(simple_commands(part) or ())] if kind == "shell" else [part]


def _covering(allowing: list[PermissionRule], part: str, kind: str) -> PermissionRule | None:
    """Return an allowance for one part of a subject. Each simple command of a shell line needs one."""
    if kind != "shell":
        return next((rule for rule in allowing if matches(rule.pattern, part)), None)
    whole = next((rule for rule in allowing if rule.pattern == exactly(part)), None)
    commands = simple_commands(part)
    if whole is not None or commands is None:  # a line that cannot be split is covered only by its exact pattern
        return whole
    covering = [next((rule for rule in allowing if matches(rule.pattern, command)), None) for command in commands]
    return covering[0] if all(covering) else None

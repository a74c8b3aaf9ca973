"""Patterns of rules: `*` is any run of characters, `?` is one, `[*]` and `[?]` are those characters themselves.

Everything else is literal. A pattern is matched against a whole text, in time linear in the text.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path

_PATTERN = re.compile(r"\[[*?]\]|.", re.DOTALL)
WILD: re.Pattern[str] = re.compile(r"\[[*?]\]|[*?]")
MAX_OVERLAP = 4_000
"""Characters of a pattern up to which it is compared with another pattern."""


@lru_cache(maxsize=1024)
def _segments(pattern: str) -> tuple[tuple[re.Pattern[str], int], ...]:
    """Split a pattern at its `*`: the expression of each piece, and the length of what it matches."""
    pieces: list[list[str]] = [[]]
    for sign in _PATTERN.findall(pattern):
        if sign == "*":
            pieces.append([])
        else:
            pieces[-1].append("." if sign == "?" else re.escape(sign[1] if len(sign) == 3 else sign))
    return tuple((re.compile("".join(piece), re.DOTALL), len(piece)) for piece in pieces)


def exactly(subject: str) -> str:
    """Return the pattern that covers this text and no other."""
    return re.sub(r"[*?]", r"[\g<0>]", subject)


def matches(pattern: str, subject: str) -> bool:
    """Return whether `pattern` covers the whole of `subject`. Takes time linear in the subject."""
    (first, length), *rest = _segments(pattern)
    if not rest:
        return len(subject) == length and first.match(subject) is not None
    *middle, (last, tail) = rest
    at, end = length, len(subject) - tail
    if at > end or first.match(subject) is None or last.match(subject, end) is None:
        return False
    for piece, size in middle:  # the earliest place is never worse: a later piece has more room then
        found = piece.search(subject, at, end) if size else None
        if size and found is None:
            return False
        at = found.end() if found is not None else at
    return True


def as_path_pattern(pattern: str) -> str:
    """Return a pattern on paths in the form that paths have: `~` expanded, `./` and `..` resolved."""
    if not pattern.startswith(("~", ".")) and "/./" not in pattern and "/../" not in pattern and "//" not in pattern:
        return pattern
    return os.path.normpath(Path(pattern).expanduser()).replace(os.sep, "/")


def has_wildcard(pattern: str) -> bool:
    """Return whether a pattern covers more than one text."""
    return any(sign in "*?" for sign in WILD.findall(pattern))


def overlap(one: str, other: str) -> bool:
    """Return whether there is a text that both patterns cover. It is taken to be so of a pattern that is very long."""
    if max(len(one), len(other)) > MAX_OVERLAP:
        return True
    left, right = _PATTERN.findall(one), _PATTERN.findall(other)
    row = [True]
    for sign in right:
        row.append(row[-1] and sign == "*")
    for mine in left:
        new = [row[0] and mine == "*"]
        for at, sign in enumerate(right):
            if mine == "*" or sign == "*":
                new.append(row[at + 1] or new[-1])  # a star that stands for nothing, or for one sign more
            else:
                new.append(row[at] and (mine == sign or "?" in (mine, sign)))
        row = new
    return row[-1]

"""What differs between two texts, line by line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher

MAX_COMPARED = 400
"""Lines between the first and the last change that are compared one by one, which takes quadratic time. More of them
are shown as removed and added."""
MAX_PAIRS = 10_000
"""Pairs of equal lines among them, at most: comparing takes time for each pair, again and again."""
CONTEXT = 3
"""Unchanged lines shown around a change."""


@dataclass(frozen=True)
class Changes:
    """The lines of a unified diff, without the names of files, and how many lines are added and removed."""

    lines: list[str]
    added: int
    removed: int


def changes(old: str, new: str) -> Changes:
    """Return how two texts differ."""
    before, after = _lines(old), _lines(new)
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    middle = before[head : len(before) - tail], after[head : len(after) - tail]
    if max(map(len, middle)) > MAX_COMPARED or _pairs(*middle) > MAX_PAIRS:
        codes = [("replace", head, head + len(middle[0]), head, head + len(middle[1]))]
    else:
        found = SequenceMatcher(None, *middle, autojunk=False).get_opcodes()
        codes = [(kind, head + a, head + b, head + c, head + d) for kind, a, b, c, d in found if kind != "equal"]
    lines: list[str] = []
    done = 0
    for index, (_, first, last, new_first, new_last) in enumerate(codes):
        begin = max(done, first - CONTEXT)
        if begin > done or not index:
            lines.append(f"@@ line {begin + 1} @@")
        lines += [f" {text}" for text in before[begin:first]]
        lines += [f"-{text}" for text in before[first:last]] + [f"+{text}" for text in after[new_first:new_last]]
        following = codes[index + 1][1] if index + 1 < len(codes) else len(before)
        done = min(last + CONTEXT, following)
        lines += [f" {text}" for text in before[last:done]]
    return Changes(lines, sum(d - c for *_, c, d in codes), sum(b - a for _, a, b, *_ in codes))


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    if not lines[-1]:
        return lines[:-1]
    return [*lines[:-1], f"{lines[-1]} (without a line end)"]


def _pairs(before: list[str], after: list[str]) -> int:
    """Return how many pairs of equal lines two texts have."""
    count = Counter(before)
    return sum(count[line] for line in after)


def _common(before: list[str], after: list[str]) -> int:
    """Return how many lines two texts have in common at their beginning."""
    count = 0
    for one, other in zip(before, after, strict=False):
        if one != other:
            break
        count += 1
    return count

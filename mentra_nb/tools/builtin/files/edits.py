"""Changes within a text: replacing, inserting, and applying a unified diff."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

from mentra_nb.tools.schema import ToolError

_HUNK = re.compile(r"@@(?: -(\d+)(?:,\d+)? \+\d+(?:,\d+)?)?(?: @@.*)?")
_NO_END = "\\ No newline"


def replaced(text: str, shown: str, old: str, new: str, *, every: bool, expected: int | None) -> tuple[str, int]:
    """Return the text with `old` replaced by `new`, and how often.

    Args:
        shown: The file's name, for errors.
        every: Replace all occurrences. Otherwise the first, even if several are expected.
        expected: How many occurrences there must be. `None`: one, or at least one if all are replaced.

    Raises:
        ToolError: there are more or fewer.
    """
    if not old:
        raise ToolError("'old' is empty")
    found = text.count(old)
    wanted = max(1, found if every else 1) if expected is None else expected
    if found != wanted:
        raise ToolError(f"Expected {wanted} replacement(s) in '{shown}', found {found}")
    times = found if every else min(found, 1)
    return text.replace(old, new, times), times


def inserted(
    text: str, shown: str, anchor: str, position: Literal["before", "after"], content: str, occurrence: int | None
) -> str:
    """Return the text with `content` before or after an occurrence of `anchor`, counted from 1. Raises `ToolError`."""
    if not anchor:
        raise ToolError("'anchor' is empty")
    found = text.count(anchor)
    if found == 0 or (occurrence or 1) > found:
        raise ToolError(f"The anchor was not found in '{shown}'" + (f" {occurrence} times" if found else ""))
    if found > 1 and occurrence is None:
        raise ToolError(f"The anchor is ambiguous in '{shown}': it occurs {found} times; give its occurrence")
    at = -len(anchor)
    for _ in range(occurrence or 1):
        at = text.index(anchor, at + len(anchor))
    at += len(anchor) if position == "after" else 0
    return text[:at] + content + text[at:]


@dataclass
class _Hunk:
    """What one hunk of a diff removes and adds, as lines with their ends. `line` is where, from 1, if it says so."""

    line: int | None
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    ends: bool | None = None
    """Whether the new text ends in a line end, if the hunk says so."""


def patched(text: str, shown: str, diff: str) -> tuple[str, int]:
    """Return the text with a unified diff applied, and the number of its hunks.

    A hunk is applied where its lines are; its line number decides only if they are in several places. Raises
    `ToolError`.
    """
    hunks = _hunks(diff)
    if not hunks:
        raise ToolError("the patch has no hunk: each begins with a line '@@ -1,3 +1,4 @@'")
    ends = text.endswith("\n") or not text
    lines = [f"{line}\n" for line in (text if ends else f"{text}\n").split("\n")[:-1]]
    done = moved = 0
    for number, hunk in enumerate(hunks, 1):
        at = _place(lines, hunk, done, moved)
        if at is None:
            raise ToolError(f"hunk {number} of the patch does not fit '{shown}': its lines are not there, or not once")
        lines[at : at + len(hunk.old)] = hunk.new
        done = at + len(hunk.new)
        moved += len(hunk.new) - len(hunk.old)
        ends = hunk.ends if hunk.ends is not None and done == len(lines) else ends
    made = "".join(lines)
    return made if ends else made.removesuffix("\n"), len(hunks)


def _hunks(diff: str) -> list[_Hunk]:
    hunks: list[_Hunk] = []
    lines = diff.split("\n")
    for number, line in enumerate(lines):
        found = _HUNK.fullmatch(line.rstrip())
        if found is not None:
            hunks.append(_Hunk(int(found[1]) if found[1] else None))
        elif not hunks or (not line and number == len(lines) - 1):
            continue
        elif line.startswith(_NO_END):
            hunks[-1].ends = not lines[number - 1].startswith((" ", "+"))
        elif line.startswith("+"):
            hunks[-1].new.append(f"{line[1:]}\n")
        elif line.startswith("-"):
            hunks[-1].old.append(f"{line[1:]}\n")
        elif not line or line.startswith(" "):  # an empty line of context has often lost its blank
            hunks[-1].old.append(f"{line[1:]}\n")
            hunks[-1].new.append(f"{line[1:]}\n")
        else:
            raise ToolError(f"line {number + 1} of the patch begins with neither ' ', '+', '-' nor '@@'")
    return hunks


def _place(lines: list[str], hunk: _Hunk, done: int, moved: int) -> int | None:
    """Return the line at which a hunk fits, not before `done`; `None` if there is none, or several without a number."""
    expected = None if hunk.line is None else max(0, hunk.line - 1) + moved
    if not hunk.old:  # only additions: the number is that of the line before
        at = len(lines) if hunk.line is None else hunk.line + moved
        return at if done <= at <= len(lines) else None
    size = len(hunk.old)
    found = [at for at in range(done, len(lines) - size + 1) if lines[at : at + size] == hunk.old]
    if not found or (expected is None and len(found) > 1):
        return None
    return found[0] if expected is None else min(found, key=lambda at: abs(at - expected))

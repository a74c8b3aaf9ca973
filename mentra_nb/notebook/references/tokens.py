"""Where a question has references: tokens that begin with `@`, outside code, addresses and decorators."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mentra_nb.chat.references.reference import Reference

_NAME = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
TOKEN = re.compile(
    rf"""\\@
    |(?<![\w@.`/\\+-])@(?:
        (?P<quote>["'])(?P<quoted>\.{{1,2}}/[^"'\n]+)(?P=quote)
      | (?P<file>\.{{1,2}}/[^\s"'`<>|*?]*)
      | (?P<cell>cell:-?\d+|(?:Out|In)\[-?\d+\])
      | (?P<name>(?>{_NAME}))
    )""",
    re.VERBOSE,
)
"""A reference that begins a word, or an `@` that is escaped."""
_NOT_WHOLE = re.compile(r"[@/\[({=\\]|[-:.]\w|\w")
"""What follows a name that is only a piece of something else, such as `@types/node`."""
_FENCE = re.compile(r" {0,3}(?P<fence>`{3,}|~{3,})(?P<info>.*)")
_DECORATOR = re.compile(rf"[ \t]*@[ \t]*{_NAME}[ \t]*(?:\(|\#|$)")
_DEFINITION = re.compile(r"[ \t]*(?:async[ \t]+def|def|class)\b")
_CODE = re.compile(r"(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)")
MAX_DECORATOR = 50
"""Lines of one decorator with its arguments."""


@dataclass(frozen=True)
class Token:
    """A reference: where it is in the question, and what is referred to, without `@`."""

    start: int
    end: int
    said: str
    is_file: bool = False
    is_whole: bool = True
    """Whether it is a word of its own. One that is not is text as it is."""


@dataclass(frozen=True)
class Found:
    """A question with its references."""

    prompt: str
    """As it is sent: `\\@` is `@`."""
    references: tuple[Reference, ...] = ()
    notes: tuple[str, ...] = ()
    """Why something that looks like a reference is text as it is."""


def tokens(prompt: str) -> Iterator[Token]:
    """Yield the references of a question in order. An `\\@` is one that says nothing."""
    for start, end in _prose(prompt):
        for found in TOKEN.finditer(prompt, start, end):
            if found[0] == "\\@":
                yield Token(found.start(), found.end(), "")
            elif (file := found["quoted"] or found["file"]) is not None:
                path = file if found["quoted"] else file.rstrip(".,;:!?)]}'")
                stop = found.end() if found["quoted"] else found.end() - len(file) + len(path)
                yield Token(found.start(), stop, path, is_file=True)
            else:
                whole = _NOT_WHOLE.match(prompt, found.end()) is None
                yield Token(found.start(), found.end(), found[0][1:], is_whole=whole)


def _prose(prompt: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of a question that are not code: outside fences, decorators and text in backticks."""
    at = 0
    for start, end in [*_blocks_of_code(prompt), (len(prompt), len(prompt))]:
        if at < start:
            piece = at
            for code in _CODE.finditer(prompt, at, start):
                yield piece, code.start()
                piece = code.end()
            yield piece, start
        at = max(at, end)


def _blocks_of_code(prompt: str) -> Iterator[tuple[int, int]]:
    lines = prompt.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    number = 0
    while number < len(lines):
        after = _after_fence(lines, number) or _after_decorators(lines, number)
        if after is not None:
            yield starts[number], starts[after]
        number = after or number + 1


def _after_fence(lines: list[str], number: int) -> int | None:
    """Return the line after the fence that begins at a line; `None` if none does. An open one goes on to the end."""
    begin = _FENCE.match(lines[number])
    if begin is None or (begin["fence"][0] == "`" and "`" in begin["info"]):
        return None
    for later in range(number + 1, len(lines)):
        end = _FENCE.match(lines[later])
        if end is not None and end["fence"].startswith(begin["fence"]) and not end["info"].strip():
            return later + 1
    return len(lines)


def _after_decorators(lines: list[str], number: int) -> int | None:
    """Return the line of the definition that decorators from a line on belong to; `None` if there is none."""
    first = number
    while number < len(lines) and _DECORATOR.match(lines[number].rstrip("\r\n")):
        depth, later = 0, number
        for later in range(number, min(number + MAX_DECORATOR, len(lines))):
            depth += sum(lines[later].count(each) for each in "([{") - sum(lines[later].count(each) for each in ")]}")
            if depth <= 0:
                break
        number = later + 1
    return number if number > first and number < len(lines) and _DEFINITION.match(lines[number]) else None

"""A long text in windows: each is whole lines up to a size, and together they are the text."""

from __future__ import annotations

from dataclasses import dataclass

from mentra_nb.secrets.mask import without_last_part

PAGE_BYTES = 32 * 1024
PAGE_LINES = 1_900


@dataclass(frozen=True)
class Window:
    """A part of a text, and where the next begins: a line and a character in it, from 1; `None` after the last."""

    text: str
    next: tuple[int, int] | None
    last_line: int
    """The line that the window ends in."""


def window(text: str, line: int, column: int = 1) -> Window:
    """Return the part of a text from a place on, both from 1. A line longer than a page is cut, the rest comes next."""
    lines = text.split("\n")
    shown: list[str] = []
    room = PAGE_BYTES
    for at in range(line - 1, min(len(lines), line - 1 + PAGE_LINES)):
        part = lines[at][column - 1 :] if at == line - 1 else lines[at]
        size = len(part.encode("utf-8", "replace")) + 1
        if size > room and shown:
            return Window("\n".join(shown), (at + 1, 1), at)
        if size > room:
            begun = _beginning(part, room)
            start = column if at == line - 1 else 1
            return Window(begun, (at + 1, start + len(begun)), at + 1)
        shown.append(part)
        room -= size
    after = line + len(shown)
    return Window("\n".join(shown), (after, 1) if after <= len(lines) else None, after - 1)


def _beginning(part: str, room: int) -> str:
    """Return the beginning of a long line, up to the end of a word, so that no half of a key is shown."""
    cut = part.encode("utf-8", "replace")[:room].decode("utf-8", "ignore")
    return without_last_part(cut) or cut

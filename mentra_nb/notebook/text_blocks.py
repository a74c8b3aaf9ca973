"""Streaming text cut into blocks that are finished, each drawn once and never again."""

from __future__ import annotations

import re
from collections.abc import Callable

BLOCK = 2048
"""Characters after which a block of text is closed at the next paragraph."""


LONGEST = 4 * BLOCK
"""Characters after which it is closed at the next line, also inside a block of code."""


_FENCE = re.compile(r" {0,3}(?P<marks>`{3,}(?=[^`]*$)|~{3,})\s*(?P<info>[^\n]*)")


class TextBlocks:
    """Text on its way into closed blocks. `closed` is called with each block: its text, and the fence it begins in."""

    def __init__(self, closed: Callable[[str, str], None]) -> None:
        self._closed = closed
        self._rest = ""
        self._begin("")

    def _begin(self, opener: str) -> None:
        self._lines: list[str] = []
        self._size = 0
        self._after_blank = False
        self._opener = opener
        """The line that opened the code this block begins inside of, else empty."""
        self._fence = opener

    def feed(self, delta: str) -> None:
        *lines, self._rest = (self._rest + delta).split("\n")
        for text in lines:
            self._take(text + "\n")
        if self._size + len(self._rest) >= LONGEST:
            rest, self._rest = self._rest, ""
            self._add(rest)
            self._close()

    def open_block(self) -> tuple[str, str]:
        return "".join(self._lines) + self._rest, self._opener

    def end(self) -> None:
        self._add(self._rest)
        self._rest = self._fence = ""
        self._close()

    def _take(self, text: str) -> None:
        # A paragraph ends where a line after a blank one begins at the margin: what is indented may belong to a list.
        if self._size >= BLOCK and self._after_blank and not self._fence and not text[0].isspace():
            self._close()
        self._add(text)
        self._after_blank = not text.strip()
        found = _FENCE.match(text)
        if found and not self._fence:
            self._fence = text
        elif found and not found["info"] and found["marks"].startswith(_FENCE.match(self._fence)["marks"]):  # type: ignore[index]
            self._fence = ""
        if self._size >= LONGEST:
            self._close()

    def _add(self, text: str) -> None:
        self._lines.append(text)
        self._size += len(text)

    def _close(self) -> None:
        text, fence = "".join(self._lines), self._fence
        if text.strip():
            self._closed(text, self._opener)
        self._begin(fence)

"""Cuts streaming text into blocks, so that a finished block need not be drawn again."""

from __future__ import annotations

import re
from collections.abc import Callable

MIN_BLOCK = 3072
"""Characters after which a block ends at the next paragraph."""
MAX_BLOCK = 8192
"""Characters after which a block ends at the next line, also inside a block of code."""

_FENCE = re.compile(r" {0,3}(?P<marks>`{3,}(?=[^`]*$)|~{3,})\s*(?P<info>[^\n]*)")


class TextBlocks:
    """Collects text and passes each finished block to `closed`: its text, and its opener.

    The opener is the line of the fence that is open where the block begins, or empty.
    """

    def __init__(self, closed: Callable[[str, str], None]) -> None:
        self._closed = closed
        self._rest = ""
        self._begin("")

    def _begin(self, opener: str) -> None:
        self._lines: list[str] = []
        self._size = 0
        self._after_blank = False
        self._opener = opener
        self._fence = opener

    def feed(self, delta: str) -> None:
        """Add text."""
        *lines, self._rest = (self._rest + delta).split("\n")
        for text in lines:
            self._add_line(text + "\n")
        if self._size + len(self._rest) >= MAX_BLOCK:
            rest, self._rest = self._rest, ""
            self._add(rest)
            self._close()

    def open_block(self) -> tuple[str, str]:
        """Return the text of the unfinished block, and its opener."""
        return "".join(self._lines) + self._rest, self._opener

    def end(self) -> None:
        """Finish the block, and the block of code it may be inside of."""
        self._add(self._rest)
        self._rest = self._fence = ""
        self._close()

    def _add_line(self, text: str) -> None:
        # A paragraph ends where a line after a blank one begins at the margin; an indented one may belong to a list.
        if self._size >= MIN_BLOCK and self._after_blank and not self._fence and not text[0].isspace():
            self._close()
        self._add(text)
        self._after_blank = not text.strip()
        found = _FENCE.match(text)
        if found and not self._fence:
            self._fence = text
        elif found and not found["info"] and found["marks"].startswith(_FENCE.match(self._fence)["marks"]):  # type: ignore[index]
            self._fence = ""
        if self._size >= MAX_BLOCK:
            self._close()

    def _add(self, text: str) -> None:
        self._lines.append(text)
        self._size += len(text)

    def _close(self) -> None:
        text, fence = "".join(self._lines), self._fence
        if text.strip():
            self._closed(text, self._opener)
        self._begin(fence)

"""A turn at a terminal: the text as it comes, and the rows of a page as plain lines."""

from __future__ import annotations

import sys
import time
from typing import Any

from mentra_nb.notebook.view import TurnView
from mentra_nb.page.escaping import plain
from mentra_nb.page.render import Bundle

_CLEAR = "\r\x1b[K"


class TerminalView(TurnView):
    """Draws one turn on standard output, which is not updated but for the last line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(self, live=False, timed=True, **options)
        self._column = False
        """Whether the last line has text of the model."""
        self._moving = False
        """Whether the last line is the living line."""

    def show(self, data: Bundle, display_id: str | None = None) -> None:
        self._write("\n" * self._column)
        self._column = False
        self._write(f"{data['text/plain']}\n" if data["text/plain"] else "")

    def update(self, data: Bundle, display_id: str) -> None:
        self.show(data)

    def tick(self) -> None:
        now = time.monotonic()
        if self._column or not sys.stdout.isatty():
            return
        if (words := self._life(now)) is not None:
            self._write(f"⋯ {words[0]}  {words[1]}")
            self._moving = True

    def _feed(self, text: str) -> None:
        if text:
            self._write(plain(text))
            self._column = not text.endswith("\n")

    def settle(self) -> None:
        super().settle()
        self._write("\n" * self._column)
        self._column = False

    def _write(self, text: str) -> None:
        """Write text in place of the living line. What the terminal's encoding lacks becomes `?`."""
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(_CLEAR * self._moving + text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()
        self._moving = False

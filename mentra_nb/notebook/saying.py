"""A line on the page in which a person says something to the model while its turn runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mentra_nb.errors import MentraError
from mentra_nb.notebook.output import EMPTY

if TYPE_CHECKING:
    from mentra_nb.chat.turn import RunningTurn
    from mentra_nb.notebook.say_field import SayField
    from mentra_nb.notebook.view import TurnView

AFTER = 8.0
"""Seconds of a turn after which the line is there: shorter turns need none."""
SAID = "Said: the model reads it with its next request."
UNREAD = "What you said last was not read before the turn ended: it goes with the next question here."


class SayLine:
    """A text field below what a turn has shown so far. Must be used on the cell's own thread."""

    def __init__(self, turn: RunningTurn, view: TurnView) -> None:
        self._turn, self._view = turn, view
        self._since = time.monotonic()
        self._display: str | None = None
        self._widget: SayField | None = None

    def step(self) -> None:
        """Show the field when it is due and no text is being written."""
        if self._display is not None or time.monotonic() - self._since < AFTER:
            return
        if self._widget is None:
            from mentra_nb.notebook.say_field import SayField

            self._widget = SayField(self.hear)
        self._display = self._view.offer(self._widget.bundle())

    def hear(self, content: Any) -> None:
        """Take in what the page sends."""
        text = content.get("said") if isinstance(content, dict) else None
        if isinstance(text, str) and text.strip():
            try:
                self._turn.say(text.strip())
            except MentraError as error:  # the turn has just ended
                self._turn.notice(str(error))

    def close(self) -> None:
        """Take the field off the page."""
        if self._display is not None:
            self._view.out.update(EMPTY, self._display)
            self._display = None
        if self._widget is not None:
            self._widget.close()
            self._widget = None

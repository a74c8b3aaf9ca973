"""The running cell as a place to show things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from mentra_nb.page.render import Bundle, bundle, count_code

if TYPE_CHECKING:
    from mentra_nb.chat.reply import Reply

EMPTY: Bundle = {"text/html": "", "text/plain": ""}
"""An output that shows nothing, in place of one that is no longer needed."""

Screen = Literal["page", "terminal", "automatic"]
"""Where a turn is shown: a notebook with a person, IPython at a terminal, or a run that nobody watches."""


class Out(Protocol):
    """Shows mimebundles, and replaces those shown with a display id."""

    def show(self, data: Bundle, display_id: str | None = None) -> None: ...

    def update(self, data: Bundle, display_id: str) -> None: ...


class CellOut:
    """The output of the running cell. Must be used on the cell's own thread."""

    def show(self, data: Bundle, display_id: str | None = None) -> None:
        from IPython.display import display

        display(data, raw=True, **({"display_id": display_id} if display_id else {}))  # type: ignore[no-untyped-call]

    def update(self, data: Bundle, display_id: str) -> None:
        from IPython.display import update_display

        update_display(data, raw=True, display_id=display_id)  # type: ignore[no-untyped-call]


def show_value(reply: Reply) -> None:
    """Show the typed value of a reply in the running cell."""
    from IPython.display import display

    display(reply.value)  # type: ignore[no-untyped-call]  # IPython has no types for it


def show_answer(reply: Reply, *, whole: bool = False) -> None:
    """Show the text of a reply in the running cell, with the numbers that its code had in the turn.

    `whole`: also what the model said before, between tools.
    """
    earlier, number = reply.rounds[:-1], 1
    for text in earlier:
        if whole and text.strip():
            CellOut().show(bundle(text, first_code=number))
        number += count_code(text)
    CellOut().show(bundle(reply.text, first_code=number))

"""The running cell as a place to show things."""

from __future__ import annotations

from typing import Literal, Protocol

from mentra_nb.notebook.render import Bundle, bundle

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


def show_markdown(text: str) -> None:
    """Show the text of a model in the running cell."""
    CellOut().show(bundle(text))

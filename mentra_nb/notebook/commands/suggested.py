"""`rules suggest` and `rules accept`: rules from the user's own answers, accepted by a number or by a click."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mentra_nb.errors import MentraError, OperationDenied
from mentra_nb.notebook import kernel
from mentra_nb.notebook.commands.command import say

if TYPE_CHECKING:
    import pandas as pd

MOST = 25
"""Suggestions that are shown."""
BUTTONS = 9
"""Suggestions with a button."""
LONGEST = 60
"""Characters of a button's text."""
_suggested: list[pd.DataFrame] = []
"""The table of suggestions that was shown last, to which numbers refer."""


def suggestions() -> pd.DataFrame:
    """Return the table of rules that the user's own answers suggest. On a page, buttons above it accept them."""
    from mentra_nb.chat.suggest import suggest_rules
    from mentra_nb.notebook.commands.listing import listing

    found = suggest_rules()
    _suggested[:] = [found]
    frame = found.assign(n=range(1, len(found) + 1))
    shown = {"n": "", "tool": "tool", "pattern": "pattern", "scope": "scope"}
    shown |= {"inside": "keeps what it changes in", "saves_per_week": "saves a week", "also_covers": "also covers"}
    shown |= {"backtest": "on record"}
    if len(found):
        more = f" The first {MOST} of {len(found)}; mn.suggest_rules() has all." if len(found) > MOST else ""
        say(f"Accept one with %mentra rules accept N; nothing is remembered unasked.{more}")
        if kernel.screen() == "page" and not kernel.is_captured():
            _show(buttons(found))
    return listing(frame.head(MOST), shown, getattr(found, "why", ""))


def accept_number(number: str) -> None:
    """Make the rule of that number in the table that was shown last. Raises `OperationDenied` if there is none."""
    from mentra_nb.chat.suggest import accept

    rows = list(_suggested[0].itertuples()) if _suggested else []
    if not 0 < int(number) <= len(rows):
        raise OperationDenied(f"there is no suggestion {number}: %mentra rules suggest lists them")
    made = accept(rows[int(number) - 1])
    say(f"Allowed: {made.tool} {made.pattern} (for the {made.scope}; %mentra rules revoke takes it back)")


def buttons(found: pd.DataFrame) -> Any:
    """Return a box with a button for each of the first suggestions. A click makes that rule, once."""
    import ipywidgets

    rows = enumerate(found.head(BUTTONS).itertuples(), 1)
    return ipywidgets.VBox([_button(row, _on_button(f"Accept {n}: {row.tool} {row.pattern}")) for n, row in rows])


def _button(row: Any, text: str) -> Any:
    import ipywidgets

    from mentra_nb.chat.suggest import accept

    def clicked(pressed: Any) -> None:
        pressed.disabled = True
        try:
            made = accept(row)
        except MentraError as error:
            pressed.description = _on_button(f"Not accepted: {error}")
            return
        pressed.description = _on_button(f"Allowed: {made.tool} {made.pattern}")

    button = ipywidgets.Button(description=text, layout={"width": "max-content"})
    button.on_click(clicked)
    return button


def _on_button(text: str) -> str:
    """Return a text as a button shows it: one line, with characters that could hide others as escapes."""
    from mentra_nb.page.escaping import cut, visible

    return cut(visible(text).replace("\n", "␊"), LONGEST)


def _show(box: Any) -> None:
    """Show the buttons; where the page has no widgets, the line above them says how to accept."""
    from mentra_nb.notebook.output import CellOut

    CellOut().show({**box._repr_mimebundle_(), "text/plain": ""})

"""A new cell below the running one, with code that a model wrote. Nothing here runs it."""

from __future__ import annotations

from typing import Any

from mentra_nb.notebook import kernel
from mentra_nb.notebook.output import CellOut
from mentra_nb.page.escaping import visible_code
from mentra_nb.page.render import bundle, fenced
from mentra_nb.words import counted

MAX_CELL = 100_000
"""Characters of the longest code that is put into a cell: an editor becomes slow with more."""
_PAYLOAD = "set_next_input"


def put_below(shell: Any, code: str, what: str = "code") -> tuple[bool, str]:
    """Put code into a new cell below the running one; where none can be put in, show it.

    Characters that could hide or reorder others are written as escapes. Front ends make one cell of all that a cell
    puts in, so code that the same cell has put in before stays above. At a terminal it becomes the next input.

    Args:
        shell: The IPython shell.
        code: What the cell holds.
        what: What the code is, for the line.

    Returns:
        Whether a cell was put in, and a line that says what was done.
    """
    text = visible_code(code).strip("\n")
    if len(text) > MAX_CELL:
        return False, f"The {what} has {len(text):,} characters, more than a cell should hold: it was not put in."
    lines = counted(text.count("\n") + 1, "line")
    escapes = "" if text == code.replace("\r", "").strip("\n") else " Hidden characters in it are written as escapes."
    screen = kernel.screen()
    if screen == "automatic" or not kernel.runs_in_a_cell():
        CellOut().show(bundle(fenced(text, "python")))
        return False, f"The {what} is above ({lines}); no new cell can be put in here.{escapes}"
    shell.set_next_input("\n\n".join([*_put_before(shell), text]))
    where = "It is your next input" if screen == "terminal" else f"The {what} is in a new cell below"
    return True, f"{where}: {lines}, not run.{escapes}"


def _put_before(shell: Any) -> list[str]:
    """Return what the running cell has put in already: a front end makes a cell of the last message only."""
    payloads = getattr(shell, "payload_manager", None)
    found = payloads.read_payload() if payloads is not None else []
    return [each["text"] for each in found if each.get("source") == _PAYLOAD and not each.get("replace")]

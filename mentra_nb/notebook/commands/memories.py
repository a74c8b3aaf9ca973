"""`memories`: what is remembered, and how it is pinned and forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mentra_nb.notebook.commands.command import Context, Words, say

if TYPE_CHECKING:
    import pandas as pd


def memories(_context: Context, words: Words) -> pd.DataFrame | None:
    """Return the table of memories; or pin or forget one."""
    from mentra_nb.chat import memories as found

    if words["which"]:
        change = found.pin if words["change"] == "pin" else found.forget
        text = change(words["which"])
        say(f"{'Pinned' if words['change'] == 'pin' else 'Forgotten'}: {text}")
        return None
    from mentra_nb.notebook.commands.listing import listing

    frame = found.memories()
    frame.insert(0, "number", range(1, len(frame) + 1))
    shown = {
        "number": "",
        "text": "memory",
        "kind": "kind",
        "pinned": "pinned",
        "scope": "scope",
        "created_at": "since",
    }
    return listing(frame, shown, found.WHY_EMPTY)

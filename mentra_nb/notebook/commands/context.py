"""`compact` and `context`: what fills the model's context window, and making room in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mentra_nb.notebook import kernel
from mentra_nb.notebook.commands.command import Context, Words

if TYPE_CHECKING:
    import pandas as pd


def compact(context: Context, words: Words) -> None:
    """Send a summary in place of the conversation so far from the next turn on."""
    context.show(context.conversation().compact(words["matters"] or "", origin=kernel.running_cell()))


def context_command(context: Context, _words: Words) -> pd.DataFrame:
    """Return the table of what fills the context window."""
    from mentra_nb.chat.context import context_use
    from mentra_nb.notebook.commands.listing import listing

    shown = {"part": "part of the context", "tokens": "tokens, about", "share": "% of the window"}
    return listing(context_use(context.conversation()), shown, "Nothing fills the context yet.")

"""`team`: the agents that work beside this notebook's conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mentra_nb.notebook.commands.command import Context, Words

if TYPE_CHECKING:
    import pandas as pd


def team(_context: Context, _words: Words) -> pd.DataFrame:
    """Return the table of members."""
    from mentra_nb.chat import teams as found
    from mentra_nb.notebook.commands.listing import listing

    shown = {"name": "member", "status": "status", "role": "role", "last": "last answer", "waiting": "waiting"}
    return listing(found.teammates(), shown | {"cost_usd": "USD"}, found.WHY_EMPTY)

"""`tools` and `rules`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mentra_nb.notebook.commands.command import Context, Words, say

if TYPE_CHECKING:
    import pandas as pd


def tools(context: Context, _words: Words) -> pd.DataFrame:
    """Return the table of tools."""
    import pandas as pd

    from mentra_nb.chat.engine import engine

    rows = [
        {
            "tool": spec.name,
            "reads_only": spec.reads_only,
            "asks": spec.asks and not spec.reads_only,
            "description": spec.description,
        }
        for spec in (*engine().runtime.tools(), *context.conversation().tools())
    ]
    return pd.DataFrame(rows, columns=["tool", "reads_only", "asks", "description"])


def rules(context: Context, words: Words) -> pd.DataFrame | None:
    """Return the table of rules, or revoke one."""
    from mentra_nb.chat import api

    if words["id"] is None:
        return api.rules()
    context.conversation().revoke(words["id"])
    say(f"Revoked {words['id']}.")
    return None

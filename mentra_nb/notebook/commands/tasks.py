"""`tasks`: the task board of this notebook's conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mentra_nb.notebook.commands.command import Context, Words

if TYPE_CHECKING:
    import pandas as pd


def tasks(_context: Context, _words: Words) -> pd.DataFrame:
    """Return the table of tasks."""
    from mentra_nb.chat import tasks as found
    from mentra_nb.notebook.commands.listing import listing

    shown = {"id": "", "status": "status", "subject": "task", "owner": "owner", "blocked_by": "waits for"}
    return listing(found.tasks(), shown, found.WHY_EMPTY)

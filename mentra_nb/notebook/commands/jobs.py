"""`jobs`, and `stop` where no turn is running: the commands that run in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mentra_nb.errors import OperationDenied
from mentra_nb.notebook.commands.command import Answer, Context, Words, say

if TYPE_CHECKING:
    import pandas as pd


def jobs(_context: Context, words: Words) -> pd.DataFrame | None:
    """Return the table of background commands, or stop one."""
    from mentra_nb.chat import jobs as found

    if words["stop"] is not None:
        if words["id"] is None:
            raise OperationDenied("which one? %mentra jobs stop N, with the number in %mentra jobs")
        say(f"Stopped: {found.stop_job(words['id'])}")
        return None
    from mentra_nb.notebook.commands.listing import listing

    frame = found.jobs()
    frame = frame.assign(n=range(1, len(frame) + 1))
    shown = {"n": "", "status": "status", "command": "command", "seconds": "seconds", "output": "output"}
    shown |= {"conversation": "conversation", "started_at": "started (UTC)", "cwd": "folder", "id": "id"}
    return listing(frame, shown, found.WHY_EMPTY)


def stopped(words: Words) -> Answer:
    """Return the answer of `stop`."""
    return "stop all" if words["all"] else "stop"


def stop(_context: Context, words: Words) -> None:
    """Run `stop` as a cell: no turn is running then, but commands may be in the background."""
    from mentra_nb.chat.jobs import stop_jobs

    if not words["all"]:
        raise OperationDenied(
            "no turn is running here: type it in another cell while one runs. Background commands: %mentra stop --all"
        )
    say(stop_jobs().capitalize())

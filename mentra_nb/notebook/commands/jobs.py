"""`jobs`, and `stop` where no cell waits for a turn: the commands and turns in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mentra_nb.errors import OperationDenied
from mentra_nb.notebook.commands.command import Answer, Context, Words, say
from mentra_nb.words import counted

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


def is_for_a_turn(words: Words) -> bool:
    """Return whether a line that begins with `say` is for a turn that runs. Else it is a question, as `say hello`."""
    from mentra_nb.chat.engine import running_turns

    return words["text"] is None or bool(running_turns())


def say_to_turn(_context: Context, words: Words) -> None:
    """Run `say` as a cell: no cell waits for a turn then, but one runs in the background."""
    from mentra_nb.chat.engine import running_turns
    from mentra_nb.notebook.saying import SAID

    text, running = words["text"], running_turns()
    if text is None or not running:
        raise OperationDenied("%mentra say TEXT is for a turn that runs: type it in another cell meanwhile")
    running[-1].say(text)
    say(SAID)


def stop(_context: Context, words: Words) -> None:
    """Run `stop` as a cell: no cell waits for a turn then, but turns and commands may be in the background."""
    from mentra_nb.chat.jobs import stop_jobs, stop_turns

    if words["all"]:
        say(stop_jobs().capitalize())
    elif stopped := stop_turns():
        say(f"{counted(stopped, 'turn')} stopped")
    else:
        raise OperationDenied(
            "no turn is running here: type it in another cell while one runs. Background commands: %mentra stop --all"
        )

"""`fork`, `history`, `hide`, `edit`, `forget`, `export` and `diff`: what a person does with conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mentra_nb.errors import OperationDenied
from mentra_nb.notebook.commands.command import Context, Words, say
from mentra_nb.page.escaping import visible

if TYPE_CHECKING:
    import pandas as pd

    from mentra_nb.chat.difference import TurnDifference

_LISTED = {"n": "", "ts": "when (UTC)", "question": "question", "answer": "answer"}
_FOUND = {"ts": "when (UTC)", "conversation": "conversation", "question": "question", "found": "answer"}


def fork(_context: Context, words: Words) -> None:
    """Copy the notebook's own conversation; without a name the copy takes its place."""
    from mentra_nb.chat.forking import copy_own

    name = words["name"]
    copy_own(name)
    if name is None:
        say("The next question goes on in a copy. What was asked until now stays as it is: %mentra sessions lists it.")
    else:
        say(f"Copied as '{name}': ask in it with %mentra -s {name}")


def history(_context: Context, words: Words) -> pd.DataFrame:
    """Return the questions and answers of this project that contain a text, or all."""
    from mentra_nb.chat.exchanges import search
    from mentra_nb.notebook.commands.listing import listing

    text = words["word"] or words["text"]
    why = f"No question and no answer of this project contains {text!r}." if text else "Nothing was asked here yet."
    return listing(search(text), _FOUND, why)


def forget(_context: Context, words: Words) -> None:
    """Delete a conversation, and say what of it is left."""
    from mentra_nb.chat.earlier import title, use_of
    from mentra_nb.chat.forgetting import forget

    if words["id"] is None:
        raise OperationDenied("which one? %mentra forget ID, with the id in %mentra sessions")
    found = forget(words["id"])
    say(f"Deleted: '{title(found)}', {use_of(found)}. The record keeps what it has of it, until mn.prune.")


def export(context: Context, words: Words) -> None:
    """Write the notebook's own conversation to a file."""
    from mentra_nb.chat.exporting import export_conversation

    path = words["path"] or words["quoted"]
    if path is None:
        raise OperationDenied("where to? %mentra export PATH, which ends in .md, .ipynb or .jsonl")
    written = export_conversation(context.conversation(), path, overwrite=words["overwrite"] is not None)
    say(f"Written: {visible(str(written))}")


def diff(_context: Context, _words: Words) -> TurnDifference:
    """Return what the last turn changed, which an undo would take back."""
    from mentra_nb.chat.difference import difference

    return difference()


def hide(_context: Context, words: Words) -> pd.DataFrame | None:
    """Return the questions of the notebook's own conversation by number, or leave one out from now on."""
    from mentra_nb.chat import forking
    from mentra_nb.chat.exchanges import around
    from mentra_nb.chat.revising import listed
    from mentra_nb.ids import short_id
    from mentra_nb.notebook.commands.listing import listing

    if words["number"] is None:
        return listing(listed(), _LISTED, "Nothing was asked in this notebook's conversation yet.")
    found, before = forking.hide(int(words["number"]))
    say(
        f"Hidden: {visible(around(found.prompt, ''))!r} and its answer are not sent any more; what came after them is. "
        f"To take it back: %mentra resume {short_id(before)}"
    )
    return None


def edit(context: Context, words: Words) -> None:
    """Put an earlier question into a new cell, which asks it anew in its place."""
    from IPython import get_ipython

    from mentra_nb.chat.revising import exchange
    from mentra_nb.notebook.new_cell import put_below

    number = int(words["number"] or 0)
    if not number:
        raise OperationDenied("which one? %mentra edit N, with the number in %mentra hide")
    question = exchange(context.conversation(), number).prompt
    _, line = put_below(get_ipython(), f"%%mentra --at {number}\n{question}", "question")
    say(f"{line} What came after question {number} is left out when it runs.")

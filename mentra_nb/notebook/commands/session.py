"""The status card, `resume`, `sessions`, `last` and `undo`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mentra_nb.errors import OperationDenied
from mentra_nb.notebook import kernel
from mentra_nb.notebook.commands.command import Context, Words, say
from mentra_nb.page.escaping import visible
from mentra_nb.paths import has_entries, home
from mentra_nb.words import counted

if TYPE_CHECKING:
    import pandas as pd

    from mentra_nb.chat.chat import Chat


def status(context: Context, _words: Words) -> None:
    """Print the status card."""
    from mentra_nb.chat.api import stored_conversations
    from mentra_nb.chat.doctor import model_finding
    from mentra_nb.chat.earlier import title, use_of
    from mentra_nb.chat.engine import engine
    from mentra_nb.notebook.commands.trust import lines
    from mentra_nb.notebook.listed import show_open, was_asked

    began = time.monotonic()

    if has_entries(waiting := home() / "effects" / "waiting"):
        from mentra_nb.sandbox.waiting import remove_left

        remove_left(waiting)
    chat, used = context.conversation(), engine()
    model, own = model_finding(used).detail, chat.id
    stored = stored_conversations(of_notebook=True)
    turns = next((each.turns for each in stored if each.session.id == own), 0)
    asked = f"{asked}\n\n" if (asked := show_open(began)) else ""
    asked = asked or (was_asked(stored[-1]) if stored else "")
    earlier = f"earlier  '{title(stored[-1])}', {use_of(stored[-1])}: %mentra resume\n" if stored and not turns else ""
    say(
        f"model    {model}\n"
        f"session  {chat.name or 'this notebook'}, {counted(turns, 'turn')}\n"
        f"{earlier}"
        f"{_spent(chat) if turns else ''}"
        f"rules    {len(chat.rules())}\n"
        f"asks     {used.settings.ask}\n"
        f"{''.join(f'ignored  {visible(line)}{chr(10)}' for line in lines())}\n"
        f"{asked}"
        "Try: %mentra what can you do here?\n"
        "     %mentra tools\n"
        "     %mentra help"
    )


def _spent(chat: Chat) -> str:
    """Return the line about what a conversation has used; nothing where no provider has counted."""
    from mentra_nb.record.read import frames

    taken = frames.turns(session=chat.id)
    tokens, cost = int(taken.total_tokens.fillna(0).sum()), taken.cost_usd.dropna()
    dollars = f", ${cost.sum():,.4f}" if len(cost) else ""
    return f"spent    {tokens:,} tokens{dollars}\n" if tokens else ""


def resume(context: Context, words: Words) -> None:
    """Take up a stored conversation, and continue its last turn in the running cell if that is not finished."""
    from mentra_nb.chat.api import take_up
    from mentra_nb.chat.earlier import title, use_of

    chat, found = take_up(words["name"])
    if found.last_state == "finished":
        asking = "%mentra" if chat.name is None else f"%mentra -s {chat.name}"
        say(f"In '{title(found)}', {use_of(found)}. Its last turn is finished: ask on with {asking}")
        return
    context.show(chat.resume(origin=kernel.running_cell()))


def sessions(context: Context, _words: Words) -> pd.DataFrame:
    """Return the table of stored conversations of this project."""
    import pandas as pd

    from mentra_nb.chat.api import stored_conversations
    from mentra_nb.chat.earlier import title
    from mentra_nb.notebook.commands.listing import listing

    own = context.conversation().id
    rows = [
        {
            "title": title(found),
            "turns": found.turns,
            "used_at": found.used_at,
            "state": "this one" if found.session.id == own else "" if found.last_state == "finished" else "unfinished",
            "os_user": found.session.os_user,
            "id": found.session.id,
            "name": found.session.given_name,
            "notebook": found.session.notebook,
        }
        for found in stored_conversations()
    ]
    frame = pd.DataFrame(rows, columns=["title", "turns", "used_at", "state", "os_user", "id", "name", "notebook"])
    frame["used_at"] = pd.to_datetime(frame["used_at"], unit="s", utc=True)
    frame.attrs["mentra_nb"] = True
    shown = {"title": "conversation", "turns": "turns", "used_at": "last used (UTC)", "state": ""}
    shown |= ({"os_user": "begun by"} if frame.os_user.nunique() > 1 else {}) | {"id": "id"}
    return listing(frame, shown, "No conversation is stored for this project yet.")


def last(context: Context, _words: Words) -> None:
    """Show the last answer again, with what the model said between tools."""
    from mentra_nb.notebook.output import show_answer

    reply = context.conversation().last
    if reply is None:
        raise OperationDenied("there is no answer yet in this notebook's conversation")
    show_answer(reply, whole=True)


def undo(_context: Context, words: Words) -> None:
    """Take back what a turn did, and say what was and what was not."""
    from mentra_nb.chat.undo import undo

    say(repr(undo(words["what"])))

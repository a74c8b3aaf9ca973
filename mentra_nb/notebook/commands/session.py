"""The status card, `resume` and `last`."""

from __future__ import annotations

from mentra_nb.errors import OperationDenied
from mentra_nb.notebook import kernel
from mentra_nb.notebook.commands.command import Context, Words, say


def status(context: Context, _words: Words) -> None:
    """Print the status card."""
    from mentra_nb.chat.engine import engine

    chat, used = context.conversation(), engine()
    model = used.settings.model or "chosen by the keys there are"
    turns = chat.turn_count
    say(
        f"model    {model}\n"
        f"session  {chat.name or 'this notebook'}, {turns} turn{'s' * (turns != 1)}\n"
        f"rules    {len(chat.rules())}\n"
        f"asks     {used.settings.ask}\n\n"
        "Try: %mentra what can you do here?\n"
        "     %mentra tools\n"
        "     %mentra help"
    )


def resume(context: Context, words: Words) -> None:
    """Continue the interrupted turn in the running cell."""
    chat = context.conversation(words["name"])
    context.namespace["_mentra"] = context.show(chat.resume(origin=kernel.running_cell()))


def last(context: Context, _words: Words) -> None:
    """Show the last answer again."""
    from mentra_nb.notebook.output import show_markdown

    reply = context.conversation().last
    if reply is None:
        raise OperationDenied("there is no answer yet in this notebook's conversation")
    show_markdown(reply.text)

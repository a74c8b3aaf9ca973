"""Earlier exchanges of a conversation: listed by number, left out from now on, or asked anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mentra_nb.chat.api import conversation
from mentra_nb.chat.chat import Chat
from mentra_nb.chat.engine import engine
from mentra_nb.chat.exchanges import Exchange, around, exchanges
from mentra_nb.errors import ConfigurationError, OperationDenied
from mentra_nb.words import counted

if TYPE_CHECKING:
    import pandas as pd


def exchanges_of(chat: Chat) -> list[Exchange]:
    """Return the exchanges of a conversation that its next turn sends, oldest first."""
    return exchanges(chat._engine.call(lambda: chat._identity.entries(chat._engine.runtime.store)))


def exchange(chat: Chat, number: int) -> Exchange:
    """Return the exchange of that number, from 1. Raises `OperationDenied` if there is none."""
    found = exchanges_of(chat)
    if not 0 < number <= len(found):
        raise OperationDenied(
            f"there is no question {number} here: %mentra hide lists {counted(len(found), 'question')}"
        )
    return found[number - 1]


def listed() -> pd.DataFrame:
    """Return the exchanges of the notebook's own conversation with their numbers: n, ts, question, answer, run_id."""
    import pandas as pd

    rows = [
        (n, each.entries[0].created_at, around(each.prompt, ""), around(each.answer, ""), each.run_id)
        for n, each in enumerate(exchanges_of(conversation()), 1)
    ]
    frame = pd.DataFrame(rows, columns=["n", "ts", "question", "answer", "run_id"])
    frame.attrs["mentra_nb"] = True
    return frame.assign(ts=pd.to_datetime(frame.ts.astype("float64"), unit="s", utc=True).dt.as_unit("us"))


def go_before(chat: Chat, number: str) -> None:
    """Let the next question of a conversation take the place of an exchange, and of those after it.

    They stay in the store.

    Raises:
        ConfigurationError: it is not a number.
        OperationDenied: there is no such exchange, or a turn is running.
        LeaseUnavailable: another process has the conversation.
    """
    if not number.isdecimal():
        raise ConfigurationError(f"--at needs the number of a question, as %mentra hide lists them, not '{number}'")
    if chat.running is not None:
        raise OperationDenied("a turn of this conversation is running: wait for it, or stop it")
    found = exchange(chat, int(number))
    chat.close()
    used = engine()
    stored = used.call(used.runtime.store.load_conversation, chat.id)
    assert stored is not None
    assert stored.session is not None
    used.call(used.runtime.check_free, stored.session, chat.name or stored.session.id)
    used.call(used.runtime.store.set_leaf, stored.agent.id, found.entries[0].parent_id)

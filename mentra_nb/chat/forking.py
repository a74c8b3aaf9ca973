"""The notebook's own conversation begun anew, and copies of a conversation."""

from __future__ import annotations

from collections.abc import Collection

from mentra_nb.chat.api import conversation
from mentra_nb.chat.chat import Chat
from mentra_nb.chat.engine import engine
from mentra_nb.chat.exchanges import Exchange
from mentra_nb.chat.revising import exchange, go_before
from mentra_nb.errors import ConfigurationError, OperationDenied
from mentra_nb.ids import new_id


def conversation_for(name: str | None, *, new: bool = False, fork: bool = False, at: str | None = None) -> Chat:
    """Return the conversation that a prompt belongs to.

    Args:
        name: Its name; without one it is the notebook's own.
        new: Begin the notebook's own conversation anew. The one until now stays in the store.
        fork: Let a copy of the notebook's own conversation be the notebook's own from now on.
        at: The number of the question whose place the prompt takes; what came after it is left out.

    Raises:
        ConfigurationError: `new` or `fork` with a name, or both; or `at` is not a number.
        OperationDenied: there is nothing to copy, no question `at` that number, or a turn of it is running.
    """
    if at is not None:
        go_before(chat := conversation(name), at)
        return chat
    if not new and not fork:
        return conversation(name)
    if name is not None or (new and fork):
        raise ConfigurationError(
            "--new and --fork are for the notebook's own conversation: give one of them, and no -s"
        )
    if fork:
        return copy_own(None)
    made = Chat()
    made._identity.is_anew = True
    return _known_as(None, made)


def copy_own(name: str | None, *, without: Collection[str] = ()) -> Chat:
    """Copy the notebook's own conversation as it is now, and return the copy. Rules made for it hold in the copy.

    Args:
        name: The name of the copy. Without one the copy is the notebook's own conversation from now on.
        without: Ids of entries that are left out.

    Raises:
        OperationDenied: nothing was asked in it yet, a turn of it is running, or the name is taken.
    """
    from mentra_nb.chat.earlier import copy_rules
    from mentra_nb.runtime.forking import fork

    used, own = engine(), conversation()
    store = used.runtime.store
    stored = used.call(store.load_conversation, own.id)
    if stored is None or stored.session is None or stored.agent.leaf is None:
        raise OperationDenied(
            "nothing was asked here yet, so there is nothing to copy: %mentra resume takes up an earlier one"
        )
    if own.running is not None:
        raise OperationDenied("a turn of this conversation is running: wait for it, or stop it, before you copy it")
    if name is not None and used.call(store.load_session, name, stored.session.project) is not None:
        raise OperationDenied(f"there is a conversation '{name}' already: %mentra resume {name} goes on with it")
    record = used.call(fork, store, stored, new_id("session"), name, own.notebook, without)
    used.call(copy_rules, store, own.id, record.id, record.project)
    made = Chat(name)
    made.take_up(record)
    return _known_as(name, made)


def hide(number: int) -> tuple[Exchange, str]:
    """Go on in a copy of the notebook's own conversation without one exchange. What came after it stays.

    Returns the exchange, and the id of the conversation that still has it. Raises `OperationDenied`.
    """
    own = conversation()
    found, before = exchange(own, number), own.id
    copy_own(None, without={entry.id for entry in found.entries})
    return found, before


def _known_as(name: str | None, made: Chat) -> Chat:
    """Make a conversation the one of that name in this process. An undo still reaches what the one before did."""
    chats: dict[str | None, Chat] = engine().chats
    if (before := chats.get(name)) is not None:
        chats[before.id] = before
    chats[name] = made
    return made

"""The entry that stands for the beginning of a conversation, and which entries are sent because of it.

It follows the entries that are kept as they are, since a transcript is only appended to; it is sent before them.
Nothing is deleted: the entries that it stands for stay in the store, on the same path.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from mentra_nb.compaction.tokens import OURS
from mentra_nb.content import Image, Message, Opaque, Text
from mentra_nb.store.records import Entry, EntryKind

KIND: EntryKind = "compaction_summary"


class Carried(NamedTuple):
    """What one summary hands on to the next, word for word."""

    files: tuple[str, ...] = ()
    instructions: tuple[str, ...] = ()
    """Sentences of the user that are to hold on."""
    decisions: tuple[str, ...] = ()
    """Calls that were denied, with the reason."""
    matters: tuple[str, ...] = ()
    """What the user wrote after `%mentra compact`."""
    words: tuple[str, ...] = ()
    """What the user said last."""
    left_out: int = 0
    """How many earlier messages of the user are not in `words`."""
    written: tuple[str, ...] = ()
    """The lines that a model wrote."""


NOTHING = Carried()


class Sent(NamedTuple):
    """What is sent of a path. All are positions on it."""

    gone: int
    """How many entries at the beginning are not sent."""
    summary: int | None
    """The entry that is sent in their place, if there is one."""


def summary_message(text: str, keeps: int, carried: Carried = NOTHING, pictures: Sequence[Image] = ()) -> Message:
    """Return the message of an entry: `keeps` entries before it are sent after it.

    Example:
        >>> message = summary_message("The user wants a report.", 2)
        >>> message.text(), keeps_of(message)
        ('The user wants a report.', 2)
    """
    data = json.dumps({"keeps": keeps, "carried": carried._asdict()}, ensure_ascii=False)
    return Message.user([Text(text=text), *pictures, Opaque(data=data, provider=OURS, model="compaction")])


def keeps_of(message: Message) -> int:
    """Return how many entries before this one are sent after it."""
    return int(_data(message).get("keeps", 0))


def carried_of(message: Message) -> Carried:
    """Return what a summary hands on."""
    found = _data(message).get("carried", {})
    lists = {name: tuple(map(str, found.get(name, ()))) for name in Carried._fields if name != "left_out"}
    return Carried(**lists, left_out=int(found.get("left_out", 0)))


def sent_of(entries: Sequence[Entry]) -> Sent:
    """Return what is sent of a path: all that follows the newest summary, and the entries that it keeps."""
    for at in range(len(entries) - 1, -1, -1):
        if entries[at].kind == KIND:
            return Sent(max(0, at - keeps_of(entries[at].message)), at)
    return Sent(0, None)


def sent_messages(entries: Sequence[Entry]) -> list[Message]:
    """Return the messages of a path in the order in which they are sent."""
    gone, summary = sent_of(entries)
    messages = [entry.message for at, entry in enumerate(entries) if at >= gone and at != summary]
    return messages if summary is None else [entries[summary].message, *messages]


def _data(message: Message) -> dict[str, Any]:
    block = next((block for block in message.content if isinstance(block, Opaque) and block.provider == OURS), None)
    found = json.loads(block.data) if block is not None else {}
    return found if isinstance(found, dict) else {}

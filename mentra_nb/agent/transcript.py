"""An agent's conversation: the active path through a tree of entries, appended to and never rewritten."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple, cast

from mentra_nb.content import Message, Role, Shelved
from mentra_nb.identity import new_id
from mentra_nb.store.base import Entry, EntryKind

KEEP = 16
"""Entries at the end of the path that are kept as they are; older ones are shelved."""


class Item(NamedTuple):
    """An entry of the path without what follows from its place there."""

    id: str
    run_id: str | None
    kind: EntryKind
    message: Message
    created_at: float


class Transcript:
    """The path from the root to the leaf. Runs append to it; other branches stay in the store.

    While nobody uses it, it may be unloaded: then only its leaf and its length are known here.
    """

    def __init__(self, agent_id: str, entries: Sequence[Entry] = ()) -> None:
        self.agent_id = agent_id
        self._items: list[Item] = []
        self._shelved = 0
        self._elsewhere: tuple[str, int] | None = None
        self.follow(entries)

    @classmethod
    def stored(cls, agent_id: str, leaf: str | None, length: int) -> Transcript:
        """One that is in the store and not loaded yet."""
        transcript = cls(agent_id)
        transcript._elsewhere = (leaf, length) if leaf is not None else None
        return transcript

    def __len__(self) -> int:
        return len(self._items) if self._elsewhere is None else self._elsewhere[1]

    @property
    def is_loaded(self) -> bool:
        return self._elsewhere is None

    def unload(self) -> None:
        """Let go of the messages: the store has them."""
        if self._items:
            self._elsewhere = (self._items[-1].id, len(self._items))
            self._items, self._shelved = [], 0

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The path, read out. Costs what its length costs: not for every round."""
        return tuple(self._entry(at) for at in range(len(self._items)))

    @property
    def last(self) -> Entry | None:
        return self._entry(len(self._items) - 1) if self._items else None

    @property
    def leaf(self) -> str | None:
        if self._elsewhere is not None:
            return self._elsewhere[0]
        return self._items[-1].id if self._items else None

    def messages(self) -> list[Message]:
        """The conversation; old messages may be `Shelved`, which read the same."""
        return [item.message for item in self._items]

    def append(self, message: Message, run_id: str, kind: EntryKind | None = None) -> Entry:
        """Put a message at the end of the path. The caller stores the entry."""
        self._items.append(Item(new_id("entry"), run_id, kind or _kind(message), message, time.time()))
        return self._entry(len(self._items) - 1)

    def path(self) -> list[Item]:
        """The path as it is now, to `go_back` to."""
        return list(self._items)

    def go_back(self, path: list[Item]) -> None:
        """Leave the branch for a path that was. Nothing is deleted from the store."""
        self._items = path
        self._shelved = min(self._shelved, len(path))

    def follow(self, entries: Sequence[Entry]) -> None:
        """Take another path."""
        self._items = [Item(x.id, x.run_id, x.kind, x.message, x.created_at) for x in entries]
        self._shelved, self._elsewhere = 0, None

    def shelve(self) -> None:
        """Pack what is old and has been sent: from now on it takes about the memory of its text."""
        for at in range(self._shelved, len(self._items) - KEEP):
            item = self._items[at]
            if not isinstance(item.message, Shelved) and Shelved.is_worth_it(item.message):
                self._items[at] = item._replace(message=cast(Message, Shelved(item.message)))
            self._shelved = at + 1

    def _entry(self, at: int) -> Entry:
        item = self._items[at]
        message = item.message
        return Entry(
            id=item.id,
            agent_id=self.agent_id,
            parent_id=self._items[at - 1].id if at else None,
            run_id=item.run_id,
            kind=item.kind,
            message=message.whole() if isinstance(message, Shelved) else message,
            created_at=item.created_at,
        )


def _kind(message: Message) -> EntryKind:
    if message.role is Role.ASSISTANT:
        return "assistant_turn"
    return "tool_exchange" if message.tool_results() else "user_turn"

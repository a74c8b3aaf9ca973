"""An agent's conversation: the active path through a tree of entries, appended to and never rewritten."""

from __future__ import annotations

import time
from collections.abc import Sequence

from mentra_nb.content import Message, Role
from mentra_nb.identity import new_id
from mentra_nb.store.base import Entry, EntryKind


class Transcript:
    """The path from the root to the leaf. A run appends to it; what a failed run appended is taken off again."""

    def __init__(self, agent_id: str, entries: Sequence[Entry] = ()) -> None:
        self.agent_id = agent_id
        self._entries = list(entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(self._entries)

    @property
    def leaf(self) -> str | None:
        return self._entries[-1].id if self._entries else None

    def messages(self) -> list[Message]:
        return [entry.message for entry in self._entries]

    def append(self, message: Message, run_id: str) -> Entry:
        """Put a message at the end of the path. The caller stores the entry."""
        entry = Entry(
            id=new_id("entry"),
            agent_id=self.agent_id,
            parent_id=self.leaf,
            run_id=run_id,
            kind=_kind(message),
            message=message,
            created_at=time.time(),
        )
        self._entries.append(entry)
        return entry

    def back_to(self, length: int) -> None:
        """Leave the branch: the path is what it was when it had `length` entries. Nothing is deleted from the store."""
        del self._entries[length:]


def _kind(message: Message) -> EntryKind:
    if message.role is Role.ASSISTANT:
        return "assistant_turn"
    return "tool_exchange" if message.tool_results() else "user_turn"

"""An agent's conversation: the active path through a tree of entries, appended to and never rewritten.

It is sent whole with every request, but its beginning is hardly ever looked into. Of old messages only the form they
were last sent in stays in memory; the rest of them is read from the store when it is asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar, cast

from mentra_nb.content import ContentBlock, Message, Role, ToolResult, ToolUse
from mentra_nb.ids import new_id
from mentra_nb.store.protocols import TranscriptStore
from mentra_nb.store.records import Entry, EntryKind

KEEP = 8
"""Entries at the end of the path that stay whole."""

T = TypeVar("T")
_NONE: frozenset[int] = frozenset()


class Item(NamedTuple):
    """An entry of the path without what follows from its place there."""

    id: str
    run_id: str | None
    kind: EntryKind
    message: Message
    created_at: float


class Place(NamedTuple):
    """A path as it was: what `Transcript` has of it."""

    before: tuple[str | None, int]
    wire: str
    sent: list[Any]
    images: frozenset[int]
    recipient: object
    items: list[Item]


class Sent:
    """A `Message` of long ago, and it reads like one: only the form it was last sent in is in memory."""

    __slots__ = ("_at", "_transcript")

    def __init__(self, transcript: Transcript, at: int) -> None:
        self._transcript, self._at = transcript, at

    def encoded(self, wire: str, encode: Callable[[Message], T]) -> T:
        return self._transcript.form(self._at, wire, encode)

    def has_images(self) -> bool:
        return self._at in self._transcript.images

    @property
    def role(self) -> Role:
        return self.whole().role

    @property
    def content(self) -> tuple[ContentBlock, ...]:
        return self.whole().content

    def text(self) -> str:
        return self.whole().text()

    def tool_uses(self) -> list[ToolUse]:
        return self.whole().tool_uses()

    def tool_results(self) -> list[ToolResult]:
        return self.whole().tool_results()

    def whole(self) -> Message:
        return self._transcript.read(self._at)


class Transcript:
    """The path from the root to the leaf. Runs append to it; other branches stay in the store.

    While nobody uses it, it may be unloaded: then only its leaf and its length are known here.
    """

    __slots__ = ("_before", "_items", "_read", "_recipient", "_sent", "_wire", "agent_id", "images", "store")

    def __init__(self, agent_id: str, store: TranscriptStore, entries: Sequence[Entry] = ()) -> None:
        self.agent_id, self.store = agent_id, store
        self._before: tuple[str | None, int] = (None, 0)
        """The last entry of the part that is not whole here, and how many it has."""
        self._wire, self._sent = "", list[Any]()
        """The forms of that part's messages, and of which wire they are; none while the transcript is unloaded."""
        self._recipient: object = None
        """Whom it was last made ready for."""
        self.images = _NONE
        """Where in that part there are pictures."""
        self._read: list[Message] | None = None
        """That part, whole, if somebody looked into it."""
        self._items: list[Item] = []
        """What follows."""
        self.follow(entries)

    @classmethod
    def stored(cls, agent_id: str, store: TranscriptStore, leaf: str | None, length: int) -> Transcript:
        """One that is in the store and not loaded yet."""
        transcript = cls(agent_id, store)
        transcript._before = (leaf, length)
        return transcript

    def __len__(self) -> int:
        return self._before[1] + len(self._items)

    @property
    def leaf(self) -> str | None:
        return self._items[-1].id if self._items else self._before[0]

    # ---- what is in memory ------------------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """Whether `messages` has all of it."""
        return len(self._sent) == self._before[1]

    async def ready_for(self, recipient: object) -> None:
        """Have all of it in memory, in no other form than this recipient's: each model is sent forms of its own."""
        if not self.is_loaded or self._recipient not in (None, recipient):
            await self.load()
        self._recipient = recipient

    async def load(self) -> None:
        """Have all of it in memory, and whole."""
        self.follow(await self.store.load_path(self.agent_id, self.leaf))

    def unload(self) -> None:
        """Let go of the messages: the store has them."""
        self._before = (self.leaf, len(self))
        self._sent, self._items, self.images, self._read = [], [], _NONE, None

    def history(self) -> list[Message]:
        """All messages, whole. What is not in memory is read from the store, meanwhile blocking."""
        return [*self._stored(), *(item.message for item in self._items)]

    def read(self, at: int) -> Message:
        """A message of the part that is not in memory; whoever asks for one gets all read, and asks for the others."""
        if self._read is None or at >= len(self._read):
            self._read = self._stored()
        return self._read[at]

    def _stored(self) -> list[Message]:
        leaf, length = self._before
        if not length:
            return []
        with ThreadPoolExecutor(1) as thread:
            path = thread.submit(asyncio.run, self._path_to(leaf)).result()
        return [entry.message for entry in path]

    async def _path_to(self, leaf: str | None) -> list[Entry]:
        return await self.store.load_path(self.agent_id, leaf)

    # ---- for a run --------------------------------------------------------------------------------------------

    def messages(self) -> list[Message]:
        """The conversation to send; old messages may be `Sent`, which read the same."""
        sent = [cast(Message, Sent(self, at)) for at in range(len(self._sent))]
        return sent + [item.message for item in self._items]

    def form(self, at: int, wire: str, encode: Callable[[Message], T]) -> T:
        """As `Message.encoded`, of an old message."""
        if wire != self._wire:
            self._wire, self._sent = wire, [None] * len(self._sent)
        form: T | None = self._sent[at]
        if form is None:
            form = self._sent[at] = encode(self.read(at))
        return form

    @property
    def tail(self) -> tuple[Entry, ...]:
        """The end of the path: what is whole in memory. All of it after `follow` and `load`."""
        return tuple(self._entry(at) for at in range(len(self._items)))

    @property
    def last(self) -> Entry | None:
        return self._entry(len(self._items) - 1) if self._items else None

    def append(self, message: Message, run_id: str, kind: EntryKind | None = None) -> Entry:
        """Put a message at the end of the path. The caller stores the entry before the next one."""
        self._items.append(Item(new_id("entry"), run_id, kind or _kind(message), message, time.time()))
        entry = self._entry(len(self._items) - 1)
        self._let_go()
        return entry

    def place(self) -> Place:
        """The path as it is now, to `go_back` to."""
        return Place(self._before, self._wire, list(self._sent), self.images, self._recipient, list(self._items))

    def go_back(self, place: Place) -> None:
        """Leave the branch for a path that was. Nothing is deleted from the store."""
        self._before, self._wire, self._sent, self.images, self._recipient, self._items = place
        self._read = None

    def follow(self, entries: Sequence[Entry]) -> None:
        """Take another path."""
        self._before, self._sent, self.images, self._read = (None, 0), [], _NONE, None
        self._recipient = None
        self._items = [Item(x.id, x.run_id, x.kind, x.message, x.created_at) for x in entries]

    def _let_go(self) -> None:
        """Keep of what is old, and has been sent, the form it was sent in."""
        old = 0
        while old < len(self._items) - KEEP:
            message = self._items[old].message
            if not self._sent:
                self._wire = message.last_wire
            form = message.form(self._wire)
            if form is None:
                break
            if message.has_images():
                self.images |= {len(self._sent)}
            self._sent.append(form)
            old += 1
        if old:
            self._before = (self._items[old - 1].id, len(self._sent))
            del self._items[:old]

    def _entry(self, at: int) -> Entry:
        item = self._items[at]
        return Entry(
            id=item.id,
            agent_id=self.agent_id,
            parent_id=self._items[at - 1].id if at else self._before[0],
            run_id=item.run_id,
            kind=item.kind,
            message=item.message,
            created_at=item.created_at,
        )


def _kind(message: Message) -> EntryKind:
    if message.role is Role.ASSISTANT:
        return "assistant_turn"
    return "tool_exchange" if message.tool_results() else "user_turn"

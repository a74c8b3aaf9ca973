"""An agent's conversation: the active path through a tree of entries, appended to and never rewritten.

With every request all of it is sent that follows the newest summary, which stands for what came before; that is only
in the store. Old messages are rarely read: only the form they were last sent in stays in memory, and the rest is read
from the store when it is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice, repeat
from typing import Any, NamedTuple, TypeVar, overload

from mentra_nb.compaction.entry import sent_messages, sent_of
from mentra_nb.compaction.tokens import of_message
from mentra_nb.content import ContentBlock, Conversation, Message, Role, Sendable, ToolResult, ToolUse
from mentra_nb.errors import OperationDenied, UnknownEntry
from mentra_nb.ids import new_id
from mentra_nb.store.protocols import TranscriptStore
from mentra_nb.store.records import Entry, EntryKind

KEEP = 8
"""The number of entries at the end of the path that stay whole in memory."""

T = TypeVar("T")


class Item(NamedTuple):
    """An entry of the path, without the agent and the parent: the path implies them."""

    id: str
    run_id: str | None
    kind: EntryKind
    message: Message
    created_at: float
    shorter: Message | None = None
    """What is sent in place of the message, if it was made shorter."""

    @property
    def sent(self) -> Message:
        """The message as it is sent."""
        return self.shorter or self.message


@dataclass(frozen=True, slots=True)
class TranscriptPath:
    """What is in memory of one path, in the order in which it is sent: its old entries, followed by `items`.

    A summary is sent before the entries that it keeps, and follows them on the path.

    Changing the path replaces this value as a whole, so no part of one path can remain in another. The lists of the
    current value grow in place, because copying them for each append would take longer with every message.
    """

    old: int = 0
    """The number of old entries."""
    old_leaf: str | None = None
    """The id of the last entry of the path that is not in `items`."""
    gone: int = 0
    """The number of entries before the old ones, for which a summary is sent."""
    gone_calls: frozenset[str] = frozenset()
    """The ids of the calls in those."""
    block: int = 0
    """How many of `items`, from the first on, are a summary and the entries it keeps: together they become old."""
    short: int = 0
    """The number of old entries and items, from the first on, of which results are sent in part."""
    tokens: int = 0
    """Of the messages that are sent, estimated. Unknown while unloaded."""
    wire: str = ""
    """The wire that `forms` are for."""
    forms: list[Any] = field(default_factory=list)
    """The old messages as they were last sent; `None` is encoded when it is needed. Empty while unloaded."""
    pictures: bytearray = field(default_factory=bytearray)
    """For each of `forms`, 1 if the message has images."""
    calls: list[tuple[str, ...]] = field(default_factory=list)
    """For each of `forms`, the ids of the calls in the message."""
    recipient: object = None
    """What the forms were made ready for."""
    read: list[Message] | None = None
    """The old messages, once one of them was read. May lack the last ones."""
    items: list[Item] = field(default_factory=list)
    """The entries that are whole in memory."""


_NEW = TranscriptPath()


class Sent:
    """A `Sendable` of which only the form it was last sent in is in memory; the rest is read from the store."""

    __slots__ = ("_at", "_transcript")

    def __init__(self, transcript: Transcript, at: int) -> None:
        self._transcript, self._at = transcript, at

    def encoded(self, wire: str, encode: Callable[[Message], T]) -> T:
        return self._transcript.form(self._at, wire, encode)

    def has_images(self) -> bool:
        return self._transcript.has_images(self._at)

    def call_ids(self) -> tuple[str, ...]:
        return self._transcript._path.calls[self._at]

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


class _Conversation(Conversation):
    """The messages of a transcript as they are now. The old ones are made only for those that read them singly."""

    def __init__(self, transcript: Transcript, old: int, late: list[Message]) -> None:
        self._transcript, self._old, self._late = transcript, old, late

    def __len__(self) -> int:
        return self._old + len(self._late)

    @overload
    def __getitem__(self, at: int) -> Sendable: ...
    @overload
    def __getitem__(self, at: slice) -> list[Sendable]: ...
    def __getitem__(self, at: int | slice) -> Sendable | list[Sendable]:
        places = range(len(self))[at]
        if isinstance(places, range):
            return [self[place] for place in places]
        return Sent(self._transcript, places) if places < self._old else self._late[places - self._old]

    def __iter__(self) -> Iterator[Sendable]:
        return chain(map(Sent, repeat(self._transcript), range(self._old)), self._late)

    def __repr__(self) -> str:
        return repr([*self])

    def sent(self, wire: str) -> tuple[list[tuple[str, ...]], list[Any]]:
        return self._transcript.sent(wire, self._old)


class Transcript:
    """The path from the root to the leaf. Turns append to it; other branches stay in the store.

    An unloaded transcript knows only its leaf and its length.
    """

    __slots__ = ("_path", "agent_id", "aside", "counted", "quiet", "store")

    def __init__(self, agent_id: str, store: TranscriptStore, entries: Sequence[Entry] = ()) -> None:
        self.agent_id: str = agent_id
        self.store: TranscriptStore = store
        self.aside: Message | None = None
        """A message that is sent after all others, and is not part of the conversation."""
        self.counted: tuple[int, int] | None = None
        """`tokens` when a request was sent, and how many its provider has counted for all of the request."""
        self.quiet: int = 0
        """No summary is tried below so many tokens, because one has failed."""
        self._path: TranscriptPath
        self.follow(entries)

    @classmethod
    def stored(cls, agent_id: str, store: TranscriptStore, leaf: str | None, length: int) -> Transcript:
        """Return the unloaded transcript of a stored path."""
        transcript = cls(agent_id, store)
        transcript._path = TranscriptPath(length, leaf)
        return transcript

    def __len__(self) -> int:
        return self._path.gone + self._path.old + len(self._path.items)

    @property
    def leaf(self) -> str | None:
        path = self._path
        if not path.items:
            return path.old_leaf
        return path.items[0 if path.block == len(path.items) else -1].id

    @property
    def gone(self) -> int:
        """How many entries at the beginning of the path are not sent."""
        return self._path.gone

    @property
    def tokens(self) -> int:
        """The tokens of the messages that are sent, estimated."""
        return self._path.tokens

    # ---- what is in memory ------------------------------------------------------------------------------------

    @property
    def is_loaded(self) -> bool:
        """Whether `messages` returns all messages."""
        return len(self._path.forms) == self._path.old

    async def ready_for(self, recipient: object) -> None:
        """Load what `messages` needs. Forms made for another recipient are dropped: each model gets its own."""
        if not self.is_loaded or self._path.recipient not in (None, recipient):
            await self.load()
        self._path = replace(self._path, recipient=recipient)

    async def load(self) -> None:
        """Read all messages that are sent into memory, whole."""
        path = self._path
        last = path.old + len(path.items) if path.gone else None
        self.follow(await self.store.load_path(self.agent_id, self.leaf, last=last), path)
        if path.short:
            self.shorten(path.short)

    def unload(self) -> None:
        """Free the messages; they are read from the store again when needed."""
        self._path = TranscriptPath(len(self), self.leaf)

    async def entries(self) -> list[Entry]:
        """Return all stored entries of the path."""
        return await self._path_to(self.leaf)

    def history(self) -> list[Message]:
        """Return all messages of the path, whole. Blocks while it reads the old ones from the store."""
        return [*(entry.message for entry in self._read_old()), *(item.message for item in self._in_order())]

    def _in_order(self) -> list[Item]:
        """Return the items in the order of the path."""
        items, block = self._path.items, self._path.block
        return [*items[1:block], *items[:1], *items[block:]] if block else items

    def read(self, at: int) -> Message:
        """Return an old message as it is sent. Reads all of them at once, since callers tend to want the others too."""
        messages = self._path.read
        if messages is None or at >= len(messages):
            messages = sent_messages(self._read_old())
            if short := self._path.short:
                from mentra_nb.compaction.shrink import shorter

                messages[:short] = [shorter(message) or message for message in messages[:short]]
            self._path = replace(self._path, read=messages)
        return messages[at]

    def _read_old(self) -> list[Entry]:
        """Return the entries of the path that are not among the items."""
        path = self._path
        if not path.gone + path.old:
            return []
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, self._path_to(path.old_leaf)).result()

    async def _path_to(self, leaf: str | None) -> list[Entry]:
        return await self.store.load_path(self.agent_id, leaf)

    # ---- for a turn -------------------------------------------------------------------------------------------

    def messages(self) -> Conversation:
        """Return the conversation to send. Old messages may be `Sent`."""
        aside = [self.aside] if self.aside is not None else []
        return _Conversation(self, len(self._path.forms), [*(item.sent for item in self._path.items), *aside])

    def sent(self, wire: str, old: int) -> tuple[list[tuple[str, ...]], list[Any]]:
        """Return what `Conversation.sent` does of the first `old` messages: all of them, or nothing."""
        path = self._path
        if path.wire != wire or None in path.forms:
            return [], []
        return path.calls[:old], path.forms[:old]

    def form(self, at: int, wire: str, encode: Callable[[Message], T]) -> T:
        """Do for an old message what `Message.encoded` does."""
        if wire != self._path.wire:
            self._path = replace(self._path, wire=wire, forms=[None] * len(self._path.forms))
        form: T | None = self._path.forms[at]
        if form is None:
            form = encode(self.read(at))
            self._path.forms[at] = form
        return form

    def call_ids(self) -> Iterator[str]:
        """Yield the ids of the calls in all messages. The transcript must be loaded."""
        path = self._path
        calls = (item.message.call_ids() for item in path.items)
        return chain(path.gone_calls, chain.from_iterable(path.calls), *calls)

    def has_images(self, at: int) -> bool:
        """Return whether an old message has images."""
        return bool(self._path.pictures[at])

    @property
    def tail(self) -> tuple[Entry, ...]:
        """The entries that are whole in memory, as they are sent: all of these after `load`, else the last ones."""
        return tuple(self._entry(at) for at in range(len(self._path.items)))

    def late(self, count: int) -> list[Entry]:
        """Return the last entries that are whole in memory, at most `count`."""
        size = len(self._path.items)
        return [self._entry(at) for at in range(max(0, size - count), size)]

    @property
    def last(self) -> Entry | None:
        items = self._path.items
        return self._entry(len(items) - 1) if items else None

    def append(self, message: Message, run_id: str, kind: EntryKind | None = None) -> Entry:
        """Put a message at the end of the path. The caller stores the entry before it appends the next one."""
        items = self._path.items
        items.append(Item(new_id("entry"), run_id, kind or _kind(message), message, time.time()))
        self._path = replace(self._path, tokens=self._path.tokens + of_message(message))
        entry = self._entry(len(items) - 1)
        self._shrink()
        return entry

    # ---- making it shorter; it must be loaded -----------------------------------------------------------------

    def compact(self, summary: Message, keeps: int, run_id: str | None) -> Entry:
        """Put a summary at the end of the path, and send it and the last `keeps` entries in place of all messages."""
        path, kept = self._path, self._path.items[len(self._path.items) - keeps :]
        item = Item(new_id("entry"), run_id, "compaction_summary", summary, time.time())
        left = self._in_order()[: len(path.items) - keeps]
        self._path = TranscriptPath(
            old_leaf=left[-1].id if left else path.old_leaf,
            gone=path.gone + len(left),
            gone_calls=path.gone_calls.union(*(each.message.call_ids() for each in left)),
            block=1 + keeps,
            recipient=path.recipient,
            items=[item, *(each._replace(shorter=None) for each in kept)],
        )
        self._path = replace(self._path, tokens=self._sum())
        return self._entry(0)

    def shorten(self, count: int) -> None:
        """Send the results and pictures of the first `count` messages in part from now on."""
        from mentra_nb.compaction.shrink import shorter

        for at, item in enumerate(self._path.items[:count]):
            self._path.items[at] = item._replace(shorter=shorter(item.message))
        self._path = replace(self._path, short=count, tokens=self._sum())

    def _sum(self) -> int:
        return sum(of_message(item.sent) for item in self._path.items)

    def snapshot(self) -> TranscriptPath:
        """Return the path as it is now, for `go_back`."""
        path = self._path
        copies: dict[str, Any] = {"forms": path.forms[:], "pictures": path.pictures[:], "calls": path.calls[:]}
        return replace(path, items=path.items[:], **copies)

    def go_back(self, path: TranscriptPath) -> None:
        """Leave the branch for an earlier path. Nothing is deleted from the store."""
        self._path = path

    def follow(self, entries: Sequence[Entry], before: TranscriptPath = _NEW) -> None:
        """Take the path of these entries; before them are those that are not sent of the path `before`."""
        gone, summary = sent_of(entries)
        items = [Item(x.id, x.run_id, x.kind, x.message, x.created_at) for x in entries[gone:]]
        block = 0
        if summary is not None:
            block = summary - gone + 1
            items.insert(0, items.pop(block - 1))
        left = entries[gone - 1].id if gone else entries[0].parent_id if entries else None
        self._path = TranscriptPath(
            old_leaf=left,
            gone=before.gone + gone,
            gone_calls=before.gone_calls.union(*(entry.message.call_ids() for entry in entries[:gone])),
            block=block,
            items=items,
        )
        self._path = replace(self._path, tokens=self._sum())

    async def branch_from(self, entry_id: str | None, holder: str | None) -> int:
        """Continue from another entry, in the store too; `None` is the very beginning.

        Returns how many entries of the old path are not on the new one. Raises `UnknownEntry`, or `OperationDenied` for
        an entry whose calls would be left without results.
        """
        before = await self.store.load_path(self.agent_id, self.leaf)
        path = await self.store.load_path(self.agent_id, entry_id)
        if entry_id is not None and not path:
            raise UnknownEntry(entry_id)
        if path and path[-1].message.tool_uses():
            raise OperationDenied("that entry calls tools: branch from the results that follow it")
        await self.store.set_leaf(self.agent_id, entry_id, holder=holder)
        self.follow(path)
        return len({entry.id for entry in before} - {entry.id for entry in path})

    def _shrink(self) -> None:
        """Replace old messages that have been sent by the form they were sent in."""
        path, forms = self._path, list[Any]()
        wire = path.wire if path.forms else path.items[0].sent.last_wire if path.items else ""
        for item in islice(path.items, max(0, len(path.items) - KEEP)):
            form = item.sent.form(wire)
            if form is None:
                break
            forms.append(form)
        if not forms or len(forms) < path.block:
            return
        gone, old_leaf = path.items[: len(forms)], path.items[len(forms) - 1].id
        if len(forms) == path.block:
            old_leaf = path.items[0].id
        path.forms.extend(forms)
        path.pictures.extend(item.sent.has_images() for item in gone)
        path.calls.extend(item.sent.call_ids() for item in gone)
        self._path = replace(path, old=len(path.forms), old_leaf=old_leaf, block=0, wire=wire)
        del path.items[: len(forms)]

    def _parent(self, at: int) -> str | None:
        """Return the id of the entry that an item follows on the path."""
        order = self._in_order()
        place = order.index(self._path.items[at]) if self._path.block else at
        return order[place - 1].id if place else self._path.old_leaf

    def _entry(self, at: int) -> Entry:
        path = self._path
        item = path.items[at]
        return Entry(
            id=item.id,
            agent_id=self.agent_id,
            parent_id=self._parent(at),
            run_id=item.run_id,
            kind=item.kind,
            message=item.message,
            created_at=item.created_at,
        )


def _kind(message: Message) -> EntryKind:
    if message.role is Role.ASSISTANT:
        return "assistant_turn"
    return "tool_exchange" if message.tool_results() else "user_turn"

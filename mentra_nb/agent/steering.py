"""Sources of messages that join a conversation during a turn. The loop drains them without knowing what they are.

Steering is one of them: what a person says while the model is at work.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from enum import Enum
from typing import Any, Literal, NamedTuple, Protocol

from mentra_nb.content import ContentBlock, Message
from mentra_nb.ids import new_id
from mentra_nb.store.records import EntryKind


class Boundary(Enum):
    """When a source is drained: before a round, or when the turn would end with the model's answer."""

    ROUND = "round"
    ANSWER = "answer"


QueueMode = Literal["one_at_a_time", "all"]


class RoundSource(Protocol):
    """A source of messages for the model. What a turn drains is acknowledged at its end, or requeued if it failed."""

    def is_waiting(self, at: Boundary) -> bool:
        """Return whether `drain` would return messages."""
        ...

    async def drain(self, at: Boundary) -> list[tuple[EntryKind, Message]]:
        """Return the messages to append to the conversation now, and the kinds of their entries."""
        ...

    async def acknowledge(self) -> None:
        """Forget what was drained: it is part of the conversation."""
        ...

    async def requeue(self) -> None:
        """Put what was drained back at the front: the turn failed, so it is not part of the conversation."""
        ...


class Said(NamedTuple):
    """A message that waits, or that a turn has taken."""

    id: str
    message: Message
    when: Literal["steer", "follow_up"]


class Steering:
    """Messages to an agent while it works. Safe to use from any thread.

    `steer` reaches the model with the next request of the turn; `follow_up` only when the turn would end. With the mode
    `one_at_a_time` a queue is drained one entry at a time, with `all` as one message of all entries.
    """

    def __init__(self, steer_mode: QueueMode = "one_at_a_time", follow_up_mode: QueueMode = "one_at_a_time") -> None:
        self.steer_mode: QueueMode = steer_mode
        self.follow_up_mode: QueueMode = follow_up_mode
        self.keeper: KeepsSaid | None = None
        """Stores what waits, so that it outlives the process; `None`: it does not."""
        self._lock = threading.Lock()
        self._steers: list[Said] = []
        self._follow_ups: list[Said] = []
        self._drained: list[tuple[list[Said], list[Said], Message]] = []

    def __repr__(self) -> str:
        return f"<Steering: {len(self._steers)} to steer, {len(self._follow_ups)} to follow up>"

    def steer(self, content: str | Iterable[Any]) -> None:
        """Queue a message for the next request."""
        self._add(Said(new_id("said"), Message.user(content), "steer"))

    def follow_up(self, content: str | Iterable[Any]) -> None:
        """Queue a message for when the turn would end."""
        self._add(Said(new_id("said"), Message.user(content), "follow_up"))

    def _add(self, said: Said) -> None:
        with self._lock:
            self._queue(said).append(said)
        if self.keeper is not None:
            self.keeper.keep(said)

    def _queue(self, said: Said) -> list[Said]:
        return self._steers if said.when == "steer" else self._follow_ups

    def restore(self, waiting: Iterable[Said], taken: Iterable[Said]) -> None:
        """Take up what an earlier process has stored: what waits, and what its last turn took, which has failed."""
        with self._lock:
            for said in waiting:
                self._queue(said).append(said)
            self._drained += [(self._queue(said), [said], said.message) for said in taken]

    def clear_steer(self) -> None:
        self._clear(self._steers)

    def clear_follow_up(self) -> None:
        self._clear(self._follow_ups)

    def _clear(self, queue: list[Said]) -> None:
        with self._lock:
            gone, queue[:] = list(queue), []
        if gone and self.keeper is not None:
            self.keeper.forget(gone)

    def has_pending(self) -> bool:
        return bool(self._steers or self._follow_ups)

    async def take_steer(self) -> Message | None:
        """Take the next message from the `steer` queue, to begin a turn with it."""
        await self._kept()
        with self._lock:
            return self._take(self._steers, self.steer_mode)

    def is_waiting(self, at: Boundary) -> bool:
        return bool(self._steers) or (at is Boundary.ANSWER and bool(self._follow_ups))

    async def drain(self, at: Boundary) -> list[tuple[EntryKind, Message]]:
        await self._kept()
        with self._lock:
            message = self._take(self._steers, self.steer_mode)
            if message is None and at is Boundary.ANSWER:
                message = self._take(self._follow_ups, self.follow_up_mode)
        return [] if message is None else [("user_turn", message)]

    async def _kept(self) -> None:
        """Wait until what waits is stored: what is in a conversation must not be stored as waiting afterwards."""
        if self.keeper is not None:
            await self.keeper.kept()

    def _take(self, queue: list[Said], mode: QueueMode) -> Message | None:
        if not queue:
            return None
        taken = queue[:1] if mode == "one_at_a_time" else queue[:]
        del queue[: len(taken)]
        message = taken[0].message
        if len(taken) > 1:
            blocks: list[ContentBlock] = [block for said in taken for block in said.message.content]
            message = Message.user(blocks)
        self._drained.append((queue, taken, message))
        return message

    def delivered_by(self, message: Message) -> tuple[str, ...]:
        """Return the ids of what was said in a message that a turn has taken; none for another message."""
        return tuple(said.id for _, taken, given in self._drained if given is message for said in taken)

    async def acknowledge(self) -> None:
        with self._lock:
            drained, self._drained = self._drained, []
        if drained and self.keeper is not None:
            await self.keeper.settle([said for _, taken, _ in drained for said in taken], "acknowledged")

    async def requeue(self) -> None:
        with self._lock:
            drained, self._drained = self._drained, []
            for queue, taken, _ in reversed(drained):
                queue[:0] = taken
        if drained and self.keeper is not None:
            await self.keeper.settle([said for _, taken, _ in drained for said in taken], "pending")


class KeepsSaid(Protocol):
    """What stores the messages that wait."""

    def keep(self, said: Said) -> None:
        """Store a message soon. From any thread."""
        ...

    def forget(self, said: Iterable[Said]) -> None:
        """Forget messages soon. From any thread."""
        ...

    async def kept(self) -> None:
        """Return when all that was to be stored or forgotten is."""
        ...

    async def settle(self, said: Iterable[Said], state: Literal["pending", "acknowledged"]) -> None:
        """Store that messages wait again, or are part of the conversation."""
        ...

"""Sources of messages that join a conversation during a turn. The loop drains them without knowing what they are.

Steering is one of them: what a person says while the model is at work.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from enum import Enum
from typing import Any, Literal, Protocol

from mentra_nb.content import ContentBlock, Message
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


class Steering:
    """Messages to an agent while it works. Safe to use from any thread; kept in memory only.

    `steer` reaches the model with the next request of the turn; `follow_up` only when the turn would end. With the mode
    `one_at_a_time` a queue is drained one entry at a time, with `all` as one message of all entries.
    """

    def __init__(self, steer_mode: QueueMode = "one_at_a_time", follow_up_mode: QueueMode = "one_at_a_time") -> None:
        self.steer_mode: QueueMode = steer_mode
        self.follow_up_mode: QueueMode = follow_up_mode
        self._lock = threading.Lock()
        self._steers: list[Message] = []
        self._follow_ups: list[Message] = []
        self._drained: list[tuple[list[Message], list[Message]]] = []

    def __repr__(self) -> str:
        return f"<Steering: {len(self._steers)} to steer, {len(self._follow_ups)} to follow up>"

    def steer(self, content: str | Iterable[Any]) -> None:
        """Queue a message for the next request."""
        with self._lock:
            self._steers.append(Message.user(content))

    def follow_up(self, content: str | Iterable[Any]) -> None:
        """Queue a message for when the turn would end."""
        with self._lock:
            self._follow_ups.append(Message.user(content))

    def clear_steer(self) -> None:
        with self._lock:
            self._steers.clear()

    def clear_follow_up(self) -> None:
        with self._lock:
            self._follow_ups.clear()

    def has_pending(self) -> bool:
        return bool(self._steers or self._follow_ups)

    def take_steer(self) -> Message | None:
        """Take the next message from the `steer` queue, to begin a turn with it."""
        with self._lock:
            return self._take(self._steers, self.steer_mode)

    def is_waiting(self, at: Boundary) -> bool:
        return bool(self._steers) or (at is Boundary.ANSWER and bool(self._follow_ups))

    async def drain(self, at: Boundary) -> list[tuple[EntryKind, Message]]:
        with self._lock:
            message = self._take(self._steers, self.steer_mode)
            if message is None and at is Boundary.ANSWER:
                message = self._take(self._follow_ups, self.follow_up_mode)
        return [] if message is None else [("user_turn", message)]

    def _take(self, queue: list[Message], mode: QueueMode) -> Message | None:
        if not queue:
            return None
        taken = queue[:1] if mode == "one_at_a_time" else queue[:]
        del queue[: len(taken)]
        self._drained.append((queue, taken))
        if len(taken) == 1:
            return taken[0]
        blocks: list[ContentBlock] = [block for message in taken for block in message.content]
        return Message.user(blocks)

    async def acknowledge(self) -> None:
        with self._lock:
            self._drained.clear()

    async def requeue(self) -> None:
        with self._lock:
            for queue, taken in reversed(self._drained):
                queue[:0] = taken
            self._drained.clear()

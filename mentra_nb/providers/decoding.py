"""From the frames of a response to neutral events: the pump, and the base of the four decoders."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

from pydantic_core import from_json

from mentra_nb.content import TokenUsage
from mentra_nb.errors import MalformedStream, ProviderError, StreamTruncated
from mentra_nb.ids import UniqueIds, new_id
from mentra_nb.providers.base import (
    BlockKind,
    ContentBlockDelta,
    ContentBlockStarted,
    ContentBlockStopped,
    MessageDelta,
    MessageStarted,
    MessageStopped,
    ProviderEvent,
)
from mentra_nb.providers.failures import scrub, stream_error
from mentra_nb.providers.http import EventStream
from mentra_nb.providers.json import compact
from mentra_nb.providers.limits import RateLimits

MAX_ARGUMENTS = 4 * 1024 * 1024
"""Characters in the arguments of one call; more is a malformed stream."""

MAX_KEPT = 16 * 1024 * 1024
"""Characters of signatures and the like in one answer; more is a malformed stream."""

DONE: dict[str, Any] = {}
"""The frame `[DONE]`."""


class Decoder(ABC):
    """Turns the frames of one answer into events.

    A subclass takes a frame apart in `_take` and gives events with `_emit` and the methods above it; `_end` closes the
    answer. `complete` is true once `MessageStopped` has been given.
    """

    def __init__(self, model: str) -> None:
        self.complete: bool = False
        self.request_id: str | None = None
        """The server's id for the request."""
        self.limits: RateLimits | None = None
        """What the server says of its rate limits."""
        self._model = model
        self._finish: str | None = None
        """The stop reason, as far as the server has named one: without it the answer is not whole."""
        self._stop_detail: str | None = None
        """What the server says about why it stopped."""
        self._ids = UniqueIds()
        self._events: list[ProviderEvent] = []
        self._started = False
        self._block_count = 0
        self._kept = 0
        self._open: tuple[int, BlockKind] | None = None
        """The block of text or reasoning that `_say` continues."""

    def feed(self, frame: dict[str, Any] | None) -> list[ProviderEvent]:
        """Return the events of one frame, whose values may have any type; `None` is the end of the body.

        Raises `ProviderError`: `StreamTruncated` at the end of the body if the answer is not whole.
        """
        events: list[ProviderEvent] = []
        self._events = events
        try:
            if frame is not None:
                self._take(frame)
            elif self._finish is None:
                raise StreamTruncated
            else:
                self._end()
        except (TypeError, AttributeError, LookupError, ValueError) as error:  # a value of another type than expected
            raise MalformedStream(f"an event is not as this wire has them: {compact(frame)[:200]}") from error
        except RecursionError as error:
            raise MalformedStream("an event is nested too deeply") from error
        return events

    @abstractmethod
    def _take(self, frame: dict[str, Any]) -> None:
        """Take in one frame. Raises `ProviderError`."""

    @abstractmethod
    def _end(self) -> None:
        """Close what is open, then `_stop`."""

    def _keep(self, text: str) -> str:
        """Return a piece of what is kept until the answer ends. Raises `MalformedStream` if all of it is too long."""
        self._kept += len(text)
        if self._kept > MAX_KEPT:
            raise MalformedStream(f"what accompanies the answer is longer than {MAX_KEPT} characters")
        return text

    # ---- giving events --------------------------------------------------------------------------------------------

    def _emit(self, *events: ProviderEvent) -> None:
        self._events += map(_checked, events)

    def _add(self, index: int, kind: BlockKind, text: Any) -> None:
        """Give a piece of a block. Raises `MalformedStream` if it is not a string."""
        if not isinstance(text, str):
            raise MalformedStream(f"a piece of {kind} is not a string: {str(text)[:200]}")
        self._events.append(ContentBlockDelta(index, text))

    def _start(self, id: Any = None, model: Any = None) -> None:
        """Start the message, unless it has been started."""
        if not self._started:
            self._started = True
            self._emit(MessageStarted(str(id or ""), str(model or self._model), self.request_id, self.limits))

    def _next_index(self) -> int:
        """Reserve the number of a block."""
        self._block_count += 1
        return self._block_count - 1

    def _begin(self, kind: BlockKind, **names: Any) -> int:
        """Start a block and return its index; `names` are the other fields of `ContentBlockStarted`."""
        index = self._next_index()
        self._emit(ContentBlockStarted(index, kind, **names))
        return index

    def _say(self, kind: BlockKind, text: Any, item_id: str | None = None) -> None:
        """Add a piece of text or reasoning: to the open block if it is of that kind, else to a new one."""
        block = self._open
        if block is None or block[1] != kind:
            self._close()
            block = self._open = (self._begin(kind, item_id=item_id), kind)
        if isinstance(text, str):
            self._events.append(ContentBlockDelta(block[0], text))
        else:
            self._add(block[0], kind, text)

    def _close(self) -> None:
        """Stop the block that `_say` opened, if there is one."""
        if self._open is not None:
            self._emit(ContentBlockStopped(self._open[0]))
            self._open = None

    def _call_id(self, given: Any) -> str:
        """Return the id of a call: as the server named it, made unique, or a new one."""
        return self._ids.take(given or new_id("call"))

    def _stop(self, reason: str | None, usage: TokenUsage | None) -> None:
        """Give the last two events of the answer."""
        for at, event in enumerate(self._events):
            if isinstance(event, ContentBlockStopped):
                self._events[at] = replace(event, at_end=True)
        self._emit(MessageDelta(reason, usage, self._stop_detail), MessageStopped())
        self.complete = True


def check_size(characters: int) -> None:
    """Raise `MalformedStream` for arguments of a call that are too long."""
    if characters > MAX_ARGUMENTS:
        raise MalformedStream(f"the arguments of a call are longer than {MAX_ARGUMENTS} characters")


async def pump(
    stream: EventStream, decoder: Decoder, headers: Mapping[str, str]
) -> AsyncGenerator[ProviderEvent, None]:
    """Yield the events of a response; the secrets in `headers` are removed from its errors."""
    decoder.request_id, decoder.limits = stream.request_id, stream.limits
    try:
        async with stream.events() as frames:
            async for stream.event in frames:
                if not (data := stream.event.data):
                    continue
                for event in decoder.feed(_frame(data, stream)):
                    yield event
                if decoder.complete:
                    await stream.drain()
                    return
        for event in decoder.feed(None):
            yield event
    except ProviderError as error:
        about = f", request {stream.request_id}" if stream.request_id and stream.request_id not in str(error) else ""
        error.args = tuple(scrub(f"{part}{about}", headers) for part in error.args)
        raise


def _checked(event: ProviderEvent) -> ProviderEvent:
    """Return the event with numeric ids as text. Raises `TypeError` if another text in it is not a string."""
    match event:
        case ContentBlockStarted():
            if isinstance(event.id, int) or isinstance(event.item_id, int):
                ids = {"id": event.id, "item_id": event.item_id}
                event = replace(event, **{name: id and str(id) for name, id in ids.items()})
            texts: tuple[Any, ...] = (event.id or "", event.name or "", event.item_id or "")
        case ContentBlockStopped():
            texts = (event.signature or "", event.encrypted or "", event.phase or "")
        case MessageDelta():
            texts = (event.stop_reason or "",)
        case _:
            return event
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(text)
    return event


def _frame(data: str, stream: EventStream) -> dict[str, Any]:
    if data == "[DONE]":
        return DONE
    is_error = stream.event.event == "error"
    try:
        try:
            # three times as fast as json, and refuses half a surrogate pair, which json takes; values seldom repeat
            frame = from_json(data, cache_strings="keys")
        except ValueError:
            frame = json.loads(data)
    except (ValueError, RecursionError) as error:
        if is_error:
            raise stream_error(data[:200]) from error
        if stream.ended:
            raise StreamTruncated("it ended inside an event") from error
        raise MalformedStream(f"an event is not JSON: {data[:200]}") from error
    if not isinstance(frame, dict):
        raise MalformedStream(f"an event is not a JSON object: {data[:200]}")
    if is_error and "error" not in frame and frame.get("type") != "error":  # llama.cpp on the Messages wire
        raise stream_error(frame)
    return frame

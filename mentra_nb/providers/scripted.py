"""A provider that answers from a script and keeps the requests it gets: the public double for tests of agents.

It gives neutral events only; wire formats are tested over HTTP.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from mentra_nb.content import TokenUsage
from mentra_nb.errors import InvalidRequest, MentraError
from mentra_nb.providers.base import (
    ContentBlockDelta,
    ContentBlockStarted,
    ContentBlockStopped,
    MessageDelta,
    MessageStarted,
    MessageStopped,
    ModelInfo,
    Provider,
    ProviderCapabilities,
    ProviderDescriptor,
    ProviderEvent,
    Request,
)


@dataclass(frozen=True)
class ScriptedAnswer:
    """The answer to one request: `events`, then `error` if set (without events, opening the stream fails)."""

    events: tuple[ProviderEvent, ...] = ()
    error: MentraError | None = None


@dataclass(frozen=True)
class ScriptedCall:
    """A tool call of the script. `input` is an object, or the raw argument text (which may be malformed)."""

    name: str
    input: dict[str, Any] | str
    id: str | None = None


def message(
    blocks: Iterable[Sequence[ProviderEvent]], stop_reason: str, usage: TokenUsage | None = None
) -> ScriptedAnswer:
    """Return a whole message made of the events of its blocks."""
    inner = [event for block in blocks for event in block]
    end = (MessageDelta(stop_reason=stop_reason, usage=usage), MessageStopped())
    return ScriptedAnswer((MessageStarted(id="message", model="scripted"), *inner, *end))


def text_block(index: int, chunks: Iterable[str]) -> list[ProviderEvent]:
    deltas = [ContentBlockDelta(index, chunk) for chunk in chunks]
    return [ContentBlockStarted(index, "text"), *deltas, ContentBlockStopped(index)]


def call_block(index: int, call: ScriptedCall, default_id: str) -> list[ProviderEvent]:
    arguments = call.input if isinstance(call.input, str) else json.dumps(call.input, ensure_ascii=False)
    return [
        ContentBlockStarted(index, "tool_use", id=call.id or default_id, name=call.name),
        ContentBlockDelta(index, arguments),
        ContentBlockStopped(index),
    ]


def text(content: str, *, usage: TokenUsage | None = None) -> ScriptedAnswer:
    """Return an answer of one piece of text."""
    return stream_text([content], usage=usage)


def stream_text(chunks: Iterable[str], *, usage: TokenUsage | None = None) -> ScriptedAnswer:
    """Return an answer of text, one delta per chunk."""
    return message([text_block(0, chunks)], "end", usage)


def tool_calls(
    calls: Iterable[ScriptedCall | tuple[str, dict[str, Any] | str]],
    *,
    text: str | None = None,
    usage: TokenUsage | None = None,
) -> ScriptedAnswer:
    """Return an answer of tool calls, after an optional text. Calls without an id get `tool-1`, `tool-2`, …"""
    blocks: list[list[ProviderEvent]] = [text_block(0, [text])] if text is not None else []
    for number, call in enumerate(calls, start=1):
        scripted = call if isinstance(call, ScriptedCall) else ScriptedCall(*call)
        blocks.append(call_block(len(blocks), scripted, f"tool-{number}"))
    return message(blocks, "tool_use", usage)


def failure(error: MentraError) -> ScriptedAnswer:
    """Return an answer that fails with `error` on opening; after a transient one, the retry takes the next answer."""
    return ScriptedAnswer(error=error)


def raw(events: Iterable[ProviderEvent]) -> ScriptedAnswer:
    """Return an answer of exactly these events, valid or not."""
    return ScriptedAnswer(tuple(events))


def erroring(events: Iterable[ProviderEvent], error: MentraError) -> ScriptedAnswer:
    """Return an answer of these events that then fails with `error`."""
    return ScriptedAnswer(tuple(events), error)


class ControlledStream:
    """An answer fed by hand. `send`, `fail` and `finish` may be called from any thread, even before the request."""

    def __init__(self) -> None:
        self.opened: bool = False
        self.closed = False
        self._items: deque[ProviderEvent | MentraError | None] = deque()
        self._changed: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._openings: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def send(self, *events: ProviderEvent) -> None:
        self._put(*events)

    def send_answer(self, answer: ScriptedAnswer) -> None:
        """Send the events of a whole answer, then end the stream."""
        self._put(*answer.events, answer.error)

    def fail(self, error: MentraError) -> None:
        self._put(error)

    def finish(self) -> None:
        """End the stream. Send `MessageStopped` first if the message is to be whole."""
        self._put(None)

    async def wait_opened(self) -> None:
        """Wait until a request has been given this stream."""
        if not self.opened:
            event = asyncio.Event()
            self._openings.append((asyncio.get_running_loop(), event))
            if not self.opened:
                await event.wait()

    def _put(self, *items: ProviderEvent | MentraError | None) -> None:
        self._items.extend(items)
        if self._changed is not None:
            loop, changed = self._changed
            loop.call_soon_threadsafe(changed.set)

    async def _run(self) -> AsyncGenerator[ProviderEvent, None]:
        changed = asyncio.Event()
        self._changed = asyncio.get_running_loop(), changed
        self.opened = True
        for loop, event in self._openings:
            loop.call_soon_threadsafe(event.set)
        while True:
            while self._items:
                match self._items.popleft():
                    case None:
                        return
                    case MentraError() as error:
                        raise error
                    case item:
                        yield item
            changed.clear()
            if not self._items:
                await changed.wait()


class ScriptedProvider(Provider):
    """Gives `answers` to requests, in order across all agents that use it.

    An answer is what `text`, `tool_calls`, `failure` and the like return, or a `ControlledStream`. A request beyond
    the last one raises `InvalidRequest`.

    Example:
        >>> provider = mn.ScriptedProvider([mn.scripted.text("Hello."), mn.scripted.text("Goodbye.")])
        >>> async with mn.Runtime([provider], store=mn.VolatileStore()) as runtime:
        ...     agent = await runtime.spawn("greeter", mn.ModelInfo(id="scripted", provider="scripted"))
        ...     answer = await agent.send("Say hello.")
        >>> answer.text()
        'Hello.'
        >>> provider.remaining
        1
    """

    def __init__(
        self,
        answers: Iterable[ScriptedAnswer | ControlledStream] = (),
        *,
        id: str = "scripted",
        models: Sequence[str] = ("scripted",),
        capabilities: ProviderCapabilities | None = None,
    ) -> None:
        self.descriptor: ProviderDescriptor = ProviderDescriptor(id=id, display_name="Scripted")
        self.capabilities: ProviderCapabilities = capabilities or ProviderCapabilities(supports_images=True)
        self.recorded_requests: list[Request] = []
        self._models = models
        self._answers = deque(answers)

    def push(self, *answers: ScriptedAnswer | ControlledStream) -> None:
        """Add answers to the end of the script.

        Example:
            >>> provider = mn.ScriptedProvider()
            >>> provider.push(mn.scripted.tool_calls([("read", {"path": "notes.md"})]), mn.scripted.text("Read."))
            >>> provider.remaining
            2
        """
        self._answers.extend(answers)

    @property
    def remaining(self) -> int:
        """How many answers are left."""
        return len(self._answers)

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[ProviderEvent]]:
        self.recorded_requests.append(request)
        if not self._answers:
            asked = len(self.recorded_requests)
            raise InvalidRequest(f"the script has no answer to request {asked}: give ScriptedProvider another one")
        answer = self._answers.popleft()
        if isinstance(answer, ScriptedAnswer) and answer.error is not None and not answer.events:
            raise answer.error
        events = answer._run() if isinstance(answer, ControlledStream) else _play(answer)
        try:
            async with aclosing(events):
                yield events
        finally:
            if isinstance(answer, ControlledStream):
                answer.closed = True

    async def list_models(self) -> list[ModelInfo]:
        return [ModelInfo(id=model, provider=self.descriptor.id) for model in self._models]


async def _play(answer: ScriptedAnswer) -> AsyncGenerator[ProviderEvent, None]:
    for event in answer.events:
        yield event
    if answer.error is not None:
        raise answer.error

"""Small pieces the wire tests share: a transport made of bytes, and events read back as blocks."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from importlib.util import find_spec, module_from_spec
from typing import Any
from unittest.mock import patch

from mentra_nb.agent.answer import PendingMessage
from mentra_nb.content import Message
from mentra_nb.providers.answer import Response
from mentra_nb.providers.base import (
    ContentBlockDelta,
    ContentBlockStarted,
    ContentBlockStopped,
    MessageDelta,
    MessageStarted,
    MessageStopped,
    Provider,
    ProviderEvent,
    ProviderToolSpec,
    Request,
)

Frame = dict[str, Any]
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@cache
def http_on(client: str) -> Any:
    """Return `providers.http` as it is with only `client` (httpx or httpx2) installed."""
    spec = find_spec("mentra_nb.providers.http")
    module = module_from_spec(spec)
    with patch.dict(sys.modules, {"httpx2": None} if client == "httpx" else {}):
        spec.loader.exec_module(module)
    assert module.httpx.__name__ == client
    return module


class Bytes:
    """A transport that answers every request with these pieces."""

    def __init__(self, *pieces: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.pieces, self.status = pieces, status
        self.headers = headers or {"content-type": "text/event-stream"}

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> AsyncIterator[Response]:
        yield Response(self.status, self.headers, self.chunks())

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece

    async def aclose(self) -> None:
        return


async def collect(provider: Provider, request: Request) -> list[ProviderEvent]:
    async with provider.stream(request) as events:
        return [event async for event in events]


def pending(events: list[ProviderEvent], provider: str = "x", model: str = "m") -> PendingMessage:
    """Return an answer folded from its events, as the agent folds it."""
    answer = PendingMessage("agent", provider, model)
    for event in events:
        answer.apply(event)
    return answer


def fold(events: list[ProviderEvent], provider: str = "x", model: str = "m") -> Message:
    """Return the message made of the events of an answer."""
    return pending(events, provider, model).message()


async def answer_of(provider: Provider, request: Request) -> PendingMessage:
    """Ask, and fold the whole answer."""
    return pending(await collect(provider, request), provider.descriptor.id, request.model)


def encoded_again(tool: ProviderToolSpec, deferred: bool) -> bytes:
    """An encoder for `tool_fragments` that fails: every tool must come from its cache."""
    raise AssertionError(f"{tool.name} was encoded again")


def blocks(events: list[ProviderEvent]) -> list[tuple[str, str | None, str | None, str]]:
    """Return `(kind, id, name, text)` of each block; asserts that each is started and stopped within the message."""
    found, open_ = {}, set()
    assert isinstance(events[0], MessageStarted)
    assert isinstance(events[-1], MessageStopped)
    assert isinstance(events[-2], MessageDelta)
    for event in events[1:-2]:
        match event:
            case ContentBlockStarted():
                assert event.index not in found
                found[event.index] = [event.kind, event.id, event.name, ""]
                open_.add(event.index)
            case ContentBlockDelta():
                assert event.index in open_
                assert event.text
                found[event.index][3] += event.text
            case ContentBlockStopped():
                open_.remove(event.index)
            case _:
                raise AssertionError(event)
    assert not open_
    return [tuple(found[index]) for index in sorted(found)]


def ending(events: list[ProviderEvent]) -> MessageDelta:
    return events[-2]

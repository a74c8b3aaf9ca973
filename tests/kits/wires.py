"""Small pieces the wire tests share: a transport made of bytes, and events read back as blocks."""

import sys
from contextlib import asynccontextmanager
from functools import cache
from importlib.util import find_spec, module_from_spec
from unittest.mock import patch

from mentra_nb.agent.answer import PendingMessage
from mentra_nb.providers.base import (
    ContentBlockDelta,
    ContentBlockStarted,
    ContentBlockStopped,
    MessageDelta,
    MessageStarted,
    MessageStopped,
)
from mentra_nb.providers.http import Response

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@cache
def http_on(client):
    """`providers.http` as it is where `client`, httpx or httpx2, is what is installed."""
    spec = find_spec("mentra_nb.providers.http")
    module = module_from_spec(spec)
    with patch.dict(sys.modules, {"httpx2": None} if client == "httpx" else {}):
        spec.loader.exec_module(module)
    assert module.httpx.__name__ == client
    return module


class Bytes:
    """A transport that answers every request with these pieces."""

    def __init__(self, *pieces, status=200, headers=None):
        self.pieces, self.status = pieces, status
        self.headers = headers or {"content-type": "text/event-stream"}

    @asynccontextmanager
    async def send(self, method, url, headers, body):
        yield Response(self.status, self.headers, self._chunks())

    async def _chunks(self):
        for piece in self.pieces:
            yield piece

    async def aclose(self):
        return


async def collect(provider, request):
    async with provider.stream(request) as events:
        return [event async for event in events]


async def answer_of(provider, request):
    """The whole answer, folded as the agent folds it."""
    pending = PendingMessage("agent", provider.descriptor.id, request.model)
    for event in await collect(provider, request):
        pending.apply(event)
    return pending


def blocks(events):
    """`(kind, id, name, text)` of each block; asserts that every one is started, stopped, and inside the message."""
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


def ending(events):
    return events[-2]

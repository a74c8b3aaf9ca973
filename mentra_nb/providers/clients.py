"""The HTTP clients under a transport, each for one request at a time.

A client's pool looks at all of its connections whenever a request begins and ends, at a system call for each that is
idle, so with one pool the requests of many sessions cost more the more of them there are.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, Protocol, TypeVar

import anyio

MOST = 100
"""Requests that are sent at once; more wait."""
KEPT = 5.0
"""Seconds for which a client that is not used is kept; its connection is not used again after that either."""


class Client(Protocol):
    async def aclose(self) -> None: ...


C = TypeVar("C", bound=Client)


class Clients(Generic[C]):
    """Clients made by `make`. The one used last is used next, so that as few connections as possible are open."""

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._free = anyio.Semaphore(MOST, fast_acquire=True)
        self._busy: set[C] = set()
        self._idle: deque[tuple[float, C]] = deque()
        """Since when each is idle, the longest first."""

    @asynccontextmanager
    async def one(self) -> AsyncIterator[C]:
        """Lend a client for a request."""
        async with self._free:
            client = self._idle.pop()[1] if self._idle else self._make()
            self._busy.add(client)
            try:
                yield client
            finally:
                if client in self._busy:  # else it was closed meanwhile
                    self._busy.remove(client)
                    self._idle.append((time.monotonic(), client))
            while self._idle and self._idle[0][0] < time.monotonic() - KEPT:
                await self._idle.popleft()[1].aclose()

    async def aclose(self) -> None:
        """Close all clients, also those that are lent. The next request makes one again."""
        closing = [*self._busy, *(client for _, client in self._idle)]
        self._busy.clear()
        self._idle.clear()
        for client in closing:
            await client.aclose()

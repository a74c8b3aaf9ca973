"""How many requests go to a provider at once: fewer after it refuses for its rate limit, then slowly more again.

Where its answers say how much of the limit is left, no more are sent than that, so that it need not refuse.

All maps of a process share the pace of a provider. A pace must be used from one event loop only.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import anyio

from mentra_nb.errors import TransportError
from mentra_nb.providers.limits import RateLimits
from mentra_nb.rows.bucket import Bucket

KNOWN = 20
"""Answers after which it is known how long one takes."""
PATIENCE = 10.0
"""An answer may take this many times as long as the slowest so far."""
LEAST_PATIENCE = 10.0
"""Seconds that any answer may take."""
WIDE = 6
"""So many times as long while fewer than `KNOWN` answers have come, so that a silent one cannot hold all the others."""


class Pace:
    """The requests to one provider that are under way, and how many may be."""

    def __init__(self) -> None:
        self.most: float = math.inf
        """How many requests may be under way; no limit before the first refusal."""
        self.under_way: int = 0
        self._answers = 0
        self._slowest = 0.0
        self._not_before = self._cut_at = 0.0
        self._waiting: deque[anyio.Event] = deque()
        self.tell: Callable[[float, float], None] | None = None
        """Is told of a cut after a refusal: seconds since that request began, and until any may be sent again."""
        self._sent = 0
        self._requests, self._tokens = Bucket(each=1.0), Bucket()
        self._filling = anyio.Lock(fast_acquire=True)
        self._limited: dict[anyio.CancelScope, tuple[float, int]] = {}
        """What is under way: when it began, by the clock of the event loop, and which attempt it is."""

    @asynccontextmanager
    async def one(self) -> AsyncIterator[int]:
        """Wait until another request may be sent, and count it while inside. Gives its number, for `limited`."""
        await self._enter()
        try:
            yield self._sent
        finally:
            self.under_way -= 1
            self._wake()

    async def _enter(self) -> None:
        while True:
            if (wait := self._not_before - time.monotonic()) > 0:
                await anyio.sleep(wait)
            elif self._limit_wait() > 0:
                async with self._filling:  # one after the other, as they came
                    await anyio.sleep(self._limit_wait())
            elif self._room() >= 1:
                self.under_way += 1
                self._sent += 1
                self._requests.take()
                self._tokens.take()
                return
            else:
                event = anyio.Event()
                self._waiting.append(event)
                try:
                    await event.wait()
                except BaseException:
                    if event.is_set():
                        self._wake()  # the place goes to another
                    else:
                        self._waiting.remove(event)
                    raise

    def _wake(self) -> None:
        """Let as many that wait go on as there is room for."""
        room = self._room()
        while self._waiting and room >= 1:
            self._waiting.popleft().set()
            room -= 1

    def _room(self) -> float:
        return max(1, math.floor(self.most)) - self.under_way if self.most < math.inf else math.inf

    def answered(self, seconds: float) -> None:
        """Note an answer and how long it took: a little more may be sent at once."""
        self._answers += 1
        self._slowest = max(self._slowest, seconds)
        if self._answers in (1, KNOWN):
            for scope, (began, attempt) in self._limited.items():
                scope.deadline = began + self._most_seconds(attempt)
        if self.most < math.inf:
            self.most += 1 / self.most

    def limited(self, limits: RateLimits, number: int) -> None:
        """Note what the answer to the request of this number says is left of the provider's limits."""
        now = time.monotonic()
        for bucket, allowance in ((self._requests, limits.requests), (self._tokens, limits.tokens)):
            if allowance is not None:
                bucket.report(allowance, number, self._sent, now)

    def _limit_wait(self) -> float:
        """Return the seconds until the limits allow another request."""
        now = time.monotonic()
        return max(self._requests.wait(now), self._tokens.wait(now))

    def refused(self, began: float, wait: float) -> None:
        """Note a refusal for the rate limit.

        Half as much may be sent at once from now on, and nothing before `wait` seconds have passed. A request that
        `began` (by `time.monotonic`) before the last cut does not cut again.
        """
        if self._cut(began, wait) and self.tell is not None:
            self.tell(time.monotonic() - began, wait)

    def heard(self, age: float, wait: float) -> None:
        """Do the same after a refusal in another process, of a request that began `age` seconds ago."""
        self._cut(time.monotonic() - age, wait)

    def _cut(self, began: float, wait: float) -> bool:
        now = time.monotonic()
        self._not_before = max(self._not_before, now + wait)
        if began < self._cut_at:
            return False
        self.most, self._cut_at = max(1.0, self.under_way / 2), now
        return True

    @contextmanager
    def patience(self, attempt: int) -> Iterator[None]:
        """Let what is inside take no longer than answers do, more with each attempt. Raises `TransportError`.

        Before the first answer there is no limit; what is under way then gets one. It is wide until `KNOWN` have come.
        """
        began = anyio.current_time()
        with anyio.CancelScope(deadline=began + self._most_seconds(attempt)) as scope:
            self._limited[scope] = began, attempt
            try:
                yield
            finally:
                del self._limited[scope]
        if scope.cancelled_caught and scope.deadline < math.inf:
            raise TransportError(f"no answer came within {scope.deadline - began:,.0f} s")

    def _most_seconds(self, attempt: int) -> float:
        if not self._answers:
            return math.inf
        least = LEAST_PATIENCE * (WIDE if self._answers < KNOWN else 1)
        return float(max(least, PATIENCE * self._slowest) * 2 ** (attempt - 1))


class _Paces(dict[str, Pace]):
    """The paces of a runtime by provider, and who is told of their cuts."""

    tell: Callable[[str, float, float], None] | None = None

    def __missing__(self, provider: str) -> Pace:
        self[provider] = pace = Pace()
        if self.tell is not None:
            pace.tell = partial(self.tell, provider)
        return pace


_paces: WeakKeyDictionary[Any, _Paces] = WeakKeyDictionary()


def pace_of(runtime: Any, provider: str) -> Pace:
    """Return the pace of a provider, which all maps of a runtime share."""
    return _paces.setdefault(runtime, _Paces())[provider]


def tell_of_cuts(runtime: Any, tell: Callable[[str, float, float], None] | None) -> None:
    """From here on tell of each cut of a runtime's paces: the provider, and what `Pace.tell` is told."""
    paces = _paces.setdefault(runtime, _Paces())
    paces.tell = tell
    for provider, pace in paces.items():
        pace.tell = None if tell is None else partial(tell, provider)

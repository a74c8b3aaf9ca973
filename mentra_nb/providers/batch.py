"""Many requests handed to a provider at once, which answers them within a day at half the price.

Each wire has its own `Batches` in a sibling file, which knows where requests are handed in, how the provider says how
far it is, and how its results look; `batches.batches_of` returns that of a provider.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from mentra_nb.errors import DecodeError, HttpError, ProviderError, UnsupportedCapability
from mentra_nb.providers.base import ProviderEvent, Request
from mentra_nb.providers.failures import stream_error
from mentra_nb.providers.json import encode
from mentra_nb.providers.wire import WireProvider

MISSING = (404, 405, 501)
"""Statuses of a server that has no batches."""
MOST_PAGES = 20
"""Pages of the list of batches in which one is looked for."""
MOST_BYTES = 32 * 1024 * 1024
"""Bytes of the requests of one batch, as they are in memory; every provider takes more."""

Ending = Literal["", "ended", "failed", "expired", "cancelled"]


@dataclass(frozen=True)
class BatchStatus:
    """How far a batch is."""

    word: str
    """What the provider calls it, such as `in_progress`."""
    ending: Ending = ""
    """How it ended; empty while it is under way."""
    done: int = 0
    """Requests that are answered or failed."""
    files: tuple[str, ...] = ()
    """Where its results are."""
    problem: str | None = None
    """Why all of it failed."""


class BatchResult(NamedTuple):
    """What became of one request: an answer, an error, or neither if the batch ended before it was its turn."""

    id: str
    answer: dict[str, Any] | None = None
    error: ProviderError | None = None


class Batches(ABC):
    """The batches of one provider: submitted, looked at, read and cancelled."""

    most_requests: ClassVar[int]

    def __init__(self, provider: WireProvider) -> None:
        self.provider = provider

    @abstractmethod
    def line(self, id: str, request: Request) -> bytes:
        """Return a request as JSON. `id` has up to 64 letters, digits, `_` and `-`. Raises `InvalidRequest`."""

    @abstractmethod
    async def submit(self, key: str, model: str, lines: Sequence[bytes]) -> str:
        """Hand in requests and return the provider's id of the batch.

        Args:
            key: Our id of it, by which `find` finds it.
            model: The model that all requests are to.
            lines: What `line` returned.

        Raises:
            UnsupportedCapability: the server has no batches.
            ProviderError: it was not handed in, or it is not known whether it was: `find` tells.
        """

    @abstractmethod
    async def find(self, key: str, ids: Sequence[str], since: float, known: Collection[str]) -> str | None:
        """Return the provider's id of the batch that was handed in as `key`, or `None` if there is none.

        Args:
            key: Our id of it.
            ids: The ids of its requests, in order.
            since: Unix seconds; it was not handed in before.
            known: The provider's ids of other batches.
        """

    @abstractmethod
    async def status(self, id: str) -> BatchStatus:
        """Return how far a batch is. Raises `ProviderError`."""

    @abstractmethod
    async def cancel(self, id: str) -> None:
        """Ask the provider to answer no more of a batch. Raises `ProviderError`."""

    @abstractmethod
    def result(self, line: dict[str, Any]) -> BatchResult | None:
        """Return what a line of results says, or `None` if it is not one."""

    def file_url(self, file: str) -> str:
        """Return the address of a file of results."""
        return file

    @asynccontextmanager
    async def results(self, status: BatchStatus) -> AsyncIterator[AsyncIterator[BatchResult]]:
        """Give the results of a batch that has ended, in any order, as they arrive. What cannot be read is left out.

        Raises `ProviderError`, on entering or while they are iterated.
        """
        async with aclosing(self._results(status.files)) as found:
            yield found

    async def _results(self, files: Sequence[str]) -> AsyncGenerator[BatchResult, None]:
        for file in files:
            async with self.provider.http.lines(self.file_url(file), self.provider.headers()) as lines:
                async for line in lines:
                    try:
                        found = json.loads(line)
                        result = self.result(found) if isinstance(found, dict) else None
                    except (ValueError, RecursionError, TypeError, AttributeError, KeyError):
                        continue
                    if result is not None:
                        yield result

    def events(self, model: str, answer: dict[str, Any]) -> list[ProviderEvent]:
        """Return the events of an answer. Raises `ProviderError`."""
        decoder = self.provider.decoder(Request(model, ()))
        events = [event for frame in self.provider.frames(answer) for event in decoder.feed(frame)]
        return events if decoder.complete else events + decoder.feed(None)

    def body(self, request: Request) -> dict[str, Any]:
        """Return a request as a provider takes it in a batch: as a single one, without a stream."""
        self.provider.check(request)
        body: dict[str, Any] = json.loads(self.provider.body(request))
        return {name: value for name, value in body.items() if name not in ("stream", "stream_options")}

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """GET an object. Raises `ProviderError`."""
        url = self.provider.url(path, **query)
        return self._object(await self.provider.http.get_json(url, self.provider.headers()))

    async def post(self, path: str, body: Any, *, begins: bool = False) -> dict[str, Any]:
        """POST JSON, or bytes, and return the object that answers it.

        Raises `ProviderError`, with `begins` `UnsupportedCapability` for a server that has no batches.
        """
        encoded = body if isinstance(body, bytes) else encode(body)
        try:
            found = await self.provider.http.post_json(self.provider.url(path), self.provider.headers(), encoded)
        except HttpError as error:
            if begins and error.status in MISSING:
                raise self.missing() from error
            raise
        return self._object(found)

    def missing(self) -> UnsupportedCapability:
        """Return the error for a server that has no batches."""
        return UnsupportedCapability(self.provider.descriptor.id, "batches")

    def _object(self, found: Any) -> dict[str, Any]:
        if not isinstance(found, dict):
            raise DecodeError(f"{self.provider.descriptor.id} did not answer as expected; check the base URL")
        return found


def part(found: Any, name: str) -> dict[str, Any]:
    """Return a member that is an object; an empty one if it is not."""
    value = found.get(name) if isinstance(found, dict) else None
    return value if isinstance(value, dict) else {}


def entries(page: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the objects in a list. Raises `DecodeError` if it is none, as what it has is then not known."""
    if not isinstance(found := page.get(name), list):
        raise DecodeError(f"the provider sent no list of {name}")
    return [each for each in found if isinstance(each, dict)]


def named(found: dict[str, Any], member: str) -> str:
    """Return an id that an answer must have. Raises `DecodeError`."""
    value = found.get(member)
    if not isinstance(value, str) or not value:
        raise DecodeError(f"the provider named no {member} of what it was handed")
    return value


def failure(status: Any, error: Any) -> ProviderError:
    """Return the exception for the error of one request, which has the form that errors of a stream have."""
    found = error.get("error") if isinstance(error, dict) and isinstance(error.get("error"), dict) else error
    if isinstance(status, int) and status >= 400:
        return HttpError(status, encode({"error": found}).decode())
    return stream_error(found)

"""What every provider over HTTP shares: key, address, headers, and the pump from event frames to neutral events.

A wire format is a subclass with a body and a decoder, in its own file.
"""

from __future__ import annotations

import copy
import json
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, ClassVar, Protocol, Self
from urllib.parse import urlsplit, urlunsplit

from pydantic import SecretStr

from mentra_nb.errors import ConfigurationError, MalformedStream, ProviderError, StreamTruncated
from mentra_nb.providers.base import Provider, ProviderCapabilities, ProviderDescriptor, ProviderEvent, Request
from mentra_nb.providers.http import EventStream, HttpClient, Transport, scrub

MAX_ARGUMENTS = 4 * 1024 * 1024
"""Characters in the arguments of one call; more is a malformed stream."""

DONE: dict[str, Any] = {}
"""The frame `[DONE]`."""


class Decoder(Protocol):
    """Turns the frames of one answer into events. `complete` is true once `MessageStopped` has been given."""

    complete: bool

    def feed(self, frame: dict[str, Any]) -> Iterable[ProviderEvent]:
        """The events of one frame. Raises `ProviderError`."""

    def finish(self) -> Iterable[ProviderEvent]:
        """The body ended: the closing events. Raises `StreamTruncated` if the answer is not whole."""


class WireProvider(Provider):
    """A provider behind an HTTP address.

    `base_url` ends before the endpoint's own name. `headers` are sent with every request; like the key, their values
    appear in no message. `http` shares a client. Raises `ConfigurationError` for an address or key that cannot work.
    """

    wire: ClassVar[str]
    endpoint: ClassVar[str]

    def __init__(
        self,
        id: str,
        base_url: str,
        *,
        api_key: SecretStr | str | None = None,
        display_name: str | None = None,
        headers: Mapping[str, str] | None = None,
        http: HttpClient | None = None,
        capabilities: ProviderCapabilities | None = None,
    ) -> None:
        self.descriptor = ProviderDescriptor(id=id, display_name=display_name)
        self.capabilities = capabilities or ProviderCapabilities(supports_model_listing=True, supports_images=True)
        self.base_url = _checked_url(base_url)
        self.http = http if http is not None else HttpClient()
        key = api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key
        self._headers = {name: SecretStr(_checked_header(name, value)) for name, value in (headers or {}).items()}
        if key and key.strip():
            self._headers.update(self.authentication(_checked_header("API key", key.strip())))

    def authentication(self, key: str) -> dict[str, SecretStr]:
        """The headers that carry the key."""
        return {"authorization": SecretStr(f"Bearer {key}")}

    @abstractmethod
    def body(self, request: Request) -> bytes:
        """The request body. Raises `InvalidRequest` for what this wire cannot say."""

    @abstractmethod
    def decoder(self, request: Request) -> Decoder:
        """A decoder for the answer to `request`."""

    def url(self, path: str) -> str:
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(path=f"{parts.path}/{path}"))

    def headers(self) -> dict[str, str]:
        return {name: value.get_secret_value() for name, value in self._headers.items()}

    def with_transport(self, transport: Transport) -> Self:
        """The same provider over another transport."""
        clone = copy.copy(self)
        clone.http = HttpClient(transport)
        return clone

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[ProviderEvent]]:
        headers = self.headers()
        async with (
            self.http.post_sse(self.url(self.endpoint), headers, self.body(request)) as frames,
            aclosing(_pump(frames, self.decoder(request), headers)) as events,
        ):
            yield events

    async def aclose(self) -> None:
        await self.http.aclose()


async def _pump(
    stream: EventStream, decoder: Decoder, headers: Mapping[str, str]
) -> AsyncGenerator[ProviderEvent, None]:
    try:
        async with aclosing(stream.events()) as events:
            async for data in events:
                for event in decoder.feed(_frame(data, stream)):
                    yield event
                if decoder.complete:
                    break
            else:
                for event in decoder.finish():
                    yield event
    except ProviderError as error:
        error.args = tuple(scrub(str(part), headers) for part in error.args)
        raise
    await stream.drain()


def _frame(data: str, stream: EventStream) -> dict[str, Any]:
    if data == "[DONE]":
        return DONE
    try:
        frame = json.loads(data)
    except ValueError as error:
        if stream.ended:
            raise StreamTruncated("it ended inside an event") from error
        raise MalformedStream(f"an event is not JSON: {data[:200]}") from error
    if not isinstance(frame, dict):
        raise MalformedStream(f"an event is not a JSON object: {data[:200]}")
    return frame


def encode(value: Any) -> bytes:
    """Compact JSON; half a surrogate pair becomes `?`."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def join_body(members: Mapping[str, Any], **fragments: bytes | None) -> bytes:
    """A JSON object of `members` (those that are not None) and of ready-made JSON `fragments`."""
    parts = [encode(name) + b":" + encode(value) for name, value in members.items() if value is not None]
    parts += [encode(name) + b":" + value for name, value in fragments.items() if value is not None]
    return b"{" + b",".join(parts) + b"}"


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ConfigurationError(f"base URL '{url}' is not valid; write http://host:port or https://host")
    return urlunsplit(parts._replace(path=parts.path.rstrip("/")))


def _checked_header(name: str, value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise ConfigurationError(f"the value of {name} has characters that cannot be sent; paste it again")
    return value

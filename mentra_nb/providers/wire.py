"""What every provider over HTTP shares: key, address, headers, checks of a request, and the list of models.

A wire format is a subclass with a body and a decoder, in its own file.
"""

from __future__ import annotations

import base64
import copy
import re
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar, Self, TypeVar
from urllib.parse import urlencode, urlsplit, urlunsplit

from pydantic import SecretStr

from mentra_nb.content import Image, Message
from mentra_nb.errors import (
    ConfigurationError,
    DecodeError,
    HttpError,
    InvalidRequest,
    UnsupportedCapability,
)
from mentra_nb.providers.base import (
    ContentBlockStarted,
    MessageDelta,
    Provider,
    ProviderCapabilities,
    ProviderDescriptor,
    ProviderEvent,
    ProviderToolSpec,
    Request,
)
from mentra_nb.providers.decoding import Decoder, pump
from mentra_nb.providers.http import FOR_EVENTS, HttpClient, Transport, event_stream
from mentra_nb.providers.json import encode
from mentra_nb.providers.pairing import encoded, with_clean_names

T = TypeVar("T")

MAX_PAGES = 50
"""Pages of a list of models; more is an error, as a list may have no end."""


class WireProvider(Provider):
    """A provider behind an HTTP address.

    `base_url` ends before the endpoint's own name. `headers` are sent with every request; like the key, their values
    appear in no message. `http` shares a client. `capabilities` default to those of the wire, since
    those of a server are not known. Raises `ConfigurationError` for an address or key that cannot work.
    """

    wire: ClassVar[str]
    endpoint: ClassVar[str]
    offers: ClassVar[ProviderCapabilities] = ProviderCapabilities.model_construct()
    """What the wire can express."""
    free: bool = False
    """Whether its answers cost nothing, as those from a tape do."""

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
        self.descriptor: ProviderDescriptor = ProviderDescriptor(id=id, display_name=display_name)
        self.capabilities: ProviderCapabilities = capabilities or self.offers
        self.base_url: str = _checked_url(base_url)
        self.http: HttpClient = http if http is not None else HttpClient()
        key = api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key
        self._headers = {name: SecretStr(_checked_header(name, value)) for name, value in (headers or {}).items()}
        if key and key.strip():
            self._headers.update(self.authentication(_checked_header("API key", key.strip())))
        self._tools: tuple[list[tuple[ProviderToolSpec, bool]], list[bytes]] = ([], [])

    def authentication(self, key: str) -> dict[str, SecretStr]:
        """Return the headers that carry the key."""
        return {"authorization": SecretStr(f"Bearer {key}")}

    @abstractmethod
    def body(self, request: Request) -> bytes:
        """Return the request body. Raises `InvalidRequest` for content this wire cannot express."""

    @abstractmethod
    def decoder(self, request: Request) -> Decoder:
        """Return a decoder for the answer to `request`."""

    def frames(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        """Return an answer that came as one document as the frames that its stream would have had."""
        return [answer]

    def address(self, request: Request) -> str:
        """Return the URL that a request is posted to."""
        return self.url(self.endpoint)

    def check(self, request: Request) -> None:
        """Raise `UnsupportedCapability` or `InvalidRequest` for a request this provider cannot fulfil."""
        can, id = self.capabilities, self.descriptor.id
        wanted = {
            "tools": bool(request.tools) and not can.supports_tool_calls,
            "reasoning_effort": bool(request.reasoning_effort) and not can.supports_reasoning_effort,
            "reasoning_summary": bool(request.reasoning_summary) and not can.supports_reasoning_effort,
            "response_format": request.response_format is not None and not can.supports_structured_output,
            "tool_search": request.tool_search and not can.supports_hosted_tool_search,
            "images": not can.supports_images and any(message.has_images() for message in request.messages),
        }
        for option, is_missing in wanted.items():
            if is_missing:
                raise UnsupportedCapability(id, option)
        choice, names = request.tool_choice, {tool.name for tool in request.tools}
        if names and choice is not None and choice.mode == "tool" and choice.name not in names:
            raise self.refusal(f"tool_choice names '{choice.name}', which is not one of the tools")
        if not request.tool_search and any(request.defers(tool) for tool in request.tools):
            name = self.descriptor.display_name or id
            raise InvalidRequest(
                f"{name} deferred tools require hosted tool search; set tool_search, or do not defer them"
            )

    def misplaced_image(self) -> InvalidRequest:
        """Return the error for an image outside a user message."""
        return self.refusal("images are only supported in user messages; move the image to one")

    def image_data(self, image: Image) -> tuple[str, str]:
        """Return the media type and the base64 data of an image. Raises `InvalidRequest` if there is no valid data."""
        if not image.data:
            raise self.refusal("an image has neither data nor a URL; give one")
        media_type = image.media_type or "image/png"
        try:
            base64.b64decode(image.data, validate=True)
        except ValueError as error:
            raise self.refusal(f"the data of an {media_type} image is not base64; use Image.from_bytes") from error
        return media_type, image.data

    def refusal(self, reason: str) -> InvalidRequest:
        """Return the error for a request that was not sent."""
        return InvalidRequest(f"{self.descriptor.id} was not asked: {reason}")

    def tool_fragments(self, request: Request, encode_one: Callable[[ProviderToolSpec, bool], Any]) -> list[bytes]:
        """Return each tool as JSON, cached as long as the tools stay the same.

        `encode_one` gets a tool and whether it is deferred.
        """
        wanted = [(tool, request.defers(tool)) for tool in request.tools]
        kept, fragments = self._tools
        same = len(kept) == len(wanted) and all(a is b and x is y for (a, x), (b, y) in zip(kept, wanted, strict=True))
        if not same:
            fragments = [encode(encode_one(tool, deferred)) for tool, deferred in wanted]
            self._tools = wanted, fragments
        return fragments

    async def model_entries(
        self, name: str, query: Mapping[str, str], parameter: str, cursor: Callable[[dict[str, Any]], Any]
    ) -> list[dict[str, Any]]:
        """Return the objects under `name` on all pages of the model list.

        `cursor` returns the value of `parameter` for the page after the given one. Raises `DecodeError`.
        """
        asked, found = dict(query), list[dict[str, Any]]()
        for _ in range(MAX_PAGES):
            page = await self.http.get_json(self.url("models", **asked), self.headers())
            entries = page.get(name, [] if found else None) if isinstance(page, dict) else None
            if not isinstance(entries, list):
                raise DecodeError(f"{self.descriptor.id} did not list its models as expected; check the base URL")
            found += [entry for entry in entries if isinstance(entry, dict)]
            next_page = cursor(page)
            if not next_page or asked.get(parameter) == next_page:
                return found
            asked[parameter] = str(next_page)
        raise DecodeError(f"{self.descriptor.id} listed models on more than {MAX_PAGES} pages; check the base URL")

    def url(self, path: str, **query: str) -> str:
        """Return the URL of `path` under the base URL, whose own query is kept."""
        parts = urlsplit(self.base_url)
        asked = "&".join(filter(None, (parts.query, urlencode(query))))
        return urlunsplit(parts._replace(path=f"{parts.path}/{path}", query=asked))

    def headers(self) -> dict[str, str]:
        """Return the headers of every request, secrets included."""
        return {name: value.get_secret_value() for name, value in self._headers.items()}

    def with_transport(self, transport: Transport) -> Self:
        """Return a copy of this provider that uses another transport."""
        clone = copy.copy(self)
        clone.http = HttpClient(transport)
        return clone

    def forms(self, request: Request, encode: Callable[[Message], T]) -> Iterator[T]:
        """Yield each message of a request in the form of this wire, computed once per provider and model."""
        return encoded(request, self.form_key(request), encode)

    def form_key(self, request: Request) -> str:
        """Return the name under which messages keep the form they are sent in."""
        return f"{self.wire}:{self.descriptor.id}:{request.model}"

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[ProviderEvent]]:
        self.check(request)
        headers = self.headers()
        request, names = with_clean_names(request)
        url, sent, body = self.address(request), {**FOR_EVENTS, **headers}, self.body(request)
        while True:
            async with self.http.transport.send("POST", url, sent, body) as response:
                try:
                    frames = await event_stream(response, headers)
                except HttpError as error:
                    self.learn(error, request.model)
                    refused, body = body, self.body(request)
                    if body == refused:
                        raise
                    continue
                async with aclosing(pump(frames, self.decoder(request), headers)) as events:
                    named = _renamed(events, names) if names else events
                    yield _without_cost(named) if self.free else named
                    return

    def learn(self, error: HttpError, model: str) -> None:
        """Leave out of the next bodies what the server has refused. If that changes this one, it is sent again."""

    async def aclose(self) -> None:
        await self.http.aclose()


async def _without_cost(events: AsyncIterator[ProviderEvent]) -> AsyncIterator[ProviderEvent]:
    """Yield the events with a cost of 0, also where the provider reported another."""
    async for event in events:
        if isinstance(event, MessageDelta) and event.usage is not None:
            event = replace(event, usage=event.usage.model_copy(update={"cost_usd": 0.0}))
        yield event


async def _renamed(events: AsyncIterator[ProviderEvent], names: Mapping[str, str]) -> AsyncIterator[ProviderEvent]:
    """Yield the events with the tools' own names, `names` by the names that were sent."""
    async for event in events:
        if isinstance(event, ContentBlockStarted) and event.name:
            event = replace(event, name=names.get(event.name, event.name))
        yield event


def with_version(base_url: str) -> str:
    """Return `base_url` with `/v1` as its path if it has none, and without an endpoint's name at its end."""
    parts = urlsplit(base_url)
    path = re.sub(r"/(chat/completions|responses|messages)$", "", parts.path) if parts.path else "/v1"
    return urlunsplit(parts._replace(path=path))


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        parts, valid = None, False
    if parts is None or not valid:
        raise ConfigurationError(f"base URL '{url}' is not valid; write http://host:port or https://host")
    return urlunsplit(parts._replace(path=parts.path.rstrip("/")))


def _checked_header(name: str, value: str) -> str:
    if not (value.isascii() and value.isprintable()):
        raise ConfigurationError(f"the value of {name} has characters that cannot be sent; paste it again")
    return value

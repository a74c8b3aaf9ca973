"""HTTP and server-sent events for every provider, and the `Transport` protocol that tapes implement too.

The only module that imports the HTTP client: httpx2 if 2.10 or later is installed, else httpx. genai-prices brings some
httpx2, the extra `fast` a recent one.
It knows no wire format.
"""

from __future__ import annotations

import codecs
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import anyio

from mentra_nb.errors import (
    DecodeError,
    InvalidRequest,
    MalformedStream,
    ProviderError,
    TransportError,
    Unreachable,
)
from mentra_nb.providers.answer import Response
from mentra_nb.providers.clients import Clients
from mentra_nb.providers.failures import (
    MAX_ERROR_BODY,
    check_status,
    error_in,
    not_a_stream,
    request_id_of,
    stream_error,
)
from mentra_nb.providers.limits import RateLimits, limits_in
from mentra_nb.secrets.late import late

if TYPE_CHECKING:
    import httpx

    def framed(body: EventStream) -> AsyncGenerator[Any, None]:
        """Yield the server-sent events in the text of a body."""
        ...
else:
    try:
        import httpx2 as httpx

        if tuple(map(int, httpx.__version__.split(".")[:2])) < (2, 10):
            raise ImportError("httpx2 before 2.10 has no EventSource")

        def framed(body):
            return aiter(httpx.EventSource(body, max_event_size=None))
    except (ImportError, ValueError):
        import httpx
        from httpx_sse import EventSource

        def framed(body):
            return EventSource(body).aiter_sse()


CLIENT = f"{httpx.__name__} {httpx.__version__}" if not TYPE_CHECKING else ""
"""Name and version of the HTTP client."""

CONNECT_TIMEOUT = 15.0
WRITE_TIMEOUT = 60.0
IDLE_TIMEOUT = 300.0
DRAIN_TIME = 0.05
MAX_FRAME = 16 * 1024 * 1024
MAX_DOCUMENT = 16 * 1024 * 1024
"""Bytes of a JSON document, decompressed."""
DOCUMENT_TIME = 30.0
"""Seconds in which a JSON document must have arrived."""
UPLOAD_TIME = 300.0
"""Seconds in which a body must have been sent and answered."""

FOR_EVENTS = {"accept": "text/event-stream", "content-type": "application/json"}
"""Headers of a request whose answer is an event stream."""
_STRAY, _STRAY_AFTER_CR = late(r"\n[{\[]"), late(r"\r[{\[]")
"""The beginning of a line of JSON. Apart, as an expression that begins with one character is found ten times faster."""


class Transport(Protocol):
    """Sends one request. Leaving the context closes the response at once."""

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> AbstractAsyncContextManager[Response]:
        """Send a request. Raises `TransportError`, on entering or while the chunks are read."""
        ...

    async def aclose(self) -> None:
        """Close connections; the transport may be used again."""


class HttpxTransport:
    """The network. Proxies and certificates come from the environment variables that httpx reads.

    `idle_timeout` is how long, in seconds, a response may send nothing. Clients for `http` trust no certificates.
    """

    def __init__(self, idle_timeout: float = IDLE_TIMEOUT) -> None:
        self._idle_timeout = idle_timeout
        self._clients = {plain: Clients(partial(self._new_client, plain)) for plain in (True, False)}
        self._trust: dict[bool, ssl.SSLContext] = {}

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> AsyncIterator[Response]:
        async with self._clients[url[:7].lower() == "http://"].one() as client:
            with _network_errors(url, self._idle_timeout):
                request = client.build_request(method, url, headers=dict(headers), content=body)
                response = await client.send(request, stream=True)
            try:
                async with aclosing(self._chunks(response, url)) as chunks:
                    yield Response(response.status_code, {k.lower(): v for k, v in response.headers.items()}, chunks)
            finally:
                await response.aclose()

    async def _chunks(self, response: httpx.Response, url: str) -> AsyncGenerator[bytes, None]:
        with _network_errors(url, self._idle_timeout):
            async for chunk in response.aiter_bytes():
                yield chunk

    async def aclose(self) -> None:
        self._trust.clear()
        for clients in self._clients.values():
            await clients.aclose()

    def _new_client(self, plain: bool) -> httpx.AsyncClient:
        """Return a client. Raises `InvalidRequest` if the environment names certificates or proxies it cannot use."""
        timeout = httpx.Timeout(self._idle_timeout, connect=CONNECT_TIMEOUT, write=WRITE_TIMEOUT)
        try:
            if plain not in self._trust:
                self._trust[plain] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else httpx.create_ssl_context()
            return httpx.AsyncClient(timeout=timeout, headers={"user-agent": "mentra-nb"}, verify=self._trust[plain])
        except OSError as error:  # ssl.SSLError is one too
            reason = error.strerror or str(error)
            names = "the certificates that SSL_CERT_FILE or SSL_CERT_DIR names"
            raise InvalidRequest(f"{names} cannot be read ({reason}); correct or unset it") from error
        except ImportError as error:  # a SOCKS proxy needs another package
            raise InvalidRequest(f"the proxy named in the environment cannot be used: {error}") from error
        except (ValueError, httpx.InvalidURL):
            raise InvalidRequest(
                "the proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is not an address; write http://host:port"
            ) from None  # its text may contain the proxy's password


class _network_errors:  # noqa: N801  # used as a statement, like contextlib.suppress
    """Turns the HTTP client's errors into `ProviderError`s, without any header or proxy password in their messages."""

    def __init__(self, url: str, idle_timeout: float) -> None:
        self._url, self._idle_timeout = url, idle_timeout

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, httpx.InvalidURL | httpx.RequestError):
            return
        where, proxy = _where(self._url), _proxy(self._url)
        match error:
            case httpx.ConnectError() | httpx.ConnectTimeout():
                if untrusted := _certificate_error(error):
                    raise ProviderError(
                        f"the certificate of {where} is not trusted here ({untrusted.verify_message}); "
                        "if it was issued by a private authority, set SSL_CERT_FILE to that authority's certificate"
                    ) from error
                detail = str(error) or f"no answer within {CONNECT_TIMEOUT:g} s"
                raise Unreachable(where, detail, proxy) from error
            case httpx.ProxyError():
                text = f"the proxy {proxy} did not connect to {where} ({error}); check HTTPS_PROXY and NO_PROXY"
                passing = str(error)[:3] in ("408", "429") or str(error).startswith("5")
                raise TransportError(text) if passing else ProviderError(text) from error
            case httpx.ReadTimeout():
                raise TransportError(
                    f"{where} sent nothing for {self._idle_timeout:g} s; try again, or raise the idle timeout"
                ) from error
            case httpx.InvalidURL() | httpx.UnsupportedProtocol():
                raise InvalidRequest(f"the provider's base URL is not valid: {error}") from error
            case httpx.LocalProtocolError():
                raise InvalidRequest(f"the request to {where} has a header that cannot be sent") from None
            case httpx.DecodingError():
                raise DecodeError(f"{where} sent a compressed body that cannot be read; try again") from error
            case _:
                detail = str(error) or type(error).__name__
                raise TransportError(f"the connection to {where} broke ({detail}); try again") from error


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """Return the certificate error that caused `error`, if there is one."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error


def _proxy(url: str) -> str | None:
    """Return host and port of the proxy that the environment sets for an address, or `None`."""
    parts = urlsplit(url)
    named = getproxies()
    proxy = named.get(parts.scheme) or named.get("all")
    if not proxy or proxy_bypass(parts.hostname or ""):
        return None
    return _where(proxy if "://" in proxy else f"http://{proxy}")


class EventStream:
    """The server-sent events of a body, in order. `ended` is true once the body itself has ended.

    A last event without its blank line is still given, with `ended` already true. `event` is the one that was taken
    last; whatever takes them sets it. `request_id` is the server's id for the request, and `limits` what it says of its
    rate limits.
    """

    headers: ClassVar[Mapping[str, str]] = {"content-type": "text/event-stream"}
    """The framing library reads this and `request`."""
    request = None

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        request_id: str | None = None,
        max_frame: int = MAX_FRAME,
        limits: RateLimits | None = None,
    ) -> None:
        self.ended: bool = False
        self.event: Any = None
        self.request_id = request_id
        self.limits = limits
        self._chunks = chunks
        self._max_frame = max_frame
        self._stray = ""
        self._text = self._decode()

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[Any]]:
        """Return the events as the framing library makes them, with `data` that may be empty.

        Their iteration raises `MalformedStream` for bytes that are not UTF-8 and for an event longer than `max_frame`
        bytes.
        """
        async with aclosing(self._text), aclosing(framed(self)) as events:
            yield events

    async def drain(self) -> None:
        """Read the end of the body if it has arrived, so that the connection can be used again."""
        with anyio.move_on_after(DRAIN_TIME), suppress(ProviderError):
            async for _ in self._chunks:
                pass

    def aiter_text(self) -> AsyncIterator[str]:
        return self._text

    async def _decode(self) -> AsyncGenerator[str, None]:
        """Yield the text of the body as framing needs it: no byte order mark, and a blank line after the last event."""
        decoder, line_begins = codecs.getincrementaldecoder("utf-8-sig")(), True
        size, last = 0, None
        try:
            async for chunk in self._chunks:
                size, last = len(chunk) + (size if self.event is last else 0), self.event
                if size > self._max_frame:
                    raise MalformedStream(f"one event is longer than {self._max_frame} bytes")
                if text := decoder.decode(chunk):
                    line_begins = self._keep_stray(text, line_begins)
                    yield text
        except UnicodeDecodeError as error:
            raise MalformedStream("it is not UTF-8 text") from error
        self.ended = True
        yield "\n\n"
        if self._stray and (written := error_in(self._stray)):
            raise stream_error(written)

    def _keep_stray(self, text: str, line_begins: bool) -> bool:
        """Keep JSON that stands between the events, as some servers write an error; framing ignores such lines.

        Returns whether the next text begins a line.
        """
        if self._stray:
            self._stray += text[: MAX_ERROR_BODY - len(self._stray)]
        elif line_begins and text[0] in "{[":
            self._stray = text[:MAX_ERROR_BODY]
        elif found := _STRAY.search(text) or _STRAY_AFTER_CR.search(text):
            self._stray = text[found.end() - 1 : found.end() - 1 + MAX_ERROR_BODY]
        return text[-1] in "\r\n"


class HttpClient:
    """Sends requests, and raises `ProviderError` for any other answer than the one wanted. Providers may share one."""

    def __init__(self, transport: Transport | None = None) -> None:
        self.transport: Transport = transport if transport is not None else HttpxTransport()

    async def get_json(self, url: str, headers: Mapping[str, str]) -> Any:
        """GET a JSON document. Raises `TransportError`, `HttpError` or `DecodeError`.

        A document longer than `MAX_DOCUMENT` or slower than `DOCUMENT_TIME` is an error.
        """
        return _parsed(url, (await self.fetch("GET", url, {"accept": "application/json", **headers}))[1])

    async def post_json(self, url: str, headers: Mapping[str, str], body: bytes) -> Any:
        """POST a body, JSON unless `headers` say otherwise, and return the JSON document that answers it.

        Raises as `get_json`. `UPLOAD_TIME` is allowed.
        """
        sent = {"accept": "application/json", "content-type": "application/json", **headers}
        return _parsed(url, (await self.fetch("POST", url, sent, body, seconds=UPLOAD_TIME))[1])

    async def fetch(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None, seconds: float | None = None
    ) -> tuple[Mapping[str, str], bytes]:
        """Send a request and return the headers and the body of its answer, within `seconds`.

        Raises `TransportError`, `HttpError`, or `MalformedStream` for a body longer than `MAX_DOCUMENT`.
        """
        answer, seconds = bytearray(), DOCUMENT_TIME if seconds is None else seconds
        try:
            with anyio.fail_after(seconds):
                async with self.transport.send(method, url, headers, body) as response:
                    await check_status(response, headers)
                    async for chunk in response.chunks:
                        answer += chunk
                        if len(answer) > MAX_DOCUMENT:
                            raise MalformedStream(
                                f"{_where(url)} sent more than {MAX_DOCUMENT} bytes; check the base URL"
                            )
                    return response.headers, bytes(answer)
        except TimeoutError:
            raise TransportError(f"{_where(url)} did not answer within {seconds:g} s; try again") from None

    @asynccontextmanager
    async def lines(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
        """GET a text and give its lines as they arrive, empty ones left out. Raises `TransportError` or `HttpError`.

        A line longer than `MAX_FRAME` is a `MalformedStream`.
        """
        async with self.transport.send("GET", url, headers, None) as response:
            await check_status(response, headers)
            async with aclosing(_lines(response.chunks, _where(url))) as lines:
                yield lines

    async def aclose(self) -> None:
        await self.transport.aclose()


async def _lines(chunks: AsyncIterator[bytes], where: str) -> AsyncGenerator[bytes, None]:
    line = bytearray()
    async for chunk in chunks:
        for number, piece in enumerate(chunk.split(b"\n")):
            if number:
                if line.strip():
                    yield bytes(line)
                line.clear()
            line += piece
            if len(line) > MAX_FRAME:
                raise MalformedStream(f"{where} sent a line longer than {MAX_FRAME} bytes")
    if line.strip():
        yield bytes(line)


def _parsed(url: str, body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise DecodeError(f"{_where(url)} did not answer with JSON; check the base URL") from error


async def event_stream(response: Response, headers: Mapping[str, str]) -> EventStream:
    """Return the events of a response; the secrets in `headers` are removed from its errors.

    Raises `HttpError`. A 2xx response that is not an event stream raises the error in its JSON body, or
    `MalformedStream`.
    """
    await check_status(response, headers)
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type.endswith("json") or content_type == "text/html":
        raise await not_a_stream(response, headers, content_type)
    return EventStream(response.chunks, request_id_of(response), limits=limits_in(response.headers))


def _where(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"

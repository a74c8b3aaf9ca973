"""Tapes: write down what a provider's server answered, and answer from that file, offline, through the real adapter.

A tape is a JSONL file. Its first line names the wire, provider and model; each further line is one exchange: the
request (never its headers), the status, and the body in the pieces it arrived in, or in one if it held a secret. Only
the user can read the file, and secrets are left out of it, also those that a call was made with: that call runs with
`[redacted]` in a replay.

A request is matched by its content, with `VOLATILE` fields masked, so any change of prompt, tools or tool results is a
`ReplayMiss`. Equal requests get their answers in the order of the tape, and the last one again after that, so that a
cell can be run twice.
"""

from __future__ import annotations

import codecs
import json
import os
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import anyio.lowlevel
from pydantic import Field, ValidationError

from mentra_nb.content import Data
from mentra_nb.errors import ConfigurationError, HttpError, ReplayMiss
from mentra_nb.providers.answer import Response
from mentra_nb.providers.base import Provider
from mentra_nb.providers.cleaning import clean_body, clean_text
from mentra_nb.providers.failures import scrub
from mentra_nb.providers.http import HttpClient, Transport
from mentra_nb.providers.registry import adapter
from mentra_nb.providers.wire import WireProvider
from mentra_nb.secrets.tree import mask_values

VOLATILE = (
    "metadata",
    "user",
    "prompt_cache_key",
    "safety_identifier",
    "input.*.id",
    "input.*.call_id",
    "messages.*.tool_call_id",
    "messages.*.tool_calls.*.id",
    "messages.*.content.*.id",
    "messages.*.content.*.tool_use_id",
    "contents.*.parts.*.functionCall.id",
    "contents.*.parts.*.functionResponse.id",
)
"""Paths in a request that may differ between tape and replay; `*` is any list index. Each distinct value becomes
`#1`, `#2`, … in order of appearance, so that a result still has to match its call."""

VOLATILE_PATHS = frozenset(tuple(path.split(".")) for path in VOLATILE)

KEPT_HEADERS = ("content-type", "retry-after", "retry-after-ms", "x-request-id", "request-id")
ABSENT = "absent"
MIN_SECRET = 12
"""Characters. Shorter header values are not removed from a tape: they may be ordinary words of the conversation."""


class Header(Data):
    """The first line of a tape. `base_path` is the path of the provider's base URL."""

    format: Literal["mentra-recording"] = "mentra-recording"  # the name of the format, as in files of 0.1
    version: Literal[1] = 1
    wire: str
    provider: str
    display_name: str | None = None
    model: str | None = None
    base_path: str = ""
    recorded_at: datetime


class Exchange(Data):
    """A request, masked, and its response; `chunks` are the pieces of the body."""

    endpoint: str
    request: Any
    status: int
    headers: dict[str, str] = Field(default_factory=dict)
    chunks: tuple[str, ...] = ()


class TapeWriter:
    """A transport that passes every request on to `transport`, and writes each answered POST to the tape at `path`.

    The first one replaces the file. Requests that were cancelled, broke off, or failed with a status that is retried
    are left out.
    """

    def __init__(self, transport: Transport, path: str | Path, header: Header) -> None:
        self._transport, self._path, self._header = transport, Path(path), header
        self._begun = False

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> AsyncIterator[Response]:
        pieces: list[bytes] = []
        async with self._transport.send(method, url, headers, body) as response:
            try:
                yield Response(response.status, response.headers, _kept(response.chunks, pieces))
            except HttpError as error:
                if not error.is_transient:
                    self._write(url, headers, body, response, pieces)
                raise
            self._write(url, headers, body, response, pieces)

    def _write(
        self, url: str, headers: Mapping[str, str], body: bytes | None, response: Response, pieces: list[bytes]
    ) -> None:
        if body is None:
            return
        request = json.loads(scrub(body.decode(), headers, at_least=MIN_SECRET))
        texts = _texts(pieces)
        clean = clean_body(scrub("".join(texts), headers, at_least=MIN_SECRET))
        exchange = Exchange(
            endpoint=_endpoint(url, self._header.base_path),
            request=masked(request),
            status=response.status,
            headers={name: response.headers[name] for name in KEPT_HEADERS if name in response.headers},
            chunks=tuple(texts) if clean == "".join(texts) else (clean,),
        )
        with open(self._path, "a" if self._begun else "w", encoding="utf-8", opener=_private) as file:
            if not self._begun:
                # Gemini has the model in the address: models/NAME:streamGenerateContent
                model = request.get("model") or exchange.endpoint.partition(":")[0].removeprefix("models/")
                file.write(self._header.model_copy(update={"model": model}).model_dump_json() + "\n")
                self._begun = True
            file.write(exchange.model_dump_json() + "\n")

    async def aclose(self) -> None:
        await self._transport.aclose()


class TapePlayer:
    """A transport that answers from the tape at `path`.

    Raises `ConfigurationError` if the file is not a tape, and `ReplayMiss` for a request that is not on it.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        header, self._exchanges = _load(self._path)
        self.header: Header = header
        self._by_print: dict[str, list[Exchange]] = defaultdict(list)
        for exchange in self._exchanges:
            self._by_print[_fingerprint(exchange.endpoint, exchange.request)].append(exchange)
        self._used: Counter[str] = Counter()

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> AsyncIterator[Response]:
        endpoint = _endpoint(url, self.header.base_path)
        if body is None:
            exchange = self._models(endpoint)
        else:
            request = masked(json.loads(body))
            key = _fingerprint(endpoint, request)
            found = self._by_print.get(key)
            if not found:
                raise ReplayMiss(self._miss(endpoint, request))
            exchange = found[min(self._used[key], len(found) - 1)]
            self._used[key] += 1
        async with aclosing(self._chunks(exchange)) as chunks:
            yield Response(exchange.status, exchange.headers, chunks)

    async def _chunks(self, exchange: Exchange) -> AsyncGenerator[bytes, None]:
        for chunk in exchange.chunks:
            await anyio.lowlevel.checkpoint()  # so that a stop can come between two pieces
            yield chunk.encode()

    def _models(self, endpoint: str) -> Exchange:
        ids = [self.header.model] if self.header.model else []
        named = [{"name": f"models/{id}", "supportedGenerationMethods": ["generateContent"]} for id in ids]
        answer = {"data": [{"id": id} for id in ids], "models": named}
        return Exchange(endpoint=endpoint, request=None, status=200, chunks=(json.dumps(answer),))

    def _miss(self, endpoint: str, request: Any) -> str:
        ours = dict(_leaves({"endpoint": endpoint, "request": request}))
        rivals = [
            (number, dict(_leaves({"endpoint": exchange.endpoint, "request": exchange.request})))
            for number, exchange in enumerate(self._exchanges, start=1)
        ]
        if not rivals:
            return f"{self._path.name} holds no answers; tape it again"
        number, theirs = max(rivals, key=lambda rival: sum(rival[1].get(path) == leaf for path, leaf in ours.items()))
        path = next((path for path in (*ours, *theirs) if ours.get(path) != theirs.get(path)), "request")
        here, there = _window(ours.get(path), theirs.get(path))
        return (
            f"{self._path.name} has no answer to this request: {path.removeprefix('request.')} is {here} now, and was"
            f" {there} in the nearest one on tape (number {number}); restore it, or tape it again"
        )

    async def aclose(self) -> None:
        return


def taping(provider: Provider, path: str | Path) -> Provider:
    """Return a copy of a provider that tapes to `path`. Raises `ConfigurationError` if it does not speak HTTP."""
    if not isinstance(provider, WireProvider):
        raise ConfigurationError(f"provider '{provider.descriptor.id}' does not speak HTTP, so it cannot be taped")
    header = Header(
        wire=provider.wire,
        provider=provider.descriptor.id,
        display_name=provider.descriptor.display_name,
        base_path=urlsplit(provider.base_url).path,
        recorded_at=datetime.now(UTC),
    )
    return provider.with_transport(TapeWriter(provider.http.transport, path, header))


def replay_provider(path: str | Path) -> Provider:
    """Return a provider with the id and model of the tape at `path`, which needs no network and no key.

    Raises `ConfigurationError` if the file is missing or not a tape.
    """
    player = TapePlayer(path)
    header = player.header
    provider = adapter(header.wire)(
        header.provider,
        f"http://replay.invalid{header.base_path}",
        display_name=header.display_name,
        http=HttpClient(player),
    )
    provider.free = True
    return provider


def masked(request: Any) -> Any:
    """Return `request` without secrets, and with the values at `VOLATILE` paths replaced by numbers."""
    numbers: dict[str, str] = {}

    def walk(value: Any, path: tuple[str, ...]) -> Any:
        if path in VOLATILE_PATHS:
            return numbers.setdefault(_canonical(value), f"#{len(numbers) + 1}")
        if isinstance(value, dict):
            return {key: walk(value[key], (*path, key)) for key in sorted(value)}
        if isinstance(value, list):
            return [walk(item, (*path, "*")) for item in value]
        return clean_text(value) if isinstance(value, str) else value

    return mask_values(walk(request, ()))


def _private(name: str, flags: int) -> int:
    """Open a file that only the user can read, also one that was there before: an `opener` for `open`."""
    fd = os.open(name, flags, 0o600)
    if hasattr(os, "fchmod"):  # Windows has none before Python 3.13
        os.fchmod(fd, 0o600)
    return fd


def _fingerprint(endpoint: str, request: Any) -> str:
    return sha256(f"{endpoint} {_canonical(request)}".encode()).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _endpoint(url: str, base_path: str) -> str:
    return urlsplit(url).path.removeprefix(base_path).strip("/")


async def _kept(chunks: AsyncIterator[bytes], pieces: list[bytes]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        pieces.append(chunk)
        yield chunk


def _texts(pieces: list[bytes]) -> list[str]:
    """Return the pieces as text, cut only between characters."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    texts = [decoder.decode(piece) for piece in pieces] + [decoder.decode(b"", final=True)]
    return [text for text in texts if text]


def _load(path: Path) -> tuple[Header, list[Exchange]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not at U+2028
    except OSError as error:
        raise ConfigurationError(f"cannot read the tape {path} ({error.strerror}); check the path") from error
    try:
        header = Header.model_validate_json(lines[0] if lines else "")
        exchanges = [Exchange.model_validate_json(line) for line in lines[1:] if line.strip()]
    except ValidationError as error:
        raise ConfigurationError(f"{path.name} is not a tape that this version can read; tape it again") from error
    return header, [each.model_copy(update={"request": masked(each.request)}) for each in exchanges]


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every scalar and empty container with its dotted path."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not inside:
        yield path, value
    for key, item in inside:
        yield from _leaves(item, f"{path}.{key}" if path else str(key))


def _window(here: Any, there: Any, width: int = 80) -> tuple[str, str]:
    """Return both values as JSON, cut to `width` characters around their first difference."""
    texts = [ABSENT if value is None else json.dumps(value, ensure_ascii=False) for value in (here, there)]
    same = next((at for at, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    start = max(0, same - width // 4)
    cut = [("…" if start else "") + text[start : start + width] for text in texts]
    shown = [part + ("…" if len(text) > start + width else "") for part, text in zip(cut, texts, strict=True)]
    return shown[0], shown[1]

"""HTTP and event framing, over a real socket and with both HTTP clients where that matters."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib.util import find_spec, module_from_spec
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kits.http_server import Reply, Server, sse
from kits.wires import Bytes, blocks, collect, http_on

from mentra_nb.content import Message
from mentra_nb.errors import (
    ConfigurationError,
    DecodeError,
    ErrorCategory,
    HttpError,
    MalformedStream,
    ProviderError,
    RetryableError,
    StreamTruncated,
    TransportError,
)
from mentra_nb.providers.anthropic import AnthropicProvider
from mentra_nb.providers.base import MessageStopped, Request
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.providers.failures import MAX_ERROR_BODY
from mentra_nb.providers.http import MAX_DOCUMENT, EventStream, HttpClient, HttpxTransport
from mentra_nb.providers.wire import MAX_PAGES

REQUEST = Request("m", [Message.user("hi")])
KEY = "sk-very-secret-key"
HELLO = sse(
    {"id": "1", "model": "m", "choices": [{"index": 0, "delta": {"content": "Grüße 🌍"}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    done=True,
)
FIRST = HELLO[: HELLO.index(b"\n\n") + 2]
JSON = {"content-type": "application/json"}


@pytest.fixture(params=["httpx", "httpx2"])
async def provider(request: pytest.FixtureRequest, server: Server) -> AsyncIterator[ChatCompletionsProvider]:
    http = http_on(request.param).HttpClient()
    provider = ChatCompletionsProvider("local", server.url, api_key=KEY, http=http)
    yield provider
    await provider.aclose()


async def framed(body: bytes, at: int | None = None) -> list[str]:
    pieces = [body] if at is None else [body[:at], body[at:]]
    return await data_of(EventStream(Bytes(*pieces).chunks()))


async def data_of(stream: EventStream) -> list[str]:
    async with stream.events() as events:
        return [stream.event.data async for stream.event in events if stream.event.data]


@pytest.mark.anyio
async def test_a_body_is_the_same_whatever_pieces_it_comes_in(server: Server, provider: Any) -> None:
    for at in range(0, len(HELLO), 7):
        server.reply(Reply([HELLO[:at], HELLO[at:]] if at else [HELLO]))
        assert blocks(await collect(provider, REQUEST)) == [("text", None, None, "Grüße 🌍")]
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert server.requests[0].path == "/v1/chat/completions"
    assert server.connections == 1, "the connection is used again"


@pytest.mark.anyio
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
async def test_events_are_cut_at_any_byte_with_any_newline(newline: str) -> None:
    text = "\ufeff: comment\nevent: x\nid: 1\nretry: 5\ndata: one ü\n\n\n:\n\ndata:two\ndata: three\n\ndata: last"
    body = text.replace("\n", newline).encode()
    for at in range(len(body) + 1):
        assert await framed(body, at) == ["one ü", "two\nthree", "last"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\ufeff"), min_size=1), max_size=4), st.data()
)
def test_any_text_survives_framing(texts: list[str], data: Any) -> None:
    body = "".join(f"data: {text}\r\n\r\n" for text in texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]

    async def run() -> list[str]:
        return await data_of(EventStream(Bytes(*pieces).chunks()))

    assert anyio.run(run) == texts


@pytest.mark.anyio
async def test_bytes_that_are_not_utf8_and_endless_events_are_malformed() -> None:
    with pytest.raises(MalformedStream, match="UTF-8"):
        await framed(b"data: \xff\xfe\n\n")
    stream = EventStream(Bytes(*[b"data: " + b"x" * 50] * 3).chunks(), max_frame=100)
    with pytest.raises(MalformedStream, match="longer than 100 bytes"):
        await data_of(stream)


@pytest.mark.anyio
async def test_gzip_is_read(server: Server, provider: Any) -> None:
    packed = gzip.compress(HELLO)
    headers = {"content-type": "text/event-stream", "content-encoding": "gzip"}
    server.reply(Reply([packed[:20], packed[20:]], headers=headers))
    assert blocks(await collect(provider, REQUEST)) == [("text", None, None, "Grüße 🌍")]


@pytest.mark.anyio
async def test_nothing_after_the_terminal_event_is_read(server: Server, provider: Any) -> None:
    server.reply(Reply([HELLO, b"data: {broken\n\n"], end="stall"))
    assert isinstance((await collect(provider, REQUEST))[-1], MessageStopped)
    with anyio.fail_after(10):
        await server.gone.wait()


@pytest.mark.anyio
async def test_a_refused_connection_names_host_and_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(TransportError, match=f"127.0.0.1:{port} .*is the server running") as caught:
            await collect(ChatCompletionsProvider("x", f"http://127.0.0.1:{port}"), REQUEST)
    assert caught.value.is_transient


@pytest.mark.anyio
async def test_silence_is_an_error_that_names_the_idle_time(server: Server) -> None:
    provider = ChatCompletionsProvider("x", server.url, http=HttpClient(HttpxTransport(idle_timeout=0.1)))
    server.reply(Reply([HELLO[:30]], end="stall"))
    with pytest.raises(TransportError, match=r"sent nothing for 0\.1 s"):
        await collect(provider, REQUEST)
    await provider.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize("end", ["cut", "reset"])
async def test_a_broken_connection_is_a_transport_error(server: Server, provider: Any, end: Any) -> None:
    server.reply(Reply([HELLO[:40]], end=end))
    with pytest.raises(TransportError, match="broke"):
        await collect(provider, REQUEST)


@pytest.mark.anyio
async def test_a_body_that_ends_too_early_is_truncated(server: Server, provider: Any) -> None:
    for length in (0, 10, HELLO.index(b"\n\n") + 2):
        server.reply(Reply([HELLO[:length]] if length else [], end="close"))
        with pytest.raises(StreamTruncated):
            await collect(provider, REQUEST)


@pytest.mark.anyio
async def test_leaving_and_cancelling_close_the_response_at_once(server: Server, provider: Any) -> None:
    server.reply(Reply([FIRST], end="stall"))
    async with provider.stream(REQUEST) as events:
        await anext(events)
    with anyio.fail_after(10):
        await server.gone.wait()
    server.gone.clear()
    server.reply(Reply([FIRST], end="stall"))
    with anyio.CancelScope() as scope:
        async with provider.stream(REQUEST) as events:
            async for _ in events:
                scope.cancel()
    assert scope.cancelled_caught
    with anyio.fail_after(10):
        await server.gone.wait()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "wait"),
    [({"retry-after": "7"}, 7), ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5), ({"retry-after": "soon"}, None)],
)
async def test_a_refusal_keeps_status_wait_and_request_id(
    server: Server, provider: Any, headers: dict[str, str], wait: float | None
) -> None:
    body = json.dumps({"error": {"message": f"bad key {KEY}"}}).encode()
    server.reply(Reply([body], 429, JSON | headers | {"x-request-id": "req-1"}))
    with pytest.raises(HttpError) as caught:
        await collect(provider, REQUEST)
    error = caught.value
    assert (error.status, error.retry_after, error.request_id) == (429, wait, "req-1")
    assert error.is_transient
    assert KEY not in str(error)
    assert "bad key ***" in error.body


@pytest.mark.anyio
async def test_a_wait_may_be_a_date_and_a_past_one_means_now(server: Server, provider: Any) -> None:
    for minutes, low, high in ((10, 500, 601), (-10, 0, 0)):
        when = format_datetime(datetime.now(UTC) + timedelta(minutes=minutes), usegmt=True)
        server.reply(Reply([b"x" * 100_000], 503, {"retry-after": when}))
        with pytest.raises(HttpError) as caught:
            await collect(provider, REQUEST)
        assert low <= caught.value.retry_after <= high
        assert len(caught.value.body) == HttpError.BODY_LIMIT


@pytest.mark.anyio
async def test_a_bad_request_is_terminal(server: Server, provider: Any) -> None:
    server.reply(Reply([b"{}"], 404, JSON))
    with pytest.raises(HttpError) as caught:
        await collect(provider, REQUEST)
    assert caught.value.category is ErrorCategory.TERMINAL


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("content_type", "body", "kind", "words"),
    [
        ("application/json", b'{"error":{"message":"slow down","code":"rate_limit_exceeded"}}', RetryableError, "slow"),
        ("application/json; charset=utf-8", b'{"error":{"message":"no","code":400}}', ProviderError, "no .400."),
        ("application/json", b'{"error":"gone"}', ProviderError, "gone"),
        ("application/json", b'{"choices":[]}', MalformedStream, "application/json"),
        ("text/html", b"<html>login</html>", MalformedStream, "text/html.*base URL"),
    ],
)
async def test_a_200_that_is_not_a_stream_is_an_error(
    server: Server, provider: Any, content_type: str, body: bytes, kind: type[ProviderError], words: str
) -> None:
    server.reply(Reply([body], headers={"content-type": content_type}))
    with pytest.raises(kind, match=words):
        await collect(provider, REQUEST)


@pytest.mark.anyio
async def test_a_models_answer_that_is_not_json_is_a_decode_error(server: Server, provider: Any) -> None:
    server.reply(Reply([b"<html>"], headers={"content-type": "text/html"}), Reply([b"[]"], headers=JSON))
    with pytest.raises(DecodeError, match="check the base URL"):
        await provider.list_models()
    with pytest.raises(DecodeError, match="did not list its models"):
        await provider.list_models()


@pytest.mark.anyio
async def test_an_error_inside_the_stream_does_not_repeat_the_key(server: Server, provider: Any) -> None:
    server.reply(Reply([sse({"error": {"message": f"bad {KEY}", "code": "invalid_api_key"}})]))
    with pytest.raises(ProviderError, match=r"bad .*invalid_api_key") as caught:
        await collect(provider, REQUEST)
    assert KEY not in str(caught.value)


@pytest.mark.anyio
async def test_secrets_are_in_no_repr_and_no_log(
    server: Server, provider: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.reply(Reply([HELLO]))
    await collect(provider, REQUEST)
    assert KEY not in caplog.text
    assert KEY not in repr(provider) + repr(vars(provider))


@pytest.mark.parametrize(("version", "name"), [("2.9.1", "httpx"), ("2.10", "httpx2"), ("3.0", "httpx2")])
def test_an_httpx2_that_is_too_old_is_not_used(monkeypatch: pytest.MonkeyPatch, version: str, name: str) -> None:
    import httpx2

    monkeypatch.setattr(httpx2, "__version__", version)
    spec = find_spec("mentra_nb.providers.http")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "copy_of_http", module)
    spec.loader.exec_module(module)
    assert module.httpx.__name__ == name
    assert name in module.CLIENT.split()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("status", "error", "limit"), [(200, MalformedStream, MAX_DOCUMENT), (500, HttpError, MAX_ERROR_BODY)]
)
async def test_a_document_and_an_error_without_end_are_read_to_a_limit(
    status: int, error: type[Exception], limit: int
) -> None:
    read, size = 0, 32 * 1024

    class Endless(Bytes):
        async def chunks(self) -> AsyncIterator[bytes]:
            nonlocal read
            while read <= limit:
                read += size
                yield b" " * size
            raise AssertionError(f"more than {limit} bytes were read")

    adapter = ChatCompletionsProvider("x", "http://h").with_transport(Endless(status=status))
    with pytest.raises(error):
        await adapter.list_models()
    assert limit <= read <= limit + size


@pytest.mark.anyio
async def test_a_list_of_models_that_never_arrives_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Bytes):
        async def chunks(self) -> AsyncIterator[bytes]:
            for _ in range(200):  # then it ends, and is not JSON
                await anyio.sleep(0.01)
                yield b" "

    monkeypatch.setattr("mentra_nb.providers.http.DOCUMENT_TIME", 0.05)
    with pytest.raises(TransportError, match="did not answer within"):
        await ChatCompletionsProvider("x", "http://h").with_transport(Slow()).list_models()


@pytest.mark.anyio
async def test_of_an_error_that_never_ends_what_comes_in_time_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    class Slow(Bytes):
        async def chunks(self) -> AsyncIterator[bytes]:
            nonlocal read
            yield b'{"error": {"message": "full disk"}}'
            while read < 200:
                await anyio.sleep(0.01)
                read += 1
                yield b" "

    monkeypatch.setattr("mentra_nb.providers.failures.ERROR_BODY_TIME", 0.05)
    with pytest.raises(HttpError, match="full disk"):
        await ChatCompletionsProvider("x", "http://h").with_transport(Slow(status=500)).list_models()
    assert read < 200


@pytest.mark.anyio
async def test_a_list_of_models_with_pages_without_end_is_an_error() -> None:
    class Pages(Bytes):
        number = 0

        async def chunks(self) -> AsyncIterator[bytes]:
            self.number += 1
            assert self.number <= MAX_PAGES
            yield json.dumps({"data": [{"id": "a"}], "has_more": True, "last_id": str(self.number)}).encode()

    with pytest.raises(DecodeError, match="more than 50 pages"):
        await AnthropicProvider("x", "http://h").with_transport(Pages()).list_models()


def test_a_key_that_cannot_be_sent_and_a_wrong_address_are_refused_without_repeating_the_key() -> None:
    with pytest.raises(ConfigurationError) as caught:
        ChatCompletionsProvider("x", "http://h", api_key="sk-gehé-im")
    assert "sk-" not in str(caught.value)
    for url in ("localhost:1234", "http://", "http://h:99999", "ftp://h"):
        with pytest.raises(ConfigurationError, match="http://host:port"):
            ChatCompletionsProvider("x", url)


def test_the_vocabulary_does_not_load_an_http_client() -> None:
    code = "import sys, mentra_nb.providers.base, mentra_nb.providers.scripted, mentra_nb.providers.registry\n"
    code += "sys.exit(bool({'httpx', 'httpx2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

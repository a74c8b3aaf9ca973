"""Proxies and certificates from the environment, over real sockets, on both HTTP clients."""

from __future__ import annotations

import base64
import logging
import shutil
import ssl
import subprocess
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from kits.http_server import Proxy, Reply, Server, sse
from kits.wires import blocks, collect, http_on

from mentra_nb.content import Message
from mentra_nb.errors import FailedToStreamResponse, InvalidRequest, ProviderError, TransportError
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.base import ModelInfo, Request
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.providers.http import HttpxTransport
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.store.volatile import VolatileStore

pytestmark = pytest.mark.anyio

REQUEST = Request("m", [Message.user("hi")])
Ask = Callable[..., Awaitable[Any]]
PASSWORD = "pa55-of-the-proxy"
HELLO = sse({"choices": [{"delta": {"content": "ok"}}]}, {"choices": [{"finish_reason": "stop"}]}, done=True)
OK = [("text", None, None, "ok")]


@pytest.fixture(params=["httpx", "httpx2"])
def ask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """A function that asks the server at an address, under the environment at that time."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    http = http_on(request.param)

    async def asked(url: str, idle_timeout: float = 20.0) -> Any:
        provider = ChatCompletionsProvider("x", url, http=http.HttpClient(http.HttpxTransport(idle_timeout)))
        try:
            return blocks(await collect(provider, REQUEST))
        finally:
            await provider.aclose()

    return asked


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def secure(authority: trustme.CA, anyio_backend: str) -> AsyncIterator[Server]:
    """A server with a certificate of `authority`."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    async with Server(tls) as server:
        yield server


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


def everything(error: BaseException) -> str:
    """Return all text that an error could print."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(error)


# ---- proxies


async def test_plain_requests_go_through_the_proxy_and_its_password_stays_with_it(
    server: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.reply(Reply([HELLO]))
    async with Proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:{PASSWORD}@{proxy.address}")
        assert await ask(server.url) == OK
    ((line, authorization),) = proxy.seen
    assert line == f"POST {server.url}/v1/chat/completions HTTP/1.1"
    assert base64.b64decode(authorization.removeprefix("Basic ")).decode() == f"user:{PASSWORD}"
    assert "proxy-authorization" not in server.requests[0].headers
    assert PASSWORD not in caplog.text
    assert authorization not in caplog.text


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.usefixtures("trusted")
async def test_secure_requests_go_through_a_tunnel(
    secure: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    secure.reply(Reply([HELLO]))
    async with Proxy() as proxy:
        monkeypatch.setenv(variable, f"http://{proxy.address}")
        assert await ask(secure.url) == OK
    assert proxy.seen == [(f"CONNECT {secure.url.removeprefix('https://')} HTTP/1.1", None)]


async def test_hosts_in_no_proxy_are_reached_directly(
    server: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.reply(Reply([HELLO]))
    async with Proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
        monkeypatch.setenv("NO_PROXY", "example.org,127.0.0.1")
        assert await ask(server.url) == OK
    assert proxy.seen == []


@pytest.mark.parametrize(("refusal", "transient"), [("407 Proxy Authentication Required", False), ("503 Busy", True)])
async def test_a_proxy_that_refuses_is_named_without_its_password(
    secure: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch, refusal: str, transient: bool
) -> None:
    async with Proxy(refusal) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:{PASSWORD}@{proxy.address}")
        with pytest.raises(ProviderError, match=f"the proxy {proxy.address} did not connect to .*{refusal}") as caught:
            await ask(secure.url)
    assert caught.value.is_transient is transient
    assert PASSWORD not in everything(caught.value)


async def test_a_proxy_that_is_not_there_is_named_without_its_password(
    server: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Proxy() as proxy:
        address = proxy.address
    monkeypatch.setenv("HTTP_PROXY", f"http://user:{PASSWORD}@{address}")
    with pytest.raises(TransportError, match=f"could not connect to .* through the proxy {address}") as caught:
        await ask(server.url)
    assert PASSWORD not in everything(caught.value)


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        (f"gopher://user:{PASSWORD}@127.0.0.1:70", "not an address"),
        (f"http://user:{PASSWORD}@127.0.0.1:port", "not an address"),
        (f"socks5://user:{PASSWORD}@127.0.0.1:1080", "socks"),
    ],
)
async def test_a_proxy_that_cannot_be_used_is_one_sentence(
    server: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch, proxy: str, words: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(InvalidRequest, match=words) as caught:
        await ask(server.url)
    assert PASSWORD not in everything(caught.value)
    assert "\n" not in str(caught.value)


# ---- certificates


@pytest.mark.usefixtures("trusted")
async def test_a_private_authority_may_be_named_by_a_file(secure: Server, ask: Ask) -> None:
    secure.reply(Reply([HELLO]))
    assert await ask(secure.url) == OK


@pytest.mark.skipif(not shutil.which("openssl"), reason="a folder of certificates goes by hashes that openssl makes")
async def test_a_private_authority_may_be_named_by_a_folder(
    secure: Server, authority: trustme.CA, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    command = ["openssl", "x509", "-hash", "-noout", "-in", tmp_path / "ca.pem"]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "ca.pem").rename(tmp_path / f"{name}.0")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    secure.reply(Reply([HELLO]))
    assert await ask(secure.url) == OK


async def test_a_certificate_that_is_not_trusted_is_one_sentence_that_says_what_to_set(
    secure: Server, ask: Ask
) -> None:
    with pytest.raises(ProviderError, match=r"certificate of 127\.0.* is not trusted .*SSL_CERT_FILE") as caught:
        await ask(secure.url)
    assert not caught.value.is_transient
    assert "\n" not in str(caught.value)
    assert not secure.requests


@pytest.mark.usefixtures("trusted")
async def test_a_certificate_of_another_host_is_not_trusted(authority: trustme.CA, ask: Ask) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("example.org").configure_cert(tls)
    async with Server(tls) as server:
        with pytest.raises(ProviderError, match=r"not trusted .*mismatch"):
            await ask(server.url)


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_certificate_file_that_cannot_be_read_is_an_error_before_sending(
    secure: Server, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    if is_there:
        (tmp_path / "ca.pem").write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(InvalidRequest, match=r"SSL_CERT_FILE .*cannot be read"):
        await ask(secure.url)
    assert not secure.connections


async def test_a_plain_request_loads_no_certificates(
    server: Server, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    server.reply(Reply([HELLO]))
    assert await ask(server.url) == OK


@pytest.mark.usefixtures("trusted")
async def test_one_transport_keeps_a_client_for_plain_and_one_for_secure_requests(
    server: Server, secure: Server
) -> None:
    transport = HttpxTransport()
    for each in (server, secure, server, secure):
        each.reply(Reply([HELLO]))
        async with transport.send("POST", each.url, {}, b"") as response:
            assert "".join([chunk.decode() async for chunk in response.chunks])
    assert (server.connections, secure.connections) == (1, 1)
    await transport.aclose()


@pytest.mark.usefixtures("ask")
async def test_an_untrusted_certificate_is_not_tried_again(secure: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        lab = ChatCompletionsProvider("lab", secure.url)
        async with Runtime([lab], builtin_tools=False, store=VolatileStore(), audit=NullAudit()) as runtime:
            agent = await runtime.spawn("a", ModelInfo(id="m", provider="lab"))
            with pytest.raises(FailedToStreamResponse, match="not trusted"):
                await agent.send("hi")
    assert len(proxy.seen) == 1


@pytest.mark.usefixtures("trusted")
async def test_a_stop_leaves_a_silent_secure_connection_at_once(
    secure: Server, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure.reply(Reply([HELLO[:20]], end="stall"))
    async with Proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        with anyio.fail_after(10), anyio.move_on_after(0.3) as scope:
            await ask(secure.url)
        assert scope.cancelled_caught
        with anyio.fail_after(10):
            await secure.gone.wait()

"""The clients of a transport: one for each request at a time, used again, closed when they are not needed."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from mentra_nb.providers import clients
from mentra_nb.providers.clients import MOST, Clients
from mentra_nb.providers.http import HttpxTransport

pytestmark = pytest.mark.anyio


class Fake:
    closed = False

    async def aclose(self) -> None:
        self.closed = True


@pytest.fixture
def made() -> list[Fake]:
    return []


@pytest.fixture
def lent(made: list[Fake]) -> Clients[Fake]:
    def make() -> Fake:
        made.append(Fake())
        return made[-1]

    return Clients(make)


async def use(lent: Clients[Fake], together: int, log: list[int] | None = None) -> None:
    """Use this many clients at the same time, or as many as there may be."""
    enough, using = anyio.Event(), 0

    async def one() -> None:
        nonlocal using
        async with lent.one():
            using += 1
            if log is not None:
                log.append(using)
            if using == min(together, MOST):
                enough.set()
            await enough.wait()
            using -= 1

    async with anyio.create_task_group() as group:
        for _ in range(together):
            group.start_soon(one)


async def test_a_client_is_used_again_and_for_one_request_at_a_time(lent: Clients[Fake], made: list[Fake]) -> None:
    for _ in range(3):
        async with lent.one() as client:
            assert client is made[0]
    await use(lent, 5)
    await use(lent, 5)
    assert len(made) == 5
    with pytest.raises(KeyError):
        async with lent.one():
            raise KeyError
    await use(lent, 5)
    assert len(made) == 5


async def test_more_requests_than_may_be_sent_at_once_wait(lent: Clients[Fake], made: list[Fake]) -> None:
    log: list[int] = []
    await use(lent, MOST + 20, log)
    assert (len(made), len(log), max(log)) == (MOST, MOST + 20, MOST)


async def test_clients_that_were_not_used_for_long_are_closed(
    lent: Clients[Fake], made: list[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    await use(lent, 5)
    monkeypatch.setattr(clients, "KEPT", -1)
    await use(lent, 1)
    assert [client.closed for client in made] == [True] * 5
    await use(lent, 1)
    assert len(made) == 6


async def test_closing_closes_lent_clients_too_and_they_are_not_used_again(
    lent: Clients[Fake], made: list[Fake]
) -> None:
    await use(lent, 2)
    async with lent.one():
        await lent.aclose()
        assert [client.closed for client in made] == [True, True]
    async with lent.one() as client:
        assert client is made[2]
        assert not client.closed


async def test_connections_are_used_again_by_as_many_requests_as_are_sent_at_once() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address, transport = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", HttpxTransport()

    async def get() -> bytes:
        async with transport.send("GET", address, {}, None) as response:
            return b"".join([chunk async for chunk in response.chunks])

    for _ in range(3):
        assert await asyncio.gather(*(get() for _ in range(30))) == [b"ok"] * 30
    assert connections == 30
    await transport.aclose()
    server.close()

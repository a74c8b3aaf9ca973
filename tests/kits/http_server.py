"""A real HTTP/1.1 server on loopback that answers from a script, byte for byte, and can break off in every way."""

import asyncio
import json
import socket
import ssl
import struct
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Self

End = Literal["whole", "close", "cut", "reset", "stall", "mute"]


@dataclass
class Reply:
    """The reply to one request. `end` tells how the body ends.

    `whole`: chunked and finished, the connection stays. `close`: no length, the closed connection is the end.
    `cut`: chunked, closed without the last chunk. `reset`: TCP reset. `stall`: nothing more is sent. `mute`: not even a
    status line is sent.
    """

    chunks: Iterable[bytes] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "text/event-stream"})
    end: End = "whole"


@dataclass
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Listener(ABC):
    """An async context manager that listens on loopback; `_serve` handles requests until it returns False."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._serve(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    @abstractmethod
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Handle one request; returns whether another may follow on the connection."""


class ThreadedListener(Listener):
    """A listener that runs on a thread of its own while it is used as a context manager."""

    def __init__(self) -> None:
        super().__init__()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._done = asyncio.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    def _run(self) -> None:
        async def serve() -> None:
            async with self:
                self._ready.set()
                await self._done.wait()

        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(serve())


class Server(Listener):
    """Gives scripted replies. `gone` is set when a client leaves a stalled answer. With `tls` it speaks https."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.requests: list[Received] = []
        self.connections = 0
        self.lists_models = True
        """Whether a request for its models is answered by a reply. Else it is refused, and not kept in `requests`."""
        self.gone = asyncio.Event()
        self._replies: deque[Reply] = deque()

    def reply(self, *replies: Reply) -> None:
        self._replies.extend(replies)

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.address}"

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await super()._connected(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if method == "GET" and not self.lists_models:
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return True
        self.requests.append(Received(method, path, headers, body))
        reply = self._replies.popleft()
        if reply.end == "mute":
            await reader.read()
            self.gone.set()
            return False
        chunked = reply.end != "close"
        framing = {"transfer-encoding": "chunked"} if chunked else {"connection": "close"}
        lines = [f"HTTP/1.1 {reply.status} Scripted", *(f"{k}: {v}" for k, v in (reply.headers | framing).items())]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n")
        for chunk in reply.chunks:
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk) if chunked else chunk)
            await writer.drain()
            await asyncio.sleep(0)
        match reply.end:
            case "whole":
                writer.write(b"0\r\n\r\n")
                await writer.drain()
                return True
            case "reset":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
            case "stall":
                await writer.drain()
                await reader.read()
                self.gone.set()
        return False


class Proxy(Listener):
    """A real HTTP proxy on loopback: tunnels with CONNECT, and passes on requests with a whole address.

    `seen` is the first line of each request with its `proxy-authorization`. With `refusal`, a status line, every
    request gets only that.
    """

    def __init__(self, refusal: str | None = None) -> None:
        super().__init__()
        self.seen: list[tuple[str, str | None]] = []
        self._refusal = refusal

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        authorization = next((line.split(": ", 1)[1] for line in lines if line.lower().startswith("proxy-auth")), None)
        self.seen.append((first, authorization))
        if self._refusal:
            writer.write(f"HTTP/1.1 {self._refusal}\r\ncontent-length: 0\r\n\r\n".encode())
            await writer.drain()
            return False
        method, target, version = first.split(" ")
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            ahead = b""
        else:
            _, _, rest = target.partition("://")
            authority, _, path = rest.partition("/")
            host, _, port = authority.rpartition(":")
            kept = [line for line in lines if not line.lower().startswith("proxy-")]
            ahead = "\r\n".join([f"{method} /{path} {version}", *kept]).encode()
            ahead += await reader.readexactly(int(headers.get("content-length", 0)))
        there, out = await asyncio.open_connection(host, int(port))
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        out.write(ahead)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pass_on(reader, out))
                tasks.create_task(_pass_on(there, writer))
        finally:
            out.close()
        return False


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def sse(*frames: Any, newline: str = "\n", done: bool = False) -> bytes:
    """Return frames as the bytes of an event stream."""
    lines = [f"data: {json.dumps(frame, ensure_ascii=False)}" for frame in frames] + ["data: [DONE]"] * done
    return "".join(line + newline * 2 for line in lines).encode()

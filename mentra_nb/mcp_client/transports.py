"""The SDK's ways to a server, with bounds on what it may send, and with what it said while it did not connect."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO, Any

from mentra_nb.mcp_client.bounds import MAX_MESSAGE, bounded_utf_8
from mentra_nb.settings import McpServer

# What a server prints beside the protocol is no error of this program, and does not belong in the notebook.
logging.getLogger("mcp").addHandler(logging.NullHandler())

KEPT = 16_384
"""Bytes of a server's error stream that are kept, the last ones."""
LAST_SECONDS = 0.5
"""Seconds to wait for the rest of the error stream of a server that is gone."""


class Heard:
    """What a server said outside of the protocol: on its error stream, or by the status of an answer over HTTP."""

    def __init__(self) -> None:
        self._errors = b""
        self.status: int | None = None
        self.location: str | None = None
        """Where the last answer over HTTP redirects to, if it does."""
        self.is_too_long = False
        """Whether it sent a message of more than `MAX_MESSAGE` bytes."""

    def last_line(self, longest: int) -> str:
        """Return the last line of its error stream, at most so many characters."""
        lines = self._errors.decode(errors="replace")[-longest:].strip().splitlines()
        return lines[-1] if lines else ""

    @asynccontextmanager
    async def errors(self) -> AsyncIterator[IO[bytes]]:
        """Yield a stream for its errors, of which the last `KEPT` bytes are kept, however much it writes."""
        reading, writing = os.pipe()
        reader = threading.Thread(target=self._read, args=(reading,), name="mcp-errors", daemon=True)
        reader.start()
        try:
            with open(writing, "wb", buffering=0) as stream:  # noqa: ASYNC230, PTH123 - a pipe
                yield stream
        finally:
            await asyncio.to_thread(reader.join, LAST_SECONDS)  # what it started may hold the stream

    def _read(self, reading: int) -> None:
        with open(reading, "rb", buffering=0) as stream:
            while chunk := stream.read(KEPT):
                self._errors = (self._errors + chunk)[-KEPT:]


@asynccontextmanager
async def transport(config: McpServer, heard: Heard, ended: asyncio.Event) -> AsyncIterator[Any]:
    """Connect, and set `ended` when nothing more can be read from the server.

    Raises:
        ModuleNotFoundError: the SDK is not installed.
        OSError: the program cannot be started.
    """
    async with _over_pipes(config, heard) if config.url is None else _over_http(config, heard) as (reading, writing):
        yield _Reading(reading, ended), writing


@asynccontextmanager
async def _over_pipes(config: McpServer, heard: Heard) -> AsyncIterator[Any]:
    from mcp.client.stdio import StdioServerParameters, stdio_client

    parameters = StdioServerParameters(
        command=config.command or "",
        args=list(config.args),
        env=config.environment(),
        cwd=config.cwd,
        encoding=bounded_utf_8(),
        encoding_error_handler="replace",
    )
    async with heard.errors() as errors, stdio_client(parameters, errlog=errors) as streams:  # type: ignore[arg-type]
        yield streams


@asynccontextmanager
async def _over_http(config: McpServer, heard: Heard) -> AsyncIterator[Any]:
    """Connect over streamable HTTP. The SDK follows no redirect to another origin."""
    import httpx2
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client

    class Bounded(httpx2.AsyncByteStream):
        def __init__(self, stream: Any) -> None:
            self.stream, self.left = stream, MAX_MESSAGE

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in self.stream:
                self.left -= len(chunk)
                if self.left < 0:
                    heard.is_too_long = True
                    raise httpx2.ReadError("the message is too long")
                yield chunk

        async def aclose(self) -> None:
            await self.stream.aclose()

    async def answered(response: Any) -> None:
        heard.status, heard.location = response.status_code, response.headers.get("location")
        if not response.headers.get("content-type", "").startswith("text/event-stream"):  # of events each is bounded
            response.stream = Bounded(response.stream)

    headers = {name: value.get_secret_value() for name, value in config.headers.items()}
    async with create_mcp_http_client(headers=headers) as http:
        http.event_hooks = {"request": [], "response": [answered]}
        async with streamable_http_client(
            config.url or "", http_client=http, max_sse_event_size=MAX_MESSAGE
        ) as streams:
            yield streams


class _Reading:
    """A stream of messages that tells when it ends."""

    def __init__(self, stream: Any, ended: asyncio.Event) -> None:
        self._stream, self._ended = stream, ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> _Reading:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._stream.__anext__()
        except StopAsyncIteration:
            self._ended.set()
            raise

    async def __aenter__(self) -> _Reading:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._stream.__aexit__(*error)

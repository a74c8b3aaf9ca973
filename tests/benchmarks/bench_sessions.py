"""What sessions weigh: `python tests/benchmarks/bench_sessions.py`. Bytes are Python's own, by `tracemalloc`.

A long session has prompts of 230 and answers of 1,800 characters, and is asked over the Chat Completions wire by an
answerer in the process. An idle session has had a turn, and others have had theirs since. The store is a SQLite file.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sqlite3
import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path

from mentra_nb.control.hooks import NullAudit
from mentra_nb.providers.base import ModelInfo
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.providers.http import HttpClient, Response
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.store.sqlite import SqliteStore

TURNS, SESSIONS = 500, 400
MODEL = ModelInfo(id="m", provider="bench")
QUESTION = "What do the figures of the last quarter say about the two regions, and why? "
ANSWER = "The north grew by four per cent while the south fell by two, mostly because of the weather. "


class Answerer:
    """A transport that answers every request with the same text, in pieces."""

    def __init__(self, sentences: int) -> None:
        chunks = [{"delta": {"content": ANSWER}, "finish_reason": None} for _ in range(sentences)]
        chunks.append({"delta": {}, "finish_reason": "stop"})
        lines = [f"data: {json.dumps({'id': 'c', 'choices': [{'index': 0, **chunk}]})}\n\n" for chunk in chunks]
        self.body = "".join(lines).encode() + b"data: [DONE]\n\n"

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> AsyncIterator[Response]:
        async def whole() -> AsyncIterator[bytes]:
            yield self.body

        yield Response(200, {"content-type": "text/event-stream"}, whole())

    async def aclose(self) -> None:
        return


def runtime(folder: Path, sentences: int) -> Runtime:
    provider = ChatCompletionsProvider("bench", "http://bench.invalid/v1", http=HttpClient(Answerer(sentences)))
    return Runtime([provider], builtin_tools=False, store=SqliteStore(folder / "state.sqlite"), audit=NullAudit())


def held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def size_of(file: Path) -> int:
    """Bytes on disk, once what was written last has its place in the file."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file.stat().st_size


async def long_session(folder: Path) -> None:
    async with runtime(folder, sentences=20) as made:
        await (await made.create_session("warm", MODEL)).append_turn(QUESTION)
        tracemalloc.start()
        before, sizes = held(), []
        session = await made.create_session("long", MODEL)
        for number in range(TURNS):
            await session.append_turn(f"{number}: {QUESTION * 3}")
            if number + 1 in (TURNS // 2, TURNS):
                sizes.append(size_of(folder / "state.sqlite"))
        weight = held() - before
        tracemalloc.stop()
        text = sum(len(message.text()) for message in session.history())
    ratio = weight / text
    print(f"session of {TURNS} turns  text {text / 1e6:.2f} MB  memory {weight / 1e6:.2f} MB  ratio {ratio:.2f}")
    print(f"its state store       {sizes[0] / 1e6:.2f} MB after half of them, {sizes[1] / 1e6:.2f} MB after all")


async def idle_sessions(folder: Path) -> None:
    async with runtime(folder, sentences=10) as made:
        for name in range(50):  # everything that loads late is loaded
            session = await made.create_session(f"warm {name}", MODEL)
            await session.append_turn(QUESTION)
        tracemalloc.start()
        before, sessions = held(), []
        for name in range(SESSIONS):
            session = await made.create_session(f"idle {name}", MODEL)
            await session.append_turn(QUESTION)
            sessions.append(session)
        for session in sessions[:16]:  # those whose conversations are still in memory are others then
            await session.append_turn(QUESTION)
        weight = (held() - before) / SESSIONS
        tracemalloc.stop()
    print(f"idle session          {weight:7.0f} bytes")


def main() -> None:
    for measured in (long_session, idle_sessions):
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(measured(Path(folder)))


if __name__ == "__main__":
    main()

"""What sessions weigh: `python tests/benchmarks/bench_sessions.py`. Bytes are Python's own, by `tracemalloc`.

Long sessions of several lengths of prompt and answer, prose of Python's own documentation, are held over two wires
with an answerer in the process; their text is counted in bytes of UTF-8. An idle session has had a turn, and others
have had theirs since. The store is a SQLite file.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import sqlite3
import tempfile
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.answer import Response
from mentra_nb.providers.anthropic import AnthropicProvider
from mentra_nb.providers.base import ModelInfo
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.providers.http import HttpClient
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.store.sqlite import SqliteStore

TURNS, SESSIONS = 500, 400
LENGTHS = [(80, 300), (230, 910), (230, 1_800), (1_000, 4_000)]
"""Characters in a prompt and in its answer."""
WIRES = {"chat": ChatCompletionsProvider, "messages": AnthropicProvider}
MODEL = ModelInfo(id="m", provider="bench")
PROSE = "\n".join(topics.values())


def prose(length: int) -> Iterator[str]:
    """Pieces of the prose, one after another."""
    for at in itertools.count(0, length):
        begin = at % (len(PROSE) - length)
        yield PROSE[begin : begin + length]


def chat_events(text: str) -> Iterator[dict[str, Any]]:
    for at in range(0, len(text), 40):
        yield {"id": "c", "choices": [{"index": 0, "delta": {"content": text[at : at + 40]}, "finish_reason": None}]}
    yield {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def messages_events(text: str) -> Iterator[dict[str, Any]]:
    yield {"type": "message_start", "message": {"id": "c", "model": "m", "usage": {"input_tokens": 1}}}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for at in range(0, len(text), 40):
        delta = {"type": "text_delta", "text": text[at : at + 40]}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}
    yield {"type": "message_stop"}


EVENTS: dict[str, Callable[[str], Iterator[dict[str, Any]]]] = {"chat": chat_events, "messages": messages_events}


class Answerer:
    """A transport that answers with the next piece of prose."""

    def __init__(self, wire: str, length: int) -> None:
        self.events, self.answers = EVENTS[wire], prose(length)

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> AsyncIterator[Response]:
        frames = [f"event: {x.get('type', '')}\ndata: {json.dumps(x)}\n\n" for x in self.events(next(self.answers))]
        end = "data: [DONE]\n\n" if self.events is chat_events else ""

        async def whole() -> AsyncIterator[bytes]:
            yield ("".join(frames) + end).encode()

        yield Response(200, {"content-type": "text/event-stream"}, whole())

    async def aclose(self) -> None:
        return


def runtime(folder: Path, wire: str, length: int) -> Runtime:
    provider = WIRES[wire]("bench", "http://bench.invalid/v1", http=HttpClient(Answerer(wire, length)))
    return Runtime([provider], builtin_tools=False, store=SqliteStore(folder / "state.sqlite"), audit=NullAudit())


def held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def size_of(file: Path) -> int:
    """Bytes on disk, once what was written last has its place in the file."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file.stat().st_size


async def long_session(folder: Path, wire: str, prompt: int, answer: int) -> None:
    async with runtime(folder, wire, answer) as made:
        await (await made.create_session("warm", MODEL)).append_turn("Hello")
        tracemalloc.start()
        before, sizes = held(), []
        session = await made.create_session("long", MODEL)
        for number, question in zip(range(TURNS), prose(prompt), strict=False):
            await session.append_turn(question)
            if number + 1 in (TURNS // 2, TURNS):
                sizes.append(size_of(folder / "state.sqlite"))
        weight = held() - before
        tracemalloc.stop()
        text = sum(len(message.text().encode()) for message in session.history())
    print(
        f"{wire:8} {prompt:5,} / {answer:5,} characters   text {text / 1e6:5.2f} MB   memory {weight / 1e6:5.2f} MB"
        f"   ratio {weight / text:.2f}   store {sizes[0] / 1e6:5.2f} MB after half, {sizes[1] / 1e6:5.2f} MB after all"
    )


async def idle_sessions(folder: Path) -> None:
    async with runtime(folder, "chat", 910) as made:
        for name in range(50):  # everything that loads late is loaded
            session = await made.create_session(f"warm {name}", MODEL)
            await session.append_turn(PROSE[:80])
        tracemalloc.start()
        before, sessions = held(), []
        for name in range(SESSIONS):
            session = await made.create_session(f"idle {name}", MODEL)
            await session.append_turn(PROSE[:80])
            sessions.append(session)
        for session in sessions[:16]:  # those whose conversations are still in memory are others then
            await session.append_turn(PROSE[:80])
        weight = (held() - before) / SESSIONS
        tracemalloc.stop()
    print(f"idle session          {weight:7.0f} bytes")


def main() -> None:
    print(f"sessions of {TURNS} turns")
    for wire, lengths in itertools.product(WIRES, LENGTHS):
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(long_session(Path(folder), wire, *lengths))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(idle_sessions(Path(folder)))


if __name__ == "__main__":
    main()

"""What a turn costs over a bare HTTP loop, in CPU time: `python tests/benchmarks/bench_turns.py [httpx|httpx2]`.

The bare loop posts the same requests with httpx, reads the same streams with httpx-sse and parses every frame; it has
no agent, no store and no record. The argument is the HTTP client under ours (httpx2 where it is installed). The server
runs in a separate process. What is compared is measured in turns, one of each, and told as medians of milliseconds of
CPU and as the ratio of the least; how long a stop takes is printed in milliseconds of wall time. Of a long session the
bare loop posts the same conversation as bytes that were encoded before, so it does nothing for the messages at all.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import httpx
from httpx_sse import EventSource

DELTAS = 1000
ROUNDS = 100
BURSTS = 60
PACE, SLOW = 0.001, 12
EARLY, LATE = 10, 500
SAMPLES = 40
STOPS = 20


# ---- the server: a tool call, or `DELTAS` pieces of text ---------------------------------------------------------


def _chunk(delta: dict[str, object], finish: str | None = None) -> bytes:
    body = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return f"data: {json.dumps(body)}\n\n".encode()


_USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}}\n\n'
_END = _USAGE + b"data: [DONE]\n\n"
_CALL = {"index": 0, "id": "call", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
CALL = _chunk({"role": "assistant", "tool_calls": [_CALL]}) + _chunk({}, "tool_calls") + _END
SHORT = _chunk({"role": "assistant", "content": "Three."}) + _chunk({}, "stop") + _END
DELTA = _chunk({"content": "some words "})
LONG = DELTA * DELTAS + _chunk({}, "stop") + _END


async def _serve(pipe: Connection) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET "):  # for its models, which a long conversation asks for once
                    writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
                    continue
                length = next(
                    int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-len")
                )
                last = json.loads(await reader.readexactly(length))["messages"][-1]
                text = last["content"] if isinstance(last["content"], str) else last["content"][-1]["text"]
                body = LONG if "long" in text else CALL if "tool" in text else SHORT
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
                if "pieces" in text:  # as servers send it: each delta in a chunk
                    pieces = [DELTA] * DELTAS + [body[len(DELTA) * DELTAS :], b""]
                    writer.write(b"transfer-encoding: chunked\r\n\r\n")
                    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
                    for chunk in chunks if "slow" in text else [b"".join(chunks)]:
                        writer.write(chunk)
                        await asyncio.sleep(PACE * ("slow" in text))
                else:
                    half = body[: len(body) // 2] if "silence" in text else body
                    writer.write(b"content-length: %d\r\n\r\n%s" % (len(body), half))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=1 << 26, backlog=1024)
    pipe.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def serve(pipe: Connection) -> None:
    asyncio.run(_serve(pipe))


# ---- the bare loop ----------------------------------------------------------------------------------------------


def encoded(messages: list[dict[str, object]]) -> bytes:
    return json.dumps({"model": "m", "stream": True, "messages": messages}).encode()


async def _post(client: httpx.AsyncClient, url: str, body: bytes) -> tuple[str, str]:
    """Text and tool arguments of one answer."""
    text, arguments = [], []
    headers = {"accept": "text/event-stream", "content-type": "application/json"}
    async with client.stream("POST", url, content=body, headers=headers) as response:
        async for event in EventSource(response).aiter_sse():
            if event.data == "[DONE]":
                break
            for choice in json.loads(event.data)["choices"]:
                text.append(choice["delta"].get("content") or "")
                arguments += [c["function"]["arguments"] for c in choice["delta"].get("tool_calls", ())]
    return "".join(text), "".join(arguments)


async def bare_round(client: httpx.AsyncClient, url: str) -> None:
    messages: list[dict[str, object]] = [{"role": "user", "content": "use the tool"}]
    _, arguments = await _post(client, url, encoded(messages))
    given = json.loads(arguments)
    call = {"id": "call", "type": "function", "function": {"name": "add", "arguments": arguments}}
    messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
    messages.append({"role": "tool", "tool_call_id": "call", "content": str(given["a"] + given["b"])})
    await _post(client, url, encoded(messages))


async def bare_burst(client: httpx.AsyncClient, url: str, prompt: str) -> None:
    await _post(client, url, encoded([{"role": "user", "content": prompt}]))


QUESTION = "question: " + "how many is one and two? " * 40


def late_body() -> bytes:
    """The request of turn `LATE`."""
    turn: list[dict[str, object]] = [
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": "Three."},
    ]
    return encoded([*turn * (LATE - 1), turn[0]])


# ---- ours -------------------------------------------------------------------------------------------------------


Work = Callable[[], Awaitable[object]]


async def cpu_of(*works: Work) -> list[float]:
    """What each cost, in ms of CPU, done one after the other."""
    taken = []
    for work in works:
        began = time.process_time()
        await work()
        taken.append((time.process_time() - began) * 1000)
    return taken


def told(what: str, first: str, second: str, samples: list[list[float]]) -> None:
    """The medians of pairs of samples, their ratio with the quartiles of the pairs', and the ratio of the bests."""
    one, other = (statistics.median(column) for column in zip(*samples, strict=True))
    best, other_best = (min(column) for column in zip(*samples, strict=True))
    low, _, high = statistics.quantiles(b / a for a, b in samples)
    ratio = f"ratio {other / one:4.2f} ({low:4.2f} to {high:4.2f})"
    bests = f"of bests {other_best / best:4.2f}"
    print(f"{what:24} {first:8} {one:6.2f} ms   {second:8} {other:6.2f} ms   {ratio}, {bests}   of {len(samples)}")


async def measure(port: int) -> None:
    from mentra_nb.agent.agent import Agent
    from mentra_nb.agent.limits import CancellationToken, RunOptions
    from mentra_nb.authorization import allow_everything
    from mentra_nb.errors import Cancelled
    from mentra_nb.event import types as e
    from mentra_nb.providers import http
    from mentra_nb.providers.base import ModelInfo
    from mentra_nb.providers.chat_completions import ChatCompletionsProvider
    from mentra_nb.runtime.runtime import Runtime

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    print(f"bare: httpx {httpx.__version__}   ours: {http.httpx.__name__} {http.httpx.__version__}")
    base = f"http://127.0.0.1:{port}/v1"
    providers = [ChatCompletionsProvider("bench", base)]
    async with (
        httpx.AsyncClient() as client,
        Runtime(providers, [add], builtin_tools=False, authorizer=allow_everything) as runtime,
    ):
        model, url = ModelInfo(id="m", provider="bench"), f"{base}/chat/completions"

        async def fresh(prompt: str) -> None:
            agent = await runtime.spawn("bench", model)
            await agent.send(prompt)

        async def with_turns(number: int) -> Agent:
            agent: Agent = await runtime.spawn("bench", model)
            for _ in range(number):
                await turn(agent)
            return agent

        async def turn(agent: Agent) -> None:
            await agent.send(QUESTION)

        pairs: list[tuple[str, int, Work, Work]] = [
            ("tool round", ROUNDS, lambda: bare_round(client, url), lambda: fresh("use the tool")),
            *(
                (f"{DELTAS} deltas {how}", number, partial(bare_burst, client, url, prompt), partial(fresh, prompt))
                for how, number, prompt in (
                    ("at once", BURSTS, "a long answer"),
                    ("in chunks", BURSTS, "long, in pieces"),
                    (f"{PACE * 1000:g} ms apart", SLOW, "long, in slow pieces"),
                )
            ),
        ]
        for what, number, bare, ours in pairs:
            for _ in range(min(5, number // 4)):  # warm both
                await cpu_of(bare, ours)
            told(what, "bare", "ours", [await cpu_of(bare, ours) for _ in range(number)])

        old, grown, late, body = await with_turns(LATE - SAMPLES), [], [], late_body()
        for _ in range(SAMPLES):
            young = await with_turns(EARLY - 1)
            early = await cpu_of(lambda agent=young: turn(agent))  # type: ignore[misc]
            await turn(old)  # as warm as the young one
            grown.append([*early, *await cpu_of(lambda: turn(old))])
            await _post(client, url, body)
            late.append([*await cpu_of(lambda: _post(client, url, body)), grown[-1][1]])
        told("as a talk grows", f"turn {EARLY}", f"turn {LATE}", grown)
        told(f"turn {LATE} against raw", "bare", "ours", late)

        waits = []
        for _ in range(STOPS):
            token = CancellationToken()
            agent = await runtime.spawn("bench", model)
            shown = asyncio.Event()
            agent.environment.bus.tap(lambda event, s=shown: s.set() if isinstance(event, e.TextDelta) else None)  # type: ignore[misc]
            running = asyncio.create_task(agent.run("silence, long", RunOptions(cancellation=token)))
            await shown.wait()
            began = time.monotonic()
            token.cancel()
            try:
                await running
            except Cancelled:
                waits.append((time.monotonic() - began) * 1000)
        middle, longest = statistics.median(waits), max(waits)
        print(f"a stop in a silent stream: {middle:.1f} ms, at most {longest:.1f} ms, of {len(waits)}")


def run(measure: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Run a measurement, which gets the port of a server in another process. The argument names the client."""
    if "httpx" in sys.argv[1:]:
        sys.modules["httpx2"] = None  # type: ignore[assignment]  # as if it were not installed
    os.environ["MENTRA_HOME"] = tempfile.mkdtemp()
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    process.start()
    try:
        asyncio.run(measure(here.recv()))
    finally:
        process.terminate()


if __name__ == "__main__":
    run(measure)

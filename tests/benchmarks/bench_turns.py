"""What a turn costs over a bare HTTP loop, in CPU time: `python tests/benchmarks/bench_turns.py`.

The bare loop posts the same requests with httpx, reads the same streams with httpx-sse and parses every frame; it has
no agent, no store and no record. The server runs in a process of its own. Times are medians, in milliseconds of CPU.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from multiprocessing.connection import Connection

import httpx
from httpx_sse import EventSource

DELTAS = 1000
ROUNDS = 60
TURNS = 500


# ---- the server: a tool call, or `DELTAS` pieces of text ---------------------------------------------------------


def _chunk(delta: dict[str, object], finish: str | None = None) -> bytes:
    body = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return f"data: {json.dumps(body)}\n\n".encode()


_USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}}\n\n'
_END = _USAGE + b"data: [DONE]\n\n"
_CALL = {"index": 0, "id": "call", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
CALL = _chunk({"role": "assistant", "tool_calls": [_CALL]}) + _chunk({}, "tool_calls") + _END
SHORT = _chunk({"role": "assistant", "content": "Three."}) + _chunk({}, "stop") + _END
LONG = b"".join(_chunk({"content": "some words "}) for _ in range(DELTAS)) + _chunk({}, "stop") + _END


async def _serve(pipe: Connection) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-len")
                )
                last = json.loads(await reader.readexactly(length))["messages"][-1]
                text = last["content"] if isinstance(last["content"], str) else last["content"][-1]["text"]
                body = LONG if "long" in text else CALL if "tool" in text else SHORT
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: ")
                writer.write(f"{len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=1 << 26)
    pipe.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _server(pipe: Connection) -> None:
    asyncio.run(_serve(pipe))


# ---- the bare loop ----------------------------------------------------------------------------------------------


async def _post(client: httpx.AsyncClient, url: str, messages: list[dict[str, object]]) -> tuple[str, str]:
    """Text and tool arguments of one answer."""
    text, arguments = [], []
    body = {"model": "m", "stream": True, "messages": messages}
    async with client.stream("POST", url, json=body, headers={"accept": "text/event-stream"}) as response:
        async for event in EventSource(response).aiter_sse():
            if event.data == "[DONE]":
                break
            for choice in json.loads(event.data)["choices"]:
                text.append(choice["delta"].get("content") or "")
                arguments += [c["function"]["arguments"] for c in choice["delta"].get("tool_calls", ())]
    return "".join(text), "".join(arguments)


async def bare_round(client: httpx.AsyncClient, url: str) -> None:
    messages: list[dict[str, object]] = [{"role": "user", "content": "use the tool"}]
    _, arguments = await _post(client, url, messages)
    given = json.loads(arguments)
    call = {"id": "call", "type": "function", "function": {"name": "add", "arguments": arguments}}
    messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
    messages.append({"role": "tool", "tool_call_id": "call", "content": str(given["a"] + given["b"])})
    await _post(client, url, messages)


async def bare_burst(client: httpx.AsyncClient, url: str) -> None:
    await _post(client, url, [{"role": "user", "content": "a long answer"}])


# ---- ours -------------------------------------------------------------------------------------------------------


async def cpu_of(work: object, times: int) -> float:
    """Median CPU of the awaitables `work()` makes, in ms."""
    taken = []
    for _ in range(times):
        began = time.process_time()
        await work()  # type: ignore[operator]
        taken.append((time.process_time() - began) * 1000)
    return statistics.median(taken)


async def measure(port: int) -> None:
    from mentra_nb.agent.agent import Agent
    from mentra_nb.providers.base import ModelInfo
    from mentra_nb.providers.chat_completions import ChatCompletionsProvider
    from mentra_nb.runtime.runtime import Runtime

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    base = f"http://127.0.0.1:{port}/v1"
    async with (
        httpx.AsyncClient() as client,
        Runtime([ChatCompletionsProvider("bench", base)], [add], builtin_tools=False) as runtime,
    ):
        model, url = ModelInfo(id="m", provider="bench"), f"{base}/chat/completions"

        async def fresh(prompt: str) -> None:
            agent = await runtime.spawn("bench", model)
            await agent.send(prompt)

        for _ in range(5):  # warm both
            await bare_round(client, url)
            await fresh("use the tool")
        bare, ours = (
            await cpu_of(lambda: bare_round(client, url), ROUNDS),
            await cpu_of(lambda: fresh("use the tool"), ROUNDS),
        )
        print(f"tool round            bare {bare:7.2f} ms   ours {ours:7.2f} ms   ratio {ours / bare:5.2f}")
        bare, ours = await cpu_of(lambda: bare_burst(client, url), 15), await cpu_of(lambda: fresh("a long answer"), 15)
        print(f"{DELTAS} burst deltas     bare {bare:7.2f} ms   ours {ours:7.2f} ms   ratio {ours / bare:5.2f}")

        agent: Agent = await runtime.spawn("long", model)
        costs = []
        for number in range(TURNS):
            began = time.process_time()
            await agent.send(f"question {number}: " + "how many is one and two? " * 40)
            costs.append((time.process_time() - began) * 1000)
        early, late = statistics.median(costs[5:25]), statistics.median(costs[-20:])
        print(f"turn 10 and turn {TURNS}   {early:7.2f} ms        {late:7.2f} ms   ratio {late / early:5.2f}")


def main() -> None:
    os.environ["MENTRA_HOME"] = tempfile.mkdtemp()
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_server, args=(there,), daemon=True)
    process.start()
    try:
        asyncio.run(measure(here.recv()))
    finally:
        process.terminate()


if __name__ == "__main__":
    main()

"""A map over many rows beside a bare gather of the same requests: `python tests/benchmarks/bench_rows.py [ROWS]`.

The server runs in a separate process and answers each request after 20 ms. The bare gather posts the same bodies with
httpx, at the same concurrency, reads the same streams with httpx-sse and parses every frame; it stores nothing and
records nothing. `bare2` is the same with httpx2, which the map itself goes over where it is installed. Beside them
are the parallel chat of chatlas and a gather over pydantic-ai, if they can be imported by the Python that is named in
the environment as `RIVALS` (this one by default); chatlas asks for whole answers, not streams. They take turns, in
fresh processes, and the least wall time and CPU time of each is compared. The memory of the map is its highest beyond
what the process had before it, with the frame.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 10_000
WORKERS = 64
LATENCY = 0.020
RUNS = int(os.environ.get("RUNS", "3"))
RIVALS = os.environ.get("RIVALS", sys.executable)


def _chunk(delta: dict[str, object], finish: str | None = None) -> bytes:
    body = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return f"data: {json.dumps(body)}\n\n".encode()


_USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}}\n\n'
ANSWER = _chunk({"role": "assistant", "content": "yes"}) + _chunk({}, "stop") + _USAGE + b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)

_BODY = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18},
    }
).encode()
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY) + _BODY


async def _serve(pipe: Connection) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
                body = await reader.readexactly(int(lengths[0].split(b":")[1]))
                await asyncio.sleep(LATENCY)
                writer.write(HEAD + ANSWER if json.loads(body).get("stream") else WHOLE)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1024)
    pipe.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _server(pipe: Connection) -> None:
    asyncio.run(_serve(pipe))


# ---- the two, each in a process of its own ---------------------------------------------------------------------


def _prompts() -> list[str]:
    return [f"Is ticket {number} a complaint? It says: the parcel {number} came late" for number in range(ROWS)]


def bare(url: str, client_of: str = "httpx") -> None:
    """Post the requests of a map with nothing around them."""
    from httpx_sse import EventSource

    httpx: Any = importlib.import_module(client_of)

    async def main() -> None:
        limits = httpx.Limits(max_connections=WORKERS, max_keepalive_connections=WORKERS)
        async with httpx.AsyncClient(limits=limits, timeout=60) as client:
            room = asyncio.Semaphore(WORKERS)

            async def one(prompt: str) -> str:
                messages = [{"role": "user", "content": prompt}]
                body = {"model": "m", "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
                text = ""
                async with room, client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
                    async for event in EventSource(response).aiter_sse():
                        if event.data != "[DONE]":
                            for choice in json.loads(event.data)["choices"]:
                                text += choice["delta"].get("content") or ""
                return text

            found = await asyncio.gather(*map(one, _prompts()))
        assert found == ["yes"] * ROWS

    _measured(lambda: asyncio.run(main()))


def mapped(url: str) -> None:
    """Map over the same prompts."""
    import pandas as pd

    import mentra_nb as mn

    with tempfile.TemporaryDirectory() as home:
        os.environ["MENTRA_HOME"] = home
        mn.connect("lab", f"{url}/v1", model="m")
        warm = mn.map("{value}", [f"warm {number}" for number in range(10 * WORKERS)], workers=WORKERS, progress=False)
        assert (warm.answer == "yes").all()
        mn.turns()  # libraries are loaded, DuckDB's too; the store and connections are open
        frame = pd.DataFrame({"prompt": _prompts()})

        def run() -> None:
            found = mn.map("{prompt}", frame, workers=WORKERS, progress=False)
            assert (found.answer == "yes").all()

        _measured(run)
        from mentra_nb.chat import engine

        engine.reset()


def bare2(url: str) -> None:
    """Do as `bare` over httpx2."""
    bare(url, "httpx2")


def chatlas(url: str) -> None:
    """Ask the same with the parallel chat of chatlas."""
    chatlas: Any = importlib.import_module("chatlas")
    chat = chatlas.ChatOpenAICompletions(base_url=f"{url}/v1", api_key="k", model="m")

    def run() -> None:
        asking = chatlas.parallel_chat_text(chat, _prompts(), max_active=WORKERS, rpm=10_000_000)
        assert asyncio.run(asking) == ["yes"] * ROWS

    _measured(run)


def pydantic_ai(url: str) -> None:
    """Ask the same with a gather over an agent of pydantic-ai."""
    ai: Any = importlib.import_module("pydantic_ai")
    model = importlib.import_module("pydantic_ai.models.openai").OpenAIChatModel
    provider = importlib.import_module("pydantic_ai.providers.openai").OpenAIProvider
    agent = ai.Agent(model("m", provider=provider(base_url=f"{url}/v1", api_key="k")))

    async def main() -> None:
        room = asyncio.Semaphore(WORKERS)

        async def one(prompt: str) -> str:
            async with room, agent.run_stream(prompt) as answer:
                return str(await answer.get_output())

        assert await asyncio.gather(*map(one, _prompts())) == ["yes"] * ROWS

    _measured(lambda: asyncio.run(main()))


def _highest() -> float:
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def _measured(run: Callable[[], None]) -> None:
    Path("/proc/self/clear_refs").write_text("5")  # the highest begins anew, at what there is now
    before, wall, cpu = _highest(), time.perf_counter(), time.process_time()
    run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"wall": wall, "cpu": cpu, "memory": _highest() - before}))


WAYS = {way.__name__: way for way in (bare, bare2, mapped, chatlas, pydantic_ai)}


def _has(module: str) -> bool:
    return subprocess.run([RIVALS, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def main() -> None:
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_server, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}"
    rivals = [name for name in ("chatlas", "pydantic_ai") if _has(name)]
    for name in {"chatlas", "pydantic_ai"}.difference(rivals):
        print(f"{name} is not installed, so it is not measured")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ("bare", "bare2", "mapped", *rivals)}
    for _ in range(RUNS):
        for name, measured in found.items():
            python = RIVALS if name in rivals else sys.executable
            done = subprocess.run([python, __file__, name, url, str(ROWS)], stdout=subprocess.PIPE, check=True)
            measured.append(json.loads(done.stdout.splitlines()[-1]))
    server.terminate()
    least = {name: {key: min(each[key] for each in runs) for key in runs[0]} for name, runs in found.items()}
    for name, values in least.items():
        per_row = values["cpu"] / ROWS * 1e6
        print(
            f"{name:11} wall {values['wall']:6.2f} s   CPU a row {per_row:6.0f} µs   memory {values['memory']:5.1f} MB"
        )
    for key, most in (("wall", 1.25), ("cpu", 2.0)):
        for name in found.keys() - {"mapped"}:
            limit = f" (at most {most})" if name == "bare" else ""
            print(f"{key}: {least['mapped'][key] / least[name][key]:.2f} times {name}{limit}")
    print(f"memory over the frame: {least['mapped']['memory']:.1f} MB (at most 50)")


if __name__ == "__main__":
    if len(sys.argv) > 3:
        ROWS = int(sys.argv[3])
        WAYS[sys.argv[1]](sys.argv[2])
    else:
        main()

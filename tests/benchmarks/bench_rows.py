"""A map over many rows beside a bare gather of the same requests: `python tests/benchmarks/bench_rows.py [ROWS]`.

The server runs in a separate process and answers each request after 20 ms. The bare gather posts the same bodies with
httpx, at the same concurrency, reads the same streams with httpx-sse and parses every frame; it stores nothing and
records nothing. The two take turns, in fresh processes, and the least wall time and CPU time of each is compared. The
memory of the map is its highest beyond what the process had before it, with the frame.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 10_000
WORKERS = 64
LATENCY = 0.020
RUNS = 3


def _chunk(delta: dict[str, object], finish: str | None = None) -> bytes:
    body = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return f"data: {json.dumps(body)}\n\n".encode()


_USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}}\n\n'
ANSWER = _chunk({"role": "assistant", "content": "yes"}) + _chunk({}, "stop") + _USAGE + b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)


async def _serve(pipe: Connection) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
                await reader.readexactly(int(lengths[0].split(b":")[1]))
                await asyncio.sleep(LATENCY)
                writer.write(HEAD + ANSWER)
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


def bare(url: str) -> None:
    """Post the requests of a map with nothing around them."""
    import httpx
    from httpx_sse import EventSource

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


def _measured(run: object) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    run()  # type: ignore[operator]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"wall": wall, "cpu": cpu, "memory": (after - before) / 1024}))


def main() -> None:
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_server, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}"
    found: dict[str, list[dict[str, float]]] = {"bare": [], "mapped": []}
    for _ in range(RUNS):
        for name, measured in found.items():
            done = subprocess.run([sys.executable, __file__, name, url, str(ROWS)], stdout=subprocess.PIPE, check=True)
            measured.append(json.loads(done.stdout))
    server.terminate()
    least = {name: {key: min(each[key] for each in runs) for key in runs[0]} for name, runs in found.items()}
    for name, values in least.items():
        per_row = values["cpu"] / ROWS * 1e6
        print(
            f"{name:7} wall {values['wall']:6.2f} s   CPU a row {per_row:6.0f} µs   memory {values['memory']:5.1f} MB"
        )
    for key, most in (("wall", 1.25), ("cpu", 2.0)):
        print(f"{key}: {least['mapped'][key] / least['bare'][key]:.2f} times the bare gather (at most {most})")
    print(f"memory over the frame: {least['mapped']['memory']:.1f} MB (at most 50)")


if __name__ == "__main__":
    if sys.argv[1:2] in (["bare"], ["mapped"]):
        ROWS = int(sys.argv[3])
        (bare if sys.argv[1] == "bare" else mapped)(sys.argv[2])
    else:
        main()

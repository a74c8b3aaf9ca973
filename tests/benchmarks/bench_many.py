"""Measure turns a second of many agents at once against a bare gather: `bench_many.py [httpx|httpx2]`.

Each of 50 or 500 agents takes one turn of one tool round at the same time, with its state in SQLite and its events on
record. The bare side sends the same requests from as many tasks with one httpx client. Both are measured in turns, one
of each, in wall time; the server runs in a separate process. The argument is the HTTP client under ours.
"""

from __future__ import annotations

import asyncio
import statistics
import time

import httpx
from bench_turns import bare_round, run

SIZES = {50: 12, 500: 4}
"""Samples by number of agents."""


async def measure(port: int) -> None:
    from mentra_nb.authorization import allow_everything
    from mentra_nb.providers import http
    from mentra_nb.providers.base import ModelInfo
    from mentra_nb.providers.chat_completions import ChatCompletionsProvider
    from mentra_nb.runtime.runtime import Runtime

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    print(f"bare: httpx {httpx.__version__}   ours: {http.httpx.__name__} {http.httpx.__version__}")
    base, model = f"http://127.0.0.1:{port}/v1", ModelInfo(id="m", provider="bench")
    many = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with (
        httpx.AsyncClient(limits=many, timeout=60) as client,
        Runtime(
            [ChatCompletionsProvider("bench", base)], [add], builtin_tools=False, authorizer=allow_everything
        ) as runtime,
    ):
        for number, samples in SIZES.items():
            agents = [await runtime.spawn("bench", model) for _ in range(number)]
            bare, ours = [], []
            for _ in range(samples + 1):
                began = time.perf_counter()
                await asyncio.gather(*(bare_round(client, f"{base}/chat/completions") for _ in range(number)))
                bare.append(number / (time.perf_counter() - began))
                began = time.perf_counter()
                await asyncio.gather(*(agent.send("use the tool") for agent in agents))
                ours.append(number / (time.perf_counter() - began))
            ratios = [b / a for a, b in zip(bare[1:], ours[1:], strict=True)]  # the first opens the connections
            print(
                f"{number:4} at once   bare {max(bare):6.0f} turns/s   ours {max(ours):6.0f} turns/s   "
                f"ratio of bests {max(ours) / max(bare):4.2f}, median {statistics.median(ratios):4.2f}"
            )


if __name__ == "__main__":
    run(measure)

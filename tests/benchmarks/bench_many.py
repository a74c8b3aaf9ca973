"""Measure turns a second of many agents at once against a bare gather: `bench_many.py [httpx|httpx2]`.

Each of 50 or 500 agents takes one turn of one tool round at the same time, with its state in SQLite and its events on
record. The bare side sends the same requests from as many tasks with one client, of httpx and of the one under ours.
They are measured in turns, one of each, in wall time and in CPU, and the bests are compared; the server runs in a
separate process. The argument is the HTTP client under ours.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from bench_turns import bare_round, run

SIZES = {50: 12, 500: 4}
"""Samples by number of agents."""
NO_LIMITS: dict[str, Any] = {"max_connections": None, "max_keepalive_connections": None}


async def measure(port: int) -> None:
    from mentra_nb.authorization import allow_everything
    from mentra_nb.providers import http
    from mentra_nb.providers.base import ModelInfo
    from mentra_nb.providers.chat_completions import ChatCompletionsProvider
    from mentra_nb.runtime.runtime import Runtime

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    print(f"ours on {http.CLIENT}, beside httpx {httpx.__version__}")
    base, model = f"http://127.0.0.1:{port}/v1", ModelInfo(id="m", provider="bench")
    client_of = http.httpx
    async with (
        httpx.AsyncClient(limits=httpx.Limits(**NO_LIMITS), timeout=60) as client,
        client_of.AsyncClient(limits=client_of.Limits(**NO_LIMITS), timeout=60) as same,
        Runtime(
            [ChatCompletionsProvider("bench", base)], [add], builtin_tools=False, authorizer=allow_everything
        ) as runtime,
    ):
        agents, url = [await runtime.spawn("bench", model) for _ in range(max(SIZES))], f"{base}/chat/completions"
        works: dict[str, Callable[[int], Awaitable[object]]] = {
            "bare httpx": lambda at: bare_round(client, url),
            f"bare {client_of.__name__}": lambda at: bare_round(same, url),
            "ours": lambda at: agents[at].send("use the tool"),
        }
        for number, samples in SIZES.items():
            rates: dict[str, list[float]] = {name: [] for name in works}
            costs: dict[str, list[float]] = {name: [] for name in works}
            for _ in range(samples + 1):
                for name, work in works.items():
                    began, cpu = time.perf_counter(), time.process_time()
                    await asyncio.gather(*map(work, range(number)))
                    rates[name].append(number / (time.perf_counter() - began))
                    costs[name].append((time.process_time() - cpu) / number * 1000)
            best = {name: max(rate[1:]) for name, rate in rates.items()}  # the first opens the connections
            least = {name: min(cost[1:]) for name, cost in costs.items()}
            for name, rate in best.items():
                print(
                    f"{number:4} at once   {name:12} {rate:6.0f} turns/s   ours over it {best['ours'] / rate:4.2f}"
                    f"   CPU {least[name]:5.2f} ms a turn, ours over it {least['ours'] / least[name]:4.2f}"
                )


if __name__ == "__main__":
    run(measure)

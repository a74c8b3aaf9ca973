"""What the runtime adds to the time of a tool: `python tests/benchmarks/bench_tools.py`.

Its store and record are on disk; before a call that changes things both are synced.

A round of one call of a tool that takes 5 ms is timed from the model's answer to the next request, less the time that
the tool itself took; 20 parallel calls likewise, less the time of the longest. Told as median and best of wall time.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from functools import partial
from typing import Any

TOOL = 0.005
ROUNDS = 200
PARALLEL = 20
SAMPLES = 30


async def measure() -> None:
    from mentra_nb.authorization import allow_everything
    from mentra_nb.providers.base import ModelInfo
    from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls
    from mentra_nb.runtime.runtime import Runtime
    from mentra_nb.tools.function import tool

    taken: list[float] = []

    def busy() -> str:
        began = time.perf_counter()
        time.sleep(TOOL)
        taken.append(time.perf_counter() - began)
        return "done"

    async def waiting() -> str:
        began = time.perf_counter()
        await asyncio.sleep(TOOL)
        taken.append(time.perf_counter() - began)
        return "done"

    cases: list[tuple[str, Any, bool, int, int]] = [
        ("plain function, reads only", busy, True, 1, ROUNDS),
        ("coroutine function, reads only", waiting, True, 1, ROUNDS),
        ("plain function, changes things", busy, False, 1, ROUNDS),
        (f"{PARALLEL} parallel plain functions", busy, True, PARALLEL, SAMPLES),
        (f"{PARALLEL} parallel coroutines", waiting, True, PARALLEL, SAMPLES),
    ]
    for what, function, reads_only, calls, rounds in cases:
        provider = ScriptedProvider()
        made = tool(name="work", reads_only=reads_only)(function)
        async with Runtime([provider], [made], builtin_tools=False, authorizer=allow_everything) as runtime:
            agent = await runtime.spawn("bench", ModelInfo(id="scripted", provider="scripted"))
            marks: list[float] = []
            agent.environment.bus.tap(partial(_mark, marks))
            provider.push(*[tool_calls([("work", {})] * calls) for _ in range(rounds + 5)], text("ok"))
            taken.clear()
            await agent.run("go")
            batches = zip(_batches(marks, 2 * calls), _batches(taken, calls), strict=True)
            added = [(each[-1] - each[0] - max(own)) * 1000 for each, own in batches][5:]
        print(f"{what:32} added {statistics.median(added):5.2f} ms, best {min(added):5.2f} ms   of {len(added)}")


def _mark(marks: list[float], event: object) -> None:
    if getattr(event, "kind", None) == "tool_execution_finished" or type(event).__name__ == "ToolCallStarted":
        marks.append(time.perf_counter())


def _batches(values: list[float], size: int) -> list[list[float]]:
    return [values[at : at + size] for at in range(0, len(values), size)]


if __name__ == "__main__":
    os.environ["MENTRA_HOME"] = tempfile.mkdtemp()
    asyncio.run(measure())

"""Measure what running a command costs: `python tests/benchmarks/bench_executor.py`.

Milliseconds of the clock for each command: the fastest, the median and the slowest of a hundred, without the first one,
which also starts the process behind the supervisors.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

from mentra_nb.sandbox.executor import CommandRequest, LocalExecutor

TIMES = 100
COMMANDS = {
    "true": "true",
    "1 MB of output": "head -c 1000000 /dev/zero",
    "leaves a process that holds its pipes": "sleep 60 & echo done",
}


async def measure(name: str, command: str, folder: Path) -> None:
    executor, request = LocalExecutor(), CommandRequest(command, folder, 30.0, {"PATH": os.environ["PATH"]})
    times = []
    await executor.run(request)
    for _ in range(TIMES):
        began = time.perf_counter()
        await executor.run(request)
        times.append(1000 * (time.perf_counter() - began))
    print(f"  {name:<40} {min(times):8.1f} ms {statistics.median(times):8.1f} ms {max(times):8.1f} ms")


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, command in COMMANDS.items():
            await measure(name, command, Path(folder))


if __name__ == "__main__":
    asyncio.run(main())

"""What importing the library costs beside importing httpx: `python tests/benchmarks/bench_import.py`.

Each is imported in fresh interpreters, in turns, with compiled files as an installed package has them. Times are of the
import statement alone: medians, in milliseconds of wall time.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

TIMES = 15
STATEMENTS = {"httpx": "import httpx", "mentra_nb.Runtime": "import mentra_nb; mentra_nb.Runtime"}
PROGRAM = "import time; t = time.perf_counter(); {}; print((time.perf_counter() - t) * 1000)"


def main() -> None:
    with tempfile.TemporaryDirectory() as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}

        def took(statement: str) -> float:
            command = [sys.executable, "-c", PROGRAM.format(statement)]
            return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

        for statement in STATEMENTS.values():
            took(statement)
        times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
        for _ in range(TIMES):
            for name, statement in STATEMENTS.items():
                times[name].append(took(statement))
    httpx, ours = (statistics.median(found) for found in times.values())
    print(f"import    httpx {httpx:6.1f} ms   mentra_nb.Runtime {ours:6.1f} ms   ratio {ours / httpx:4.2f}")


if __name__ == "__main__":
    main()

"""What starting costs over httpx: `python tests/benchmarks/bench_start.py`.

Measured are the import of the runtime beside that of httpx, and a process from its start to the first answer of a
server on this machine, beside a script that posts the same request with httpx and reads it with httpx-sse. Programs run
in fresh interpreters, in turns, in `.venv-clean`: the dependencies of the package alone, installed once. Files are
compiled, as an installed package has them, and the record has its first turn behind it. Times are medians and bests of
milliseconds of CPU, and medians of the clock.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from bench_turns import serve

TIMES = 20
ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-clean"

IMPORTS = [("httpx", "import httpx"), ("mentra_nb.Runtime", "import mentra_nb; mentra_nb.Runtime")]

BARE = """
import asyncio, json, sys, httpx
from httpx_sse import EventSource

async def main():
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    async with httpx.AsyncClient() as client:
        async with client.stream("POST", sys.argv[1] + "/chat/completions", json=body) as response:
            text = ""
            async for event in EventSource(response).aiter_sse():
                if event.data == "[DONE]":
                    break
                for choice in json.loads(event.data)["choices"]:
                    text += choice["delta"].get("content") or ""
            assert text == "Three."
            answered()

asyncio.run(main())
"""
OURS = """
import asyncio, sys, mentra_nb as mn
from mentra_nb.providers.chat_completions import ChatCompletionsProvider

async def main():
    async with mn.Runtime([ChatCompletionsProvider("bench", sys.argv[1])], builtin_tools=False) as runtime:
        agent = await runtime.spawn("first", mn.ModelInfo(id="m", provider="bench"))
        assert (await agent.send("hello")).text() == "Three."
        answered()

asyncio.run(main())
"""
TURNS = [("bare", BARE), ("mentra_nb", OURS)]
ANSWERED = "import time\ndef answered(): print(time.process_time() - began, flush=True)\n"


def environment() -> Path:
    """Return the interpreter of the clean environment. It is made anew when the dependencies have changed."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        needed = tomllib.load(file)["project"]["dependencies"]
    python, mark = ENVIRONMENT / "bin" / "python", ENVIRONMENT / ".done"
    wanted = hashlib.sha256("\n".join([sys.version, *needed]).encode()).hexdigest()
    if not mark.exists() or mark.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *needed], check=True)
        mark.write_text(wanted)
    return python


def compare(what: str, programs: list[tuple[str, str]], command: list[str | Path], environ: dict[str, str]) -> None:
    """Run the two programs in turns and tell what they took until they called `answered`."""

    def took(program: str) -> tuple[float, float]:
        began = time.perf_counter()
        with subprocess.Popen([*command[:2], program, *command[2:]], env=environ, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            clock = time.perf_counter() - began
        assert process.returncode == 0, program
        return float(line) * 1000, clock * 1000

    for _ in range(2):  # compile, and begin the record
        for _, program in programs:
            took(program)
    samples = [[took(program) for _, program in programs] for _ in range(TIMES)]
    columns = {
        "CPU": [[cpu for cpu, _ in column] for column in zip(*samples, strict=True)],
        "clock": [[clock for _, clock in column] for column in zip(*samples, strict=True)],
    }
    for unit, (bare, ours) in columns.items():
        one, other = statistics.median(bare), statistics.median(ours)
        low, _, high = statistics.quantiles(b / a for a, b in zip(bare, ours, strict=True))
        print(
            f"{what:13} {programs[0][0]:6} {one:6.1f} ms   {programs[1][0]:18} {other:6.1f} ms of {unit:6}"
            f" ratio {other / one:4.2f} ({low:4.2f} to {high:4.2f}), of bests {min(ours) / min(bare):4.2f}"
        )


def main() -> None:
    python = environment()
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    try:
        url = f"http://127.0.0.1:{here.recv()}/v1"
        with tempfile.TemporaryDirectory() as folder:
            environ = {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "PYTHONPYCACHEPREFIX": f"{folder}/compiled",
                "PYTHONDONTWRITEBYTECODE": "",
                "MENTRA_HOME": f"{folder}/home",
            }
            start = ANSWERED + "began = {}\n"
            imports = [(name, start.format("time.process_time()") + text + "\nanswered()") for name, text in IMPORTS]
            compare("import", imports, [python, "-c"], environ)
            turns = [(name, start.format(0) + text) for name, text in TURNS]
            compare("first answer", turns, [python, "-c", url], environ)
    finally:
        server.terminate()


if __name__ == "__main__":
    main()

"""How soon a notebook reacts, in milliseconds of wall time: `python tests/benchmarks/bench_notebook.py [7|6]`.

On a real kernel without a page: loading the extension; from the click on *Allow once* to the start of the tool; from
the stop button to the end of the cell, during a stream, a command and an open question. Medians and the slowest.
The argument is the ipykernel line.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from kits.kernels import Kernel, overlay
from kits.notebooks import Notebook

LOADS = 5
TIMES = 20
CLOCK = "from time import perf_counter as clock; began = clock()\n%load_ext mentra_nb\nprint(clock() - began)"


def loading(line: str, home: str) -> float:
    kernel = Kernel(overlay(line), MENTRA_HOME=home)
    try:
        return float(kernel.run(CLOCK).stdout)
    finally:
        kernel.close()


def click_to_tool(notebook: Notebook) -> float:
    notebook.begin()
    notebook.script("shell('true')", "s.text('Done.')")
    asking = notebook.send("%mentra do it")
    card = notebook.ready(asking)
    sent = time.time()
    notebook.widget_message(card, {"answer": "allow"})
    notebook.finish(asking)
    (began,) = notebook.records("tool_execution_started")
    return float(began["ts"]) - sent


def stop_stream(notebook: Notebook) -> float:
    return _stopped(notebook, "silent('As I was saying, ')", lambda texts: "As I was saying" in texts)


def stop_command(notebook: Notebook) -> float:
    return _stopped(notebook, "shell('sleep 30')", lambda texts: "⋯ shell" in texts, allow="sleep 30")


def stop_question(notebook: Notebook) -> float:
    return _stopped(notebook, "shell('sleep 30')", lambda texts: "asks: Run a command" in texts)


def _stopped(notebook: Notebook, turn: str, started: Callable[[str], bool], allow: str | None = None) -> float:
    """Return the seconds from the stop button to the end of the cell, once `started` holds of its texts."""
    notebook.begin()
    notebook.script(turn)
    if allow is not None:
        notebook.run(f"mn.allow('shell', {allow!r})")
    running = notebook.send("%%mentra\ntell me")
    notebook.until(lambda: started(running.texts()))
    pressed = time.monotonic()
    notebook.manager.interrupt_kernel()
    notebook.until(lambda: running.ended)
    return time.monotonic() - pressed


def report(name: str, seconds: list[float]) -> None:
    found = [1000 * one for one in seconds]
    print(f"{name:<28} median {statistics.median(found):6.0f} ms   slowest {max(found):6.0f} ms   of {len(found)}")


def main(line: str = "7") -> None:
    with tempfile.TemporaryDirectory() as folder:
        report(f"loading, ipykernel {line}", [loading(line, f"{folder}/bare") for _ in range(LOADS)])
        notebook = Notebook(Path(folder), overlay(line), subshell=True)
        try:
            for measure in (click_to_tool, stop_stream, stop_command, stop_question):
                report(measure.__name__.replace("_", " "), [measure(notebook) for _ in range(TIMES)])
        finally:
            notebook.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The cost of the record for the thread of a turn: `python tests/benchmarks/bench_journal.py`.

First the time of one `record_audit_event`, in microseconds: one after another, at the pace of a busy turn, and at that
pace beside a thread that computes in Python. Then the CPU of a turn of 2,000 deltas with the record on and off.
Limits: 25 µs at the median and 1 ms at p99.9 (the first two); 5 % more CPU.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mentra_nb.event.types as e
from mentra_nb.content import TokenUsage
from mentra_nb.event.bus import AuditStore, NullAudit
from mentra_nb.providers import scripted
from mentra_nb.providers.scripted import ScriptedProvider
from mentra_nb.record.write.journal import Journal
from mentra_nb.runtime.runtime import Runtime

EVENTS = 20_000
PACE = 0.001
DELTAS, TURNS = 2000, 40


def payloads() -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a round with a tool call, without questions."""
    same: dict[str, Any] = {"agent_id": "agent-0199", "run_id": "run-0199"}
    call = same | {"tool_name": "shell", "tool_call_id": "call-0199"}
    asked = same | {"model": "m", "attempt": 1, "request_id": "request-0199", "provider": "openai"}
    usage = TokenUsage(input_tokens=4000, output_tokens=300)
    events: list[e.RuntimeEvent] = [
        e.ModelRequestStarted(**asked),
        e.ModelRequestFinished(**asked, success=True),
        e.ModelResponseFinished(**asked, success=True, stop_reason="tool_use", usage=usage),
        e.ToolExecutionStarted(**call, input={"command": "git status --short"}),
        e.ToolExecutionFinished(**call, is_error=False, output_preview="M  a.py\n" * 60, duration_ms=41),
    ]
    return [(event.kind, event.model_dump(mode="json")) for event in events]


def emit(folder: Path, pace: float, number: int) -> list[float]:
    """Return the times of `number` calls in microseconds, sorted."""
    journal, given, taken = Journal(folder), payloads(), []
    for n in range(number):
        kind, payload = given[n % len(given)]
        began = time.perf_counter_ns()
        journal.record_audit_event("agent-0199", kind, payload)
        taken.append((time.perf_counter_ns() - began) / 1000)
        if pace:
            time.sleep(pace)
    journal.close()
    assert journal.health().lost == 0
    return sorted(taken[1:])


def beside(work: Callable[[], Any]) -> Any:
    """Run `work` while another thread of the process computes, and return its result."""
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        return work()
    finally:
        stop.set()
        thread.join()


async def turns(audit: AuditStore, number: int) -> float:
    """Return the CPU time of a turn in milliseconds."""
    words = [f"word{n} " for n in range(DELTAS)]
    async with Runtime([ScriptedProvider([scripted.stream_text(words)] * number)], audit=audit) as runtime:
        model = (await runtime.list_models())[0]
        agent = await runtime.spawn("bench", model)
        began = time.process_time()
        for n in range(number):
            await agent.send(f"question {n}")
        return (time.process_time() - began) / number * 1000


def main() -> None:
    os.environ["MENTRA_HOME"] = home = tempfile.mkdtemp()
    for name, pace, number, run in (
        ("one after another", 0.0, EVENTS * 5, lambda work: work()),
        ("at a turn's pace", PACE, EVENTS, lambda work: work()),
        ("the same beside a busy thread", PACE, 2000, beside),
    ):
        taken = run(lambda pace=pace, number=number, name=name: emit(Path(home, name), pace, number))
        at = {share: taken[int(len(taken) * share)] for share in (0.5, 0.99, 0.999)}
        figures = "   ".join(f"p{share * 100:g} {value:8.1f}" for share, value in at.items())
        print(f"{name:30} {figures}   max {taken[-1]:9.1f} µs")
    on, off = [], []
    for n in range(6):  # alternating, so that other load on the machine affects both
        on.append(asyncio.run(turns(Journal(Path(home, f"turns-{n}")), TURNS)))
        off.append(asyncio.run(turns(NullAudit(), TURNS)))
    with_record, without = statistics.median(on), statistics.median(off)
    print(f"a turn of {DELTAS} deltas: {with_record:.2f} ms of CPU, {without:.2f} ms without a record,", end=" ")
    print(f"{(with_record / without - 1) * 100:+.1f} %")


if __name__ == "__main__":
    main()

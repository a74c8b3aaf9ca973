"""Two hundred subagents, fifty at a time, whose process is killed: no acknowledged message is lost or read twice.

The server that answers them kills the process, at one of 20 answers in the long form (`MENTRA_FAULT_KILLS`), and has
its own count of what it gave.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kits import killable_subagents
from kits.delegating_model import AT_ONCE, TOKENS, DelegatingModel
from kits.killable_subagents import TOTAL

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.fault,
    pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9"),
]

ANSWERS = 2 * TOTAL + TOTAL // AT_ONCE + 1
"""Of a turn that nothing interrupts."""
POINTS = [1 + round(n * (ANSWERS - 1) / 19) for n in range(20)]
SHORT = [POINTS[6], POINTS[15]]


class Killing(DelegatingModel):
    """Kills the process that asks at a certain answer: its id is the key of its requests."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 0

    def answering(self, head: str) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(int(head.partition("authorization: bearer ")[2].split()[0]), signal.SIGKILL)


class Process:
    """The program of `killable_subagents`."""

    def __init__(self, folder: Path, model: Killing, budget: str) -> None:
        self._command = [killable_subagents.__file__, str(folder), f"http://{model.address}", budget]

    async def __aenter__(self) -> Process:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = await asyncio.create_subprocess_exec(sys.executable, *self._command, env=environment, **pipes)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()

    async def do(self, what: str, name: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what} {name}\n".encode())
        await self._process.stdin.drain()
        answer: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return answer


async def killed_and_resumed(process: Process, model: Killing, at: int) -> dict[str, Any]:
    model.answers, model.left = 0, at
    assert await process.do("begin", str(at)) == {"status": -signal.SIGKILL}
    assert model.answers >= at
    return await process.do("resume", str(at))


def check_budget(left: dict[str, Any], model: Killing, at: int) -> None:
    """Each answer that was read is counted once, and each that was under way at the kill is covered.

    What such a request reserved stays so until a budget needs it; then it counts as spent in full.
    """
    under_way = model.answers * TOKENS - left["spent"]
    if left["reserved"]:
        assert left["spent"] % TOKENS == 0, at
        assert 0 <= under_way <= (AT_ONCE + 1) * TOKENS, at
    assert left["reserved"] >= under_way, at


async def test_no_acknowledged_message_is_lost_or_read_twice_and_each_task_has_one_result(tmp_path: Path) -> None:
    async with Killing() as model, Process(tmp_path, model, "9000k tokens") as process:
        for at in POINTS if os.environ.get("MENTRA_FAULT_KILLS") else SHORT:
            left = await killed_and_resumed(process, model, at)
            assert (left["ended"], left["resumed"], left["calls"], left["paired"]) == (None, 1, TOTAL, True), at
            got = Counter(left["read"]) + Counter(left["waiting"])
            assert Counter(left["acknowledged"]) - got == Counter(), f"lost after {at}"
            assert [text for text, times in got.items() if times > 1] == [], f"twice after {at}"
            assert left["waiting"] == [], at
            check_budget(left, model, at)


async def test_a_budget_holds_over_a_kill(tmp_path: Path) -> None:
    limit = 60_000
    async with Killing() as model, Process(tmp_path, model, f"{limit} tokens") as process:
        for at in (POINTS[3], POINTS[11]) if os.environ.get("MENTRA_FAULT_KILLS") else (POINTS[3],):
            left = await killed_and_resumed(process, model, at)
            assert "budget" in left["ended"], at
            check_budget(left, model, at)
            assert left["spent"] + left["reserved"] <= limit, at

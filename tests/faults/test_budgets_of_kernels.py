"""Three processes ask a server at once within one budget: the server's own count of what they owe never exceeds it.

The server breaks off, refuses and forgets to count at random, and now and then a process is killed in the midst.
`MENTRA_FAULT_BUDGETS` makes it that many runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from mentra_nb.budget.meter import key_now
from mentra_nb.store.open import open_store
from mentra_nb.store.records import BudgetCount

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.fault,
    pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9"),
]

RUNS = int(os.environ.get("MENTRA_FAULT_BUDGETS", "6"))
KERNELS = 3
KILL_EVERY = 5
OF_INPUT, OF_OUTPUT, OF_CACHE = 2_000, 8_000, 2_500
"""What a token costs, in billionths of a dollar."""
PRICES = "provider,model,input_mtok,output_mtok,cache_read_mtok,cache_write_mtok\nlab,m,2,8,1,2.5\n"

WORKER = """
import asyncio, json, sys
import mentra_nb as mn
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.store.open import open_store

@mn.tool(reads_only=True)
def look(question: str) -> str:
    "Look it up."
    return "It is " + "so " * 20

async def turn(runtime, job, number):
    session = await runtime.create_session(f"s{number}", mn.ModelInfo(id="m", provider="lab"), CONFIG, job["project"])
    session.permissions.can_ask = lambda: False
    limits = mn.RunOptions(budgets=job["budgets"], retry_base=0.001, retry_max=0.002, retry_after_cap=0.01)
    try:
        await session.append_turn("x" * job["length"], limits)
    except mn.errors.MentraError:
        pass
    return limits.ended_early == "budget"

async def work(job):
    provider, plain = ChatCompletionsProvider("lab", job["url"], api_key="key"), {"builtin_tools": False}
    async with mn.Runtime([provider], [look], store=open_store(job["store"]), audit=NullAudit(), **plain) as runtime:
        ended = []
        for round in range(job["rounds"]):
            ended += await asyncio.gather(*(turn(runtime, job, f"{round}-{n}") for n in range(job["beside"])))
    await provider.aclose()
    return sum(ended)

CONFIG = mn.AgentConfig(max_output_tokens=200)
async def main():
    for line in sys.stdin:
        print(json.dumps(await work(json.loads(line))), flush=True)

asyncio.run(main())
"""


class Charging:
    """A server of chat completions that keeps what each run owes it, whether or not its answers say so."""

    def __init__(self) -> None:
        self.owed: defaultdict[str, int] = defaultdict(int)
        self.chance = random.Random(20261129)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                run = head.split(" ")[1].split("/")[1]
                size = next(int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:"))
                if not await self.answer(run, json.loads(await reader.readexactly(size)), writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, run: str, request: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
        """Answer in one of many ways. Returns whether the connection stays."""
        text = "".join(str(message.get("content") or "") for message in request["messages"])
        prompt = len(text.encode()) // (1 + int(run.rpartition("-")[2]) % 4) + 16 * len(request["messages"]) + 300
        output = self.chance.randrange(request["max_tokens"] + 1)
        kind = self.chance.choices(
            ("whole", "uncounted", "cut", "reset", "refused", "busy", "late"), (70, 5, 8, 4, 4, 5, 4)
        )[0]
        if kind in ("refused", "busy", "late"):
            status = {"refused": 400, "busy": 503, "late": 504}[kind]
            self.owed[run] += prompt * OF_CACHE + output * OF_OUTPUT if kind == "late" else 0
            writer.write(f"HTTP/1.1 {status} No\r\ncontent-length: 2\r\n\r\n{{}}".encode())
            await writer.drain()
            return True
        cached = prompt // 2 if kind == "whole" else 0
        rate = OF_INPUT if kind == "whole" else OF_CACHE
        self.owed[run] += (prompt - cached) * rate + cached * 1_000 + output * OF_OUTPUT
        if kind == "reset":
            return False
        calls = self.chance.random() < 0.4
        function = {"name": "look", "arguments": '{"question": "what?"}'}
        call = {
            "tool_calls": [{"index": 0, "id": f"c{self.chance.random()}", "type": "function", "function": function}]
        }
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        frames = [
            {"choices": [{"index": 0, "delta": call if calls else {"content": "Words."}, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls" if calls else "stop"}]},
            *([{"choices": [], "usage": usage}] if kind == "whole" else []),
        ]
        if kind == "cut":
            del frames[1:]
        body = "".join(f"data: {json.dumps({'id': 'a', 'model': 'm', **frame})}\n\n" for frame in frames)
        ending = "" if kind == "cut" else "data: [DONE]\n\n"
        size = len(body) + len(ending) + (100 if kind == "cut" else 0)
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {size}\r\n\r\n"
        writer.write((head + body + ending).encode())
        await writer.drain()
        return kind != "cut"


class Kernel:
    """A process that takes turns as it is told."""

    def __init__(self, home: Path) -> None:
        self.environment = {**os.environ, "MENTRA_HOME": str(home)}

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WORKER),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.environment,
        )

    async def work(self, job: dict[str, Any], killed_after: float | None) -> int:
        """Do a job and return how many of its turns were ended by the budget; 0 if it was killed meanwhile."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job).encode() + b"\n")
        await self.process.stdin.drain()
        done = asyncio.ensure_future(self.process.stdout.readline())
        if killed_after is not None:
            await asyncio.wait([done], timeout=killed_after)
            self.process.kill()
            await self.process.wait()
            await self.start()
        return int(await done or 0)

    async def end(self) -> None:
        self.process.kill()
        await self.process.wait()


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
async def test_a_monthly_budget_over_three_processes_is_never_exceeded(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "record").mkdir(mode=0o700)
    (tmp_path / "record" / "prices.csv").write_text(PRICES)
    server, chance = Charging(), random.Random(7)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    postgres = request.getfixturevalue("postgres") if engine == "postgresql" else None
    kernels = [Kernel(tmp_path) for _ in range(KERNELS)]
    await asyncio.gather(*(kernel.start() for kernel in kernels))
    ended = full = 0
    try:
        for number in range(RUNS if engine == "sqlite" else max(RUNS // 10, 3)):
            limit = chance.randrange(2_000_000, 60_000_000)
            where = str(tmp_path / f"state-{number}.sqlite")
            if postgres is not None:
                postgres.empty_store().close()
                where = postgres.address("postgres")
            jobs = [
                {
                    "url": f"http://127.0.0.1:{port}/run-{number}",
                    "store": where,
                    "project": f"run-{number}",
                    "budgets": {"month": f"{limit / 1e9:.9f}usd"},
                    "length": chance.randrange(1, 2_000),
                    "rounds": chance.randrange(1, 4),
                    "beside": chance.randrange(1, 4),
                }
                for _ in kernels
            ]
            killed = chance.randrange(KERNELS) if number % KILL_EVERY == KILL_EVERY - 1 else None
            work = (
                kernel.work(job, chance.uniform(0, 0.1) if n == killed else None)
                for n, (kernel, job) in enumerate(zip(kernels, jobs, strict=True))
            )
            ended += sum(await asyncio.gather(*work))
            owed = server.owed[f"run-{number}"]
            count = await counted(where)
            assert owed <= count.spent + count.reserved <= limit, f"run {number}: {owed} of {limit}, counted {count}"
            full += owed > limit / 2
    finally:
        listening.close()
        await asyncio.gather(*(kernel.end() for kernel in kernels))
    assert ended > 0  # budgets were reached
    assert full > 0


async def counted(where: str) -> BudgetCount:
    """Return what the only budget of a run counts."""
    store = open_store(where)
    try:
        return await store.count_budget("month", key_now("month", {}, store.whose), "usd")
    finally:
        store.close()

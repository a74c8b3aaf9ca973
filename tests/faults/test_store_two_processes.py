"""Several processes work on the agents of one store, one of them killed again and again: nothing acknowledged is lost,
and no agent is ever held by two.

`MENTRA_FAULT_SECONDS` makes the run longer, `MENTRA_FAULT_AGENTS` gives each process more agents (default 10).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
from kits.postgres import start_server
from kits.programs import postgresql

from mentra_nb.store.open import open_store
from mentra_nb.store.protocols import RuntimeStore

SECONDS = float(os.environ.get("MENTRA_FAULT_SECONDS", "4"))
AGENTS = int(os.environ.get("MENTRA_FAULT_AGENTS", "10"))
WORKER = """
import asyncio, json, os, random, sys, time
from mentra_nb.content import Message
from mentra_nb.ids import new_id
from mentra_nb.store.records import AgentRecord, Entry, LeaseHolder, RunRecord, ToolCallEnd, ToolCallRecord
from mentra_nb.store.open import open_store

where, agents, until, log = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), os.open(sys.argv[4], os.O_WRONLY)
store, holder, chance, held = open_store(where), LeaseHolder.here(new_id("runtime")), random.Random(), {}
busy = set()

def note(what, **rest):
    os.write(log, (json.dumps({"what": what, "at": time.monotonic(), **rest}) + "\\n").encode())

def entry(agent, parent, run):
    id = new_id("entry")
    message = Message.user("x" * chance.randrange(300))
    return Entry(
        id=id, agent_id=agent, parent_id=parent, run_id=run, kind="user_turn", message=message, created_at=time.time()
    )

async def turn(agent):
    me = holder.runtime_id
    base = (await store.load_agent(agent)).leaf
    run = RunRecord(id=new_id("run"), agent_id=agent, base=base, started_at=time.time())
    for left_open in await store.open_runs(agent):  # its process died
        await store.finish_run(left_open.id, "failed", leaf=None, error="gone", holder=me)
    await store.start_run(run, holder=me)
    note("run", id=run.id, agent=agent)
    first = entry(agent, base, run.id)
    await store.append_entries([first], holder=me)
    note("entry", id=first.id, agent=agent)
    await store.save_partial(run.id, "half", holder=me)
    call = ToolCallRecord(
        run_id=run.id, call_id="c", agent_id=agent, tool="t", arguments={}, arguments_hash="h", effect="once",
        started_at=time.time(),
    )
    await store.begin_tool_call(call, holder=me)
    note("call", run=run.id, done=False)
    await store.finish_tool_call(run.id, ToolCallEnd("c", "result"))
    note("call", run=run.id, done=True)
    last = entry(agent, first.id, run.id)
    await store.finish_run(run.id, "finished", leaf=last.id, entries=[last], holder=me)
    note("finished", id=run.id, agent=agent, entries=[first.id, last.id])

async def work():
    while time.monotonic() < until:
        agent = chance.choice(await store.list_agents()).id
        key = f"agent:{agent}"
        if key in busy:
            continue
        busy.add(key)
        if await store.acquire_lease(key, holder, 60) is None:
            note("held", key=key)
            held[key] = object()
            await turn(agent)
            del held[key]
            note("left", key=key)
            await store.release_lease(key, holder)
        busy.discard(key)

async def renew():
    while time.monotonic() < until:
        before = dict(held)
        lost = await store.renew_leases(holder, list(before), 60)
        assert not [key for key in lost if held.get(key) is before[key]], "lost while held"
        await asyncio.sleep(0.1)

async def main():
    now = time.time()
    for number in range(agents):
        made = AgentRecord(
            id=new_id("agent"), runtime_identifier="d", name="n", model="m", provider_id="p", created_at=now,
            updated_at=now,
        )
        await store.create_agent(made)
        note("agent", id=made.id)
    async with asyncio.TaskGroup() as group:
        group.create_task(renew())
        for number in range(agents or 10):
            group.create_task(work())

asyncio.run(main())
store.close()
"""


class Worker:
    """A process that notes what it holds and what the store has acknowledged."""

    def __init__(self, where: str, folder: Path, number: int, agents: int, until: float) -> None:
        self.log, self.died = folder / f"worker-{number}.jsonl", float("inf")
        self.log.touch()
        self.errors = self.log.with_suffix(".err")
        arguments = [where, str(agents), str(until), str(self.log)]
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stderr=errors)

    def wait_until_working(self) -> None:
        end = time.monotonic() + 60
        while '"held"' not in self.log.read_text():
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() < end
            time.sleep(0.01)

    def kill(self) -> None:
        self.died = time.monotonic()  # a moment later, to be exact
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert not self.errors.read_text()

    def notes(self) -> list[dict[str, Any]]:
        whole = self.log.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def intervals(self) -> Iterable[tuple[str, float, float]]:
        """When it held what: from when it knew it had the lease until it gave it back, or died."""
        since: dict[str, float] = {}
        for note in self.notes():
            if note["what"] == "held":
                since[note["key"]] = note["at"]
            elif note["what"] == "left":
                yield note["key"], since.pop(note["key"]), note["at"]
        for key, at in since.items():
            yield key, at, self.died


def run_workers(where: str, folder: Path) -> list[Worker]:
    """Two that work all the time, and one that is killed and started anew."""
    until, chance = time.monotonic() + SECONDS + 2, random.Random(3)
    lasting = [Worker(where, folder, number, AGENTS, until) for number in (0, 1)]
    workers = list(lasting)
    try:
        for worker in lasting:
            worker.wait_until_working()
        while time.monotonic() < until - 1 or len(workers) < 4:
            victim = Worker(where, folder, len(workers), 0, time.monotonic() + 600)
            workers.append(victim)
            victim.wait_until_working()
            time.sleep(chance.random() * 0.3)
            victim.kill()
        for worker in lasting:
            assert (worker.process.wait(timeout=120), worker.errors.read_text()) == (0, "")
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.wait()
    return workers


def check_intervals(workers: list[Worker]) -> int:
    """No two overlap. Returns how many leases were taken over from a process that was killed."""
    by_key = defaultdict(list)
    for number, worker in enumerate(workers):
        for key, start, end in worker.intervals():
            by_key[key].append((start, end, number))
    takeovers = 0
    for key, intervals in by_key.items():
        intervals.sort()
        for (_, end, one), (start, _, other) in pairwise(intervals):
            assert end <= start, f"{key} was held by {one} until {end} and by {other} from {start}"
            takeovers += end == workers[one].died
    return takeovers


async def check_rows(store: RuntimeStore, notes: list[dict[str, Any]]) -> None:
    """What was acknowledged is there, and no finished run was lost from the path of its agent."""
    agents = {agent.id: agent for agent in await store.list_agents()}
    assert {note["id"] for note in notes if note["what"] == "agent"} <= agents.keys()
    runs = {run.id: run for agent in agents for run in await store.list_runs(agent)}
    assert {note["id"] for note in notes if note["what"] == "run"} <= runs.keys()
    path = {id: {entry.id for entry in await store.load_path(id, agent.leaf)} for id, agent in agents.items()}
    for note in notes:
        if note["what"] == "finished":
            assert runs[note["id"]].state == "finished"
            assert set(note["entries"]) <= path[note["agent"]]
        elif note["what"] == "entry":
            assert await store.load_entry(note["agent"], note["id"]) is not None
        elif note["what"] == "call":
            [call] = await store.list_tool_calls(note["run"])
            assert not note["done"] or call.result == "result"
    for agent in agents:
        assert len(await store.open_runs(agent)) <= 1


def check(where: str, folder: Path) -> None:
    workers = run_workers(where, folder)
    takeovers = check_intervals(workers)
    notes = [note for worker in workers for note in worker.notes()]
    store = open_store(where)
    anyio.run(check_rows, store, notes)
    store.close()
    turns = sum(note["what"] == "finished" for note in notes)
    print(f"{len(workers)} processes, {turns} turns, {takeovers} leases taken over, {len(notes)} acknowledged")
    assert turns > 20
    assert takeovers > 0


@pytest.mark.fault
@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
@pytest.mark.timeout(240 + 8 * SECONDS)
def test_two_processes_on_one_file_lose_nothing_and_never_hold_the_same_agent(tmp_path: Path) -> None:
    check(str(tmp_path / "state.sqlite"), tmp_path)


@pytest.mark.fault
@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
@pytest.mark.skipif(postgresql() is None, reason="PostgreSQL is not installed (apt-get install postgresql)")
@pytest.mark.timeout(240 + 8 * SECONDS)
def test_two_processes_on_one_server_lose_nothing_and_never_hold_the_same_agent(tmp_path: Path) -> None:
    with start_server() as server:
        check(server.new_database(), tmp_path)

"""Measure the state store: `python tests/benchmarks/bench_store.py [postgresql://…]`.

Microseconds of CPU (all threads) and of the clock per call, one call after the other; bytes of the file per turn;
bytes of an unused store. Run it on an idle machine.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from itertools import count, pairwise
from pathlib import Path

from mentra_nb.content import Message
from mentra_nb.store.open import open_store
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.store.records import (
    AgentRecord,
    Entry,
    LeaseHolder,
    MemoryQuery,
    MemoryRecord,
    RunRecord,
    SessionRecord,
    ToolCallEnd,
    ToolCallRecord,
)
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.volatile import VolatileStore

CALLS = 1000
TURNS = 500
TEXT = "a sentence of some length. " * 20
HOLDER = LeaseHolder.here("runtime-bench")
numbers = count()


def entry(parent: str | None, run: str) -> Entry:
    return Entry(
        id=f"entry-{next(numbers):032d}",
        agent_id="a",
        parent_id=parent,
        run_id=run,
        kind="user_turn",
        message=Message.user(TEXT),
        created_at=time.time(),
    )


def call(run: str, id: str) -> ToolCallRecord:
    return ToolCallRecord(
        run_id=run,
        call_id=id,
        agent_id="a",
        tool="shell",
        arguments={"command": "ls -l"},
        arguments_hash="0" * 64,
        effect="once",
        started_at=time.time(),
    )


async def measure(name: str, times: int, work: Callable[[int], Awaitable[object]]) -> None:
    await work(-1)
    cpu, clock = time.process_time(), time.perf_counter()
    for number in range(times):
        await work(number)
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    print(f"  {name:<34} {cpu / times * 1e6:8.0f} µs of CPU {clock / times * 1e6:8.0f} µs of the clock")


async def turn(store: RuntimeStore, leaf: str | None) -> str:
    run, me = f"run-{next(numbers)}", HOLDER.runtime_id
    first = entry(leaf, run)
    await store.start_run(RunRecord(id=run, agent_id="a", base=leaf, started_at=time.time()), holder=me)
    second, third = entry(first.id, run), None
    await store.append_entries([first], holder=me)
    await store.append_entries([second], holder=me)
    await store.begin_tool_call(call(run, "c"), holder=me)
    await store.finish_tool_call(run, ToolCallEnd("c", TEXT))
    third = entry(second.id, run)
    await store.append_entries([third], holder=me)
    last = entry(third.id, run)
    await store.finish_run(run, "finished", leaf=last.id, entries=[last], holder=me)
    return last.id


async def bench(store: RuntimeStore) -> None:
    print(repr(store))
    now, me = time.time(), HOLDER.runtime_id
    await store.create_agent(
        AgentRecord(
            id="a", runtime_identifier="b", name="n", model="m", provider_id="p", created_at=now, updated_at=now
        )
    )
    await store.save_session(SessionRecord(id="s", name="n", agent_id="a", model="m", created_at=now, updated_at=now))
    await store.acquire_lease("agent:a", HOLDER, 600)
    await store.start_run(RunRecord(id="run", agent_id="a", started_at=now), holder=me)
    await measure(
        "append_entries, one of 540 bytes", CALLS, lambda n: store.append_entries([entry(None, "run")], holder=me)
    )
    await measure("begin_tool_call", CALLS, lambda n: store.begin_tool_call(call("run", f"c{n}"), holder=me))
    await measure("finish_tool_call", CALLS, lambda n: store.finish_tool_call("run", ToolCallEnd(f"c{n}", TEXT)))
    await measure("save_partial", CALLS, lambda n: store.save_partial("run", f"{n} {TEXT}", holder=me))
    await measure("renew_leases", CALLS, lambda n: store.renew_leases(HOLDER, ["agent:a"], 600))
    await measure("list_rules", CALLS, lambda n: store.list_rules("s", "p"))
    leaf: str | None = None
    for number in range(TURNS):
        leaf = await turn(store, leaf)
        if number in (9, TURNS - 1):
            await measure(
                f"load_path of {4 * (number + 1)} entries", 20, lambda n, leaf=leaf: store.load_path("a", leaf)
            )
            await measure(
                f"load_conversation of {4 * (number + 1)} entries", CALLS // 5, lambda n: store.load_conversation("s")
            )
    await measure(
        "save_memories, one",
        CALLS,
        lambda n: store.save_memories(
            [MemoryRecord(record_id=f"m{n}", agent_id="a", kind="episode", content=f"{TEXT} w{n % 97}", created_at=now)]
        ),
    )
    await measure(
        "search_memories among 1000",
        50,
        lambda n: store.search_memories(MemoryQuery(("a",), f"sentence w{n} length", 3)),
    )


async def growth(path: Path) -> None:
    store, sizes = SqliteStore(path), []
    now = time.time()
    await store.create_agent(
        AgentRecord(
            id="a", runtime_identifier="b", name="n", model="m", provider_id="p", created_at=now, updated_at=now
        )
    )
    await store.acquire_lease("agent:a", HOLDER, 600)
    leaf: str | None = None
    for number in range(TURNS + 1):
        if number % (TURNS // 5) == 0:
            store.close()  # the log goes into the file
            sizes.append(path.stat().st_size)
        leaf = await turn(store, leaf)
    store.close()
    per_turn = [(b - a) / (TURNS // 5) for a, b in pairwise(sizes)]
    print(f"bytes of the file per turn, in fifths of {TURNS} turns: {', '.join(f'{size:.0f}' for size in per_turn)}")
    print(f"  (of which {4 * len(TEXT) + len(TEXT)} are the texts of its four messages and one result)")


def idle() -> None:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    stores = [SqliteStore("nowhere/state.sqlite") for _ in range(1000)]
    print(f"bytes of an unused store: {(tracemalloc.get_traced_memory()[0] - before) / len(stores):.0f}")
    tracemalloc.stop()


def main() -> None:
    idle()
    with tempfile.TemporaryDirectory() as folder:
        stores: list[RuntimeStore] = [SqliteStore(Path(folder) / "state.sqlite"), VolatileStore()]
        stores += [open_store(address) for address in sys.argv[1:]]
        for store in stores:
            asyncio.run(bench(store))
            store.close()
        asyncio.run(growth(Path(folder) / "growth.sqlite"))


if __name__ == "__main__":
    main()

"""Leases: one runtime at a time holds an agent, and only the holder writes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import psutil
import pytest
from kits.stores import agent, entry, gone_pid, holder, run, tool_call

from mentra_nb.errors import LeaseUnavailable
from mentra_nb.store.sql_store import SqlStore
from mentra_nb.store.tables.leases import is_running

pytestmark = pytest.mark.anyio
KEY = "agent:agent-1"
MINUTE = 60.0
EXPIRED = -1.0


@pytest.fixture
def neighbour() -> Iterator[subprocess.Popen[bytes]]:
    """Another process, alive until its input is closed."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    yield process
    process.communicate()


async def test_a_lease_has_one_holder_until_it_is_released(store: SqlStore) -> None:
    one, two = holder("one"), holder("two")
    assert await store.acquire_lease(KEY, one, MINUTE) is None
    in_the_way = await store.acquire_lease(KEY, two, MINUTE)
    assert in_the_way is not None
    assert (in_the_way.key, in_the_way.holder) == (KEY, one)
    assert in_the_way.expires_at - in_the_way.acquired_at == MINUTE
    await store.release_lease(KEY, two)
    assert await store.list_leases() == [in_the_way]
    await store.release_lease(KEY, one)
    assert await store.acquire_lease(KEY, two, MINUTE) is None
    assert [lease.holder for lease in await store.list_leases()] == [two]


async def test_a_holder_renews_its_lease_by_acquiring_it_again(store: SqlStore) -> None:
    one = holder("one")
    await store.acquire_lease(KEY, one, MINUTE)
    [first] = await store.list_leases()
    assert await store.acquire_lease(KEY, one, 2 * MINUTE) is None
    [again] = await store.list_leases()
    assert again.acquired_at == first.acquired_at
    assert again.expires_at > first.expires_at


async def test_an_expired_lease_is_taken_over(store: SqlStore) -> None:
    await store.acquire_lease(KEY, holder("one", host="elsewhere"), EXPIRED)
    assert await store.acquire_lease(KEY, holder("two"), MINUTE) is None
    assert [lease.holder.runtime_id for lease in await store.list_leases()] == ["two"]


async def test_stale_runtime_owner_can_be_reclaimed(store: SqlStore) -> None:
    await store.acquire_lease(KEY, holder("dead", pid=gone_pid()), MINUTE)
    await store.acquire_lease("agent:other", holder("dead", pid=gone_pid()), MINUTE)
    assert await store.acquire_lease(KEY, holder("two"), MINUTE) is None
    assert [lease.holder.runtime_id for lease in await store.list_leases()] == ["two"]


async def test_a_reused_pid_does_not_keep_a_lease(store: SqlStore) -> None:
    await store.acquire_lease(KEY, holder("dead", process_started=psutil.Process().create_time() - 60), MINUTE)
    assert await store.acquire_lease(KEY, holder("two"), MINUTE) is None


async def test_a_lease_of_a_running_process_is_not_taken(store: SqlStore, neighbour: subprocess.Popen[bytes]) -> None:
    other = holder("other", pid=neighbour.pid)
    await store.acquire_lease(KEY, other, MINUTE)
    in_the_way = await store.acquire_lease(KEY, holder("two"), MINUTE)
    assert in_the_way is not None
    assert in_the_way.holder == other


async def test_a_lease_from_another_host_ends_only_by_expiry(store: SqlStore) -> None:
    far = holder("far", host="elsewhere", pid=gone_pid())
    await store.acquire_lease(KEY, far, MINUTE)
    in_the_way = await store.acquire_lease(KEY, holder("two"), MINUTE)
    assert in_the_way is not None
    assert in_the_way.holder == far


async def test_leases_are_renewed_together_and_the_lost_ones_returned(store: SqlStore) -> None:
    one, two = holder("one"), holder("two")
    for key in ("agent:a", "agent:b"):
        await store.acquire_lease(key, one, EXPIRED)
    await store.acquire_lease("agent:c", two, MINUTE)
    for key in ("agent:a", "agent:b"):
        await store.acquire_lease(key, one, EXPIRED)
    assert await store.renew_leases(one, ["agent:a", "agent:b", "agent:c", "agent:d"], MINUTE) == ["agent:c", "agent:d"]
    in_the_way = await store.acquire_lease("agent:a", two, MINUTE)
    assert in_the_way is not None
    assert await store.renew_leases(one, [], MINUTE) == []


async def test_one_of_many_concurrent_requests_gets_the_lease(store: SqlStore) -> None:
    answers: dict[str, Any] = {}

    async def ask(name: str) -> None:
        answers[name] = await store.acquire_lease(KEY, holder(name), MINUTE)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(ask, f"runtime-{number}")
    [winner] = [name for name, answer in answers.items() if answer is None]
    assert {answer.holder.runtime_id for answer in answers.values() if answer is not None} == {winner}


def test_a_process_is_distinguished_from_a_later_one_with_its_pid(neighbour: subprocess.Popen[bytes]) -> None:
    started = psutil.Process(neighbour.pid).create_time()
    assert is_running(neighbour.pid, started)
    assert is_running(neighbour.pid, started + 1000)  # `started` was taken long after the process started
    assert not is_running(neighbour.pid, started - 1000)
    assert not is_running(gone_pid(), started)
    assert is_running(os.getpid(), holder().process_started)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX: a dead child not yet waited for")
def test_a_zombie_process_does_not_count_as_running() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended and is still in the process table
    assert psutil.pid_exists(process.pid)
    assert not is_running(process.pid, psutil.Process(process.pid).create_time())
    process.wait()


Write = Callable[[SqlStore, str | None], Awaitable[None]]
FENCED: dict[str, Write] = {
    "start_run": lambda store, by: store.start_run(run("run-2"), holder=by),
    "append_entries": lambda store, by: store.append_entries([entry("b", "a")], holder=by),
    "save_partial": lambda store, by: store.save_partial("run-1", "half", holder=by),
    "begin_tool_call": lambda store, by: store.begin_tool_call(tool_call(), holder=by),
    "keep_result": lambda store, by: store.keep_result("agent-1", "run-1", "call-1", "whole", holder=by),
    "finish_run": lambda store, by: store.finish_run(
        "run-1", "finished", leaf="a", entries=[entry("c", "a")], holder=by
    ),
    "set_leaf": lambda store, by: store.set_leaf("agent-1", "a", holder=by),
}


async def everything(store: SqlStore) -> list[Any]:
    return [
        await store.load_agent("agent-1"),
        await store.list_runs("agent-1"),
        await store.children("agent-1", "a"),
        await store.list_tool_calls("run-1"),
        await store.load_result("agent-1", "call-1"),
    ]


@pytest.fixture
async def prepared(store: SqlStore) -> SqlStore:
    await store.create_agent(agent())
    await store.start_run(run())
    await store.append_entries([entry("a", None)])
    return store


@pytest.mark.parametrize("name", FENCED)
async def test_the_holder_of_the_lease_may_write(prepared: SqlStore, name: str) -> None:
    await prepared.acquire_lease(KEY, holder("one"), MINUTE)
    before = await everything(prepared)
    await FENCED[name](prepared, "one")
    assert await everything(prepared) != before


@pytest.mark.parametrize("name", FENCED)
async def test_a_runtime_that_lost_the_lease_writes_nothing(prepared: SqlStore, name: str) -> None:
    before = await everything(prepared)
    with pytest.raises(LeaseUnavailable, match="was lost"):
        await FENCED[name](prepared, "one")
    await prepared.acquire_lease(KEY, holder("two"), MINUTE)
    with pytest.raises(LeaseUnavailable, match=f"taken over by process {os.getpid()} on "):
        await FENCED[name](prepared, "one")
    assert await everything(prepared) == before
    await FENCED[name](prepared, None)
    assert await everything(prepared) != before


async def test_an_expired_lease_counts_until_another_takes_it(prepared: SqlStore) -> None:
    await prepared.acquire_lease(KEY, holder("one"), EXPIRED)
    await prepared.append_entries([entry("b", "a")], holder="one")
    assert len(await prepared.children("agent-1", "a")) == 1

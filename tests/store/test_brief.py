"""Brief transactions, on the thread of their event loop; and what of the store reaches the disk at once."""

from __future__ import annotations

import itertools
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from kits.stores import agent, entry, run, tool_call

from mentra_nb.content import Message
from mentra_nb.errors import StoreError
from mentra_nb.store import sqlite
from mentra_nb.store.sqlite import CHECKPOINT_EVERY, SqliteStore
from mentra_nb.store.transactions import SHORT

pytestmark = pytest.mark.anyio
HERE, THERE = "MainThread", "mentra-store"


class Watched(SqliteStore):
    """Keeps on which thread each transaction was run."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.threads: list[str] = []

    def _attempt(self, work: Callable[[Any], Any], mode: Any) -> Any:
        self.threads.append(threading.current_thread().name)
        return super()._attempt(work, mode)


@pytest.fixture
async def store(tmp_path: Path) -> Watched:
    store = Watched(tmp_path / "state.sqlite")
    await store.create_agent(agent())
    await store.start_run(run())
    store.threads.clear()
    return store


async def test_a_turn_is_stored_on_the_thread_of_its_loop(store: Watched) -> None:
    await store.append_entries([entry("a", None)])
    await store.save_partial("run-1", "so far")
    await store.begin_tool_call(tool_call())
    await store.list_rules("session")
    await store.finish_run("run-1", "finished", leaf="a")
    assert store.threads == [HERE] * 5
    store.close()


async def test_a_new_agent_is_stored_there_too(store: Watched) -> None:
    await store.create_agent(agent("agent-2"))
    await store.create_agent(agent("agent-3", config={"system": "x" * SHORT}))
    assert store.threads == [HERE, THERE]
    store.close()


async def test_long_texts_and_whole_conversations_are_not(store: Watched) -> None:
    await store.append_entries([entry("a", None, Message.user("x" * SHORT))])
    await store.load_path("agent-1", "a")
    assert store.threads == [THERE] * 2
    store.close()


async def test_the_order_holds_while_another_transaction_is_under_way(store: Watched) -> None:
    go_on, began = threading.Event(), threading.Event()
    store._worker.put(lambda: (began.set(), go_on.wait(10)))
    assert began.wait(10)
    async with anyio.create_task_group() as group:
        group.start_soon(store.append_entries, [entry("a", None)])
        await anyio.lowlevel.checkpoint()
        assert store.threads == []
        go_on.set()
    await store.append_entries([entry("b", "a")])
    assert store.threads == [THERE, HERE]
    store.close()


async def test_a_lock_of_another_process_is_waited_for_on_the_other_thread(store: Watched) -> None:
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with anyio.create_task_group() as group:
        group.start_soon(store.append_entries, [entry("a", None)])
        await anyio.lowlevel.checkpoint()
        other.execute("COMMIT")
    assert [entry.id for entry in await store.load_path("agent-1", "a")] == ["a"]
    assert store.threads[0] == HERE
    assert set(store.threads[1:]) == {THERE}
    other.close()
    store.close()


async def test_others_go_on_and_a_stop_takes_effect_between_brief_transactions(store: Watched) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await store.append_entries([entry("a", None)])
        raise AssertionError("it goes on after the stop")
    assert len(await store.load_path("agent-1", "a")) == 1
    store.close()


async def test_the_log_is_copied_into_the_database_on_the_other_thread_and_stays_small(store: Watched) -> None:
    log, sizes = Path(f"{store.path}-wal"), []
    for number in range(4 * CHECKPOINT_EVERY):
        await store.append_entries([entry(str(number), None, Message.user("x" * 4000))])
        sizes.append(log.stat().st_size)
    elsewhere = [at for at, name in enumerate(store.threads) if name == THERE]
    assert [after - before for before, after in itertools.pairwise(elsewhere)] == [CHECKPOINT_EVERY] * 3
    assert sizes[-1] < 1.5 * sizes[CHECKPOINT_EVERY]
    store.close()


async def test_those_that_must_reach_the_disk_at_the_same_time_share_a_sync(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    many, go_on = 20, threading.Event()

    def sync(fd: int) -> None:
        go_on.wait(10)
        synced.append(os.fstat(fd).st_ino)

    monkeypatch.setattr(sqlite, "_sync", sync)
    async with anyio.create_task_group() as group:
        for number in range(many):
            group.start_soon(store.begin_tool_call, tool_call(str(number)))
        while store._asked < many:
            await anyio.lowlevel.checkpoint()
        go_on.set()
    assert synced[0] == Path(f"{store.path}-wal").stat().st_ino
    assert 1 <= len(synced) <= 2  # the first may have begun before the others were stored
    assert store.threads == [HERE] * many
    await store.begin_tool_call(tool_call("after"))
    assert len(synced) <= 3
    store.close()


async def test_what_could_not_be_synced_is_an_error_and_is_synced_again(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(sqlite, "_sync", fail)
    with pytest.raises(StoreError, match=r"state\.sqlite could not be synced: Input/output error"):
        await store.begin_tool_call(tool_call())
    with pytest.raises(StoreError, match="could not be synced"):
        await store.begin_tool_call(tool_call("again"))
    store.close()

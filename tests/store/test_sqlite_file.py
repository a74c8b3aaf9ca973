"""The state store in its file: what is on disk, locks, and files of other versions."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest
from kits.stores import agent, entry, holder, question

from mentra_nb import paths
from mentra_nb.authorization import PermissionDecision
from mentra_nb.content import Message
from mentra_nb.errors import StoreError
from mentra_nb.store import transactions
from mentra_nb.store.migrations import STEPS
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.transactions import LOCK_TIMEOUT, Transaction
from mentra_nb.store.volatile import VolatileStore

pytestmark = pytest.mark.anyio
FIRST_STEP = "f04b2139a05abbd70c4a813a6a25ed4952521b21baa7ae6340587cf200f0d074"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "state.sqlite"


async def test_no_file_before_the_first_call(path: Path) -> None:
    store = SqliteStore(path)
    assert not path.parent.exists()
    await store.list_agents()
    assert path.exists()
    store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
async def test_only_the_user_may_read_it(path: Path) -> None:
    store = SqliteStore(path)
    await store.create_agent(agent())
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    store.close()


async def test_reading_does_not_wait_for_a_writer(path: Path) -> None:
    store = SqliteStore(path)
    await store.create_agent(agent())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE agents SET name = 'uncommitted'")
    with anyio.fail_after(LOCK_TIMEOUT / 2):
        assert await store.load_agent("agent-1") == agent()
        assert await store.list_leases() == []
    other.close()
    store.close()


async def test_two_reads_of_one_piece_of_work_see_the_same_snapshot(path: Path) -> None:
    store = SqliteStore(path)
    await store.create_agent(agent())
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    def work(db: Transaction) -> tuple[str, str]:
        before = db.execute("SELECT name FROM agents").fetchone()["name"]
        other.execute("UPDATE agents SET name = 'changed'")
        return before, db.execute("SELECT name FROM agents").fetchone()["name"]

    assert await store.read(work) == ("n", "n")
    other.close()
    store.close()


async def test_it_opens_again_after_closing(path: Path) -> None:
    store = SqliteStore(path)
    await store.create_agent(agent())
    store.close()
    assert len(await store.list_agents()) == 1
    store.close()


async def test_a_volatile_store_is_empty_after_closing() -> None:
    store = VolatileStore()
    await store.create_agent(agent())
    store.close()
    assert await store.list_agents() == []
    store.close()


async def test_volatile_run_leaves_no_durable_trace_on_disk() -> None:
    store = VolatileStore()
    await store.create_agent(agent())
    assert not Path(str(store.path)).exists()
    store.close()


async def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    store = SqliteStore(path)
    await store.create_agent(agent())
    store.close()
    with sqlite3.connect(path) as newer:
        newer.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    newer.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"written by a newer mentra-nb .*MENTRA_HOME"):
        await store.list_agents()
    store.close()
    assert path.read_bytes() == before


async def test_a_file_that_is_not_a_database_is_an_error_that_names_it(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("this is not a database, and it is long enough to be looked at" * 20)
    store = SqliteStore(path)
    with pytest.raises(StoreError, match=f"{path} .*; move that file away"):
        await store.list_agents()
    store.close()


async def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = SqliteStore(tmp_path / "file" / "state.sqlite")
    with pytest.raises(StoreError, match="cannot be opened"):
        await store.list_agents()
    store.close()


@pytest.mark.skipif(sys.platform != "linux", reason="what is mounted is read from /proc")
async def test_a_network_file_system_is_refused_before_anything_is_made(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mounts").write_text(f"server:/export {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(paths, "MOUNTS", tmp_path / "mounts")
    store = SqliteStore(path)
    with pytest.raises(StoreError, match=r"network file system \(nfs4\).*MENTRA_HOME"):
        await store.list_agents()
    assert not path.parent.exists()
    store.close()


async def test_a_full_disk_is_an_error_and_nothing_is_half_written(path: Path) -> None:
    store = SqliteStore(path)
    await store.create_agent(agent())
    await store.append_entries([entry("a", None)])
    [size] = await store.read(lambda db: db.execute("PRAGMA page_count").fetchone())
    await store.read(lambda db: db.execute(f"PRAGMA max_page_count = {size + 20}"))
    big = Message.user("x" * 200_000)
    with pytest.raises(StoreError, match="disk is full; free some disk space, or set MENTRA_HOME"):
        await store.append_entries([entry("b", "a"), entry("c", "b", big)])
    assert await store.load_entry("agent-1", "b") is None
    await store.append_entries([entry("b", "a")])
    await store.read(lambda db: db.execute("PRAGMA max_page_count = 1000000"))
    await store.append_entries([entry("c", "b", big)])
    assert [e.id for e in await store.load_path("agent-1", "c")] == ["a", "b", "c"]
    store.close()


async def test_a_store_that_is_locked_by_another_process_is_waited_for(path: Path) -> None:
    store = SqliteStore(path)
    await store.list_agents()
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    async with anyio.create_task_group() as group:
        group.start_soon(store.create_agent, agent())
        await anyio.lowlevel.checkpoint()
        other.execute("COMMIT")
    assert len(await store.list_agents()) == 1
    other.close()
    store.close()


async def test_a_store_that_stays_locked_says_what_to_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "LOCK_TIMEOUT", 0.05)
    store = SqliteStore(path)
    await store.list_agents()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="database is locked; another program keeps it locked"):
        await store.create_agent(agent())
    other.execute("COMMIT")
    other.close()
    store.close()


@pytest.mark.parametrize(
    ("code", "advice"),
    [(sqlite3.SQLITE_IOERR_FSYNC, "check the disk"), (sqlite3.SQLITE_READONLY, "you can write to")],
)
async def test_an_error_of_the_disk_says_what_to_do(path: Path, code: int, advice: str) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code

    def fail(_db: Transaction) -> None:
        raise error

    store = SqliteStore(path)
    with pytest.raises(StoreError, match=f"failed: disk I/O error; .*{advice}"):
        await store.write(fail)
    store.close()


async def test_two_stores_on_one_file_see_each_other(path: Path) -> None:
    one, two = SqliteStore(path), SqliteStore(path)
    await one.create_agent(agent())
    await two.append_entries([entry("a", None)])
    await one.append_entries([entry("b", "a")])
    assert [e.id for e in await two.load_path("agent-1", "b")] == ["a", "b"]
    one.close()
    two.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_another_connection(path: Path) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import anyio
from kits.stores import agent
from mentra_nb.store.sqlite import SqliteStore
store = SqliteStore({str(path)!r})
anyio.run(store.create_agent, agent())
child = os.fork()
if child == 0:
    anyio.run(store.create_agent, agent("of-the-child", 2.0))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(*(found.id for found in anyio.run(store.list_agents)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.split(), done.stderr) == (["agent-1", "of-the-child"], "")


@pytest.mark.slow
def test_many_stores_open_a_new_file_at_once(tmp_path: Path) -> None:
    """While SQLite changes a file to WAL it refuses other connections without waiting."""
    refused: list[Exception] = []

    def first_call(path: Path, start: threading.Barrier) -> None:
        store = SqliteStore(path)
        start.wait()
        try:
            anyio.run(store.list_agents)
        except StoreError as error:
            refused.append(error)
        store.close()

    for number in range(30):
        start = threading.Barrier(6)
        threads = [
            threading.Thread(target=first_call, args=(tmp_path / f"{number}.sqlite", start))
            for _ in range(start.parties)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert refused == []


# ---- files of other versions ----------------------------------------------------------------------------------


def first_version(path: Path) -> None:
    """A file as the first version wrote it."""
    assert hashlib.sha256(STEPS[0].encode()).hexdigest() == FIRST_STEP, "a step that has landed is never edited"
    path.parent.mkdir()
    asked = question("q1", deadline=time.time() + 60)
    with sqlite3.connect(path) as old:
        old.executescript(STEPS[0])
        old.execute("PRAGMA user_version = 1")
        old.execute("INSERT INTO agents VALUES ('agent-1', 'default', 'n', 'm', 'p', '{}', 'Idle', 'a', 1.0, 1.0)")
        old.execute("INSERT INTO sessions VALUES ('s1', 'talk', 'agent-1', 'm', NULL, NULL, 1.0, 1.0)")
        old.execute("INSERT INTO sessions VALUES ('s2', 'mentra', 'agent-1', 'm', NULL, NULL, 1.0, 1.0)")
        old.execute("INSERT INTO runs VALUES ('run-1', 'agent-1', 'running', NULL, NULL, NULL, 'half', 'c', 1.0, NULL)")
        message = Message.user("hello").model_dump_json()
        old.execute("INSERT INTO entries VALUES ('a', 'agent-1', NULL, 'run-1', 'user_turn', ?, 1.0)", (message,))
        old.execute(
            "INSERT INTO tool_calls(run_id, call_id, agent_id, tool, arguments, arguments_hash, effect, started_at) "
            "VALUES ('run-1', 'call-1', 'agent-1', 't', '{}', 'h', 'once', 1.0)"
        )
        old.execute("INSERT INTO rules VALUES ('r1', 'session', 's1', 't', '*', 1, NULL, 1.0, 3)")
        old.execute("INSERT INTO questions VALUES ('q1', 's1', ?, NULL, NULL, 1.0, NULL)", (asked.model_dump_json(),))
    old.close()


async def test_a_file_of_the_first_version_is_migrated_with_its_rows(path: Path) -> None:
    first_version(path)
    store = SqliteStore(path)
    [found], talk = await store.list_agents(), await store.load_session("talk")
    assert (found.kind, found.parent_id, found.leaf, talk is not None) == ("agent", None, "a", True)
    assert [(each.id, each.given_name) for each in await store.list_sessions()] == [("s1", "talk"), ("s2", None)]
    assert [e.message.text() for e in await store.load_path("agent-1", "a")] == ["hello"]
    [old_run], [call], [kept] = (
        await store.open_runs("agent-1"),
        await store.list_tool_calls("run-1"),
        await store.list_rules("s1"),
    )
    assert await store.latest_run("agent-1") == old_run
    assert (old_run.partial, old_run.resumes, call.resolution, call.ends_turn) == ("half", None, None, False)
    assert kept.times_used == 3
    assert await store.close_question("q1", PermissionDecision(allow=True), in_time=True) is True
    answer = await store.answered_question("run-1", "c", "h")
    assert answer is not None
    assert await store.acquire_lease("agent:agent-1", holder("one"), 60) is None
    store.close()
    with sqlite3.connect(path) as new:
        assert new.execute("PRAGMA user_version").fetchone()[0] == len(STEPS)
        assert new.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert new.execute("PRAGMA foreign_key_check").fetchall() == []
    new.close()


async def test_one_of_two_stores_that_open_an_old_file_at_once_migrates_it(path: Path) -> None:
    first_version(path)
    stores = [SqliteStore(path) for _ in range(4)]
    async with anyio.create_task_group() as group:
        for store in stores:
            group.start_soon(store.list_agents)
    for store in stores:
        assert len(await store.list_agents()) == 1
        store.close()


async def test_a_step_that_fails_leaves_the_old_file_as_it_was(path: Path) -> None:
    first_version(path)
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE leases(mine TEXT)")
    old.close()
    store = SqliteStore(path)
    with pytest.raises(StoreError, match="leases already exists"):
        await store.list_agents()
    store.close()
    with sqlite3.connect(path) as old:
        assert old.execute("PRAGMA user_version").fetchone()[0] == 1
        assert "kind" not in {row[1] for row in old.execute("PRAGMA table_info(agents)")}
    old.close()


def test_a_write_whose_event_loop_has_closed_commits(path: Path) -> None:
    store, go_on = SqliteStore(path), threading.Event()
    anyio.run(store.create_agent, agent())
    store._worker.put(lambda: go_on.wait(10))

    async def leave() -> None:
        with anyio.move_on_after(0):
            await store.append_entries([entry("a", None)])

    anyio.run(leave)
    go_on.set()
    assert len(anyio.run(store.load_path, "agent-1", "a")) == 1
    store.close()

"""The state store in PostgreSQL: conflicts, lost connections, migrations, and the choice of a store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import psycopg
import pytest
from kits.postgres import Server
from kits.stores import agent, holder

from mentra_nb.errors import ConfigurationError, StoreError
from mentra_nb.store.migrations import STEPS
from mentra_nb.store.open import open_store
from mentra_nb.store.postgres import PostgresStore
from mentra_nb.store.records import TaskItem
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.transactions import Transaction

pytestmark = pytest.mark.anyio
ADDRESS = "postgresql://ada:s3cret@127.0.0.1:1/mentra"


def test_the_store_is_chosen_by_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_store(tmp_path / "state.sqlite"), SqliteStore)
    assert isinstance(open_store(ADDRESS), PostgresStore)
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path))
    monkeypatch.delenv("MENTRA_STATE", raising=False)
    assert repr(open_store()) == f"SqliteStore('{tmp_path / 'state.sqlite'}')"
    monkeypatch.setenv("MENTRA_STATE", ADDRESS)
    assert repr(open_store()) == "PostgresStore('127.0.0.1/mentra')"
    with pytest.raises(ConfigurationError, match=r"open_store\(\)"):
        SqliteStore()


def test_an_address_without_the_extra_is_an_error_that_names_it() -> None:
    program = f"""
import sys
sys.modules["psycopg"] = None
from mentra_nb.store.open import open_store
open_store({ADDRESS!r})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert "pip install 'mentra-nb[lake]'" in done.stderr.splitlines()[-1]
    assert "s3cret" not in done.stderr.splitlines()[-1]


async def test_messages_do_not_contain_the_password() -> None:
    store = PostgresStore(ADDRESS)
    with pytest.raises(StoreError, match=r"the state store 127\.0\.0\.1/mentra failed: ") as caught:
        await store.list_agents()
    store.close()
    with pytest.raises(ConfigurationError, match="not a PostgreSQL address") as wrong:
        PostgresStore("postgresql://ada:s3cret@host:port/%zz")
    assert wrong.value.__cause__ is None
    assert "s3cret" not in f"{caught.value} {store!r} {wrong.value}"


async def test_its_tables_are_in_the_schema_mentra(postgres: Server) -> None:
    address = postgres.new_database()
    store = PostgresStore(address)
    await store.create_agent(agent())
    store.close()
    with psycopg.connect(address) as connection:
        found = connection.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'agents'").fetchall()
        assert found == [("mentra",)]


async def test_one_of_several_stores_that_open_an_empty_database_at_once_makes_the_tables(postgres: Server) -> None:
    address = postgres.new_database()
    stores = [PostgresStore(address) for _ in range(4)]
    async with anyio.create_task_group() as group:
        for store in stores:
            group.start_soon(store.list_agents)
    for store in stores:
        assert await store.list_agents() == []
        store.close()


async def test_a_database_of_a_newer_version_is_refused(postgres: Server) -> None:
    address = postgres.new_database()
    store = PostgresStore(address)
    await store.list_agents()
    store.close()
    with psycopg.connect(address) as connection:
        connection.execute("UPDATE mentra.schema_version SET version = %s", (len(STEPS) + 1,))
    with pytest.raises(StoreError, match=r"written by a newer mentra-nb .*MENTRA_STATE"):
        await store.list_agents()
    store.close()


async def test_a_lost_connection_is_opened_again(postgres: Server) -> None:
    store = postgres.empty_store()
    await store.create_agent(agent())
    with psycopg.connect(postgres.address("postgres"), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mentra-nb'")
    assert await store.list_agents() == [agent()]
    store.close()


async def test_a_connection_lost_during_a_write_is_an_error_and_nothing_is_written(postgres: Server) -> None:
    store = postgres.empty_store()
    await store.create_agent(agent())

    def work(db: Transaction) -> None:
        db.execute("UPDATE agents SET name = 'changed'")
        with psycopg.connect(postgres.address("postgres"), autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mentra-nb'")

    with pytest.raises(StoreError, match="the state store"):
        await store.write(work)
    assert await store.list_agents() == [agent()]
    store.close()


async def test_two_reads_of_one_piece_of_work_see_the_same_snapshot(postgres: Server) -> None:
    store, other = postgres.empty_store(), PostgresStore(postgres.address("postgres"))
    await store.create_agent(agent())
    names: list[str] = []

    def work(db: Transaction) -> None:
        for _ in range(2):
            names.append(db.execute("SELECT name FROM agents").fetchone()["name"])
            anyio.run(other.write, lambda db: db.execute("UPDATE agents SET name = 'changed'"))

    await store.read(work)
    assert names == ["n", "n"]
    with pytest.raises(StoreError, match="read-only"):
        await store.read(lambda db: db.execute("UPDATE agents SET name = 'n'"))
    store.close()
    other.close()


async def test_a_conflicting_write_is_retried_and_no_change_is_lost(postgres: Server) -> None:
    stores = [postgres.empty_store(), *(PostgresStore(postgres.address("postgres")) for _ in range(3))]

    def add(tasks: list[TaskItem]) -> None:
        tasks.append(TaskItem(id=len(tasks) + 1, subject="s"))

    async def work(store: PostgresStore) -> None:
        for _ in range(10):
            await store.mutate_tasks("board", add)

    async with anyio.create_task_group() as group:
        for store in stores:
            group.start_soon(work, store)
    assert [task.id for task in await stores[0].load_tasks("board")] == list(range(1, 41))
    for store in stores:
        store.close()


async def test_one_of_many_stores_that_request_a_lease_at_once_gets_it(postgres: Server) -> None:
    stores = [postgres.empty_store(), *(PostgresStore(postgres.address("postgres")) for _ in range(5))]
    winners: list[int] = []

    async def ask(number: int) -> None:
        if await stores[number].acquire_lease("agent:a", holder(f"runtime-{number}"), 60) is None:
            winners.append(number)

    async with anyio.create_task_group() as group:
        for number in range(len(stores)):
            group.start_soon(ask, number)
    assert len(winners) == 1
    for store in stores:
        store.close()

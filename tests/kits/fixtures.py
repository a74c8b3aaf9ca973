"""Fixtures for all tests: an HTTP server, a PostgreSQL server, the state store on every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from kits import http_server
from kits.postgres import Server, start_server
from kits.programs import postgresql
from mentra_nb.store.sql_store import SqlStore
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.volatile import VolatileStore


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A private PostgreSQL server, one for all tests."""
    if postgresql() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with start_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "volatile", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    """An empty store, on each engine."""
    make: dict[str, Callable[[], SqlStore]] = {
        "sqlite": lambda: SqliteStore(tmp_path / "state.sqlite"),
        "volatile": VolatileStore,
        "postgresql": lambda: request.getfixturevalue("postgres").empty_store(),
    }
    made = make[request.param]()
    yield made
    made.close()


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[http_server.Server]:
    """A loopback HTTP server, one per test."""
    async with http_server.Server() as running:
        yield running

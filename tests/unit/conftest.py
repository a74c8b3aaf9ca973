"""The state store on every engine it runs on: what a test says of `store` holds for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from postgreskit import Server, binaries, start_server

from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.statements import Statements
from mentra_nb.store.volatile import VolatileStore


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A PostgreSQL server of our own, for as long as the tests run."""
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with start_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "volatile", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Statements]:
    make: dict[str, Callable[[], Statements]] = {
        "sqlite": lambda: SqliteStore(tmp_path / "state.sqlite"),
        "volatile": VolatileStore,
        "postgresql": lambda: request.getfixturevalue("postgres").empty_store(),
    }
    made = make[request.param]()
    yield made
    made.close()

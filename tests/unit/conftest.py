"""The state store on every engine it runs on: what a test says of `store` holds for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.statements import Statements
from mentra_nb.store.volatile import VolatileStore


@pytest.fixture(params=["sqlite", "volatile"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Statements]:
    made = SqliteStore(tmp_path / "state.sqlite") if request.param == "sqlite" else VolatileStore()
    yield made
    made.close()

"""What tests of maps share: an engine of their own, and a model that answers by a function."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kits.row_models import RowModel

import mentra_nb as mn
from mentra_nb.chat import engine


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RowModel]:
    """The model that is asked by default: it answers with the prompt itself. Nothing is recorded."""
    monkeypatch.chdir(tmp_path_factory.mktemp("project"))
    engine.reset()
    runtime = mn.Runtime(store=mn.VolatileStore(), audit=mn.NullAudit(), builtin_tools=False)
    monkeypatch.setattr(engine, "_engine", engine.Engine(runtime=runtime))
    yield used()
    engine.reset()


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RowModel]:
    """The same with a store and a record on the disk."""
    monkeypatch.chdir(tmp_path_factory.mktemp("project"))
    engine.reset()
    yield used()
    engine.reset()


def used() -> RowModel:
    made = RowModel()
    mn.use(made, "m")
    return made

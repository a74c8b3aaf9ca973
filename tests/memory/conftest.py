"""Recall has time: on a busy machine a search may take longer than a turn waits for it."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def time_to_recall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mentra_nb.memory.keeper.RECALL_SECONDS", 60.0)

"""What every test shares: asynchronous tests run on asyncio, and the browser comes last."""

from __future__ import annotations

import pytest

SLOW = (
    "test_chain",
    "test_damage",
    "test_lake",
    "test_local_model",
    "test_record_",
    "test_sink",
    "test_tables",
    "test_upkeep",
)
"""Files whose tests wait for DuckDB or llama.cpp; with those on PostgreSQL they are left out of the fast subset."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.name.startswith(SLOW) or "postgres" in getattr(item, "fixturenames", ()) or "postgresql" in item.name:
        item.add_marker("slow")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The browser's driver keeps an event loop running in this thread for as long as it lives.
    items.sort(key=lambda item: "browser" in item.path.parts)

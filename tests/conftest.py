"""What every test shares: asynchronous tests run on asyncio, and the browser comes last."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The browser's driver keeps an event loop running in this thread for as long as it lives.
    items.sort(key=lambda item: "browser" in item.path.parts)

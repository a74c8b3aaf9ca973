"""What every test shares: asynchronous tests run on asyncio, and the browser comes last."""

from __future__ import annotations

import os
from itertools import count

import pytest
from kits.fixtures import postgres, server, store  # noqa: F401  # fixtures of all rooms

os.environ.pop("MENTRA_HOME", None)  # each test has its own, unless a fixture of several tests sets one
_homes = count()


@pytest.fixture(autouse=True)
def _nobodys_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings and the home of whoever runs the tests out of them."""
    monkeypatch.setenv("MENTRA_CONFIG", str(tmp_path_factory.getbasetemp() / "no-config.toml"))
    monkeypatch.setenv("MENTRA_SANDBOX", "off")  # most tests are about calls that are asked about beforehand
    if "MENTRA_HOME" not in os.environ:
        monkeypatch.setenv("MENTRA_HOME", str(tmp_path_factory.getbasetemp() / f"home-{next(_homes)}"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def pytest_itemcollected(item: pytest.Item) -> None:
    if "postgres" in getattr(item, "fixturenames", ()) or "postgresql" in item.name:
        item.add_marker("slow")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The browser's driver keeps an event loop running in this thread for as long as it lives.
    items.sort(key=lambda item: "browser" in item.path.parts)

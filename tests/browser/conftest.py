"""One server and one browser for all browser tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("playwright", reason="needs Playwright: pip install 'mentra-nb[dev]'")

from kits.lab import Lab, chromium, lab_server
from playwright.sync_api import BrowserContext


@pytest.fixture(scope="session")
def browser() -> Iterator[BrowserContext]:
    with chromium() as context:
        yield context


@pytest.fixture(scope="session")
def lab(browser: BrowserContext) -> Iterator[Lab]:
    with lab_server() as running:
        yield running

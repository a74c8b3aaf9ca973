"""One server and one browser for all browser tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("playwright", reason="needs Playwright: pip install 'mentra-nb[dev]'")

from kits.lab import Lab, Notebook, Opener, chromium, lab_server
from playwright.sync_api import BrowserContext


@pytest.fixture(scope="session")
def browser() -> Iterator[BrowserContext]:
    with chromium() as context:
        yield context


@pytest.fixture(scope="session")
def lab(browser: BrowserContext) -> Iterator[Lab]:
    with lab_server() as running:
        yield running


@pytest.fixture
def opened(lab: Lab, browser: BrowserContext) -> Iterator[Opener]:
    """Opens notebooks with the given cells, and closes them after the test."""
    notebooks: list[Notebook] = []

    def open_notebook(*sources: str, app: str = "lab") -> Notebook:
        notebooks.append(lab.open(browser, *sources, app=app))
        return notebooks[-1]

    yield open_notebook
    for notebook in notebooks:
        notebook.close()

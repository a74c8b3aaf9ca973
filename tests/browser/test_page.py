"""The static page, in a real browser: Python loads in it, the demo answers, and the turn is on record."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kits.page import build
from kits.programs import pyodide
from playwright.sync_api import BrowserContext, expect

pytestmark = pytest.mark.browser


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def page_url(tmp_path: Path) -> Iterator[str]:
    """The address of the page, served by a web server that knows nothing but files."""
    if pyodide() is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no Pyodide: run `make pyodide`")
    build(tmp_path)
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_the_page_shows_a_turn_and_its_record_and_asks_no_other_address(browser: BrowserContext, page_url: str) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_url)
    expect(page.locator("#state")).to_have_text("Done.", timeout=100_000)
    expect(page.locator("#answer")).to_contain_text("2026-03,north,2400")
    expect(page.locator("#record")).to_contain_text("tool_execution_finished")
    assert [url for url in asked if not url.startswith(page_url)] == []
    page.close()

"""A real JupyterLab server and a real Chromium, one of each for a whole test session."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from kits.kernels import IPYKERNEL_6
from kits.programs import CHROMIUM_NAMES

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
TESTS = Path(__file__).resolve().parents[1]

_READY = """() => {
  const app = window.jupyterapp, widget = app && app.shell.currentWidget;
  const session = widget && widget.context && widget.context.sessionContext.session;
  return !!(session && session.kernel && session.kernel.status === 'idle' && widget.context.isReady);
}"""
# The same while a cell runs.
_LOADED = _READY.replace("session.kernel.status === 'idle'", "session.kernel.connectionStatus === 'connected'")
# By default only the cells in sight are drawn, and a test cannot search the others.
_DRAW_ALL = """() => { const content = window.jupyterapp.shell.currentWidget.content;
  content.notebookConfig = {...content.notebookConfig, windowingMode: 'none'}; }"""


@contextlib.contextmanager
def lab_server() -> Iterator[Lab]:
    """Run JupyterLab and Notebook 7 on a free port, with new settings, data and kernels."""
    with tempfile.TemporaryDirectory() as folder:
        home, port = Path(folder), _free_port()
        root = home / "notebooks"
        root.mkdir()
        settings = {
            "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
            "@jupyterlab/docmanager-extension:plugin": {"autosave": False},
            "@jupyterlab/notebook-extension:tracker": {"maxNumberOutputs": 5000},
        }
        _offer_ipykernel_6(home / "data" / "kernels" / IPYKERNEL_6.name)
        (home / "config" / "labconfig").mkdir(parents=True)
        (home / "config" / "labconfig" / "default_setting_overrides.json").write_text(json.dumps(settings))
        own = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "run",
            "IPYTHONDIR": "ipython",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "MENTRA_HOME": "mentra",
        }
        environment = {
            **os.environ,
            **{name: str(home / path) for name, path in own.items()},
            "PYTHONPATH": os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH")))),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "MENTRA_SANDBOX": "off",
            "PATH": str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", ""),
        }
        command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1"]
        command += [f"--port={port}", f"--ServerApp.root_dir={root}", "--IdentityProvider.token="]
        command += ["--expose-app-in-browser", "--JupyterNotebookApp.expose_app_in_browser=True"]
        command += ["--LabApp.extension_manager=readonly"]
        log = home / "server.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(command, env=environment, cwd=root, stdout=sink, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_up(url, process, log)
            yield Lab(url, root)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _offer_ipykernel_6(folder: Path) -> None:
    folder.mkdir(parents=True)
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python with ipykernel 6",
        "language": "python",
        "env": {
            "PYTHONPATH": os.pathsep.join(filter(None, (str(IPYKERNEL_6), str(TESTS), os.environ.get("PYTHONPATH"))))
        },
    }
    (folder / "kernel.json").write_text(json.dumps(spec))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url + "/api/status", timeout=2):
            return
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def chromium(**options: Any) -> Iterator[BrowserContext]:
    """Run the Chromium found on PATH, else Playwright's. `options` are those of Playwright's browser context."""
    options = {"viewport": {"width": 1100, "height": 900}, **options}
    path = next((found for name in CHROMIUM_NAMES if (found := shutil.which(name))), None)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as profile:
        try:
            context = playwright.chromium.launch_persistent_context(
                profile, executable_path=path, headless=True, args=FLAGS, **options
            )
        except PlaywrightError as error:
            missing = "no Chromium: install one (`apt-get install chromium`) or run `playwright install chromium`"
            if os.environ.get("CI") == "true":
                pytest.fail(f"{missing}\n{error}")
            pytest.skip(missing)
        try:
            yield context
        finally:
            context.close()


@dataclass
class Lab:
    url: str
    root: Path
    opened: int = field(default=0)

    def open(
        self,
        context: BrowserContext,
        *sources: str,
        app: str = "lab",
        kernel: str = "python3",
        page: Page | None = None,
    ) -> Notebook:
        """Open a new notebook with a cell for each source, in JupyterLab or (`app="notebook"`) Notebook 7, and wait for
        its kernel."""
        self.opened += 1
        name = f"n{self.opened}.ipynb"
        cells = [
            {
                "cell_type": "code",
                "id": f"c{n}",
                "metadata": {},
                "execution_count": None,
                "outputs": [],
                "source": source,
            }
            for n, source in enumerate(sources)
        ]
        kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
        document = {"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernelspec}}
        (self.root / name).write_text(json.dumps(document))
        page = page or context.new_page()
        # A new workspace: JupyterLab would open the tabs of earlier notebooks as well.
        place = f"lab/workspaces/n{self.opened}/tree" if app == "lab" else "notebooks"
        page.goto(f"{self.url}/{place}/{name}")
        page.wait_for_function(_READY, timeout=60_000)
        page.evaluate(_DRAW_ALL)
        return Notebook(page, self.root / name)


@dataclass
class Notebook:
    page: Page
    path: Path

    def command(self, name: str, *, wait: bool = True) -> None:
        run = f"window.jupyterapp.commands.execute('{name}')"
        self.page.evaluate(f"async () => {{ await {run}; }}" if wait else f"() => {{ {run}; }}")

    def ready(self) -> None:
        """Wait until a page that was reloaded is there again, with its kernel."""
        self.page.wait_for_function(_LOADED, timeout=60_000)
        self.page.evaluate(_DRAW_ALL)

    def run_all(self, *, wait: bool = False) -> None:
        self.command("notebook:run-all-cells", wait=wait)

    def run(self, n: int) -> None:
        """Run cell `n`, without waiting for it."""
        self.page.evaluate(f"() => {{ window.jupyterapp.shell.currentWidget.content.activeCellIndex = {n}; }}")
        self.command("notebook:run-cell", wait=False)

    def prompt(self, n: int) -> Locator:
        return self.cell(n).locator(".jp-InputPrompt")

    def cell(self, n: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(n)

    def output(self, n: int) -> Locator:
        return self.cell(n).locator(".jp-Cell-outputArea")

    def card(self) -> Locator:
        """Wait for the approval card, until it accepts clicks."""
        found = self.page.locator(".mentra-card")
        expect(found.locator(".mentra-left")).to_contain_text("left", timeout=30_000)
        self.page.wait_for_timeout(350)  # the card refuses clicks made before it could be read
        return found

    def saved(self) -> dict[str, Any]:
        self.command("docmanager:save")
        document: dict[str, Any] = json.loads(self.path.read_text())
        return document

    def close(self) -> None:
        # The kernel too: otherwise one kernel for each test stays alive.
        self.command("notebook:shutdown-kernel")
        self.page.close()


Opener = Callable[..., Notebook]
"""Opens a notebook with the given cells, in the given `app`."""

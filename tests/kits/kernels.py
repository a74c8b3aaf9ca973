"""A real kernel without a browser: cells sent, outputs and widgets followed, cards answered as a page would."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager
from jupyter_client.session import Session

TESTS = Path(__file__).parents[1]
IPYKERNEL_6 = Path(os.environ.get("MENTRA_IPYKERNEL6") or TESTS.parent / ".kernels" / "ipykernel6")
WIDGET = "application/vnd.jupyter.widget-view+json"


def overlay(line: str) -> Path | None:
    """Return the folder to put before the installed packages for ipykernel `line`; `None` for the installed one, 7."""
    if line == "7":
        return None
    folder = IPYKERNEL_6.parent / f"ipykernel{line}" if line != "6" else IPYKERNEL_6
    if not folder.is_dir():
        missing = f"no ipykernel {line} in {folder}: run `make kernels`, or set MENTRA_IPYKERNEL6"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return folder


@dataclass
class Cell:
    msg_id: str
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Type and content of the messages published for this cell, in order."""
    dates: list[float] = field(default_factory=list)
    """When the kernel published each of them, in Unix seconds by its own clock."""
    sent: float = 0.0
    """The date of its request, in Unix seconds."""
    reply: dict[str, Any] | None = None
    idle: bool = False

    @property
    def stdout(self) -> str:
        return "".join(c["text"] for t, c in self.events if t == "stream" and c["name"] == "stdout")

    @property
    def stderr(self) -> str:
        return "".join(c["text"] for t, c in self.events if t == "stream" and c["name"] == "stderr")

    @property
    def error(self) -> str:
        return "\n".join(line for t, c in self.events if t == "error" for line in c["traceback"])

    @property
    def status(self) -> str:
        """`ok`, `error` or `aborted`; `running` until then."""
        return str(self.reply["status"]) if self.reply is not None else "running"

    def published(self, kind: str) -> float:
        """Return when the kernel published the last message of that type."""
        return [date for date, (published, _) in zip(self.dates, self.events, strict=True) if published == kind][-1]

    @property
    def ended(self) -> bool:
        return self.idle and self.reply is not None

    def outputs(self) -> list[dict[str, Any]]:
        """Return the outputs a page would hold: each `display_data` with its updates applied."""
        shown: list[dict[str, Any]] = []
        by_id: dict[str, dict[str, Any]] = {}
        for kind, content in self.events:
            if kind == "display_data":
                shown.append(dict(content["data"]))
                if display_id := content.get("transient", {}).get("display_id"):
                    by_id[display_id] = shown[-1]
            elif kind == "update_display_data":
                data = by_id[content["transient"]["display_id"]]
                data.clear()
                data.update(content["data"])
        return shown

    def texts(self) -> str:
        return "\n".join(str(data.get("text/plain", data.get("text/html", ""))) for data in self.outputs())


class Kernel:
    """One kernel and one client. `subshell` sends widget messages as JupyterLab ≥ 4.4 does, where the kernel can."""

    def __init__(
        self, overlay: Path | None = None, *, subshell: bool = False, cwd: Path | None = None, **environment: str
    ) -> None:
        # Sockets in a new folder: kernels that start at the same time can pick the same TCP port.
        self.folder = tempfile.TemporaryDirectory()
        self.manager = KernelManager(transport="ipc", ip=f"{self.folder.name}/k")
        self.manager._kernel_spec = KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="test",
            language="python",
        )
        paths = [str(p) for p in (overlay, TESTS, os.environ.get("PYTHONPATH")) if p]
        own = {"PYTHONPATH": os.pathsep.join(paths), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        self.manager.start_kernel(env={**os.environ, **own, **environment}, **({"cwd": str(cwd)} if cwd else {}))
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        # A second page on the same kernel, with another session and another connection.
        other = Session(key=self.manager.session.key, signature_scheme=self.manager.session.signature_scheme)
        self.other = self.manager.client(session=other)
        self.other.start_channels(iopub=False, stdin=False, hb=False, control=False)
        self.cells: dict[str, Cell] = {}
        self.models: dict[str, dict[str, Any]] = {}
        """Open widgets: comm id → state."""
        self.messages: list[tuple[str, dict[str, Any]]] = []
        """Custom messages from widgets: comm id, content."""
        self.updated: list[str] = []
        """The texts of the outputs that were replaced, also by what ran outside of any cell."""
        self.started: list[str] = []
        """Message ids in the order their cells began."""
        self.subshell_id: str | None = None
        features = self.request("kernel_info_request")["content"].get("supported_features", [])
        if subshell and "kernel subshells" in features:
            self.client.control_channel.send(self.client.session.msg("create_subshell_request"))
            self.subshell_id = self.client.control_channel.get_msg(timeout=10)["content"]["subshell_id"]

    def close(self) -> None:
        self.client.stop_channels()
        self.other.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()
        self.folder.cleanup()

    def forget(self) -> Kernel:
        """Forget the cells, messages and order of earlier tests. Returns the kernel."""
        self.cells.clear()
        self.messages.clear()
        self.updated.clear()
        self.started.clear()
        return self

    def send_as(self, cell_id: str, code: str) -> Cell:
        """Send a cell with the id that a front end gives it."""
        message = self.client.session.msg("execute_request", {"code": code, "allow_stdin": True}, None, None)
        message["metadata"]["cellId"] = cell_id
        cell = self.cells[message["header"]["msg_id"]] = Cell(message["header"]["msg_id"])
        self.client.shell_channel.send(message)
        return cell

    def send(self, code: str, **options: Any) -> Cell:
        options = {"allow_stdin": True, "stop_on_error": True, **options}
        cell = Cell(self.client.execute(code, **options))
        self.cells[cell.msg_id] = cell
        return cell

    def send_dated(self, code: str, date: float, *, other: bool = False) -> Cell:
        """Send a cell with the date the page's clock shows, in Unix seconds; `other` sends it from the second page."""
        client = self.other if other else self.client
        message = client.session.msg("execute_request", {"code": code, "allow_stdin": True})
        message["header"]["date"] = datetime.fromtimestamp(date, UTC)
        cell = self.cells[message["header"]["msg_id"]] = Cell(message["header"]["msg_id"], sent=date)
        client.shell_channel.send(message)
        return cell

    def run(self, code: str, **options: Any) -> Cell:
        return self.finish(self.send(code, **options))[0]

    def finish(self, *cells: Cell) -> tuple[Cell, ...]:
        self.until(lambda: all(cell.ended for cell in cells))
        return cells

    def until(self, condition: Callable[[], object], timeout: float = 20.0) -> None:
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError({cell.msg_id: (cell.events, cell.reply) for cell in self.cells.values()})
            self.receive()

    def receive(self, timeout: float = 0.05) -> None:
        with contextlib.suppress(queue.Empty):
            self._published(self.client.get_iopub_msg(timeout=timeout))
        with contextlib.suppress(queue.Empty):
            while True:
                self._replied(self.client.get_shell_msg(timeout=0))
        with contextlib.suppress(queue.Empty):
            while True:
                self._replied(self.other.get_shell_msg(timeout=0))

    def _replied(self, message: dict[str, Any]) -> None:
        if cell := self.cells.get(message["parent_header"].get("msg_id", "")):
            cell.reply = message["content"]

    def _published(self, message: dict[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        parent = message["parent_header"].get("msg_id", "")
        match kind:
            case "comm_open":
                self.models[content["comm_id"]] = dict(content["data"].get("state", {}))
            case "comm_msg" if content["data"].get("method") == "update":
                self.models.get(content["comm_id"], {}).update(content["data"]["state"])
            case "comm_msg" if content["data"].get("method") == "custom":
                self.messages.append((content["comm_id"], content["data"]["content"]))
            case "comm_close":
                self.models.pop(content["comm_id"], None)
            case "execute_input":
                self.started.append(parent)
            case "update_display_data":
                self.updated.append(str(content["data"].get("text/plain", "")))
        if cell := self.cells.get(parent):
            if kind == "status":
                cell.idle = content["execution_state"] == "idle"
            else:
                cell.events.append((kind, content))
                cell.dates.append(message["header"]["date"].timestamp())

    def request(self, kind: str, content: dict[str, Any] | None = None, *, other: bool = False) -> dict[str, Any]:
        """Send a shell request that is not a cell, and return its reply."""
        client = self.other if other else self.client
        message = client.session.msg(kind, content or {})
        client.shell_channel.send(message)
        while True:
            reply: dict[str, Any] = client.get_shell_msg(timeout=10)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                return reply
            self._replied(reply)

    def card(self, cell: Cell) -> str:
        """Wait for the approval card in `cell`, and return its comm id."""

        def shown() -> list[str]:
            return [data[WIDGET]["model_id"] for data in cell.outputs() if WIDGET in data]

        self.until(shown)
        return shown()[-1]

    def widget_message(self, comm_id: str, content: dict[str, Any]) -> None:
        data = {"comm_id": comm_id, "data": {"method": "custom", "content": content}}
        message = self.client.session.msg("comm_msg", data)
        if self.subshell_id:
            message["header"]["subshell_id"] = self.subshell_id
        self.client.shell_channel.send(message)

    def ready(self, cell: Cell) -> str:
        """Report the card of `cell` as drawn, as a page does. Returns its comm id."""
        comm_id = self.card(cell)
        self.widget_message(comm_id, {"ready": True})
        return comm_id

    def type_command(self, cell: Cell, code: str, **options: Any) -> Cell:
        """Send `code` from another cell, once a user could have read the card of `cell`."""
        self.ready(cell)
        readable = time.monotonic() + 0.35
        self.until(lambda: time.monotonic() > readable)
        return self.send(code, **options)

    def choose(self, cell: Cell, **answer: Any) -> None:
        self.widget_message(self.ready(cell), answer)

"""What comes for a cell after it has ended: a turn in the background is shown there, with its questions.

A front end adds what is published for a cell to its output, whenever it comes. Clicks on a card need no pump then: the
kernel serves them between cells, and the pump of another turn while that one runs.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from typing import Any

from mentra_nb.chat.turn import Place, RunningTurn
from mentra_nb.errors import Cancelled
from mentra_nb.notebook import kernel
from mentra_nb.page.escaping import plain
from mentra_nb.page.render import Bundle, line

STOPPED = "stopped: the next prompt goes on from here"


class EndedCell:
    """The output of a cell that may have ended. Works on any thread."""

    def __init__(self, running: Any, request: dict[str, Any]) -> None:
        self._kernel, self._request = running, request

    def show(self, data: Bundle, display_id: str | None = None) -> None:
        self._send("display_data", data, display_id)

    def update(self, data: Bundle, display_id: str) -> None:
        self._send("update_display_data", data, display_id)

    def _send(self, kind: str, data: Bundle, display_id: str | None) -> None:
        transient = {"display_id": display_id} if display_id else {}
        content = {"data": data, "metadata": {}, "transient": transient}
        socket, topic = self._kernel.iopub_socket, kind.encode()
        if socket is not None:  # else the kernel is shutting down
            self._kernel.session.send(socket, kind, content, parent=self._request, ident=topic)


class AfterCell:
    """The output of the running cell, as the place of turns that no cell waits for."""

    can_show: bool = True

    def __init__(self, names: dict[str, Any]) -> None:
        """`names` are the user's variables; the reply of each turn becomes `_mentra`."""
        running = kernel.ipykernel_kernel()
        self._out, self._names = EndedCell(running, running.get_parent("shell")), names

    def show(self, turn: RunningTurn) -> None:
        threading.Thread(target=self._follow, args=(turn,), name="mentra-view", daemon=True).start()

    def say(self, text: str) -> None:
        self._out.show(line(text, "▸"))

    def _follow(self, turn: RunningTurn) -> None:
        """Show a turn until it ends. A turn that began by itself and had nothing to tell leaves nothing."""
        from mentra_nb.chat.engine import engine
        from mentra_nb.chat.rules import SCOPES
        from mentra_nb.notebook.drive import Questions, StopButton, follow
        from mentra_nb.notebook.view import TurnView

        began, stop = time.monotonic(), StopButton()
        view = TurnView(self._out, live=True, hz=engine().settings.stream_hz, since=began)
        questions = Questions(turn, view, "page", scopes=SCOPES, stop=stop, patience=math.inf)
        follow(turn, view, questions, stop, began)
        if (error := turn.future.exception()) is None:
            self._names["_mentra"] = turn.future.result()
        elif not isinstance(error, Cancelled):
            view.note(str(error), "✗")
        elif turn.session is not None:
            view.note(STOPPED, "✗")


class AtTerminal:
    """IPython at a terminal, where a turn cannot be shown while a person types: only a line, above the prompt."""

    can_show: bool = False

    def __init__(self, shell: Any) -> None:
        self._shell = shell

    def show(self, turn: RunningTurn) -> None:
        raise NotImplementedError("can_show is false")

    def say(self, text: str) -> None:
        """Print a line above the prompt; while a cell runs, once it has ended."""
        if _is_at_prompt(self._shell):
            print(f"▸ {plain(text)}", flush=True)  # noqa: T201
            return

        def after_cell(*_: object) -> None:
            with contextlib.suppress(ValueError):
                self._shell.events.unregister("post_run_cell", after_cell)
            print(f"▸ {plain(text)}")  # noqa: T201

        self._shell.events.register("post_run_cell", after_cell)


def _is_at_prompt(shell: Any) -> bool:
    """Return whether IPython waits at a prompt above which output is printed."""
    if "prompt_toolkit" not in sys.modules:
        return False
    from prompt_toolkit.patch_stdout import StdoutProxy

    prompt = getattr(shell, "pt_app", None)
    return prompt is not None and prompt.app.is_running and isinstance(sys.stdout, StdoutProxy)


def place(shell: Any) -> Place | None:
    """Return where the running cell shows what comes after it has ended; `None` where nobody looks."""
    screen = kernel.screen()
    if screen == "terminal":
        return AtTerminal(shell)
    if screen == "page" and kernel.runs_in_a_cell() and not kernel.is_captured():
        return AfterCell(shell.user_ns)
    return None

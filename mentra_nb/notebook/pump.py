"""Serves clicks and commands while a synchronous cell still runs.

There is a pump for ipykernel 6 and one for 7; both use private names of theirs. Elsewhere `NullPump` does nothing.
"""

from __future__ import annotations

import contextvars
import inspect
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol

from mentra_nb.notebook.kernel import execution_count, ipykernel_kernel, runs_in_a_cell
from mentra_nb.page.render import Bundle

SERVED = frozenset({"comm_open", "comm_msg", "comm_close", "comm_info_request", "kernel_info_request"})
"""Messages served at once: widget traffic, and what a reloaded page sends. All others wait for the cell to end."""

MIN_QUESTION_AGE = 0.3
"""Seconds after a question is shown in which nobody can have read it. The card's buttons have the same pause."""


@dataclass(frozen=True)
class Served:
    """The output of a cell that is served out of order: a text, and an output with its display id."""

    text: str
    shown: Bundle | None = None
    display_id: str | None = None


Command = Callable[[str, bool], Callable[[], Served] | None]
"""Takes the code of a cell that was sent after the turn had begun, and whether its sender can have read the open
question. Returns what to do at once; `None`: the cell must wait."""


class Pump(Protocol):
    """Serves messages while the cell's thread is busy with a turn. On exit the held messages go back in order."""

    name: str
    can_ask: bool
    """Whether `ask_stdin` works here."""
    can_serve: bool
    """Whether clicks are served."""

    def step(self) -> None:
        """Serve the messages that have arrived, without waiting."""

    def question_shown(self) -> None:
        """Call just before a question is shown: from then on cells of a user who has read it go to `on_command`."""

    def question_closed(self) -> None: ...

    def ask_stdin(self, prompt: str) -> None:
        """Show the front end's input box, without waiting for the answer."""

    def poll_stdin(self) -> str | None:
        """Return the text typed into the input box, once; `None` until there is one."""

    def __enter__(self) -> Pump: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class NullPump:
    """Does nothing: outside a kernel, in a kernel other than ipykernel, and on other threads."""

    name = "none"
    can_ask = False
    can_serve = False

    def step(self) -> None: ...

    def question_shown(self) -> None: ...

    def question_closed(self) -> None: ...

    def ask_stdin(self, prompt: str) -> None: ...

    def poll_stdin(self) -> str | None:
        return None

    def close(self) -> None: ...

    def __enter__(self) -> Pump:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _KernelPump(NullPump):
    can_serve = True

    def __init__(self, kernel: Any, on_command: Command | None) -> None:
        self.kernel = kernel
        self.on_command = on_command
        self.held: list[Any] = []
        self.cell = kernel.get_parent("shell")
        self.can_ask = runs_in_a_cell()
        ident = kernel._parent_ident
        self.cell_ident = ident["shell"] if not isinstance(ident, (bytes, list)) else ident
        self.started = time.monotonic(), time.time()
        self.shown: tuple[float, float] | None = None
        """When the open question was shown: seconds after the start, and Unix seconds."""

    def _dispatch(self, frames: Any, stream: Any, keep: Any) -> None:
        header, content = self._peek(frames)
        if header["msg_type"] in SERVED:
            self._serve(frames, stream)
            return
        begun = 0.0, self.started[1]
        if header["msg_type"] == "execute_request" and self.on_command and self._sent_after(header, begun):
            action = self.on_command(str(content().get("code", "")), self._sent_after(header, self.shown))
            if action is not None:
                self._answer(frames, stream, action)
                return
        self.held.append(keep)

    def _peek(self, frames: Any) -> tuple[dict[str, Any], Callable[[], dict[str, Any]]]:
        """Return a message's header, and a function that returns its content.

        `deserialize` is not used: it accepts each signature once, so the kernel could not read the message again.
        """
        session = self.kernel.session
        _, rest = session.feed_identities(frames, copy=False)

        def part(index: int) -> dict[str, Any]:
            raw = rest[index]
            found: dict[str, Any] = session.unpack(raw.bytes if hasattr(raw, "bytes") else raw)
            return found

        return part(1), lambda: part(4)

    def _sent_after(self, header: dict[str, Any], shown: tuple[float, float] | None) -> bool:
        return shown is not None and sent_after_reading(header, self.cell, *shown)

    def _serve(self, frames: Any, stream: Any) -> None:
        kernel = self.kernel
        try:
            idents, message = self._read(frames)
        except Exception:  # such as a bad signature: the kernel drops such a message too
            kernel.log.exception("mentra: a message could not be read")
            return
        # Busy and idle of this message: ipywidgets sends no change of a widget before the last one is idle.
        kernel._publish_status("busy", "shell", parent=message)
        try:
            result = kernel.shell_handlers[message["header"]["msg_type"]](stream, idents, message)
            if inspect.isawaitable(result):
                coroutine: Any = result if inspect.iscoroutine(result) else result.__await__()
                try:
                    coroutine.send(None)  # these handlers never wait: one step runs all of it
                except StopIteration:
                    pass
                else:
                    kernel.log.error("mentra: the handler of %s did not finish", message["header"]["msg_type"])
        except Exception:  # as the kernel does: log and continue
            kernel.log.exception("mentra: a message handler failed")
        finally:
            kernel._publish_status("idle", "shell", parent=message)
            # The cell is still running.
            kernel._publish_status("busy", "shell", parent=self.cell)

    def _answer(self, frames: Any, stream: Any, action: Callable[[], Served]) -> None:
        """Run a command cell out of order. It is not in the history: its number belongs to the running cell."""
        kernel, session = self.kernel, self.kernel.session
        idents, message = self._read(frames)
        content, count = message["content"], execution_count()
        kernel._publish_status("busy", "shell", parent=message)
        served = action()
        if not content.get("silent", False):
            kernel._publish_execute_input(content["code"], message, count)
            stdout = {"name": "stdout", "text": served.text + "\n"}
            session.send(kernel.iopub_socket, "stream", stdout, parent=message, ident=b"stream.stdout")
            if served.shown is not None:
                shown = {"data": served.shown, "metadata": {}, "transient": {"display_id": served.display_id}}
                session.send(kernel.iopub_socket, "display_data", shown, parent=message, ident=b"display_data")
        reply: dict[str, Any] = {
            "status": "ok",
            "execution_count": count,
            "payload": [],
            "user_expressions": {},
        }
        metadata = kernel.finish_metadata(message, kernel.init_metadata(message), reply)
        session.send(stream, "execute_reply", reply, parent=message, ident=idents, metadata=metadata)
        kernel._publish_status("idle", "shell", parent=message)
        kernel._publish_status("busy", "shell", parent=self.cell)

    def _read(self, frames: Any) -> tuple[Any, dict[str, Any]]:
        idents, rest = self.kernel.session.feed_identities(frames, copy=False)
        return idents, self.kernel.session.deserialize(rest, content=True, copy=False)  # checks the signature

    def question_shown(self) -> None:
        self.shown = None
        self.step()  # messages already here cannot answer the question, whatever the sender's clock says
        self.shown = time.monotonic() - self.started[0], time.time()

    def question_closed(self) -> None:
        self.shown = None

    def ask_stdin(self, prompt: str) -> None:
        while self._receive_stdin() is not None:
            pass  # drop replies to earlier boxes
        content = {"prompt": prompt, "password": False}
        socket = self.kernel.stdin_socket
        self.kernel.session.send(socket, "input_request", content, self.cell, ident=self.cell_ident)

    def poll_stdin(self) -> str | None:
        message = self._receive_stdin()
        return None if message is None else str(message.get("content", {}).get("value", ""))

    def _receive_stdin(self) -> dict[str, Any] | None:
        try:
            _, message = self.kernel.session.recv(self.kernel.stdin_socket)
        except Exception:  # a message with a bad signature raises a bare ValueError, among others
            self.kernel.log.warning("mentra: an input reply could not be read", exc_info=True)
            return {}
        return message  # type: ignore[no-any-return]


class Pump6(_KernelPump):
    """ipykernel 6: stream → `kernel.msg_queue` → `dispatch_queue`, which our cell blocks."""

    name = "ipykernel 6"

    def step(self) -> None:
        kernel = self.kernel
        kernel.shell_stream.flush()
        for item in self._queued():
            _, dispatch, args = item
            if dispatch == kernel.dispatch_shell and args:
                self._dispatch(args[0], kernel.shell_stream, item)
            else:
                self.held.append(item)
        kernel.shell_stream.flush()  # the event loop that would send our replies is waiting for this cell

    def _queued(self) -> list[Any]:
        items: list[Any] = []
        while not self.kernel.msg_queue.empty():
            items.append(self.kernel.msg_queue.get_nowait())
        return items

    def close(self) -> None:
        for item in self.held + self._queued():
            self.kernel.msg_queue.put_nowait(item)
        self.held = []


class Pump7(_KernelPump):
    """ipykernel 7: shell-channel thread → socket pair → stream on the main loop, behind a lock our cell holds."""

    name = "ipykernel 7"

    def __init__(self, kernel: Any, on_command: Command | None) -> None:
        super().__init__(kernel, on_command)
        manager = kernel.shell_channel_thread.manager
        self.stream: Any = manager.get_shell_channel_to_subshell_pair(None).to_stream
        self.reply: Any = manager.get_subshell_to_shell_channel_socket(None)
        self.original: Any = self.stream._recv_callback
        self.copying: Any = self.stream._recv_copy
        self.stream.on_recv(self._on_recv, copy=False)

    def _on_recv(self, frames: Any) -> None:
        if len(frames) == 1:  # the kernel's note to itself that aborting is over
            self.held.append(frames)
            return
        # A handler may set the parent message in context variables; the cell's own context must keep the cell's.
        contextvars.copy_context().run(self._dispatch, frames, self.reply, frames)
        self.kernel._shell_context = contextvars.copy_context()

    def step(self) -> None:
        import zmq

        self.stream.flush(zmq.POLLIN)

    def close(self) -> None:
        self.stream._recv_callback, self.stream._recv_copy = self.original, self.copying
        held, self.held = self.held, []
        for frames in held:
            # Each call starts a task that waits for the kernel's lock, as for a message that has just arrived.
            self.stream._run_callback(self.original, frames)


def make_pump(on_command: Command | None = None) -> Pump:
    """Return the pump for this kernel and thread. `on_command` may answer an open question from another cell."""
    kernel = ipykernel_kernel()
    if kernel is None or threading.current_thread() is not threading.main_thread():
        return NullPump()
    try:
        # The thread first: ipykernel 7.0 still has an unused msg_queue.
        if getattr(kernel, "shell_channel_thread", None) is not None:
            return Pump7(kernel, on_command)
        if hasattr(kernel, "msg_queue"):
            return Pump6(kernel, on_command)
    except Exception:  # a release may remove private names
        kernel.log.exception("mentra: clicks cannot be served while a cell runs in this version of ipykernel")
    return NullPump()


def sent_after_reading(header: dict[str, Any], cell: dict[str, Any], shown_after: float, shown_date: float) -> bool:
    """Return whether the user who sent a cell can have read the open question.

    The order of arrival does not show it: cells of one *Run all* may still be on the wire when the question is shown.
    Nor does the date of the header, since the page's clock may differ from the kernel's. So two durations are compared:
    from the running cell's request to this one by the page's clock, and from the start of the turn to the question by
    the kernel's. *Run all* sends its requests milliseconds apart. Another client has another clock and has not sent
    the running cell: its date must be later by the kernel's clock. Without valid dates the answer is no.

    Args:
        header: The header of the cell's request.
        cell: The request of the cell that runs the turn.
        shown_after: Seconds from the start of the turn to the question.
        shown_date: When the question was shown, in Unix seconds.
    """
    try:
        sent, mine = _seconds(header["date"]), cell["header"]
        if header["session"] != mine["session"]:
            return sent >= shown_date + MIN_QUESTION_AGE
        return sent - _seconds(mine["date"]) >= shown_after + MIN_QUESTION_AGE
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _seconds(date: str | datetime) -> float:
    return (datetime.fromisoformat(date) if isinstance(date, str) else date).timestamp()


def clicks_are_served() -> bool:
    """Return whether a click can be served while a cell runs."""
    with make_pump() as pump:
        return pump.can_serve

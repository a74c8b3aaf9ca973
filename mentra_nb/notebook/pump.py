"""Clicks and commands served while a synchronous cell still runs.

Each line of ipykernel has its own pump here, which uses its private names; where neither fits, `NullPump` stands in.
"""

from __future__ import annotations

import contextvars
import inspect
import threading
import time
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol

from mentra_nb.notebook.kernel import execution_count, ipykernel_kernel

SERVED = frozenset({"comm_open", "comm_msg", "comm_close", "comm_info_request", "kernel_info_request"})
"""Served at once: widget traffic, and what a page sends when it is reloaded. All else waits for the cell to end."""


YOUNG = 0.3
"""Seconds after a question is shown in which nobody can have read it yet; the card's buttons keep the same pause."""


Command = Callable[[str], Callable[[], str] | None]
"""Given the code of a cell: `None` if it must wait its turn, else what to do at once and the text to print there."""


class Pump(Protocol):
    """Serves what must not wait while a cell's own thread is busy with a turn."""

    name: str
    can_ask: bool
    """Whether `ask_stdin` works here."""

    def step(self) -> None:
        """Serve what has arrived; never waits."""

    def question_shown(self) -> None:
        """Call just before a question is shown: `on_command` is asked about cells sent after somebody could read it."""

    def question_closed(self) -> None: ...

    def ask_stdin(self, prompt: str) -> None:
        """Show the front end's own input box, without waiting for the answer."""

    def poll_stdin(self) -> str | None:
        """What was typed into it, once."""

    def __enter__(self) -> Pump: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give back, in their order, the messages that had to wait."""


class NullPump:
    """Where nothing can or need be served: no kernel, a kernel that is not ipykernel, another thread."""

    name = "none"
    can_ask = False

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
    can_ask = True

    def __init__(self, kernel: Any, on_command: Command | None) -> None:
        self.kernel = kernel
        self.on_command = on_command
        self.held: list[Any] = []
        self.cell = kernel.get_parent("shell")
        ident = kernel._parent_ident
        self.cell_ident = ident["shell"] if not isinstance(ident, (bytes, list)) else ident
        self.started = time.monotonic()
        self.shown: tuple[float, float] | None = None
        """When the open question was shown: monotonic, and Unix seconds."""

    def _take(self, frames: Any, stream: Any, keep: Any) -> None:
        header, content = self._peek(frames)
        if header["msg_type"] in SERVED:
            self._serve(frames, stream)
            return
        if header["msg_type"] == "execute_request" and self.on_command and self._sent_after_question(header):
            action = self.on_command(str(content().get("code", "")))
            if action is not None:
                self._answer(frames, stream, action)
                return
        self.held.append(keep)

    def _peek(self, frames: Any) -> tuple[dict[str, Any], Callable[[], dict[str, Any]]]:
        """A message's header and content, read without `deserialize`: that refuses to see a signature twice,
        so a message it has read cannot be handed to the kernel any more."""
        session = self.kernel.session
        _, rest = session.feed_identities(frames, copy=False)

        def part(index: int) -> dict[str, Any]:
            raw = rest[index]
            found: dict[str, Any] = session.unpack(raw.bytes if hasattr(raw, "bytes") else raw)
            return found

        return part(1), lambda: part(4)

    def _sent_after_question(self, header: dict[str, Any]) -> bool:
        """Whether a person who sent this cell can have seen the question.

        Arriving later is not enough: cells of one *Run all* may still be on the wire when the question is shown. Nor
        can the header's date be held against our clock, for the page's may differ. So the time between this request
        and the running cell's own, both by the page's clock, must be at least as long as the time from the start of
        the turn to the question, both by ours. *Run all* sends them milliseconds apart. Another client has another
        clock and no cell here to compare with: its date must be later by our clock. Either way `YOUNG` comes on top.
        When in doubt the cell waits for its turn.
        """
        if self.shown is None:
            return False
        shown, shown_date = self.shown
        try:
            sent, mine = _seconds(header["date"]), self.cell["header"]
            if header["session"] != mine["session"]:
                return sent >= shown_date + YOUNG
            return sent - _seconds(mine["date"]) >= shown - self.started + YOUNG
        except (KeyError, ValueError, TypeError):
            return False

    def _serve(self, frames: Any, stream: Any) -> None:
        kernel = self.kernel
        try:
            idents, message = self._read(frames)
        except Exception:  # a bad signature, say: the kernel drops such a message too
            kernel.log.exception("mentra: a message could not be read")
            return
        # Its own busy and idle: ipywidgets sends no further change of a widget before it saw the idle of the last.
        kernel._publish_status("busy", "shell", parent=message)
        try:
            result = kernel.shell_handlers[message["header"]["msg_type"]](stream, idents, message)
            if inspect.isawaitable(result):
                coroutine: Any = result if inspect.iscoroutine(result) else result.__await__()
                try:
                    coroutine.send(None)  # these handlers never wait, so one step is all of it
                except StopIteration:
                    pass
                else:
                    kernel.log.error("mentra: the handler of %s did not finish", message["header"]["msg_type"])
        except Exception:  # the kernel's own dispatch logs and goes on as well
            kernel.log.exception("mentra: a message handler failed")
        finally:
            kernel._publish_status("idle", "shell", parent=message)
            # The cell is still running: say so, and keep its output going to it.
            kernel.set_parent(self.cell_ident, self.cell)
            kernel._publish_status("busy", "shell", parent=self.cell)

    def _answer(self, frames: Any, stream: Any, action: Callable[[], str]) -> None:
        """Run a command cell out of order. It leaves no trace in the history: the running cell owns its number."""
        kernel, session = self.kernel, self.kernel.session
        idents, message = self._read(frames)
        content, count = message["content"], execution_count()
        kernel._publish_status("busy", "shell", parent=message)
        text = action()
        if not content.get("silent", False):
            kernel._publish_execute_input(content["code"], message, count)
            stdout = {"name": "stdout", "text": text + "\n"}
            session.send(kernel.iopub_socket, "stream", stdout, parent=message, ident=b"stream.stdout")
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
        self.step()  # what is here already was sent by someone who had not seen the question
        self.shown = time.monotonic(), time.time()

    def question_closed(self) -> None:
        self.shown = None

    def ask_stdin(self, prompt: str) -> None:
        while self._receive_stdin() is not None:
            pass  # replies to boxes nobody waits for any more
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
    """ipykernel 6: stream → `kernel.msg_queue` → `dispatch_queue`, which our cell keeps from going on."""

    name = "ipykernel 6"

    def step(self) -> None:
        kernel = self.kernel
        kernel.shell_stream.flush()
        for item in self._queued():
            _, dispatch, args = item
            if dispatch == kernel.dispatch_shell and args:
                self._take(args[0], kernel.shell_stream, item)
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
        if len(frames) == 1:  # the kernel's own note that aborting is over
            self.held.append(frames)
            return
        # A handler sets the parent message in context variables; the cell's own context must keep the cell's.
        contextvars.copy_context().run(self._take, frames, self.reply, frames)
        self.kernel._shell_context = contextvars.copy_context()

    def step(self) -> None:
        import zmq

        self.stream.flush(zmq.POLLIN)

    def close(self) -> None:
        self.stream._recv_callback, self.stream._recv_copy = self.original, self.copying
        held, self.held = self.held, []
        for frames in held:
            # A coroutine function: each call is a task that waits for the kernel's lock, as if it had just arrived.
            self.stream._run_callback(self.original, frames)


def make_pump(on_command: Command | None = None) -> Pump:
    """The pump for this kernel and thread. `on_command` may answer an open question from another cell."""
    kernel = ipykernel_kernel()
    if kernel is None or threading.current_thread() is not threading.main_thread():
        return NullPump()
    try:
        # ipykernel 7.0 still has a msg_queue, which it does not use: look for the thread first.
        if getattr(kernel, "shell_channel_thread", None) is not None:
            return Pump7(kernel, on_command)
        if hasattr(kernel, "msg_queue"):
            return Pump6(kernel, on_command)
    except Exception:  # private names may go at any release
        kernel.log.exception("mentra: clicks cannot be served while a cell runs in this version of ipykernel")
    return NullPump()


def _seconds(date: str | datetime) -> float:
    return (datetime.fromisoformat(date) if isinstance(date, str) else date).timestamp()


def clicks_are_served() -> bool:
    """Whether a click can be served while a cell runs."""
    with make_pump() as pump:
        return isinstance(pump, _KernelPump)

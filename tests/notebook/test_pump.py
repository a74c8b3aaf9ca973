"""Cells that arrive while a question is open: only a user who could have read it may answer; all others wait."""

from __future__ import annotations

import contextvars
import queue
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from mentra_nb.notebook.pump import MIN_QUESTION_AGE, Pump6, Pump7, Served, sent_after_reading

BEGAN = 1_700_000_000.0
"""When the running cell was sent, by the page's clock."""
CELL = {"header": {"session": "page", "date": datetime.fromtimestamp(BEGAN, UTC)}}


def sent(at: float, *, session: str = "page", shown_after: float = 2.0, shown_date: float = BEGAN + 2.0) -> bool:
    """Return whether a cell counts that was sent `at` seconds after the running one."""
    header = {"session": session, "date": datetime.fromtimestamp(BEGAN + at, UTC)}
    return sent_after_reading(header, CELL, shown_after, shown_date)


@pytest.mark.parametrize("session", ["page", "other"])
@pytest.mark.parametrize(
    ("at", "counts"),
    [
        (0.01, False),
        (1.99, False),
        (2.0, False),
        (2.0 + MIN_QUESTION_AGE - 0.001, False),
        (2.0 + MIN_QUESTION_AGE + 0.001, True),
        (600.0, True),
    ],
)
def test_a_cell_counts_once_the_question_could_be_read(session: str, at: float, counts: bool) -> None:
    assert sent(at, session=session) is counts


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
def test_the_same_page_is_compared_by_its_own_clock(ahead: float) -> None:
    assert sent(2.1, shown_date=BEGAN + ahead) is False
    assert sent(2.5, shown_date=BEGAN + ahead) is True


def test_another_client_is_compared_by_the_clock_of_the_kernel() -> None:
    assert sent(2.5, session="other", shown_after=0.0, shown_date=BEGAN + 3.0) is False
    assert sent(3.5, session="other", shown_after=9.0, shown_date=BEGAN + 3.0) is True


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"session": "page"},
        {"session": "page", "date": "not a date"},
        {"session": "page", "date": None},
        {"session": "page", "date": 5},
    ],
)
def test_without_a_valid_date_it_never_counts(header: dict[str, Any]) -> None:
    assert sent_after_reading(header, CELL, 0.0, 0.0) is False
    assert (
        sent_after_reading({"session": "page", "date": "2026-01-01T00:00:00Z"}, {"header": header}, 0.0, 0.0) is False
    )


# ---- what a pump does with messages --------------------------------------------------------------------------------


class Wire:
    """A session whose messages are dicts, and whose input box replies with `typed`."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.typed: list[str] = []

    def feed_identities(self, frames: Any, copy: bool) -> tuple[list[bytes], Any]:
        return [], [b"", frames["header"], {}, {}, frames["content"]]

    def unpack(self, part: Any) -> Any:
        return part

    def deserialize(self, rest: Any, content: bool, copy: bool) -> dict[str, Any]:
        return {"header": rest[1], "content": rest[4]}

    def send(self, stream: Any, kind: str, *_: Any, **__: Any) -> None:
        self.sent.append(kind)

    def recv(self, socket: Any) -> tuple[list[bytes], dict[str, Any] | None]:
        return [], {"content": {"value": self.typed.pop(0)}} if self.typed else None


class Stream:
    """The part of a stream that a pump takes over."""

    _recv_callback: Any = None
    _recv_copy = True

    def __init__(self) -> None:
        self.given: list[Any] = []

    def flush(self, *_: Any) -> None: ...

    def on_recv(self, callback: Any, copy: bool) -> None:
        self._recv_callback, self._recv_copy = callback, copy

    def _run_callback(self, callback: Any, frames: Any) -> None:
        self.given.append((callback, frames))


class FakeKernel(SimpleNamespace):
    """As much of a kernel as a pump uses. `ran` has the types of the messages it handled."""

    def __init__(self) -> None:
        stream = Stream()
        manager = SimpleNamespace(
            get_shell_channel_to_subshell_pair=lambda _: SimpleNamespace(to_stream=stream),
            get_subshell_to_shell_channel_socket=lambda _: None,
        )
        super().__init__(
            session=Wire(),
            msg_queue=queue.Queue(),
            shell_stream=stream,
            stdin_socket=None,
            iopub_socket=None,
            shell_channel_thread=SimpleNamespace(manager=manager),
            _parent_ident={"shell": [b"page"]},
            shell_handlers={"comm_msg": lambda *_: VARIABLE.set("of the message")},
        )

    def get_parent(self, channel: str) -> dict[str, Any]:
        return CELL

    def dispatch_shell(self, frames: Any) -> None: ...

    def _publish_status(self, *_: Any, **__: Any) -> None: ...

    def _publish_execute_input(self, *_: Any) -> None: ...

    def init_metadata(self, message: Any) -> dict[str, Any]:
        return {}

    def finish_metadata(self, message: Any, metadata: Any, reply: Any) -> dict[str, Any]:
        return {}


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="of the cell")


def message(kind: str, code: str = "", *, sent_at: float = BEGAN + 600.0) -> dict[str, Any]:
    header = {"msg_type": kind, "session": "page", "date": datetime.fromtimestamp(sent_at, UTC)}
    return {"header": header, "content": {"code": code}}


def queued(kernel: FakeKernel, frames: dict[str, Any]) -> None:
    kernel.msg_queue.put_nowait((0, kernel.dispatch_shell, (frames,)))


def codes(kernel: FakeKernel) -> list[str]:
    return [kernel.msg_queue.get_nowait()[2][0]["content"]["code"] for _ in range(kernel.msg_queue.qsize())]


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


def answered(kernel: FakeKernel) -> tuple[Pump6, list[str]]:
    """Return a pump whose commands are cells that begin with `%mentra`, and those it took."""
    taken: list[str] = []

    def on_command(code: str, has_read: bool) -> Any:
        return (lambda: taken.append(code) or Served("done")) if code.startswith("%mentra") and has_read else None

    return Pump6(kernel, on_command), taken


def test_a_command_answers_only_while_a_question_is_open(kernel: FakeKernel) -> None:
    pump, taken = answered(kernel)
    queued(kernel, message("execute_request", "%mentra allow before"))
    pump.question_shown()
    queued(kernel, message("execute_request", "%mentra allow"))
    queued(kernel, message("execute_request", "1 + 1"))
    pump.step()
    pump.question_closed()
    queued(kernel, message("execute_request", "%mentra allow after"))
    pump.step()
    assert taken == ["%mentra allow"]
    pump.close()
    assert codes(kernel) == ["%mentra allow before", "1 + 1", "%mentra allow after"]


def test_cells_that_waited_run_in_the_order_they_came(kernel: FakeKernel) -> None:
    pump, _ = answered(kernel)
    for code in ("one", "two"):
        queued(kernel, message("execute_request", code))
    pump.step()
    queued(kernel, message("execute_request", "three"))  # arrives after the last step
    pump.close()
    assert codes(kernel) == ["one", "two", "three"]


def test_the_reply_to_an_earlier_input_box_is_not_the_answer(kernel: FakeKernel) -> None:
    pump, _ = answered(kernel)
    kernel.session.typed = ["allow", "yes"]
    pump.ask_stdin("Allow?")
    assert pump.poll_stdin() is None
    kernel.session.typed = ["deny"]
    assert (pump.poll_stdin(), pump.poll_stdin()) == ("deny", None)
    assert kernel.session.sent == ["input_request"]


def test_a_served_message_leaves_the_context_of_the_cell_alone(kernel: FakeKernel) -> None:
    stream = kernel.shell_stream
    stream._recv_callback = original = object()
    pump = Pump7(kernel, None)
    stream._recv_callback(message("comm_msg"))
    assert VARIABLE.get() == "of the cell"
    waiting = message("execute_request", "1 + 1")
    stream._recv_callback(waiting)
    pump.close()
    assert (stream._recv_callback, stream._recv_copy) == (original, True)
    assert stream.given == [(original, waiting)]


def test_the_note_that_ends_the_aborting_of_cells_reaches_the_kernel_after_the_cell(kernel: FakeKernel) -> None:
    stream = kernel.shell_stream
    stream._recv_callback = original = object()
    note = [SimpleNamespace(buffer=b"stop aborting")]
    with Pump7(kernel, None):
        stream._recv_callback(note)
        assert stream.given == []
    assert stream.given == [(original, note)]

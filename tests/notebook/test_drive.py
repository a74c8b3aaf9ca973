"""The stop button of a cell: presses during a turn, right after it, and later."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from mentra_nb.notebook import drive


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def stopped() -> None:
    with drive.StopButton() as stop:
        signal.raise_signal(signal.SIGINT)
    assert stop.pressed


def test_a_press_right_after_a_stopped_turn_is_ignored_and_a_later_one_interrupts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped()
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        pytest.fail("a press right after the turn was not ignored")
    now = time.monotonic()
    monkeypatch.setattr(drive.time, "monotonic", lambda: now + drive.LATE_PRESS)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_turn_right_after_a_stopped_one_can_be_stopped_and_leaves_one_handler() -> None:
    stopped()
    stopped()
    late = signal.getsignal(signal.SIGINT)
    assert isinstance(late, drive._LatePress)
    assert late.before is signal.default_int_handler
    with drive.StopButton():
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_press_after_a_turn_that_was_not_stopped_interrupts() -> None:
    with drive.StopButton():
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)

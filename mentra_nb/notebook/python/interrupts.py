"""Interrupts wait while it is noted what code did, and come while the code itself runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any


@contextmanager
def interrupts_held() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Inside, an interrupt of the main thread waits, except inside what is yielded; one that still waits comes last.

    On other threads, which get no signals, nothing is held.
    """
    if threading.current_thread() is not threading.main_thread():
        yield nullcontext
        return
    waits = False

    def hold(_signal: int, _frame: object) -> None:
        nonlocal waits
        waits = True

    def come() -> None:
        nonlocal waits
        if waits:
            waits = False
            signal.raise_signal(signal.SIGINT)

    @contextmanager
    def coming() -> Iterator[None]:
        signal.signal(signal.SIGINT, before)
        try:
            come()
            yield
        finally:
            signal.signal(signal.SIGINT, hold)

    before: Any = signal.getsignal(signal.SIGINT)
    if before is None:  # it was not set from Python, and could not be set again
        yield nullcontext
        return
    signal.signal(signal.SIGINT, hold)
    try:
        yield coming
    finally:
        signal.signal(signal.SIGINT, before)
        come()

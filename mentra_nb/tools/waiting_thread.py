"""The thread that waits for a turn, in a notebook the cell's, does work for the tools of that turn.

`on_waiting_thread` is the service `MainThread`. The thread is reached through a context variable, which is set for the
task of the turn.
"""

from __future__ import annotations

import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from mentra_nb.errors import as_exception
from mentra_nb.tools.schema import ToolError

STOPPED = "stopped before it finished; it may have taken effect"
"""The result of work that was interrupted."""
TO_END = 0.5
"""Seconds that a stopped call waits for its work to end, so that its result can say what the work has done."""
AGAIN_AFTER = 1.0
"""Seconds after which work that goes on is interrupted again."""
NOBODY_WAITS = (
    "it runs on the thread that waits for the turn, and none does: ask with %mentra, mn.ask or Chat.ask, "
    "not with aask or --bg; in a turn that began by itself, leave it until a person asks again"
)


class Job:
    """A function that a tool wants called on the waiting thread."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.future: Future[Any] = Future()
        self._work = work
        self._lock = threading.Lock()
        self._thread: int | None = None
        """The thread that is calling the function now."""
        self._interrupted = False
        self._ended = threading.Event()

    def run(self) -> None:
        """Call the function on this thread. What it returns or raises is for the tool.

        Raises:
            KeyboardInterrupt: the person interrupted it, not the turn.
        """
        try:
            with self._lock:  # `cancel` finds it not yet begun, or on this thread
                if not self.future.set_running_or_notify_cancel():
                    return
                self._thread = threading.get_ident()
            with self._interruptible():
                self._call()
        except KeyboardInterrupt:
            with self._lock:
                self._thread = None
            if not self.future.done():
                self.future.set_exception(ToolError(STOPPED))
            if not self._interrupted:
                raise
        finally:
            self._ended.set()

    def _call(self) -> None:
        result, error = None, None
        try:
            result = self._work()
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # noqa: BLE001 - it is raised again where the tool waits
            error = as_exception(raised)
        with self._lock:  # an interrupt that is being sent arrives before this
            self._thread = None
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Inside, `cancel` interrupts the main thread whatever its process does at an interrupt: ignore it, as one that
        was started in the background does, end, or something of its own. Any other interrupt does that still.
        """
        before: Any = signal.getsignal(signal.SIGINT)
        is_main = threading.current_thread() is threading.main_thread()
        if not is_main or before in (None, signal.default_int_handler):
            yield
            return

        def interrupt(number: int, frame: Any) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            if callable(before):
                before(number, frame)
            elif before is signal.SIG_DFL:
                signal.signal(number, before)
                signal.raise_signal(number)

        signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def cancel(self) -> None:
        """Give the work up: it never begins, or is interrupted where it is."""
        with self._lock:
            if self.future.cancel() or self._thread is None or self._interrupted:
                return
            self._interrupted = True
        threading.Thread(target=self._insist, name="mentra-interrupt", daemon=True).start()

    def _insist(self) -> None:
        """Interrupt the work until it ends: one interrupt may be caught, or come in code that ignores errors."""
        while True:
            with self._lock:
                if self._thread is None:
                    return
                _interrupt(self._thread)
            if self._ended.wait(AGAIN_AFTER):
                return


def _interrupt(thread: int) -> None:
    """Raise `KeyboardInterrupt` in a thread: in the main one as the stop button does, also where it sleeps."""
    if thread == threading.main_thread().ident:
        if sys.platform == "win32":
            import _thread

            _thread.interrupt_main()
        else:
            signal.pthread_kill(thread, signal.SIGINT)
        return
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt))


class Jobs:
    """The jobs of one turn, on their way to the thread that waits for it."""

    def __init__(self) -> None:
        self._to: queue.SimpleQueue[Any] | None = None

    def expect(self) -> None:
        """Keep jobs for a thread that is about to wait."""
        if self._to is None:
            self._to = queue.SimpleQueue()

    @property
    def is_expected(self) -> bool:
        """Whether a thread waits, or is about to."""
        return self._to is not None

    def take_into(self, jobs: queue.SimpleQueue[Any]) -> None:
        """Put jobs into a queue from now on, out of which the calling thread runs them."""
        before, self._to = self._to, jobs
        while before is not None and before is not jobs and not before.empty():
            jobs.put(before.get())

    def give(self, job: Job) -> None:
        """Have the thread that waits run a job. Raises `ToolError` if none waits."""
        if self._to is None:
            raise ToolError(NOBODY_WAITS)
        self._to.put(job)


_jobs: ContextVar[Jobs | None] = ContextVar("mentra_waiting_thread", default=None)


@contextmanager
def waiting_thread(jobs: Jobs) -> Iterator[None]:
    """Inside, the work of this task's tools goes to the thread that takes these jobs."""
    token = _jobs.set(jobs)
    try:
        yield
    finally:
        _jobs.reset(token)


def check_waiting_thread() -> None:
    """Raise `ToolError` where no thread waits for this turn, so that nobody is asked about a call that cannot run."""
    jobs = _jobs.get()
    if jobs is None or not jobs.is_expected:
        raise ToolError(NOBODY_WAITS)


async def on_waiting_thread(work: Callable[[], Any], /) -> Any:
    """Return what `work` returns, called on the thread that waits for this turn. Cancelling interrupts it.

    A cancelled call waits up to `TO_END` for the work to end.

    Raises what it raises, and `ToolError` where no thread waits.
    """
    import asyncio

    import anyio

    jobs = _jobs.get()
    if jobs is None:
        raise ToolError(NOBODY_WAITS)
    job = Job(work)
    jobs.give(job)
    try:
        return await asyncio.wrap_future(job.future)
    except asyncio.CancelledError:
        job.cancel()
        with anyio.CancelScope(shield=True):
            ended, _ = await asyncio.wait([asyncio.wrap_future(job.future)], timeout=TO_END)
            for future in ended:
                _ = future.cancelled() or future.exception()  # else asyncio reports that nobody asked for it
        raise

"""The thread on which a store does its work."""

from __future__ import annotations

import atexit
import os
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from mentra_nb.browser import IN_BROWSER

_Job = Callable[[], Any]
_Tell = Callable[[Any], object]


class Worker:
    """One thread that runs jobs in the order they were given. It starts with the first job.

    A `ThreadPoolExecutor` refuses work as soon as the main thread has ended, which is when leases are released.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._jobs: queue.SimpleQueue[tuple[_Job, _Tell] | None] = queue.SimpleQueue()
        self._unfinished: deque[_Job] = deque()
        weakref.finalize(self, self._jobs.put, None).atexit = False  # the thread ends with its owner
        _workers.add(self)

    def put(self, job: _Job, tell: _Tell = lambda result: None) -> None:
        """Run a job on the thread, and pass its result to `tell` once it counts as finished. Neither may raise."""
        if IN_BROWSER:
            tell(job())
            return
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(
                    target=_run, args=(self._jobs, self._unfinished), name=self._name, daemon=True
                )
                thread.start()
                self._thread = thread
            self._unfinished.append(job)
            self._jobs.put((job, tell))

    def run_here(self, job: _Job) -> bool:
        """Run a job on the calling thread, in its place in the order: if none is unfinished. Returns whether it ran."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._unfinished:
                return False
            job()
        finally:
            self._lock.release()
        return True

    def stop(self, last: _Job | None = None) -> None:
        """Finish the jobs, then `last`, and end the thread. The next job starts it again."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._jobs.put(None)
                thread.join()
            if last is not None:
                last()


def _run(jobs: queue.SimpleQueue[tuple[_Job, _Tell] | None], unfinished: deque[_Job]) -> None:
    while (given := jobs.get()) is not None:
        job, tell = given
        result = job()
        unfinished.popleft()
        tell(result)
        del given, job, tell, result  # they hold the store


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):  # their threads do not exist in the child, and their locks may be held for ever
    os.register_at_fork(after_in_child=_workers.clear)


@atexit.register
def _stop_all() -> None:
    """Finish what was submitted before the interpreter ends its daemon threads."""
    for worker in list(_workers):
        worker.stop()

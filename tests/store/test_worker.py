"""The thread of a store: jobs in order, an end with its owner, a new start after a stop."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from functools import partial

import pytest

from mentra_nb.store.worker import Worker


def test_jobs_run_in_order_on_one_thread() -> None:
    worker, ran = Worker("test"), list[tuple[int, str]]()
    for number in range(20):
        worker.put(partial(lambda n: ran.append((n, threading.current_thread().name)), number))
    worker.stop()
    assert ran == [(n, "test") for n in range(20)]


def test_stopping_finishes_the_jobs_then_the_last_one_and_the_next_job_starts_it_again() -> None:
    worker, ran, go_on = Worker("test"), list[str](), threading.Event()
    worker.put(lambda: ran.append("began") if go_on.wait(10) else None)
    worker.put(lambda: ran.append("job"))
    go_on.set()
    worker.stop(last=lambda: ran.append("last"))
    assert ran == ["began", "job", "last"]
    worker.put(lambda: ran.append("again"))
    worker.stop()
    assert ran == ["began", "job", "last", "again"]


def test_a_job_is_run_here_only_if_no_other_is_unfinished() -> None:
    worker, ran, go_on = Worker("test"), list[str](), threading.Event()
    assert worker.run_here(lambda: ran.append(threading.current_thread().name))
    worker.put(lambda: go_on.wait(10))
    assert not worker.run_here(lambda: ran.append("out of order"))
    told = threading.Event()
    worker.put(lambda: "result", lambda result: (ran.append(result), told.set()))
    go_on.set()
    assert told.wait(10)
    assert worker.run_here(lambda: ran.append("last"))
    assert ran == ["MainThread", "result", "last"]
    worker.stop()


def test_the_thread_ends_with_its_owner() -> None:
    worker, ran = Worker("test-owned"), threading.Event()
    worker.put(ran.set)
    assert ran.wait(10)
    [thread] = [each for each in threading.enumerate() if each.name == "test-owned"]
    del worker
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_ends_though_its_parent_was_using_a_worker() -> None:
    program = """
import os
from mentra_nb.store.worker import Worker
worker = Worker("test")
worker.put(lambda: None)
worker._lock.acquire()  # as another thread of the parent may have done
if (child := os.fork()) == 0:
    raise SystemExit(0)
worker._lock.release()
print(os.waitpid(child, 0)[1])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "0\n"

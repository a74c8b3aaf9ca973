"""The thread of a store: jobs in order, errors to their callers, an end with its owner, a new start after a stop."""

from __future__ import annotations

import gc
import threading

import pytest

from mentra_nb.store.worker import Worker


def test_jobs_run_in_order_on_one_thread() -> None:
    worker, ran = Worker("test"), list[tuple[int, str]]()
    jobs = [worker.submit(lambda n: ran.append((n, threading.current_thread().name)), n) for n in range(20)]
    for job in jobs:
        job.result(10)
    assert ran == [(n, "test") for n in range(20)]
    worker.stop()


def test_an_error_is_raised_by_its_future_and_the_next_job_runs() -> None:
    worker = Worker("test")
    with pytest.raises(ZeroDivisionError):
        worker.submit(lambda: 1 // 0).result(10)
    assert worker.submit(lambda: "fine").result(10) == "fine"
    worker.stop()


def test_stopping_finishes_the_jobs_then_the_last_one_and_the_next_job_starts_it_again() -> None:
    worker, ran, go_on = Worker("test"), list[str](), threading.Event()
    worker.submit(go_on.wait, 10)
    job = worker.submit(ran.append, "job")
    go_on.set()
    worker.stop(last=lambda: ran.append("last"))
    assert job.done()
    assert ran == ["job", "last"]
    worker.submit(ran.append, "again").result(10)
    worker.stop()
    assert ran == ["job", "last", "again"]


def test_a_job_that_was_cancelled_before_it_began_does_not_run() -> None:
    worker, ran, go_on = Worker("test"), list[str](), threading.Event()
    worker.submit(go_on.wait, 10)
    job = worker.submit(ran.append, "job")
    assert job.cancel()
    go_on.set()
    worker.stop()
    assert ran == []


def test_the_thread_ends_with_its_owner() -> None:
    worker = Worker("test-owned")
    worker.submit(int).result(10)
    [thread] = [each for each in threading.enumerate() if each.name == "test-owned"]
    del worker
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()

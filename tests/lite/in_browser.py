"""Run tests in Pyodide, and print as JSON how they ended: passed, failed, or absent.

Absent is a test that ended because of what a browser has not (threads, sockets, programs), or for want of a library
that has no wheel for Pyodide on the package index; Pyodide's own distribution may have it.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import queue
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
from pyodide.ffi import run_sync

ABSENT = re.compile(
    r"No module named '(?:duckdb|pandas|numpy|regex|psutil|tree_sitter|tree_sitter_bash|math_core)"
    r"|can't start new thread|no (?:sockets|programs|threads) here"
)
SECONDS = 20
"""An asynchronous test may take."""
FATAL = (
    "test_arguments_that_are_not_a_json_object_are_malformed_and_quoted_briefly",
    "test_arguments_nested_too_deep_are_that_calls_error",
)
"""Thousands of brackets end Pyodide itself: Python's parser of JSON uses up the stack of WebAssembly."""


class Counted:
    """Counts how tests end, and what was absent."""

    def __init__(self) -> None:
        self.ends: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._count(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.outcome != "passed":
            self._count(report)

    def _count(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.outcome == "failed" and (reason := ABSENT.search(report.longreprtext)):
            self.ends["absent"] += 1
            self.reasons[reason[0]] += 1
        else:
            self.ends[report.outcome] += 1
            if report.outcome == "failed":
                self.failed.append(report.nodeid)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if getattr(item, "originalname", item.name) not in FATAL]


class OnTheLoop:
    """Runs asynchronous tests and fixtures on the one event loop that a browser has."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        function = pyfuncitem.obj
        inner = getattr(function, "hypothesis", None)
        if inner is not None and inspect.iscoroutinefunction(inner.inner_test):
            test = inner.inner_test
            inner.inner_test = lambda *given, **named: run_sync(asyncio.wait_for(test(*given, **named), SECONDS))
        elif inspect.iscoroutinefunction(function):
            wanted = {name: pyfuncitem.funcargs[name] for name in inspect.signature(function).parameters}
            run_sync(asyncio.wait_for(function(**wanted), SECONDS))
            return True
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> None:
        function = fixturedef.func
        if inspect.isasyncgenfunction(function):

            def fixture(**wanted: Any) -> Iterator[Any]:
                made = function(**wanted)
                yield run_sync(anext(made))
                run_sync(anext(made, None))

            fixturedef.func = fixture
        elif inspect.iscoroutinefunction(function):
            fixturedef.func = lambda **wanted: run_sync(function(**wanted))


def _absent(what: str) -> Any:
    def refuse(*_arguments: Any, **_options: Any) -> NoReturn:
        raise OSError(f"no {what} here")

    return refuse


def main(*paths: str) -> None:
    """Run the tests in these files and folders of the repository."""
    socket.socket.listen = _absent("sockets")  # type: ignore[method-assign]  # in Node.js it would end Pyodide
    socket.socket.connect = _absent("sockets")  # type: ignore[method-assign]
    subprocess.Popen.__init__ = _absent("programs")  # type: ignore[method-assign]
    threading.Condition.wait = _absent("threads")  # type: ignore[method-assign]  # it would wait for ever
    queue.SimpleQueue = queue._PySimpleQueue  # type: ignore[attr-defined, misc]  # waits by a condition
    counted = Counted()
    os.chdir("/repo")
    fast = "not kernel and not browser and not fault and not slow"
    options = [
        "-q",
        "--tb=short",
        "--show-capture=no",
        "--color=no",
        "-m",
        fast,
        "--continue-on-collection-errors",
        "-p",
        "no:cacheprovider",
    ]
    options += [
        "-c",
        "/repo/tests/lite/in_browser.ini",
        "--rootdir",
        "/repo",
        "--confcutdir",
        "/repo",
        "-p",
        "no:pytest_timeout",
    ]
    pytest.main([*options, *paths], plugins=[counted, OnTheLoop()])
    print("ENDS", json.dumps({**counted.ends, "reasons": counted.reasons, "which": counted.failed}))


if __name__ == "__main__":
    main(*sys.argv[1:])

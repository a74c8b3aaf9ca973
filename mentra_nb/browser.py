"""What differs in a browser, under Pyodide: no thread and no program can be started. What threads do is done at once.

`await mn.aask()` needs no more. What waits without `await`, such as `mn.ask()` and `mn.allow()`, suspends the Python
stack, which browsers can do that have JavaScript Promise Integration.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from mentra_nb.errors import ConfigurationError

T = TypeVar("T")

IN_BROWSER: bool = sys.platform == "emscripten"


def started(thread: threading.Thread) -> threading.Thread | None:
    """Start a thread and return it; `None` where none can be started."""
    if IN_BROWSER:
        return None
    thread.start()
    return thread


def wait_for(function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Return what awaiting `function(*arguments)` gives, without `await`; only in a browser.

    Raises:
        ConfigurationError: This browser cannot suspend Python.
    """
    from pyodide.ffi import can_run_sync, run_sync  # pyright: ignore[reportMissingImports]  # only there

    if not can_run_sync():
        raise ConfigurationError("this browser cannot wait here: use `await mn.aask(…)`, or another browser")
    result: T = run_sync(function(*arguments))
    return result


async def run_here(function: Callable[..., T], *arguments: Any, **_options: Any) -> T:
    """Call a function where it is awaited, as a stand-in for `anyio.to_thread.run_sync`."""
    return function(*arguments)


def work_without_threads() -> None:
    """Let what is meant for another thread run where it is asked for."""
    import anyio.to_thread

    anyio.to_thread.run_sync = run_here  # type: ignore[assignment]

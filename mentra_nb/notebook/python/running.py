"""Runs code as a cell of the notebook would, on the thread of the cell that waits, inside the loop of the kernel."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LIBRARY = "matplotlib_inline.backend_inline"


class CodeRunner:
    """Runs code in a shell's namespace. `await` at its top level works, on a loop that is kept between calls."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self._awaiting: asyncio.Runner | None = None

    def name_of(self, code: str) -> str:
        """Return the file name under which code is compiled, and keep its lines for tracebacks."""
        name: str = self.shell.compile.cache(code, self.shell.execution_count, raw_code=code)
        return name

    def run(self, code: str, name: str) -> None:
        """Run code and display the value of its last expression. Raises whatever it raises."""
        from IPython.display import display

        shell = self.shell
        tree = shell.transform_ast(shell.compile.ast_parse(shell.transform_cell(code), filename=name))
        body, shown = list(tree.body), None
        if body and isinstance(body[-1], ast.Expr) and not code.rstrip().endswith(";"):
            shown = body.pop().value
        with _outside_the_loop():
            for statement in body:
                self._do(ast.Module([statement], []), name, "exec")  # by itself: only those that await are awaited
            if shown is not None:
                value = self._do(ast.Expression(shown), name, "eval")
                if value is not None:
                    display(value)  # type: ignore[no-untyped-call]  # IPython has no types for it
            _show_figures(shell)

    def _do(self, tree: ast.Module | ast.Expression, name: str, mode: str) -> Any:
        flags = self.shell.compile.flags | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(tree, name, mode, flags, dont_inherit=True)
        result = eval(code, self.shell.user_global_ns, self.shell.user_ns)  # noqa: S307 - a person has allowed it
        if code.co_flags & inspect.CO_COROUTINE:
            return self._awaited(result)
        return result

    def _awaited(self, coroutine: Any) -> Any:
        running = asyncio._get_running_loop()
        if running is not None:  # patched by nest_asyncio
            return running.run_until_complete(coroutine)
        self._awaiting = self._awaiting or asyncio.Runner()
        return self._awaiting.run(coroutine)


def _show_figures(shell: Any) -> None:
    """Show the figures that were made, as IPython does at the end of a cell."""
    backend = sys.modules.get(_LIBRARY)
    flush = getattr(backend, "flush_figures", None)
    if flush is not None and flush in shell.events.callbacks["post_execute"]:
        flush()


@contextmanager
def _outside_the_loop() -> Iterator[None]:
    """Inside, `asyncio.run` works although this thread is in the kernel's loop, as if that did not run.

    Where nest_asyncio was applied, the kernel's loop can be entered again, and is left as it is.
    """
    running = asyncio._get_running_loop()
    if running is None or hasattr(asyncio, "_nest_patched"):
        yield
        return
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio.set_event_loop(running)  # `asyncio.run` leaves none
        asyncio._set_running_loop(running)

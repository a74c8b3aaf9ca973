"""A map as the one turn that it is in the record. Its parts in several processes write to the same turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from mentra_nb.errors import BudgetSpent
from mentra_nb.event import types as e
from mentra_nb.rows.course import Answers
from mentra_nb.runtime.runtime import Runtime


@dataclass
class Ending:
    """How a map has ended."""

    stop_reason: str = "error"

    def set(self, found: Sequence[Answers], *, is_stopped: bool) -> None:
        """Say that it has ended with these answers."""
        spent = any(isinstance(each, BudgetSpent) for answers in found for each in answers.errors)
        self.stop_reason = "cancelled" if is_stopped else "budget" if spent else "end"


@contextmanager
def turn(
    runtime: Runtime, id: str, prompt: str, model: str, origin: e.TurnOrigin, summary: Callable[[], str]
) -> Iterator[Ending]:
    """Write the beginning of a map's turn, and on leaving its end: how it ended or which error was raised, and the
    summary."""
    began, ending, error = time.monotonic(), Ending(), None
    started = e.TurnStarted(agent_id=id, run_id=id, model=model, prompt=prompt, **origin.model_dump())
    runtime.hooks.emit(runtime.audit, started)
    try:
        yield ending
    except anyio.get_cancelled_exc_class():
        ending.stop_reason = "cancelled"
        raise
    except BaseException as raised:
        error = str(raised) or type(raised).__name__
        raise
    finally:
        where = origin.model_dump(include={"session_id", "cell_id", "execution_count"})
        ms, reason = int((time.monotonic() - began) * 1000), ending.stop_reason
        how: dict[str, Any] = {"stop_reason": reason, "success": reason == "end", "error": error, "text": summary()}
        runtime.hooks.emit(runtime.audit, e.TurnFinished(agent_id=id, run_id=id, duration_ms=ms, **where, **how))

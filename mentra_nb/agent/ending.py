"""How a run ends: what is stored of it and said of it, whether it finished, was stopped or failed."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import anyio

from mentra_nb.agent.loop import Run, request_failed
from mentra_nb.agent.transcript import Place
from mentra_nb.content import Message, Text, ToolUse
from mentra_nb.errors import Cancelled, MentraError, StoreError, is_transient_runtime_error
from mentra_nb.event import types as e
from mentra_nb.store.protocols import Entry, RunState

log = logging.getLogger(__name__)


class Ending:
    """The three ways a run ends. Each is shielded: a second stop does not leave it half done."""

    def __init__(self, run: Run, origin: e.RunOrigin, before: Place) -> None:
        self.run, self.origin, self.before = run, origin, before
        self.began = time.monotonic()
        self.store, self.holder = run.environment.store, run.environment.holder

    def _about(self) -> dict[str, Any]:
        return {
            "agent_id": self.run.agent_id,
            "run_id": self.run.id,
            "duration_ms": int((time.monotonic() - self.began) * 1000),
            "usage": self.run.usage,
            "origin": self.origin,
        }

    async def finished(self, stop_reason: str, text: str) -> None:
        run = self.run
        run.phase = "Finished"
        with anyio.CancelScope(shield=True):
            await self.store.finish_run(run.id, "finished", leaf=run.transcript.leaf, holder=self.holder)
            for source in run.sources:
                await source.acknowledge()
        run.emit(e.RunFinished(stop_reason=stop_reason, text=text, **self._about()))

    async def settled(self, stop: Cancelled) -> None:
        """Stopped: keep what was said, answer what was called, and continue from there next time."""
        run, text = self.run, str(stop) or "stopped"
        run.phase = "Interrupted"
        with anyio.CancelScope(shield=True):
            request_failed(run, stop)
            owed = [run.transcript.append(message, run.id, "settlement") for message in _left_open(run)]
            if await self._close("interrupted", text, run.transcript.leaf, owed):
                for source in run.sources:
                    await source.acknowledge()
            else:
                run.transcript.go_back(self.before)
        run.emit(e.RunFailed(error=text, error_type="Cancelled", cancelled=True, **self._about()))

    async def failed(self, error: BaseException) -> None:
        """Failed: the branch is left where it is."""
        run, text = self.run, str(error) or type(error).__name__
        run.phase = "Failed"
        run.scheduler.abandon(open_calls(run), f"not executed: {text}", "runtime")
        with anyio.CancelScope(shield=True):
            request_failed(run, error)
            await self._close("failed", text)
            run.transcript.go_back(self.before)
        recoverable = isinstance(error, MentraError) and is_transient_runtime_error(error)
        run.emit(
            e.RunFailed(
                error=text,
                error_type=type(error).__name__,
                cancelled=False,
                recoverable=recoverable,
                **self._about(),
            )
        )

    async def _close(self, state: RunState, error: str, leaf: str | None = None, owed: Sequence[Entry] = ()) -> bool:
        """Store the end. `False` when that fails: what ended the run is the error to show; recovery closes it later."""
        try:
            await self.store.finish_run(self.run.id, state, leaf=leaf, error=error, entries=owed, holder=self.holder)
        except StoreError:
            log.exception("the end of run %s could not be stored", self.run.id)
            return False
        return True


def open_calls(run: Run) -> list[ToolUse]:
    """The calls at the end of the transcript, whose results are not in it yet."""
    return run.transcript.last.message.tool_uses() if run.transcript.last is not None else []


def _left_open(run: Run) -> list[Message]:
    """What a stopped run still owes its transcript: a result for every open call, or the text so far."""
    if calls := open_calls(run):
        return [Message.user(run.scheduler.abandon(calls))]
    text = run.pending.partial_text() if run.pending is not None else ""
    return [Message.assistant([Text(text=text)])] if text else []

"""How a run ends: what is stored of it and said of it, whether it finished, was stopped or failed."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import anyio

from mentra_nb.agent.loop import Turn, request_failed
from mentra_nb.agent.transcript import TranscriptPath
from mentra_nb.content import Message, Text, ToolUse
from mentra_nb.errors import Cancelled, MentraError, StoreError, is_transient_runtime_error
from mentra_nb.event import types as e
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.store.records import Entry, RunState

log = logging.getLogger(__name__)


class Ending:
    """The three ways a run ends. Each is shielded: a second stop does not leave it half done."""

    def __init__(self, turn: Turn, origin: e.TurnOrigin, before: TranscriptPath) -> None:
        self.turn = turn
        self.origin = origin
        self.before = before
        self.began: float = time.monotonic()
        self.store: RuntimeStore = turn.environment.store
        self.holder: str | None = turn.environment.holder

    def _emit(self, **how: Any) -> None:
        where = self.origin.model_dump(include={"session_id", "cell_id", "execution_count"})
        ms = int((time.monotonic() - self.began) * 1000)
        turn = self.turn
        about: dict[str, Any] = {"agent_id": turn.agent_id, "run_id": turn.id, "duration_ms": ms, "usage": turn.usage}
        turn.emit(e.TurnFinished(**about, **where, **how))

    def _emit_failure(self, stop_reason: str, text: str, error: BaseException, *, recoverable: bool = False) -> None:
        self.turn.emit(e.RunAborted(agent_id=self.turn.agent_id, run_id=self.turn.id, reason=text))
        self._emit(
            stop_reason=stop_reason,
            success=False,
            error=text,
            error_type=type(error).__name__,
            recoverable=recoverable,
        )

    async def finished(self, stop_reason: str, text: str) -> None:
        turn = self.turn
        turn.phase = "Finished"
        with anyio.CancelScope(shield=True):
            await self.store.finish_run(turn.id, "finished", leaf=turn.transcript.leaf, holder=self.holder)
            for source in turn.sources:
                await source.acknowledge()
        self._emit(stop_reason=stop_reason, success=True, text=text)

    async def settled(self, stop: Cancelled) -> None:
        """Stopped: keep what was said, answer what was called, and continue from there next time."""
        turn, text = self.turn, str(stop) or "stopped"
        turn.phase = "Interrupted"
        with anyio.CancelScope(shield=True):
            request_failed(turn, stop)
            owed = [turn.transcript.append(message, turn.id, "settlement") for message in _left_open(turn)]
            if await self._close("interrupted", text, turn.transcript.leaf, owed):
                for source in turn.sources:
                    await source.acknowledge()
            else:
                turn.transcript.go_back(self.before)
        self._emit_failure("cancelled", text, stop)

    async def failed(self, error: BaseException) -> None:
        """Failed: the branch is left where it is."""
        turn, text = self.turn, str(error) or type(error).__name__
        turn.phase = "Failed"
        turn.scheduler.abandon(open_calls(turn), f"not executed: {text}", "runtime")
        with anyio.CancelScope(shield=True):
            request_failed(turn, error)
            await self._close("failed", text)
            turn.transcript.go_back(self.before)
        recoverable = isinstance(error, MentraError) and is_transient_runtime_error(error)
        self._emit_failure("error", text, error, recoverable=recoverable)

    async def _close(self, state: RunState, error: str, leaf: str | None = None, owed: Sequence[Entry] = ()) -> bool:
        """Store the end. `False` when that fails: what ended the run is the error to show; recovery closes it later."""
        try:
            await self.store.finish_run(self.turn.id, state, leaf=leaf, error=error, entries=owed, holder=self.holder)
        except StoreError:
            log.exception("the end of run %s could not be stored", self.turn.id)
            return False
        return True


def open_calls(turn: Turn) -> list[ToolUse]:
    """The calls at the end of the transcript, whose results are not in it yet."""
    return turn.transcript.last.message.tool_uses() if turn.transcript.last is not None else []


def _left_open(turn: Turn) -> list[Message]:
    """What a stopped run still owes its transcript: a result for every open call, or the text so far."""
    if calls := open_calls(turn):
        return [Message.user(turn.scheduler.abandon(calls))]
    text = turn.pending.partial_text() if turn.pending is not None else ""
    return [Message.assistant([Text(text=text)])] if text else []

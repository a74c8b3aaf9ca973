"""How a turn ends: what is stored and announced when it finishes, is stopped or fails."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from mentra_nb.agent.loop import request_failed
from mentra_nb.agent.transcript import TranscriptPath
from mentra_nb.agent.turn import Turn
from mentra_nb.content import Message, Text, ToolUse
from mentra_nb.errors import Cancelled, EmptyAssistantResponse, MentraError, StoreError, is_transient_runtime_error
from mentra_nb.event import types as e
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.store.records import RunState

log: logging.Logger = logging.getLogger(__name__)

COMPACTED = "compacted"
"""The stop reason of a turn that only made the conversation shorter."""


@asynccontextmanager
async def ending(turn: Turn, origin: e.TurnOrigin, before: TranscriptPath) -> AsyncIterator[None]:
    """Run the block, then store and announce how the turn ended. Whatever ended the block is raised again.

    A turn that finished moves the leaf to its end. So does one that was stopped, after its open calls were answered or
    its partial text kept. A turn that failed leaves the leaf where it was `before`; its entries stay in the store.
    """
    end = _Ending(turn, origin, before)
    try:
        yield
        await end.finished()
    except anyio.get_cancelled_exc_class():  # the task itself was cancelled, from outside
        await end.settled(Cancelled())
        raise
    except Cancelled as stop:
        await end.settled(stop)
        raise
    except BaseException as error:
        await end.failed(error)
        raise


class _Ending:
    """The three ways a turn ends. Each is shielded: a second stop does not interrupt it."""

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

    async def finished(self) -> None:
        """Finished: the conversation continues from here."""
        turn = self.turn
        turn.phase = "Finished"
        with anyio.CancelScope(shield=True):
            leaf, owed = turn.transcript.leaf, turn.owed
            await self.store.finish_run(turn.id, "finished", leaf=leaf, entries=owed, holder=self.holder)
            for source in turn.sources:
                await source.acknowledge()
        is_compacted = turn.stop_reason == COMPACTED
        text = turn.answer.text() if turn.answer and not is_compacted else ""
        is_empty = not text and turn.stop_reason != "ended_by_tool" and not is_compacted
        error = str(EmptyAssistantResponse(turn.stop_detail)) if is_empty else None
        self._emit(stop_reason=turn.stop_reason, success=True, text=text, error=error)

    async def settled(self, stop: Cancelled) -> None:
        """Stopped: the partial text is kept, open calls are answered, and the conversation continues from here."""
        turn, text = self.turn, str(stop) or "stopped"
        turn.phase = "Interrupted"
        with anyio.CancelScope(shield=True):
            request_failed(turn, stop)
            turn.owed += [turn.transcript.append(message, turn.id, "settlement") for message in _left_open(turn)]
            if await self._close("interrupted", text, turn.transcript.leaf):
                for source in turn.sources:
                    await source.acknowledge()
            else:
                turn.transcript.go_back(self.before)
        self._emit_failure("cancelled", text, stop)

    async def failed(self, error: BaseException) -> None:
        """Failed: the conversation continues from before the turn."""
        turn, text = self.turn, str(error) or type(error).__name__
        turn.phase = "Failed"
        turn.scheduler.abandon(open_calls(turn), f"not executed: {text}", "runtime")
        with anyio.CancelScope(shield=True):
            request_failed(turn, error)
            await self._close("failed", text)
            turn.transcript.go_back(self.before)
        recoverable = isinstance(error, MentraError) and is_transient_runtime_error(error)
        self._emit_failure("error", text, error, recoverable=recoverable)

    async def _close(self, state: RunState, error: str, leaf: str | None = None) -> bool:
        """Store the end, and return whether that succeeded. If not, recovery closes the turn when it is next loaded."""
        owed = self.turn.owed
        try:
            await self.store.finish_run(self.turn.id, state, leaf=leaf, error=error, entries=owed, holder=self.holder)
        except StoreError:
            log.exception("the end of turn %s could not be stored", self.turn.id)
            return False
        return True


def open_calls(turn: Turn) -> list[ToolUse]:
    """Return the calls of the last message, whose results are not in the transcript yet."""
    return turn.transcript.last.message.tool_uses() if turn.transcript.last is not None else []


def _left_open(turn: Turn) -> list[Message]:
    """Return what completes the transcript of a stopped turn: a result for every open call, or the text so far."""
    if calls := open_calls(turn):
        return [Message.user(turn.scheduler.abandon(calls))]
    text = turn.pending.partial_text() if turn.pending is not None else ""
    return [Message.assistant([Text(text=text)])] if text else []

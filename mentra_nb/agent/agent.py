"""An agent: one model, one transcript, one run at a time; and what surrounds a run, however it ends.

A run is a branch. Success moves the leaf to its end; a stop settles the branch (partial text kept, open calls
answered) and moves the leaf too; a failure leaves the leaf where it was, and the branch in the store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Any

import anyio
import anyio.lowlevel

from mentra_nb import event_types as e
from mentra_nb.agent.loop import Run, request_failed, run_rounds
from mentra_nb.agent.request import AgentConfig
from mentra_nb.agent.transcript import Transcript
from mentra_nb.content import Message, Role, Text, ToolUse
from mentra_nb.control.limits import RunLimits, RunOptions
from mentra_nb.errors import (
    Cancelled,
    DeadlineExceeded,
    EmptyAssistantResponse,
    MentraError,
    OperationDenied,
    StoreError,
    is_transient_runtime_error,
)
from mentra_nb.identity import new_id
from mentra_nb.providers.base import ModelInfo, Provider
from mentra_nb.store.base import AgentRecord, RunRecord
from mentra_nb.tools.environment import AgentEnvironment
from mentra_nb.tools.scheduler import Caller, Scheduler

log = logging.getLogger(__name__)


class Agent:
    """Made by `Runtime.spawn` or `Runtime.resume_agent`. Not shared between event loops."""

    def __init__(
        self,
        record: AgentRecord,
        provider: Provider,
        environment: AgentEnvironment,
        transcript: Transcript | None = None,
    ) -> None:
        self.id, self.name, self.model = record.id, record.name, record.model
        self.config = AgentConfig.model_validate(record.config)
        self.provider, self.environment = provider, environment
        self.transcript = transcript or Transcript(record.id)
        self._busy = False

    def __repr__(self) -> str:
        where = f"{self.provider.descriptor.id}/{self.model}"
        return f"<Agent {self.name!r} {self.id} on {where}, {len(self.transcript)} messages>"

    def history(self) -> list[Message]:
        """The messages of the active branch."""
        return self.transcript.messages()

    def use_model(self, model: ModelInfo, provider: Provider) -> None:
        """Ask another model from the next run on."""
        self.model, self.provider = model.id, provider

    async def send(self, content: str | Iterable[Any]) -> Message:
        """`run` with default options."""
        return await self.run(content)

    async def run(
        self, content: str | Iterable[Any], options: RunOptions | None = None, origin: e.RunOrigin | None = None
    ) -> Message:
        """One user turn, to the model's final message.

        Raises:
            Cancelled: it was stopped; what had been said and done is kept in the transcript.
            EmptyAssistantResponse: it finished without a final message; the transcript is kept.
            MentraError: it failed; the transcript is as before.
            OperationDenied: a turn is already running.
        """
        if self._busy:
            raise OperationDenied(f"agent '{self.name}' is already taking a turn: wait for it, or stop it")
        self._busy = True
        try:
            return await self._run(Message.user(content), options or RunOptions(), origin or e.RunOrigin())
        finally:
            self._busy = False

    async def _run(self, message: Message, options: RunOptions, origin: e.RunOrigin) -> Message:
        began, baseline = time.monotonic(), len(self.transcript)
        run = self._new_run(options)
        await self.environment.store.start_run(
            RunRecord(
                id=run.id,
                agent_id=self.id,
                base=self.transcript.leaf,
                cell_id=origin.cell_id,
                started_at=time.time(),
            )
        )
        run.emit(e.RunStarted(agent_id=self.id, run_id=run.id, model=self.model, prompt=message.text(), origin=origin))
        ends = _Ending(run, origin, began)
        stop_reason: str | None = None
        try:
            with options.stoppable() as scope:
                await anyio.lowlevel.checkpoint()  # stopped before it began: then nothing was said
                await run.commit(message)
                stop_reason = await run_rounds(run)
            if stop_reason is None:
                assert scope.cancelled_caught
                stopped = options.cancellation is not None and options.cancellation.is_cancelled
                reason = options.cancellation.reason if options.cancellation is not None and stopped else ""
                raise Cancelled(reason) if stopped else DeadlineExceeded
        except anyio.get_cancelled_exc_class():  # the task itself was cancelled, from outside
            await ends.settled(Cancelled())
            raise
        except Cancelled as stop:
            await ends.settled(stop)
            raise
        except BaseException as error:
            await ends.failed(error, baseline)
            raise
        final = self.transcript.entries[-1].message
        answered = final.role is Role.ASSISTANT and final.text() != ""
        await ends.finished(stop_reason, final.text() if answered else "")
        if not answered:
            raise EmptyAssistantResponse
        return final

    def _new_run(self, options: RunOptions) -> Run:
        run_id, limits = new_id("run"), RunLimits(options)
        return Run(
            id=run_id,
            agent_id=self.id,
            model=self.model,
            config=self.config,
            provider=self.provider,
            environment=self.environment,
            transcript=self.transcript,
            limits=limits,
            scheduler=Scheduler(
                self.environment,
                Caller(self.id, self.name, self.model, run_id),
                limits,
                offers=self.config.offers,
            ),
        )


class _Ending:
    """The three ways a run ends. Each is shielded: a second stop does not leave it half done."""

    def __init__(self, run: Run, origin: e.RunOrigin, began: float) -> None:
        self.run, self.origin, self.began = run, origin, began

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
        with anyio.CancelScope(shield=True):
            await run.environment.store.finish_run(run.id, "finished", leaf=run.transcript.leaf)
        run.emit(e.RunFinished(stop_reason=stop_reason, text=text, **self._about()))

    async def settled(self, stop: Cancelled) -> None:
        """Stopped: keep what was said, answer what was called, and continue from there next time."""
        run = self.run
        with anyio.CancelScope(shield=True):
            request_failed(run, stop)
            for message in _left_open(run):
                await run.commit(message)
            await run.environment.store.finish_run(
                run.id, "interrupted", leaf=run.transcript.leaf, error=str(stop) or "stopped"
            )
        run.emit(e.RunFailed(error=str(stop) or "stopped", error_type="Cancelled", cancelled=True, **self._about()))

    async def failed(self, error: BaseException, baseline: int) -> None:
        """Failed: leave the branch, and say of its open calls that nobody will run them."""
        run, text = self.run, str(error) or type(error).__name__
        run.scheduler.abandon(_open_calls(run), f"not executed: {text}", "runtime")
        run.transcript.back_to(baseline)
        with anyio.CancelScope(shield=True):
            request_failed(run, error)
            try:
                await run.environment.store.finish_run(run.id, "failed", leaf=None, error=text)
            except StoreError:  # perhaps the very thing that failed the run: its own error is the one to show
                log.exception("the end of run %s could not be stored", run.id)
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


def _open_calls(run: Run) -> list[ToolUse]:
    """The calls at the end of the transcript, whose results are not in it yet."""
    return run.transcript.entries[-1].message.tool_uses() if len(run.transcript) else []


def _left_open(run: Run) -> list[Message]:
    """What a stopped run still owes its transcript: a result for every open call, or the text so far."""
    if calls := _open_calls(run):
        return [Message.user(run.scheduler.abandon(calls))]
    text = run.pending.partial_text() if run.pending is not None else ""
    return [Message.assistant([Text(text=text)])] if text else []

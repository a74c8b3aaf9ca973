"""Runs the calls of one round: in order, read-only neighbours together, each through the same gates.

    offered? → arguments fit? → policy → authorizer → pre-execution hooks → written ahead → run → result

Every refusal is an error result for the model, and every call has exactly one decision in the record.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread

from mentra_nb.agent.environment import AgentEnvironment
from mentra_nb.agent.limits import TurnLimits
from mentra_nb.agent.results import NOT_RUN, SKIPPED, STOPPED, limited
from mentra_nb.authorization import (
    ToolAuthorizationDecision,
    ToolAuthorizationOutcome,
    ToolAuthorizationPreview,
    ToolAuthorizationRequest,
    ToolExecutionCategory,
)
from mentra_nb.content import Image, ToolResult, ToolUse
from mentra_nb.event import types as e
from mentra_nb.event.bus import PreExecutionContext
from mentra_nb.permission.binding import arguments_hash, decide_in_time, duration
from mentra_nb.permission.policy import PolicyViolation
from mentra_nb.store.records import Resolution, ToolCallRecord
from mentra_nb.tools.tool import Tool, ToolContext, ToolOutput, as_content

Allow: ToolAuthorizationOutcome = ToolAuthorizationOutcome.ALLOW
Deny: ToolAuthorizationOutcome = ToolAuthorizationOutcome.DENY


@dataclass(frozen=True)
class Caller:
    """Who is asking."""

    agent_id: str
    agent_name: str
    model: str
    run_id: str


@dataclass
class _Call:
    """One call on its way through the gates."""

    use: ToolUse
    tool: Tool
    context: ToolContext
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Earlier:
    """What is known of calls that an interrupted run had taken up."""

    results: Mapping[str, ToolResult] = field(default_factory=dict)
    """By call id: what is known."""
    unknown: Mapping[str, ToolCallRecord] = field(default_factory=dict)
    """By call id: what began and may have taken effect."""
    ends_turn: frozenset[str] = frozenset()
    """Ids of the calls whose results ended the turn."""
    run_ids: tuple[str, ...] = ()
    """The run, and those it had continued."""


class _Refused(Exception):
    """A gate said no. The text is what the model reads."""


@dataclass
class Scheduler:
    """The calls of one run. `results` holds what is known so far, so that a stopped run can still answer each call."""

    environment: AgentEnvironment
    caller: Caller
    limits: TurnLimits
    offers: Callable[[str], bool] = lambda name: True
    """Whether the agent may use a tool of that name."""
    delegate: Callable[[str], Awaitable[str]] | None = None
    """Gives a task to a subagent, for tools that do."""
    answer_tool: Tool | None = None
    """The tool that takes the run's final answer: nobody has to allow that."""
    history_len: int = 0
    results: dict[str, ToolResult] = field(default_factory=dict)
    _calls: Sequence[ToolUse] = ()
    _undecided: set[str] = field(default_factory=set)
    _earlier: Earlier = field(default_factory=Earlier)

    async def execute(self, calls: Sequence[ToolUse], earlier: Earlier | None = None) -> bool:
        """Run the calls of one round; `results` then has an answer for each. True when a tool ended the turn.

        Of calls that another run had taken up, `earlier` says what is known: a result is not asked for twice.
        """
        self._earlier = earlier or Earlier()
        self._calls = calls
        self.results = {use.id: self._earlier.results[use.id] for use in calls if use.id in self._earlier.results}
        left = self.open_calls()
        self._undecided = {use.id for use in left}
        ended_by = next((use.name for use in calls if use.id in self._earlier.ends_turn), None)
        for batch in self._batches(left):
            if ended_by is not None:
                self.abandon(batch, f"not executed: run terminated by '{ended_by}'", "runtime")
                continue
            self.limits.count_tools(len(batch))
            cleared = [call for use in batch if (call := await self._clear(use)) is not None]
            if len(cleared) == 1:
                if await self._run(cleared[0]):
                    ended_by = cleared[0].use.name
            else:
                await self._run_together(cleared)
        return ended_by is not None

    def open_calls(self) -> list[ToolUse]:
        """The calls of the round that have no result yet."""
        return [use for use in self._calls if use.id not in self.results]

    def take_results(self) -> list[ToolResult]:
        """The results of the round, in the order of its calls. From here on it is over."""
        taken = [self.results[use.id] for use in self._calls]
        self._calls, self.results = (), {}
        return taken

    def abandon(self, calls: Sequence[ToolUse], text: str = NOT_RUN, decided_by: str = "cancelled") -> list[ToolResult]:
        """Answer those of `calls` that have no result yet, since nobody will run them. Returns all their results."""
        for use in calls:
            if use.id not in self.results:
                if use.id in self._undecided:
                    self._deny(use, text, decided_by)
                self._finish(use, text, is_error=True, duration_ms=None)
        return [self.results[use.id] for use in calls]

    async def _run_together(self, calls: Sequence[_Call]) -> None:
        try:
            async with anyio.create_task_group() as group:
                for call in calls:
                    group.start_soon(self._run, call)
        except BaseExceptionGroup as several:  # tool failures are results; what is left is the store's
            raise several.exceptions[0] from several

    def _batches(self, calls: Sequence[ToolUse]) -> Iterator[list[ToolUse]]:
        """Consecutive read-only calls together; anything else alone."""
        batch: list[ToolUse] = []
        for use in calls:
            if self._is_parallel(use):
                batch.append(use)
                continue
            if batch:
                yield batch
            yield [use]
            batch = []
        if batch:
            yield batch

    def _is_parallel(self, use: ToolUse) -> bool:
        tool = self.environment.tools.get(use.name)
        if tool is not None:
            with contextlib.suppress(Exception):  # a tool may be asked about arguments that do not fit
                return tool.execution_category(use.input) is ToolExecutionCategory.READ_ONLY_PARALLEL
        return False

    # ---- gates ------------------------------------------------------------------------------------------------

    async def _clear(self, use: ToolUse) -> _Call | None:
        """Take a call through every gate before its run. `None` when one refused: then it is answered."""
        self._emit(e.ToolCallStarted(agent_id=self.caller.agent_id, call=use))
        try:
            call = self._prepare(use)
            await self._authorize(call)
            await self._pre_hooks(call)
        except _Refused as refusal:
            self._finish(use, str(refusal), is_error=True, duration_ms=None)
            return None
        return call

    def _prepare(self, use: ToolUse) -> _Call:
        tool = self.environment.tools.get(use.name)
        if tool is not None and not self.offers(use.name):
            raise self._deny(use, f"Tool '{use.name}' is not available for this agent", "runtime")
        if tool is None:
            known = ", ".join(filter(self.offers, sorted(self.environment.tools))) or "none"
            raise self._deny(use, f"Tool not found: '{use.name}'; available: {known}", "runtime")
        if use.error is not None:
            raise self._deny(use, f"The arguments of '{use.name}' are not a JSON object: {use.error}", "runtime")
        context = self._context(use)
        try:
            arguments = tool.validate(use.input)
        except Exception as error:
            raise self._deny(use, f"Tool execution denied: {error}", "runtime") from error
        return _Call(use, tool, context, arguments)

    async def _authorize(self, call: _Call) -> None:
        use, authorizer = call.use, None if call.tool is self.answer_tool else self.environment.authorizer
        try:
            preview = call.tool.preview(call.context, call.arguments).model_copy(update={"raw_input": use.input})
            subject = call.tool.subject(call.context, call.arguments)
            call.tool.check_policy(call.context, call.arguments)
        except PolicyViolation as violation:
            self._policy_denied(use, violation)
            raise self._deny(use, f"Tool execution denied: {violation}", "policy") from violation
        except Exception as error:
            raise self._deny(use, f"Tool execution denied: {error}", "runtime") from error
        before = self._earlier.unknown.get(use.id)
        if before is not None and before.resolution == "run_again":
            self._decided(use, ToolAuthorizationDecision.allow("user"), subject=subject)
            return
        again = before is not None and call.tool.spec.effect == "once"
        if authorizer is None and not again:
            self._decided(use, ToolAuthorizationDecision.allow("runtime"), subject=subject)
            return
        self._emit(e.ToolAuthorizationStarted(preview=preview, **self._about(use)))
        began = time.monotonic()
        decision = await self._ask(call, preview, subject, again=again)
        if again and decision.outcome is Allow and decision.decided_by != "user":
            decision = ToolAuthorizationDecision.deny("only a person can decide to run it again", "runtime")
        waited = int((time.monotonic() - began) * 1000)
        self._decided(use, decision, subject=subject, wait_ms=waited)
        if before is not None:
            resolution: Resolution = "run_again" if decision.outcome is Allow else "skipped"
            await self.environment.store.resolve_tool_call(before.run_id, use.id, resolution)
        if decision.outcome is Allow:
            return
        self._emit(
            e.ToolAuthorizationBlocked(outcome=decision.outcome, reason=decision.reason, **self._about(use)),
        )
        if again:
            raise _Refused(f"{SKIPPED}: {decision.reason}" if decision.reason else SKIPPED)
        if decision.outcome is Deny:
            raise _Refused(f"Tool execution denied: {decision.reason or 'denied by authorizer'}")
        raise _Refused(f"Tool execution requires approval: {decision.reason or 'nobody could be asked'}")

    async def _ask(
        self, call: _Call, preview: ToolAuthorizationPreview, subject: str, *, again: bool
    ) -> ToolAuthorizationDecision:
        authorizer = self.environment.authorizer
        if authorizer is None:
            return ToolAuthorizationDecision.deny("nobody could be asked", "runtime")
        request = ToolAuthorizationRequest(
            agent_id=self.caller.agent_id,
            agent_name=self.caller.agent_name,
            model=self.caller.model,
            history_len=self.history_len,
            tool_call_id=call.use.id,
            tool_name=call.use.name,
            preview=preview,
            run_id=self.caller.run_id,
            subject=subject,
            arguments=call.arguments,
            asks=call.tool.spec.asks,
            shell_subject=call.tool.shell_subject,
            again=again,
            earlier_runs=self._earlier.run_ids,
        )
        try:
            return await decide_in_time(authorizer, request)
        except Exception as error:  # noqa: BLE001 - fail closed, whatever went wrong
            return ToolAuthorizationDecision.deny(str(error) or type(error).__name__)

    async def _pre_hooks(self, call: _Call) -> None:
        for hook in self.environment.pre_hooks:
            context = PreExecutionContext(
                self.caller.agent_id,
                call.use.name,
                call.use.id,
                call.arguments,
                str(call.context.working_directory),
            )
            try:
                decision = await hook.before_execution(context)
                if decision.outcome == "modify":
                    call.arguments = call.tool.validate(decision.input or {})
                    call.tool.check_policy(call.context, call.arguments)
            except PolicyViolation as violation:
                self._policy_denied(call.use, violation)
                raise self._blocked(call.use, str(violation)) from violation
            except Exception as error:
                raise self._blocked(call.use, str(error) or type(error).__name__) from error
            if decision.outcome == "deny":
                raise self._blocked(call.use, decision.reason or "refused")

    async def _write_ahead(self, call: _Call) -> None:
        """From here on the call may have run: the store and the disk know before it does."""
        await self.environment.store.begin_tool_call(
            ToolCallRecord(
                run_id=self.caller.run_id,
                call_id=call.use.id,
                agent_id=self.caller.agent_id,
                tool=call.use.name,
                arguments=call.arguments,
                arguments_hash=arguments_hash(call.use.name, call.arguments),
                effect=call.tool.spec.effect,
                started_at=time.time(),
            ),
            holder=self.environment.holder,
        )
        errors = self._emit(e.ToolExecutionStarted(input=call.arguments, **self._about(call.use)))
        if errors:
            await self._close(call.use, f"execution blocked: {errors[0]}", is_error=True)
            raise _Refused(f"Tool execution blocked: {errors[0]}")
        if call.tool.spec.effect != "none":
            await anyio.to_thread.run_sync(self.environment.bus.sync)

    # ---- the run itself ---------------------------------------------------------------------------------------

    async def _run(self, call: _Call) -> bool:
        """Run a cleared call to its result. True when it asked to end the turn."""
        try:
            await self._write_ahead(call)
        except _Refused as refusal:
            self._finish(call.use, str(refusal), is_error=True, duration_ms=None)
            return False
        except anyio.get_cancelled_exc_class():
            await self._close(call.use, NOT_RUN, is_error=True)
            raise
        began, timeout = time.monotonic(), call.tool.spec.execution_timeout
        output, error = ToolOutput(""), None
        try:
            with anyio.move_on_after(timeout) as limit:
                output = await call.tool.execute(call.context, call.arguments)
            if limit.cancelled_caught:
                error = f"Tool '{call.use.name}' timed out after {duration(timeout or 0)}"
        except anyio.get_cancelled_exc_class():
            if _is_stopped():
                self._finish(call.use, STOPPED, is_error=True, duration_ms=_ms_since(began))
                await self._close(call.use, STOPPED, is_error=True)
                raise
            error = f"Tool '{call.use.name}' was cancelled from within"
        except PolicyViolation as violation:
            self._policy_denied(call.use, violation)
            error = str(violation)
        except (Exception, SystemExit) as failure:  # noqa: BLE001 - a tool's failure is the model's to read, not ours to die of
            error = str(failure) or type(failure).__name__
        if error is None and output.terminate and self._is_parallel(call.use):
            error = f"Tool '{call.use.name}' runs beside others and cannot end the turn"
        content = limited(as_content(output.content if error is None else error))
        ends_turn = error is None and output.terminate
        await self._close(call.use, content, is_error=error is not None, ends_turn=ends_turn)
        images = output.images if error is None else ()
        self._finish(call.use, content, is_error=error is not None, duration_ms=_ms_since(began), images=images)
        return ends_turn

    async def _close(self, use: ToolUse, content: Any, *, is_error: bool, ends_turn: bool = False) -> None:
        with anyio.CancelScope(shield=True):  # what is known of a call is kept, also when the run is stopped meanwhile
            await self.environment.store.finish_tool_call(
                self.caller.run_id, use.id, content, is_error=is_error, ends_turn=ends_turn
            )

    # ---- saying so --------------------------------------------------------------------------------------------

    def _emit(self, event: e.AgentEvent) -> list[Exception]:
        return self.environment.bus.emit(event)

    def _about(self, use: ToolUse) -> dict[str, Any]:
        return {
            "agent_id": self.caller.agent_id,
            "run_id": self.caller.run_id,
            "tool_name": use.name,
            "tool_call_id": use.id,
        }

    def _context(self, use: ToolUse) -> ToolContext:
        env, caller = self.environment, self.caller
        loop, ours = asyncio.get_running_loop(), threading.get_ident()

        def show(text: str) -> None:
            if use.id not in self.results:  # a tool that was given up may still be talking
                self._emit(e.ToolExecutionProgress(agent_id=caller.agent_id, id=use.id, name=use.name, progress=text))

        def progress(text: str) -> None:
            if threading.get_ident() == ours:
                show(text)
            else:
                with contextlib.suppress(RuntimeError):  # the loop is gone, and the run with it
                    loop.call_soon_threadsafe(show, text)

        return ToolContext(
            agent_id=caller.agent_id,
            agent_name=caller.agent_name,
            model=caller.model,
            run_id=caller.run_id,
            tool_call_id=use.id,
            tool_name=use.name,
            working_directory=env.working_directory,
            policy=env.policy,
            executor=env.executor,
            progress=progress,
            app_contexts=env.app_contexts,
            delegate=self.delegate,
        )

    def _decided(
        self, use: ToolUse, decision: ToolAuthorizationDecision, *, subject: str = "", wait_ms: int = 0
    ) -> None:
        self._undecided.discard(use.id)
        self._emit(
            e.ToolAuthorizationFinished(
                outcome=decision.outcome,
                reason=decision.reason,
                decided_by=decision.decided_by,
                request_id=decision.request_id,
                wait_ms=wait_ms,
                subject=subject or None,
                **self._about(use),
            )
        )

    def _deny(self, use: ToolUse, text: str, decided_by: str) -> _Refused:
        self._decided(use, ToolAuthorizationDecision.deny(text, decided_by))
        return _Refused(text)

    def _blocked(self, use: ToolUse, reason: str) -> _Refused:
        self._emit(e.ToolExecutionBlocked(reason=reason, **self._about(use)))
        return _Refused(f"Blocked by pre-execution hook: {reason}")

    def _policy_denied(self, use: ToolUse, violation: PolicyViolation) -> None:
        about = self._about(use)
        self._emit(e.PolicyDenied(reason=violation.detail, **about))
        self._emit(
            e.AuthorizationDenied(
                agent_id=self.caller.agent_id,
                run_id=self.caller.run_id,
                action=violation.action,
                detail=violation.detail,
            )
        )

    def _finish(
        self,
        use: ToolUse,
        content: Any,
        *,
        is_error: bool,
        duration_ms: int | None,
        images: tuple[Image, ...] = (),
    ) -> None:
        result = ToolResult(tool_use_id=use.id, content=content, is_error=is_error, images=images)
        self.results[use.id] = result
        text = result.display()
        self._emit(
            e.ToolExecutionFinished(
                is_error=is_error,
                error=text if is_error else None,
                output_preview=text,
                duration_ms=duration_ms,
                **self._about(use),
            )
        )


def _is_stopped() -> bool:
    """Whether it is the run that is being cancelled, and not only something inside a tool."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _ms_since(began: float) -> int:
    return int((time.monotonic() - began) * 1000)

"""Runs the calls of one round in order, parallel neighbours together: gates → written ahead → run → result."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread

from mentra_nb.agent.calls import Call, Caller, CallEvents, Earlier, Refused
from mentra_nb.agent.delegation import Delegation
from mentra_nb.agent.environment import AgentEnvironment
from mentra_nb.agent.gates import Gates
from mentra_nb.agent.limits import TurnLimits
from mentra_nb.agent.outcome import Outcome, after_hooks, as_outcome, is_stopped, noted, shortened
from mentra_nb.agent.results import NOT_RUN, STOPPED, STOPPED_TRIAL, in_words, limited
from mentra_nb.agent.toolbox import Toolbox
from mentra_nb.content import ToolResult, ToolUse
from mentra_nb.event import types as e
from mentra_nb.permission.asking import SessionPermissions
from mentra_nb.permission.binding import arguments_hash, contained, contained_call, duration
from mentra_nb.permission.person import AskPerson
from mentra_nb.permission.policy import PolicyViolation
from mentra_nb.store.records import Entry, ToolCallEnd, ToolCallRecord
from mentra_nb.tools.needed import READ_TOOL_RESULT, Compaction, ToolIndex, WholeResults
from mentra_nb.tools.schema import ToolError
from mentra_nb.tools.tool import Tool


@dataclass(eq=False, repr=False)
class Scheduler:
    """The calls of one turn. `results` holds those known so far, so that a stopped turn can answer every call."""

    environment: AgentEnvironment
    caller: Caller
    limits: TurnLimits
    toolbox: Toolbox
    delegation: Delegation | None = None
    """What gives tasks to subagents."""
    answer_tool: Tool | None = None
    """The tool that takes the turn's typed answer; it needs no permission."""
    companions: Mapping[type, Any] = field(default_factory=dict)
    """What the agent keeps for its tools, by class. May grow."""
    history_len: int = 0
    results: dict[str, ToolResult] = field(default_factory=dict)
    unsaved: ToolCallEnd | None = None
    """The end of the round's last call, while it is not stored: it is stored with the results of the round."""
    path: Callable[[], Awaitable[Sequence[Entry]]] | None = None
    """Returns all entries of the conversation."""
    wants_compaction: bool = False
    """Whether the tool `compact` was called, and the conversation is to be shortened before the next request."""
    _calls: Sequence[ToolUse] = ()

    def __post_init__(self) -> None:
        services: dict[type, Any] = {
            ToolIndex: ToolIndex(self.toolbox.deferred, self.toolbox.load),
            **self.companions,
            WholeResults: WholeResults(self._whole_result),
            Compaction: Compaction(lambda: setattr(self, "wants_compaction", True)),
        }
        if isinstance(self.environment.authorizer, SessionPermissions):
            services[AskPerson] = AskPerson(self.environment.authorizer)
        self._events = CallEvents(self.environment, self.caller, services, self.delegation)
        self._gates = Gates(self._events, self.toolbox, self.answer_tool, is_open=lambda id: id not in self.results)

    async def _whole_result(self, call_id: str) -> str | None:
        """Return the whole result of a call of which a part was sent, as text; `None` if there is none."""
        kept = await self.environment.store.load_result(self.caller.agent_id, call_id)
        if kept is not None or self.path is None:
            return kept
        found = (result for entry in reversed(await self.path()) for result in entry.message.tool_results())
        return next((result.display() for result in found if result.tool_use_id == call_id), None)

    def use_model(self, model: str) -> None:
        """Name another model in what follows."""
        self.caller = self._events.caller = self.caller._replace(model=model)

    async def execute(self, calls: Sequence[ToolUse], earlier: Earlier | None = None) -> bool:
        """Run the calls of one round; `results` then has an answer for each. Returns whether a tool ended the turn.

        `earlier` is what is known of calls that an interrupted turn had taken up; known results are not run again.
        """
        known = self._gates.earlier = earlier or Earlier()
        self._gates.history_len = self.history_len
        self._calls = calls
        self.results = {use.id: known.results[use.id] for use in calls if use.id in known.results}
        left = self.open_calls()
        self._events.undecided = {use.id for use in left}
        ended_by = next((use.name for use in calls if use.id in known.ends_turn), None)
        async with self._asked_ahead(left):
            for batch in self._batches(left):
                if ended_by is not None:
                    self.abandon(batch, f"not executed: the turn was ended by '{ended_by}'", "runtime")
                    continue
                self.limits.count_tools(len(batch))
                cleared = await self._clear(batch)
                if len(cleared) == 1:
                    if await self._run(cleared[0], alone=True):
                        ended_by = cleared[0].use.name
                else:
                    await _together(self._run, cleared)
        return ended_by is not None

    @contextlib.asynccontextmanager
    async def _asked_ahead(self, calls: Sequence[ToolUse]) -> AsyncIterator[None]:
        """Have the questions about calls that run one after another open together within the block.

        Not where code of the application judges a call, which may look at what the calls before it did.
        """
        environment, self._gates.ahead = self.environment, None
        asks = environment.authorizer
        if not isinstance(asks, SessionPermissions) or asks.inner is not None or environment.pre_hooks:
            yield
            return
        if self._gates.earlier.run_ids or len(list(self._batches(calls))) < 2:
            yield
            return
        from mentra_nb.permission.ahead import AskedAhead

        try:
            async with anyio.create_task_group() as group:
                await self._gates.ask_ahead(calls, AskedAhead(asks, group))
                yield
                group.cancel_scope.cancel()
        except BaseExceptionGroup as several:  # what one task raises ends the others
            raise several.exceptions[0] from several

    def refuse(self, calls: Sequence[ToolUse], text: str) -> None:
        """Answer the calls of a round with an error, without running any."""
        self._calls, self.results = calls, {}
        self._events.undecided = {use.id for use in calls}
        for use in calls:
            self._events.emit(e.ToolCallStarted(agent_id=self.caller.agent_id, call=use))
        self.abandon(calls, text, "runtime")

    def open_calls(self) -> list[ToolUse]:
        """Return the calls of the round that have no result yet."""
        return [use for use in self._calls if use.id not in self.results]

    def take_results(self) -> list[ToolResult]:
        """End the round and return its results, in the order of its calls."""
        taken = [self.results[use.id] for use in self._calls]
        self._calls, self.results = (), {}
        return taken

    def abandon(
        self, calls: Sequence[ToolUse], why: str | None = None, decided_by: str = "cancelled"
    ) -> list[ToolResult]:
        """Answer those of `calls` that have no result with an error, and return the results of all.

        Without `why`, the turn was stopped.
        """
        for use in calls:
            if use.id not in self.results:
                text = why or (STOPPED_TRIAL if use.id in self._events.tried else NOT_RUN)
                if use.id in self._events.undecided:
                    self._events.denied(use, text, decided_by)
                self._finish(use, text, is_error=True)
        return [self.results[use.id] for use in calls]

    def _batches(self, calls: Sequence[ToolUse]) -> Iterator[list[ToolUse]]:
        """Yield consecutive parallel calls together, any other call alone."""
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
        tool = self.toolbox.get(use.name)
        if tool is not None:
            with contextlib.suppress(Exception):  # the arguments may not fit, which a tool need not expect here
                return contained_call(lambda: tool.is_parallel(use.input))
        return False

    async def _clear(self, batch: Sequence[ToolUse]) -> list[Call]:
        """Take calls through the gates, and return those that may run. The others have their results.

        Those of a batch that need a person are asked about at the same time.
        """
        prepared = []
        for use in batch:
            self._events.emit(e.ToolCallStarted(agent_id=self.caller.agent_id, call=use))
            if (call := await self._passed(use, self._gates.prepare(use))) is not None:
                prepared.append(call)
        if len(prepared) == 1:
            return prepared if await self._passed(prepared[0].use, self._gates.authorize(prepared[0])) else []
        allowed = set[str]()

        async def authorize(call: Call) -> None:
            if await self._passed(call.use, self._gates.authorize(call)) is not None:
                allowed.add(call.use.id)

        await _together(authorize, prepared)
        return [call for call in prepared if call.use.id in allowed]

    async def _passed(self, use: ToolUse, gate: Awaitable[Call]) -> Call | None:
        """Return the call that a gate let pass, or `None` for one that it refused: that has its result then."""
        try:
            return await gate
        except Refused as refusal:
            if self._gates.ahead is not None:
                self._gates.ahead.withdraw(use.id)
            self._finish(use, str(refusal), is_error=True)
            return None

    async def _write_ahead(self, call: Call) -> None:
        """Store and sync that the call may run, before it does. Raises `Refused` when it may not run after all."""
        await self._gates.check_unchanged(call)
        await self.environment.store.begin_tool_call(
            ToolCallRecord(
                run_id=self.caller.run_id,
                call_id=call.use.id,
                agent_id=self.caller.agent_id,
                tool=call.use.name,
                arguments=call.arguments,
                arguments_hash=arguments_hash(call.use.name, call.arguments),
                effect="none" if call.changes_nothing else call.tool.spec.effect,
                started_at=time.time(),
            ),
            holder=self.environment.holder,
        )
        errors = self._events.emit(e.ToolExecutionStarted(input=call.arguments, **self._events.about(call.use)))
        if errors:
            await self.save(ToolCallEnd(call.use.id, f"execution blocked: {errors[0]}", is_error=True))
            raise Refused(f"Tool execution blocked: {errors[0]}")
        if call.tool.spec.effect != "none" and not call.changes_nothing:
            await anyio.to_thread.run_sync(self.environment.bus.sync)

    async def _run(self, call: Call, alone: bool = False) -> bool:
        """Run a cleared call, `alone` or beside others, to its result. Returns whether it asked to end the turn."""
        try:
            await self._write_ahead(call)
        except Refused as refusal:
            self._finish(call.use, str(refusal), is_error=True)
            return False
        except anyio.get_cancelled_exc_class():
            await self.save(ToolCallEnd(call.use.id, NOT_RUN, is_error=True))
            raise
        began = time.monotonic()
        try:
            outcome = await self._execute(call)
            seen = await after_hooks(self.environment.post_hooks, call, outcome)
            if call.note:
                seen = noted(seen, call.note)
            content, whole = await shortened(seen.content, call.use.id if self._can_read_on(call) else None)
        except anyio.get_cancelled_exc_class():
            ended = self._ended_early(call, STOPPED, withheld=bool(self.environment.post_hooks))
            self._finish(call.use, ended.content, is_error=True, duration_ms=_ms_since(began), details=ended.details)
            await self.save(ToolCallEnd(call.use.id, ended.content, is_error=True))
            raise
        if whole is not None:
            await self._keep(call, whole)
        end = ToolCallEnd(call.use.id, content, seen.is_error, outcome.ends_turn)
        if alone and self.open_calls() == [call.use]:
            self.unsaved = end
        else:
            await self.save(end)
        self.results[call.use.id] = result = ToolResult(
            tool_use_id=call.use.id,
            content=content,
            is_error=seen.is_error,
            images=seen.images,
            subagents=self._events.subagents(call.use),
        )
        original = (
            None
            if seen is outcome
            else result.model_copy(update={"content": limited(outcome.content), "is_error": outcome.is_error})
        )
        self._events.finished(call.use, result, _ms_since(began) + call.tried_ms, original, outcome.details)
        return outcome.ends_turn

    async def _execute(self, call: Call) -> Outcome:
        """Return what the tool returned, or what went wrong. Raises only when the turn is stopped."""
        name, timeout = call.use.name, call.tool.spec.execution_timeout
        try:
            with anyio.move_on_after(timeout):
                outcome = await as_outcome(await contained(call.tool.execute(call.context, call.arguments)))
                if outcome.ends_turn and self._is_parallel(call.use):
                    return _failed(f"Tool '{name}' runs beside others and cannot end the turn")
                return outcome
            return self._ended_early(call, f"Tool '{name}' timed out after {duration(timeout or 0)}")
        except anyio.get_cancelled_exc_class():
            if is_stopped():
                raise
            return _failed(f"Tool '{name}' was cancelled from within")
        except PolicyViolation as violation:
            self._events.policy_denied(call.use, violation)
            return _failed(str(violation))
        except Exception as failure:  # noqa: BLE001 - a tool's failure is a result for the model
            if (text := in_words(failure)) == STOPPED:
                return self._ended_early(call, STOPPED)
            details = failure.details if isinstance(failure, ToolError) else None
            return _failed(text)._replace(details=details)

    def _ended_early(self, call: Call, text: str, *, withheld: bool = False) -> Outcome:
        """Return the failure of a call with what it had done so far; the model reads none of that if `withheld`."""
        done = self._events.done_so_far.pop(call.use.id, None)
        if done is None:
            return _failed(text)
        text = text if withheld or not done.content else f"{text}\n{done.content}"
        return _failed(limited(text))._replace(details=done.details)

    def _can_read_on(self, call: Call) -> bool:
        """Return whether the model can be given the rest of a long result: it is not told so of that tool's own."""
        return call.use.name != READ_TOOL_RESULT and READ_TOOL_RESULT not in self.toolbox.config.hidden_tools

    async def _keep(self, call: Call, whole: str) -> None:
        """Store a result that is not shown whole, and offer the tool that reads it."""
        with anyio.CancelScope(shield=True):
            await self.environment.store.keep_result(
                self.caller.agent_id, self.caller.run_id, call.use.id, whole, holder=self.environment.holder
            )
            await self.toolbox.load([READ_TOOL_RESULT])

    async def save(self, end: ToolCallEnd, entries: Sequence[Entry] = ()) -> None:
        """Store the end of a call, with entries of the transcript."""
        self.unsaved = None
        with anyio.CancelScope(shield=True):  # a known result is stored even when the turn is stopped meanwhile
            await self.environment.store.finish_tool_call(
                self.caller.run_id, end, entries=entries, holder=self.environment.holder
            )

    def _finish(
        self, use: ToolUse, text: str, *, is_error: bool, duration_ms: int | None = None, details: Any = None
    ) -> None:
        made = self._events.subagents(use)
        self.results[use.id] = ToolResult(tool_use_id=use.id, content=limited(text), is_error=is_error, subagents=made)
        self._events.finished(use, self.results[use.id], duration_ms, details=details)


async def _together(work: Callable[[Call], Coroutine[Any, Any, object]], calls: Sequence[Call]) -> None:
    """Do the work for each call at the same time."""
    try:
        async with anyio.create_task_group() as group:
            for call in calls:
                group.start_soon(work, call)
    except BaseExceptionGroup as several:  # tool failures are results, so what is left came from the store
        raise several.exceptions[0] from several


def _failed(text: str) -> Outcome:
    return Outcome(text, is_error=True)


def _ms_since(began: float) -> int:
    return int((time.monotonic() - began) * 1000)

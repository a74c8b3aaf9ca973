"""An agent: one model, one transcript, one run at a time; and what surrounds a run, however it ends.

A run is a branch. Success moves the leaf to its end; a stop settles the branch (partial text kept, open calls
answered) and moves the leaf too; a failure leaves the leaf where it was, and the branch in the store.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Iterable
from functools import partial
from typing import Any, Protocol, TypeVar, overload

import anyio
import anyio.lowlevel

from mentra_nb.agent import recovery
from mentra_nb.agent.calls import Caller
from mentra_nb.agent.ending import Ending
from mentra_nb.agent.environment import AgentEnvironment
from mentra_nb.agent.limits import RunOptions, TurnLimits
from mentra_nb.agent.loop import Turn, check_priced, go_on, run_rounds
from mentra_nb.agent.output import OutputTool
from mentra_nb.agent.request import AgentConfig
from mentra_nb.agent.scheduler import Scheduler
from mentra_nb.agent.steering import RoundSource, Steering
from mentra_nb.agent.strategy import Adjustment, NamedModel
from mentra_nb.agent.transcript import Transcript
from mentra_nb.content import Data, Message, Role, ToolUse
from mentra_nb.errors import (
    Cancelled,
    DeadlineExceeded,
    EmptyAssistantResponse,
    NoResumableTurn,
    OperationDenied,
    UnknownEntry,
)
from mentra_nb.event import types as e
from mentra_nb.ids import new_id
from mentra_nb.providers.base import Provider
from mentra_nb.store.records import AgentRecord, Entry, Resolution, RunRecord, ToolCallRecord

T = TypeVar("T")


class AgentSnapshot(Data):
    """What an agent is doing now. `run_generation` counts its runs in this process."""

    status: str
    """`Idle`, `AwaitingModel`, `Streaming`, `ExecutingTool`, `Interrupted`, `Finished` or `Failed`."""
    history_len: int
    current_text: str = ""
    """What the model has said of the answer that is streaming."""
    pending_tool_uses: tuple[ToolUse, ...] = ()
    """The calls whose results are not known yet."""
    run_generation: int = 0


class AgentHome(Protocol):
    """Where an agent lives: it is told when a turn has ended, and when the agent was let go of."""

    def turn_ended(self, agent: Agent) -> None: ...
    async def closed(self, agent: Agent) -> None: ...


class Agent:
    """Made by `Runtime.spawn` or `Runtime.resume_agent`. Not shared between event loops."""

    def __init__(
        self,
        record: AgentRecord,
        provider: Provider,
        environment: AgentEnvironment,
        transcript: Transcript | None = None,
    ) -> None:
        self.id: str = record.id
        self.name: str = record.name
        self.model: str = record.model
        self.runtime_identifier: str = record.runtime_identifier
        self.config: AgentConfig = AgentConfig.model_validate(record.config)
        self.provider: Provider = provider
        self.environment = environment
        self.transcript: Transcript = transcript or Transcript(record.id, environment.store)
        self.steering: Steering = Steering()
        """What is said to it while it works."""
        self.run_generation: int = 0
        self.home: AgentHome | None = None
        self._sources: list[RoundSource] = [self.steering]
        self._status = record.status
        self._turn: Turn | None = None
        self._busy: anyio.Event | None = None
        """Set when the run that is on its way has ended."""
        self._closed: str | None = None

    def __repr__(self) -> str:
        where = f"{self.provider.descriptor.id}/{self.model}"
        return f"<Agent {self.name!r} {self.id} on {where}, {len(self.transcript)} messages>"

    # ---- what it knows ----------------------------------------------------------------------------------------

    def history(self) -> list[Message]:
        """The messages of the active branch. What is old is read from the store, meanwhile blocking."""
        return self.transcript.history()

    def unload(self) -> None:
        """Let go of what the store has, while no turn runs."""
        if not self.is_running:
            self.transcript.unload()

    @property
    def is_running(self) -> bool:
        return self._busy is not None

    @property
    def status(self) -> str:
        """As `AgentSnapshot.status`."""
        return self._turn.phase if self._turn is not None else self._status

    def snapshot(self) -> AgentSnapshot:
        """What it is doing now."""
        run = self._turn
        pending = run.pending if run is not None else None
        return AgentSnapshot(
            status=self.status,
            history_len=len(self.transcript),
            current_text=pending.partial_text() if pending is not None else "",
            pending_tool_uses=tuple(run.scheduler.open_calls()) if run is not None else (),
            run_generation=self.run_generation,
        )

    async def wait_until_idle(self) -> None:
        """Return when the run that is on its way, if any, has ended."""
        if self._busy is not None:
            await self._busy.wait()

    # ---- settings that hold from the next request on ----------------------------------------------------------

    def use_model(self, model: NamedModel, provider: Provider) -> None:
        """Ask another model from the next request on. Not stored."""
        self.model = model.id
        self.provider = provider
        if self._turn is not None:
            self._turn.model, self._turn.provider = model.id, provider

    async def set_model(self, model: NamedModel) -> None:
        """Ask another model from the next request on; kept with the agent. Raises `ProviderNotFound`."""
        provider = self.environment.find_provider(model.provider)
        await self.environment.store.update_agent(self.id, model=model.id, provider_id=model.provider)
        self.use_model(model, provider)

    async def set_reasoning(self, effort: str | None) -> None:
        """Ask for another reasoning effort from the next request on; kept with the agent."""
        change = {"reasoning_effort": effort}
        config = self.config.model_copy(update=change)
        await self.environment.store.update_agent(self.id, config=config.model_dump(mode="json"))
        self.config = config
        if self._turn is not None:
            self._turn.config = self._turn.config.model_copy(update=change)

    async def _adjust(self, change: Adjustment) -> None:
        if change.model is not None:
            await self.set_model(change.model)
        if change.reasoning_effort != "keep":
            await self.set_reasoning(change.reasoning_effort)

    # ---- runs -------------------------------------------------------------------------------------------------

    async def send(self, content: str | Iterable[Any]) -> Message:
        """`run` with default options."""
        return await self.run(content)

    async def run(
        self, content: str | Iterable[Any], options: RunOptions | None = None, origin: e.TurnOrigin | None = None
    ) -> Message:
        """One user turn, to the model's final message.

        Raises:
            Cancelled: it was stopped; what had been said and done is kept in the transcript.
            EmptyAssistantResponse: it finished without a final message; the transcript is kept.
            LeaseUnavailable: another process has the agent.
            MentraError: it failed; the transcript is as before, and `resume` goes on with the turn.
            OperationDenied: a turn is already running.
        """
        message = Message.user(content)
        return await self._exclusively(self._fresh(message, options or RunOptions(), origin or e.TurnOrigin()))

    @overload
    async def run_to_output(
        self,
        content: str | Iterable[Any],
        output: type[T],
        options: RunOptions | None = None,
        origin: e.TurnOrigin | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        keeps_tools: bool = False,
    ) -> T: ...
    @overload
    async def run_to_output(
        self,
        content: str | Iterable[Any],
        output: Any,
        options: RunOptions | None = None,
        origin: e.TurnOrigin | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        keeps_tools: bool = False,
    ) -> Any: ...
    async def run_to_output(
        self,
        content: str | Iterable[Any],
        output: Any,
        options: RunOptions | None = None,
        origin: e.TurnOrigin | None = None,
        *,
        name: str | None = None,
        description: str | None = None,
        keeps_tools: bool = False,
    ) -> Any:
        """One user turn, to a value of the type `output`: a class, `list[int]`, a union, whatever pydantic understands.

        The model gives it by calling a tool that only this run has; `name` (default: the type's) and `description` say
        what it is. It is the only tool offered, and must be called; no reasoning is asked for then. With `keeps_tools`
        the model may use its other tools first.

        Raises:
            ConfigurationError: no JSON Schema can describe the type; nothing was asked.
            MalformedStream: the model gave no value; the transcript is kept.
            InvalidOutput: what it gave does not fit the type; the transcript is kept.
            MentraError: as `run`; also `EmptyAssistantResponse`, when a limit or a stop ended it before.
        """
        tool = OutputTool(output, name, description, keeps_tools=keeps_tools)
        message, options = Message.user(content), options or RunOptions()
        try:
            await self._exclusively(self._fresh(message, options, origin or e.TurnOrigin(), tool))
        except EmptyAssistantResponse:
            if options.ended_early is not None:
                raise
        return tool.value()

    async def run_queued(self, options: RunOptions | None = None, origin: e.TurnOrigin | None = None) -> Message:
        """A turn that begins with the next thing in `steering`. Raises as `run`; `OperationDenied` for nothing."""
        return await self._exclusively(self._fresh(None, options or RunOptions(), origin or e.TurnOrigin()))

    async def resume(self, options: RunOptions | None = None, origin: e.TurnOrigin | None = None) -> Message:
        """Go on with the turn that failed or was interrupted, from the last thing that is whole.

        Results that are known stay; calls that never began are taken up again; a call that may have taken effect runs
        again only if it is declared harmless to repeat, or a person says so.

        Raises:
            NoResumableTurn: the last turn finished, or the conversation has gone on from elsewhere since.
            MentraError: as `run`.
        """
        return await self._exclusively(self._resumed(options or RunOptions(), origin or e.TurnOrigin()))

    async def unknown_calls(self) -> list[ToolCallRecord]:
        """The calls of the interrupted turn that began and may have taken effect, and are not resolved yet."""
        last = await self.environment.store.latest_run(self.id)
        if last is None or last.state == "finished":
            return []
        return list((await recovery.open_end(self.environment.store, last)).calls.unknown.values())

    async def resolve_unknown(self, call_id: str, resolution: Resolution) -> None:
        """Say what became of an unknown call: `run_again` (at `resume`), it was `done`, or it is to be `skipped`.

        Raises:
            OperationDenied: no call of that id is unknown.
        """
        for call in await self.unknown_calls():
            if call.call_id == call_id and call.resolution is None:
                await self.environment.store.resolve_tool_call(call.run_id, call_id, resolution)
                return
        raise OperationDenied(f"no call '{call_id}' of the interrupted turn is unknown")

    def add_source(self, source: RoundSource) -> None:
        """Something else the model is to hear, after those added before."""
        self._sources.append(source)

    async def close(self) -> None:
        """Let go of the agent: another process, or this one, may resume it. Raises `OperationDenied` during a turn."""
        if self.is_running:
            raise OperationDenied(f"agent '{self.name}' is taking a turn: stop it first")
        self.detach("it was closed")
        if self.home is not None:
            await self.home.closed(self)

    def detach(self, why: str) -> None:
        """From here on this object takes no turns; `why` completes the sentence."""
        self._closed = why

    # ---- branches ---------------------------------------------------------------------------------------------

    async def branch_from(self, entry_id: str | None) -> int:
        """Continue from an earlier entry, or from one of another branch; `None` is the very beginning.

        Nothing is deleted: the branch that is left stays in the store. Returns how many entries of it are off the path.

        Raises:
            UnknownEntry: there is no such entry.
            OperationDenied: a turn is running, or the entry's calls would be left without results.
        """
        if self.is_running:
            raise OperationDenied(f"agent '{self.name}' is taking a turn: stop it first")
        store = self.environment.store
        before = await store.load_path(self.id, self.transcript.leaf)
        path = await store.load_path(self.id, entry_id) if entry_id is not None else []
        if entry_id is not None and not path:
            raise UnknownEntry(entry_id)
        if path and path[-1].message.tool_uses():
            raise OperationDenied("that entry calls tools: branch from the results that follow it")
        await store.set_leaf(self.id, entry_id, holder=self.environment.holder)
        self.transcript.follow(path)
        kept = {entry.id for entry in path}
        left = sum(entry.id not in kept for entry in before)
        self.environment.bus.emit(e.Branched(agent_id=self.id, entry_id=entry_id, abandoned_entries=left))
        return left

    async def children(self, entry_id: str | None) -> list[Entry]:
        """The entries that follow an entry on any branch, oldest first; of `None`, the beginnings."""
        return await self.environment.store.children(self.id, entry_id)

    @property
    def leaf(self) -> str | None:
        """The entry the next turn continues from."""
        return self.transcript.leaf

    # ---- how a run is surrounded ------------------------------------------------------------------------------

    async def _exclusively(self, taken: Awaitable[Message]) -> Message:
        try:
            if self._closed is not None:
                raise OperationDenied(f"agent '{self.name}' takes no more turns here: {self._closed}")
            if self.is_running:
                raise OperationDenied(f"agent '{self.name}' is already taking a turn: wait for it, or stop it")
        except OperationDenied:
            taken.close()  # type: ignore[attr-defined]  # a coroutine that was never begun
            raise
        self._busy = anyio.Event()
        try:
            return await taken
        finally:
            self._busy.set()
            if self._turn is not None:
                self._status = self._turn.phase
            self._turn = self._busy = None
            if self.home is not None:
                self.home.turn_ended(self)

    async def _fresh(
        self, message: Message | None, options: RunOptions, origin: e.TurnOrigin, answer_tool: OutputTool | None = None
    ) -> Message:
        for source in self._sources:  # what a failed run had drained is not in this conversation
            await source.requeue()
        said = message or self.steering.take_steer()
        if said is None:
            raise OperationDenied("there is nothing queued to steer by")
        return await self._drive(said, None, said.text(), options, origin, answer_tool)

    async def _resumed(self, options: RunOptions, origin: e.TurnOrigin) -> Message:
        store = self.environment.store
        last = await store.latest_run(self.id)
        if last is None or last.state not in ("failed", "interrupted"):
            raise NoResumableTurn(self.name)
        end = await recovery.open_end(store, last)
        if end.leaf != self.transcript.leaf:
            raise NoResumableTurn(self.name)
        path = await store.load_path(self.id, end.tip)
        prompt = next((entry.message.text() for entry in reversed(path) if entry.kind == "user_turn"), None)
        if prompt is None or end.tip is None:
            raise NoResumableTurn(self.name)
        for source in self._sources:
            await source.acknowledge()

        return await self._drive(None, (end, path), prompt, options, origin)

    async def _drive(
        self,
        said: Message | None,
        resumed: tuple[recovery.OpenEnd, list[Entry]] | None,
        prompt: str,
        options: RunOptions,
        origin: e.TurnOrigin,
        answer_tool: OutputTool | None = None,
    ) -> Message:
        """A run from its first row to its end: of what was `said`, or going on where another had stopped."""
        before, run = self.transcript.snapshot(), self._new_turn(options, answer_tool)
        end, path = resumed if resumed is not None else (None, [])
        record = RunRecord(
            id=run.id,
            agent_id=self.id,
            base=end.tip if end is not None else self.transcript.leaf,
            cell_id=origin.cell_id,
            started_at=time.time(),
            resumes=end.run.id if end is not None else None,
        )
        # stopped before it began: then nothing was said
        entries = [self.transcript.append(said, run.id)] if said is not None and not options.is_over() else []
        self._turn = run
        try:
            await self.environment.store.start_run(record, entries=entries, holder=self.environment.holder)
        except BaseException:
            self.transcript.go_back(before)
            self._turn = None
            raise
        self.run_generation += 1
        run.emit(
            e.TurnStarted(
                agent_id=self.id,
                run_id=run.id,
                model=self.model,
                prompt=prompt,
                resumes=record.resumes,
                **origin.model_dump(),
            )
        )
        ends = Ending(run, origin, before)
        stop_reason: str | None = None
        try:
            with options.stoppable() as scope:
                await anyio.lowlevel.checkpoint()
                if end is not None:
                    self.transcript.follow(path)
                    stop_reason = await go_on(run, end)
                stop_reason = stop_reason or await run_rounds(run)
            if stop_reason is None:
                assert scope.cancelled_caught
                stopped = options.cancellation is not None and options.cancellation.is_cancelled
                reason = options.cancellation.reason if options.cancellation is not None and stopped else ""
                raise Cancelled(reason) if stopped else DeadlineExceeded
            assert self.transcript.last is not None
            final = self.transcript.last.message
            answered = final.role is Role.ASSISTANT and final.text() != ""
            await ends.finished(stop_reason, final.text() if answered else "")
        except anyio.get_cancelled_exc_class():  # the task itself was cancelled, from outside
            await ends.settled(Cancelled())
            raise
        except Cancelled as stop:
            await ends.settled(stop)
            raise
        except BaseException as error:
            await ends.failed(error)
            raise
        if not answered:
            raise EmptyAssistantResponse
        return final

    def _new_turn(self, options: RunOptions, answer_tool: OutputTool | None = None) -> Turn:
        run_id, limits = new_id("run"), TurnLimits(options)
        config, environment = self.config, self.environment
        if answer_tool is not None:
            config, environment = answer_tool.config(config), answer_tool.environment(environment)
        if options.cost_budget is not None:
            check_priced(self.provider.descriptor.id, self.model)
        return Turn(
            id=run_id,
            agent_id=self.id,
            model=self.model,
            config=config,
            provider=self.provider,
            environment=environment,
            transcript=self.transcript,
            limits=limits,
            scheduler=Scheduler(
                environment,
                Caller(self.id, self.name, self.model, run_id),
                limits,
                offers=config.offers,
                delegate=partial(environment.delegate, self, options) if environment.delegate else None,
                answer_tool=answer_tool,
            ),
            adjust=self._adjust,
            sources=self._sources,
        )

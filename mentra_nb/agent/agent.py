"""An agent: one model, one transcript, one turn at a time.

A turn is a branch of the transcript. The module `ending` says where the leaf is afterwards.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

import anyio.lowlevel

from mentra_nb.agent import recovery
from mentra_nb.agent.beginning import Beginning, at_leaf, find_open_end, nowhere, plans, start_turn
from mentra_nb.agent.config import AgentConfig, stored_config
from mentra_nb.agent.ending import COMPACTED, ending
from mentra_nb.agent.environment import AgentEnvironment
from mentra_nb.agent.home import AgentHome
from mentra_nb.agent.limits import RunOptions
from mentra_nb.agent.loop import finish_open_round, run_rounds
from mentra_nb.agent.new_turn import new_turn
from mentra_nb.agent.output import OutputOptions, OutputTool
from mentra_nb.agent.steering import RoundSource, Steering
from mentra_nb.agent.transcript import Transcript
from mentra_nb.agent.turn import AgentSnapshot, Turn
from mentra_nb.background.jobs import Jobs
from mentra_nb.content import Message
from mentra_nb.errors import NoResumableTurn, OperationDenied
from mentra_nb.event import types as e
from mentra_nb.providers.base import Provider
from mentra_nb.store.records import AgentRecord, Entry, Resolution, ToolCallRecord
from mentra_nb.words import counted

if TYPE_CHECKING:
    from mentra_nb.agent.strategy import Adjustment, NamedModel

T = TypeVar("T")


class Agent:
    """Made by `Runtime.spawn` or `Runtime.resume_agent`. Must be used from one event loop only.

    Example:
        >>> provider = mn.ScriptedProvider([mn.scripted.text("Hello."), mn.scripted.text("Bonjour.")])
        >>> async with mn.Runtime([provider], store=mn.VolatileStore()) as scripted:
        ...     greeter = await scripted.spawn("greeter", mn.ModelInfo(id="scripted", provider="scripted"))
        ...     answer = await greeter.send("Say hello.")
        ...     again = await greeter.run("And in French?", mn.RunOptions(max_rounds=3))
        >>> again.text(), len(greeter.history())
        ('Bonjour.', 4)

        What can be changed between turns, and what is known of them:

        >>> await agent.set_model(mn.ModelInfo(id="large", provider="example"))
        >>> await agent.set_reasoning("low")
        >>> agent.steering.steer("What was the revenue in March?")
        >>> (await agent.run_queued()).text()
        'Revenue in March was 2400 dollars.'
        >>> await agent.run_to_output("Which of these is a city? Oslo, Norway", list[str])
        ['Oslo']
        >>> await agent.wait_until_idle()
        >>> agent.snapshot().status, agent.snapshot().history_len
        ('Finished', 5)
        >>> [entry.message.text() for entry in await agent.children(None)]
        ['What was the revenue in March?']
        >>> for call in await agent.unknown_calls():
        ...     await agent.resolve_unknown(call.call_id, "skipped")
        >>> await agent.close()
    """

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
        self.config: AgentConfig = stored_config(record.config)
        self.provider: Provider = provider
        self.environment = environment
        self.transcript: Transcript = transcript or Transcript(record.id, environment.store)
        self.steering: Steering = Steering()
        """Messages for the model while it works."""
        self.run_generation: int = 0
        self.home: AgentHome | None = None
        self.parent: Agent | None = None
        """The agent whose subagent it is."""
        self.origin: e.TurnOrigin = nowhere()
        """Where its turn came from, while it takes one."""
        self.tasks: tuple[dict[str, Any], ...] = ()
        """As `AgentSnapshot.tasks`."""
        self.companions: dict[type[Any], Any] = {}
        """What it keeps for its tools, by class: see `Tool.companion`."""
        self._sources: list[RoundSource] = [self.steering]
        self._status = record.status
        self._turn: Turn | None = None
        self._busy: anyio.Event | None = None
        """Set when the current turn has ended."""
        self._closed: str | None = None
        self.settled: recovery.Settled | None = None
        """What its loading found out about a turn that died, until the next turn begins."""

    def __repr__(self) -> str:
        where = f"{self.provider.descriptor.id}/{self.model}"
        return f"<Agent {self.name!r} {self.id} on {where}, {counted(len(self.transcript), 'message')}>"

    # ---- state ------------------------------------------------------------------------------------------------

    def history(self) -> list[Message]:
        """Return the messages of the active branch. Blocks while it reads old ones from the store."""
        return self.transcript.history()

    def unload(self) -> None:
        """Free the messages, which are stored, unless a turn is running."""
        if not self.is_running:
            self.transcript.unload()

    @property
    def is_running(self) -> bool:
        """Whether a turn is at work."""
        return self._busy is not None

    @property
    def options(self) -> RunOptions | None:
        """The limits of the turn that it takes; `None` between turns."""
        return self._turn.limits.options if self._turn is not None else None

    @property
    def status(self) -> str:
        """As `AgentSnapshot.status`."""
        return self._turn.phase if self._turn is not None else self._status

    def snapshot(self) -> AgentSnapshot:
        """Return what the agent is doing now."""
        turn = self._turn
        pending = turn.pending if turn is not None else None
        return AgentSnapshot(
            status=self.status,
            history_len=len(self.transcript),
            current_text=pending.partial_text() if pending is not None else "",
            pending_tool_uses=tuple(turn.scheduler.open_calls()) if turn is not None else (),
            run_generation=self.run_generation,
            background_tasks=jobs.of(self.id) if (jobs := self.environment.services.get(Jobs)) else (),
            tasks=self.tasks,
        )

    async def wait_until_idle(self) -> None:
        """Wait until the current turn, if any, has ended."""
        if self._busy is not None:
            await self._busy.wait()

    # ---- settings, used from the next request on --------------------------------------------------------------

    def use_model(self, model: NamedModel, provider: Provider) -> None:
        """Use another model. Not stored."""
        self.model = model.id
        self.provider = provider
        if self._turn is not None:
            self._turn.model, self._turn.provider = model.id, provider

    async def set_model(self, model: NamedModel) -> None:
        """Use another model, and store the choice with the agent. Raises `ProviderNotFound`."""
        provider = self.environment.find_provider(model.provider)
        await self.environment.store.update_agent(self.id, model=model.id, provider_id=model.provider)
        self.use_model(model, provider)

    async def set_reasoning(self, effort: str | None) -> None:
        """Use another reasoning effort, and store the choice with the agent."""
        await self._change({"reasoning_effort": effort})

    async def _change(self, change: dict[str, Any]) -> None:
        """Use other settings, and store them with the agent."""
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

    # ---- turns ------------------------------------------------------------------------------------------------

    async def send(self, content: str | Iterable[Any]) -> Message:
        """Call `run` with default options."""
        return await self.run(content)

    async def run(
        self, content: str | Iterable[Any], options: RunOptions | None = None, origin: e.TurnOrigin | None = None
    ) -> Message:
        """Take a turn, and return the model's final message.

        Raises:
            Cancelled: the turn was stopped; what was said and done so far is kept in the transcript.
            EmptyAssistantResponse: the turn finished without a final message; the transcript is kept.
            LeaseUnavailable: another process has the agent.
            MentraError: the turn failed; the transcript is as before, and `resume` continues the turn.
            OperationDenied: a turn is already running.
        """
        async with self._turn_from(partial(self._with_message, Message.user(content)), options, origin) as turn:
            turn.stop_reason = await run_rounds(turn)
        return turn.final_message()

    @overload
    async def run_to_output(
        self,
        content: str | Iterable[Any],
        output: type[T],
        options: RunOptions | None = None,
        origin: e.TurnOrigin | None = None,
        **how: Unpack[OutputOptions],
    ) -> T: ...
    @overload
    async def run_to_output(
        self,
        content: str | Iterable[Any],
        output: Any,
        options: RunOptions | None = None,
        origin: e.TurnOrigin | None = None,
        **how: Unpack[OutputOptions],
    ) -> Any: ...
    async def run_to_output(
        self,
        content: str | Iterable[Any],
        output: Any,
        options: RunOptions | None = None,
        origin: e.TurnOrigin | None = None,
        **how: Unpack[OutputOptions],
    ) -> Any:
        """Take a turn, and return a value of the type `output`.

        The model returns the value by calling a tool that exists for this turn only. It is the only tool offered, and
        must be called; no reasoning is asked for then.

        Args:
            output: a class, `list[int]`, a union, or any other type that pydantic understands.
            **how: `name` (default: the type's) and `description` tell the model what the value is; with `keeps_tools`
                it may use its other tools first.

        Raises:
            ConfigurationError: no JSON Schema can describe the type, or it is to end in a plan; nothing was asked.
            InvalidOutput: there is no value, or, after a second attempt, one that does not fit; the transcript is kept.
            MentraError: as `run`; also `EmptyAssistantResponse`, when a limit or a stop ended the turn first.
        """
        tool, options = OutputTool(output, **how), options or RunOptions()
        begin = partial(self._with_message, Message.user(content))
        async with self._turn_from(begin, options, origin, tool) as turn:
            turn.stop_reason = await run_rounds(turn)
        if options.ended_early is not None:
            turn.final_message()
        return tool.value(self.history()[-1].text())

    async def run_queued(self, options: RunOptions | None = None, origin: e.TurnOrigin | None = None) -> Message:
        """Take a turn that begins with the next message in `steering`. Raises as `run`; `OperationDenied` for none."""
        async with self._turn_from(partial(self._with_message, None), options, origin) as turn:
            turn.stop_reason = await run_rounds(turn)
        return turn.final_message()

    async def resume(self, options: RunOptions | None = None, origin: e.TurnOrigin | None = None) -> Message:
        """Continue the turn that failed or was interrupted, from the last entry that is complete.

        Known results are kept, and calls that never began are run. A call that may have taken effect runs again only if
        its tool is declared safe to repeat, or a person allows it.

        Raises:
            NoResumableTurn: the last turn finished, or the conversation has continued from another entry since.
            MentraError: as `run`.

        Example:
            >>> await agent.resume()
            Traceback (most recent call last):
            ...
            mentra_nb.errors.NoResumableTurn: ...
        """
        async with self._turn_from(self._at_open_end, options, origin) as turn:
            turn.stop_reason = turn.stop_reason or await run_rounds(turn)
        return turn.final_message()

    async def compact(
        self, matters: str = "", options: RunOptions | None = None, origin: e.TurnOrigin | None = None
    ) -> bool:
        """Send a summary in place of all but the newest messages from now on; `matters` is kept word for word in it.

        Nothing is deleted. Returns whether there was anything to summarise, and a model could. Raises as `run`.

        Example:
            >>> await agent.compact()
            False
        """
        from mentra_nb.agent.compacting import compact

        async with self._turn_from(at_leaf, options, origin) as turn:
            turn.stop_reason = COMPACTED
            return await compact(turn, matters)

    async def unknown_calls(self) -> list[ToolCallRecord]:
        """Return the calls of the interrupted turn that may have taken effect and are not resolved yet."""
        return await recovery.unknown_calls(self.environment.store, self.id)

    async def resolve_unknown(self, call_id: str, resolution: Resolution) -> None:
        """Set what happens to an unknown call.

        Args:
            call_id: the id of one of `unknown_calls`.
            resolution: `run_again` runs it at `resume`, `done` counts it as carried out, `skipped` as not run.

        Raises:
            OperationDenied: no call of that id is unknown.
        """
        await recovery.resolve(self.environment.store, self.id, call_id, resolution)
        self.settled = None

    def add_source(self, source: RoundSource) -> None:
        """Add a source of messages for the model. It is asked after those that were added before."""
        self._sources.append(source)

    async def close(self) -> None:
        """Release the agent, so that this or another process may resume it. Raises `OperationDenied` during a turn."""
        self._check_idle()
        self.detach("it was closed")
        if self.home is not None:
            await self.home.closed(self)

    def _check_idle(self) -> None:
        if self.is_running:
            raise OperationDenied(f"agent '{self.name}' is taking a turn: stop it first")

    def detach(self, why: str) -> None:
        """Refuse all further turns on this object; `why` is the end of the error message."""
        self._closed = why

    # ---- branches ---------------------------------------------------------------------------------------------

    async def branch_from(self, entry_id: str | None) -> int:
        """Continue from another entry, on this or another branch; `None` is the very beginning.

        Nothing is deleted: the branch that is left stays in the store.

        Returns:
            The number of entries of the old path that are not on the new one.

        Raises:
            UnknownEntry: there is no such entry.
            OperationDenied: a turn is running, or the calls of the entry would be left without results.

        Example:
            >>> provider = mn.ScriptedProvider([mn.scripted.text("Hello."), mn.scripted.text("Goodbye.")])
            >>> async with mn.Runtime([provider], store=mn.VolatileStore()) as runtime:
            ...     agent = await runtime.spawn("greeter", mn.ModelInfo(id="scripted", provider="scripted"))
            ...     answer = await agent.send("Say hello.")
            ...     abandoned = await agent.branch_from(None)
            ...     answer = await agent.send("Say goodbye.")
            >>> len(agent.history())
            2
        """
        self._check_idle()
        left = await self.transcript.branch_from(entry_id, self.environment.holder)
        self.environment.bus.emit(e.Branched(agent_id=self.id, entry_id=entry_id, abandoned_entries=left))
        return left

    async def children(self, entry_id: str | None) -> list[Entry]:
        """Return the entries that follow an entry on any branch, oldest first; for `None`, the first entries."""
        return await self.environment.store.children(self.id, entry_id)

    @property
    def leaf(self) -> str | None:
        """The entry the next turn continues from."""
        return self.transcript.leaf

    # ---- how a turn is taken ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def _turn_from(
        self,
        begin: Callable[[], Awaitable[Beginning]],
        options: RunOptions | None,
        origin: e.TurnOrigin | None,
        answer_tool: OutputTool | None = None,
    ) -> AsyncIterator[Turn]:
        """Store the beginning of a turn, let the block run its rounds, and store its end.

        The stop reason of the turn is set already if the round that was left open has ended it.
        """
        with self._busy_with_turn():
            beginning = await begin()
            options, origin = options or RunOptions(), origin or e.TurnOrigin()
            if (plan := plans(self.config, options, beginning, origin)) != self.config.planning:
                await self._change({"planning": plan})
            before, self.origin = self.transcript.snapshot(), origin
            self._turn = turn = new_turn(self, options, origin, answer_tool, self._sources, self._change, self._adjust)
            self.settled = None
            await start_turn(turn, beginning, origin, before)
            self.run_generation += 1
            async with ending(turn, origin, before):
                with options.stoppable():
                    await anyio.lowlevel.checkpoint()  # a stop that came before the turn takes effect here
                    if beginning.end is not None:
                        self.transcript.follow(beginning.path)
                        turn.stop_reason = await finish_open_round(turn, beginning.end)
                    yield turn

    @contextmanager
    def _busy_with_turn(self) -> Iterator[None]:
        """Mark the agent as busy. Raises `OperationDenied` when it is closed, or busy already."""
        if self._closed is not None:
            raise OperationDenied(f"agent '{self.name}' takes no more turns here: {self._closed}")
        if self._busy is not None:
            raise OperationDenied(f"agent '{self.name}' is already taking a turn: wait for it, or stop it")
        self._busy = busy = anyio.Event()
        if self.home is not None:
            self.home.turn_began()
        try:
            yield
        finally:
            busy.set()
            if self._turn is not None:
                self._status = self._turn.phase
            self._turn, self._busy, self.origin = None, None, nowhere()
            if self.home is not None:
                self.home.turn_ended(self)

    async def _with_message(self, message: Message | None) -> Beginning:
        """Begin a turn with a message; `None` takes the next one from `steering`."""
        for source in self._sources:  # what a failed turn had drained is not in this conversation
            await source.requeue()
        message = message or await self.steering.take_steer()
        if message is None:
            raise OperationDenied("there is nothing queued to steer by")
        return Beginning(message.text(), message)

    async def _at_open_end(self) -> Beginning:
        """Begin a turn where the last one stopped. Raises `NoResumableTurn`."""
        beginning = await find_open_end(self.environment.store, self.id, self.leaf, self.settled)
        if beginning is None:
            raise NoResumableTurn(self.name)
        for source in self._sources:
            await source.acknowledge()
        return beginning

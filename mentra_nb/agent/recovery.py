"""Recovery after a crash: complete the transcript of a turn whose process died, and find where it can continue.

The caller holds the agent's lease. No tool is run here, and nothing is deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mentra_nb.agent.calls import Earlier, result_event
from mentra_nb.agent.results import SKIPPED
from mentra_nb.agent.transcript import Transcript
from mentra_nb.content import Message, Text, ToolResult, ToolUse
from mentra_nb.errors import OperationDenied
from mentra_nb.event import types as e
from mentra_nb.event.bus import EventBus
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.store.records import AgentRecord, Entry, Resolution, RunRecord, StoredConversation, ToolCallRecord

DIED = "interrupted: its process ended"
NEVER_RAN = "not executed: the process ended before it ran"
UNKNOWN = "interrupted while it ran: it is not known whether it took effect"
DONE = "interrupted while it ran; the user says that it was carried out"


class OpenEnd(NamedTuple):
    """Where an unfinished turn can continue, and what is known of its calls."""

    run: RunRecord
    tip: str | None
    """The last entry that the turn itself wrote."""
    leaf: str | None
    """The leaf of the conversation while the turn is unfinished."""
    calls: Earlier
    own_calls: tuple[ToolCallRecord, ...] = ()
    """The calls of this turn, without those of the turns it continues."""


class Settled(NamedTuple):
    """A conversation after its dead turns were closed, as it is stored now."""

    agent: AgentRecord
    path_length: int
    end: OpenEnd | None = None
    """Where the latest turn can continue, if it was one of them."""
    path: Sequence[Entry] = ()
    """The entries up to that end."""


async def settle_dead_runs(
    store: RuntimeStore, stored: StoredConversation, bus: EventBus, holder: str | None
) -> Settled:
    """Close every turn that `stored` has open. Return the conversation as it is then.

    Only the latest turn moves the leaf. An earlier one is open because its end could not be stored, and the
    conversation has continued since.
    """
    settled, latest = Settled(stored.agent, stored.path_length), stored.latest_run
    for run in stored.open_runs:
        end = await open_end(store, run)
        path = await store.load_path(run.agent_id, end.tip)
        transcript = Transcript(run.agent_id, store, path)
        settlement = _settlement(transcript, end, run.partial)
        entries = [transcript.append(settlement, run.id, "settlement")] if settlement is not None else []
        leaf = transcript.leaf if latest is not None and run.id == latest.id else None
        _record_end(bus, run, path, end.own_calls)
        await store.finish_run(run.id, "interrupted", leaf=leaf, error=DIED, entries=entries, holder=holder)
        if latest is not None and run.id == latest.id:
            moved = {"status": "Interrupted"} | ({"leaf": leaf} if leaf is not None else {})
            closed = run.model_copy(update={"state": "interrupted", "leaf": leaf})
            agent = stored.agent.model_copy(update=moved)
            settled = Settled(agent, len(transcript), end._replace(run=closed, leaf=leaf), path)
    if stored.open_runs and settled.end is None:
        await store.set_status(stored.agent.id, stored.agent.status)
    return settled


async def open_end(store: RuntimeStore, run: RunRecord) -> OpenEnd:
    """Return where `run` can continue. Entries that a stop or a recovery added to complete it are left out."""
    lineage = await _lineage(store, run)
    own = [entry for entry in await store.run_entries(run.id) if entry.kind != "settlement"]
    tip = own[-1].id if own else run.base
    results: dict[str, ToolResult] = {}
    unknown: dict[str, ToolCallRecord] = {}
    ends_turn: set[str] = set()
    own_calls: list[ToolCallRecord] = []
    for ancestor in reversed(lineage):  # a newer turn knows more
        own_calls = await store.list_tool_calls(ancestor.id)  # at last those of `run`
        for call in own_calls:
            unknown.pop(call.call_id, None)
            if call.ends_turn:
                ends_turn.add(call.call_id)
            known = _known(call)
            if known is not None:
                results[call.call_id] = known
            else:
                results.pop(call.call_id, None)
                unknown[call.call_id] = call
    earlier = Earlier(results, unknown, frozenset(ends_turn), tuple(ancestor.id for ancestor in lineage))
    return OpenEnd(run, tip, _resting_leaf(lineage), earlier, tuple(own_calls))


async def unknown_calls(store: RuntimeStore, agent_id: str) -> list[ToolCallRecord]:
    """Return the calls of the agent's unfinished turn that may have taken effect and are not resolved."""
    last = await store.latest_run(agent_id)
    if last is None or last.state == "finished":
        return []
    return list((await open_end(store, last)).calls.unknown.values())


async def resolve(store: RuntimeStore, agent_id: str, call_id: str, resolution: Resolution) -> None:
    """Store a decision about one of `unknown_calls`. Raises `OperationDenied` if no call of that id is unknown."""
    for call in await unknown_calls(store, agent_id):
        if call.call_id == call_id and call.resolution is None:
            await store.resolve_tool_call(call.run_id, call_id, resolution)
            return
    raise OperationDenied(f"no call '{call_id}' of the interrupted turn is unknown")


async def _lineage(store: RuntimeStore, run: RunRecord) -> list[RunRecord]:
    """Return the turn and those it continued, newest first."""
    if run.resumes is None:
        return [run]
    by_id = {other.id: other for other in await store.list_runs(run.agent_id)}
    found = [run]
    while (before := found[-1].resumes) is not None and before in by_id:
        found.append(by_id[before])
    return found


def _resting_leaf(lineage: list[RunRecord]) -> str | None:
    for run in lineage:
        if run.state == "interrupted":
            return run.leaf
    return lineage[-1].base


def _known(call: ToolCallRecord) -> ToolResult | None:
    """Return the result of a call, from the store or from a person's resolution; `None` if it is unknown."""
    if call.finished_at is not None:
        return ToolResult(tool_use_id=call.call_id, content=call.result, is_error=bool(call.is_error))
    if call.resolution == "done":
        return ToolResult(tool_use_id=call.call_id, content=DONE)
    if call.resolution == "skipped":
        return ToolResult(tool_use_id=call.call_id, content=SKIPPED, is_error=True)
    return None


def _settlement(transcript: Transcript, end: OpenEnd, partial: str) -> Message | None:
    """Return what completes the branch: a result for every open call, or the text that was saved while it streamed."""
    last = transcript.last
    if last is None:
        return None
    if calls := last.message.tool_uses():
        return Message.user(_settled(call, end) for call in calls)
    return Message.assistant([Text(text=partial)]) if partial else None


def _settled(call: ToolUse, end: OpenEnd) -> ToolResult:
    """Return the result of a call that is not run any more."""
    if call.id in end.calls.results:
        return end.calls.results[call.id]
    text = UNKNOWN if call.id in end.calls.unknown else NEVER_RAN
    return ToolResult(tool_use_id=call.id, content=text, is_error=True)


def _record_end(bus: EventBus, run: RunRecord, path: list[Entry], calls: Sequence[ToolCallRecord]) -> None:
    """Record the end of a turn and its last results.

    The process may have died before or after it recorded a result itself, so some results are recorded twice. All of
    this is recorded twice if a process dies while it settles the turn.
    """
    last_began = max((call.started_at for call in calls), default=0.0)
    unanswered = {use.id for use in path[-1].message.tool_uses()} if path else set[str]()
    for call in calls:
        if call.call_id in unanswered and (call.finished_at is None or call.finished_at >= last_began):
            unknown = ToolResult(tool_use_id=call.call_id, content=UNKNOWN, is_error=True)
            about = {"agent_id": run.agent_id, "run_id": run.id, "tool_name": call.tool, "tool_call_id": call.call_id}
            bus.emit(result_event(about, _known(call) or unknown))
    bus.emit(e.RunAborted(agent_id=run.agent_id, run_id=run.id, reason=DIED))
    bus.emit(
        e.TurnFinished(
            agent_id=run.agent_id,
            run_id=run.id,
            stop_reason="interrupted",
            success=False,
            error=DIED,
            duration_ms=None,
            cell_id=run.cell_id,
        )
    )

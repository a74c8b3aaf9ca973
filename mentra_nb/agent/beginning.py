"""How a turn begins: with a message, or at the open end of an earlier turn; and the first row and event of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from itertools import takewhile
from typing import NamedTuple

from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.limits import RunOptions
from mentra_nb.agent.recovery import OpenEnd, Settled, open_end
from mentra_nb.agent.results import APPROVED
from mentra_nb.agent.spending import check_priced
from mentra_nb.agent.transcript import TranscriptPath
from mentra_nb.agent.turn import Turn
from mentra_nb.content import Message
from mentra_nb.errors import ConfigurationError
from mentra_nb.event import types as e
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.store.records import Entry, RunRecord


class Beginning(NamedTuple):
    """What a turn starts from: a new message, or an open end and the path to it."""

    prompt: str
    """The text of the message that the turn answers."""
    message: Message | None = None
    end: OpenEnd | None = None
    path: Sequence[Entry] = ()


@cache
def nowhere() -> e.TurnOrigin:
    """Return the origin of an agent that takes no turn: one object for all, made with the first agent."""
    return e.TurnOrigin()


async def at_leaf() -> Beginning:
    """Return the beginning of a turn that adds nothing to the conversation."""
    return Beginning("")


async def find_open_end(
    store: RuntimeStore, agent_id: str, leaf: str | None, settled: Settled | None
) -> Beginning | None:
    """Return where the last turn can continue; `None` if it finished, or the conversation is at another leaf.

    What is already known from having `settled` a dead turn is not read again.
    """
    if settled is not None and settled.end is not None:
        end, path = settled.end, settled.path
    else:
        last = await store.latest_run(agent_id)
        if last is None or last.state not in ("failed", "interrupted"):
            return None
        end = await open_end(store, last)
        path = await store.load_path(agent_id, end.tip) if end.leaf == leaf else []
    prompt = next((entry.message.text() for entry in reversed(path) if entry.kind == "user_turn"), None)
    return Beginning(prompt, end=end, path=path) if prompt is not None and end.leaf == leaf else None


def plans(config: AgentConfig, options: RunOptions, beginning: Beginning, origin: e.TurnOrigin) -> bool:
    """Return whether a turn only reads until a plan is approved.

    One that continues another does what that did, if no plan was approved there; a subagent what its parent does. One
    that begins by itself, or adds nothing, stays with what the last turn came to: it plans if that had no approval.
    """
    if options.is_child or (origin.woken_by is not None and beginning.end is None) or beginning == Beginning(""):
        return config.planning
    if beginning.end is None:
        return options.plan
    since = takewhile(lambda entry: entry.kind != "user_turn", reversed(beginning.path))  # not of earlier turns
    return config.planning and not any(
        entry.kind == "canonical_context" and entry.message.text().startswith(APPROVED) for entry in since
    )


async def start_turn(turn: Turn, beginning: Beginning, origin: e.TurnOrigin, before: TranscriptPath) -> None:
    """Store the turn and its message, and announce it. When the store fails, the transcript goes back to `before`."""
    if turn.limits.options.cost_budget is not None:
        check_priced(turn.provider.descriptor.id, turn.model)
    if turn.config.planning and turn.scheduler.answer_tool is not None:
        raise ConfigurationError("a turn that ends in a plan has no typed answer: ask for one of the two")
    if turn.limits.options.budgets:
        from mentra_nb.agent.budgeting import begin

        begin(turn, origin)
    if turn.limits.options.reviewer:
        from mentra_nb.agent.reviewing import begin as begin_reviewing

        begin_reviewing(turn)
    end, entries = beginning.end, []
    record = RunRecord(
        id=turn.id,
        agent_id=turn.agent_id,
        base=end.tip if end is not None else turn.transcript.leaf,
        cell_id=origin.cell_id,
        model=f"{turn.provider.descriptor.id}/{turn.model}",
        started_at=time.time(),
        resumes=end.run.id if end is not None else None,
    )
    if beginning.message is not None and not turn.limits.options.is_over():  # else it was stopped before it began
        entries.append(turn.append(beginning.message))
    elif beginning.message is not None:
        for source in turn.sources:  # what it was to begin with waits again
            await source.requeue()
    try:
        await turn.environment.store.start_run(record, entries=entries, holder=turn.environment.holder)
    except BaseException:
        turn.transcript.go_back(before)
        raise
    turn.phase = "AwaitingModel"
    turn.emit(
        e.TurnStarted(
            agent_id=turn.agent_id,
            run_id=turn.id,
            model=turn.model,
            prompt=beginning.prompt,
            resumes=record.resumes,
            **origin.model_dump(),
        )
    )

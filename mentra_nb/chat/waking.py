"""When a background command ends while its conversation takes no turn, a turn begins that has the result.

It is shown in the cell that started the command. All of this runs on the engine's thread.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from mentra_nb.background.jobs import Jobs
from mentra_nb.chat.turn import RunningTurn, TakeTurn, TurnPlan
from mentra_nb.errors import Cancelled

if TYPE_CHECKING:
    from mentra_nb.store.records import BackgroundJob

MOST_IN_A_ROW = 3
"""Turns that begin by themselves in a conversation, until a person asks something in it."""
TOLD_NEXT = "the next prompt tells the model"
WAITS = "waits for the turn of this conversation that goes on in the background; %mentra stop there ends it"


class Conversation(Protocol):
    """What is known of a `Chat`."""

    @property
    def running(self) -> RunningTurn | None: ...

    @property
    def agent_id(self) -> str | None: ...


class Waking:
    """Begins such turns for the conversations of an engine.

    Args:
        jobs: The background commands.
        opened: The conversations that have a session.
        start: Begins a turn.
        is_on: Whether the setting `wake` lets a turn begin.
    """

    def __init__(
        self,
        jobs: Jobs,
        opened: Iterable[Conversation],
        start: Callable[[TakeTurn, TurnPlan], RunningTurn],
        is_on: Callable[[], bool],
    ) -> None:
        self._jobs, self._opened, self._start, self._is_on = jobs, opened, start, is_on
        self._started: dict[tuple[str, str], RunningTurn] = {}
        """The turns that started the commands whose ends can begin one, by agent and command."""
        self._woken: weakref.WeakKeyDictionary[Conversation, RunningTurn] = weakref.WeakKeyDictionary()
        self._in_a_row: weakref.WeakKeyDictionary[Conversation, int] = weakref.WeakKeyDictionary()
        jobs.listener = self.hear

    def hear(self, job: BackgroundJob) -> None:
        """Take in that a background command has started or ended."""
        chat = next((each for each in self._opened if each.agent_id == job.agent_id), None)
        if chat is None:
            return
        turn = chat.running
        if job.status != "running":
            if turn is None:
                self._wake(chat)
        elif turn is not None and turn.plan.place is not None:
            self._started[job.agent_id, job.id] = turn

    async def enter(self, chat: Conversation, turn: RunningTurn) -> None:
        """Let a turn begin: wait for one in the background, or raise `Cancelled` where one has nothing to tell."""
        if turn.plan.woken_by is not None:
            ended = self._jobs.news(chat.agent_id or "")
            if chat.running is not None or not ended:
                raise Cancelled("another turn has told the model")
            what = "its result" if len(ended) == 1 else "their results"
            turn.notice(f"{_have_ended(ended)}: the model now reads {what}")
            return
        self._in_a_row.pop(chat, None)
        said = False
        while (running := chat.running) is not None and running.plan.in_background:
            if not said:
                turn.notice(WAITS)
            said = True
            await _ended(running)

    def ended(self, chat: Conversation, turn: RunningTurn) -> None:
        """Take in that a turn has ended as it should: what ended after its last request is told now."""
        if self._woken.get(chat) is turn:
            del self._woken[chat]
        self._wake(chat)

    def _wake(self, chat: Conversation) -> None:
        """Begin a turn about the commands that have ended, or say where they started that the next prompt tells it."""
        if (before := self._woken.get(chat)) is not None and not before.future.done():
            return
        agent_id = chat.agent_id or ""
        ended = self._jobs.news(agent_id)
        turns = [turn for id in ended if (turn := self._started.pop((agent_id, id), None)) is not None]
        if not turns or not self._is_on():
            return
        plan, take = turns[-1].plan, turns[-1].take
        assert plan.place is not None  # else the turn was not kept
        assert take is not None  # it was begun
        count = self._in_a_row.get(chat, 0)
        if not plan.place.can_show or count >= MOST_IN_A_ROW:
            plan.place.say(f"{_have_ended(ended)}: {TOLD_NEXT}")
            return
        self._in_a_row[chat] = count + 1
        self._woken[chat] = turn = self._start(take, _woken(plan, ended))
        plan.place.show(turn)


def _have_ended(jobs: list[str]) -> str:
    """Return the beginning of a sentence that names background commands."""
    which = f"task {jobs[0]} has" if len(jobs) == 1 else f"tasks {', '.join(jobs)} have"
    return f"background {which} ended"


async def _ended(turn: RunningTurn) -> None:
    """Wait until a turn has ended, for whatever reason."""
    future = asyncio.wrap_future(turn.future)
    future.add_done_callback(lambda done: done.cancelled() or done.exception())  # else it is reported as missed
    await asyncio.wait([future])


def _woken(plan: TurnPlan, ended: list[str]) -> TurnPlan:
    """Return the plan of a turn about the commands that have `ended`; `plan` is of the turn that started them."""
    from mentra_nb.agent.waking import REVIEW
    from mentra_nb.event.types import TurnOrigin

    origin = (plan.origin or TurnOrigin()).model_copy(update={"woken_by": " ".join(ended)})
    kept: dict[str, Any] = {"system": plan.system, "limits": plan.limits, "place": plan.place}
    return TurnPlan(REVIEW, origin=origin, in_background=True, **kept)

"""What the cells of a notebook did in a conversation, so that one that is run again replaces its earlier turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from mentra_nb.words import counted

if TYPE_CHECKING:
    from mentra_nb.chat.turn import RunningTurn
    from mentra_nb.event.types import TurnOrigin
    from mentra_nb.runtime.session import Session
    from mentra_nb.store.records import Entry, RunRecord


class Kept(NamedTuple):
    """A stored turn whose answer can be shown instead of asking again."""

    run: RunRecord
    entries: Sequence[Entry]
    session_id: str


class CellRuns:
    """What the cells of this process have done in one conversation."""

    def __init__(self) -> None:
        self._cell: tuple[str | None, int | None] = (None, None)
        """The run of a cell that was heard of last: its id and number."""
        self._shown: set[str] = set()
        """The turns whose stored answers this run of the cell has shown."""
        self._shown_before: set[str] = set()
        """Those that cells without ids have shown: two cells with the same text show two answers."""
        self._has_asked = False
        """Whether this run of the cell has taken a turn."""
        self._end: str | None = None
        """The end of the turn that was shown last, for a cell without an id, until a turn is taken."""

    def _enter(self, origin: TurnOrigin) -> None:
        cell = origin.cell_id, origin.execution_count
        if cell != self._cell:
            self._cell, self._shown, self._has_asked = cell, set(), False

    def was_shown(self, origin: TurnOrigin, run_id: str) -> bool:
        """Return whether this run of the cell has shown the answer of that turn already."""
        self._enter(origin)
        return run_id in self._shown | self._shown_before

    def show(self, origin: TurnOrigin, kept: Kept, *, has_id: bool) -> None:
        """Take in that a stored answer is shown. `has_id`: the front end gives cells ids that last."""
        self._enter(origin)
        self._shown.add(kept.run.id)
        if not has_id:
            self._shown_before.add(kept.run.id)
            self._end = kept.entries[-1].id

    async def go_back(self, session: Session, turn: RunningTurn) -> None:
        """Leave the turns that the cell took when it was run before, and those after them; say so in a line.

        They stay in the store. The turns of one run of a cell follow each other.
        """
        plan = turn.plan
        if plan.prompt is None or plan.woken_by is not None or plan.origin is None:
            return
        self._enter(plan.origin)
        end, self._end = self._end, None
        is_first, self._has_asked = not self._has_asked, True
        if end is not None and end != session.agent.leaf:
            await session.branch_from(end)
        elif plan.replaces and is_first and plan.origin.cell_id and session.agent.leaf is not None:
            await self._replace(session, turn, plan.origin.cell_id)

    async def _replace(self, session: Session, turn: RunningTurn, cell_id: str) -> None:
        store, agent = session.agent.environment.store, session.agent
        own = {run.id for run in await store.list_runs(agent.id, cell_id)} - self._shown
        path = await store.load_path(agent.id, agent.leaf) if own else []
        at = next((n for n, entry in enumerate(path) if entry.run_id in own and entry.kind == "user_turn"), None)
        if at is None:
            return
        left = len({entry.run_id for entry in path[at:]} - own)
        await session.branch_from(path[at].parent_id)
        others = f", and {counted(left, 'later turn')} {'is' if left == 1 else 'are'} left out" if left else ""
        turn.notice(
            f"The earlier turn of this cell is replaced{others}. To go on from the end instead: %mentra --more …"
        )

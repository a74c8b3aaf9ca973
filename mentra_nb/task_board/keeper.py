"""What an agent keeps for its task board: how it changes it, what its turn has changed, when it is reminded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from mentra_nb.agent.new_turn import companion
from mentra_nb.agent.steering import Boundary
from mentra_nb.content import Message, Role
from mentra_nb.event.rare import TasksUpdated
from mentra_nb.store.records import Entry, EntryKind
from mentra_nb.store.work_records import TaskItem
from mentra_nb.task_board.board import Access, Board, Change

if TYPE_CHECKING:
    from mentra_nb.agent.agent import Agent

T = TypeVar("T")

REMIND_AFTER = 3
"""Answers in a row without a call of a task tool, after which a model with open tasks is reminded of its board."""
UPDATE = "task_update"
TASK_TOOLS = ("task_create", "task_claim", UPDATE, "task_list", "task_get")
REMINDER = (
    "<reminder>There are open tasks on your task board. If it is out of date, bring it up to date with the task tools. "
    "It is for tasks of this project only, not for messages to others.</reminder>"
)


class TaskKeeper:
    """A `RoundSource`: reminds its agent of open tasks. Also the service through which the task tools reach the board.

    Changes are taken back when the turn that made them failed and the conversation goes on without it.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self.namespace: str = agent.config.task_board or agent.id
        self._above = companion(agent.parent, TaskKeeper) if agent.parent is not None else None
        self._changes: list[Change] = []

    @property
    def access(self) -> Access:
        """On whose behalf the board is changed."""
        if (name := self._agent.config.teammate) is not None:
            return Access(name, is_lead=False, may_claim=True)
        return Access(self._agent.name)

    async def look(self, seen: Callable[[Board], T]) -> T:
        """Return what a function makes of the board as it is stored."""
        return seen(Board(await self._load(), self.access))

    async def tasks(self) -> list[TaskItem]:
        """Return the tasks, by id."""
        return await self._load()

    async def _load(self) -> list[TaskItem]:
        tasks = await self._agent.environment.store.load_tasks(self.namespace)
        self._show(tasks, announce=False)
        return tasks

    async def change(self, edit: Callable[[Board], T]) -> T:
        """Change the board in one transaction, and return what `edit` returned. Its error leaves all as it was."""

        def work(tasks: list[TaskItem]) -> tuple[T, Change, list[TaskItem]]:
            board = Board(tasks, self.access)
            result = edit(board)
            return result, board.store(), list(tasks)

        result, change, tasks = await self._agent.environment.store.mutate_tasks(self.namespace, work)
        self._changes.append(change)
        self._show(tasks)
        return result

    def _show(self, tasks: list[TaskItem], *, announce: bool = True) -> None:
        shown = tuple(_shown(task) for task in tasks)
        self._agent.tasks = shown
        if announce:
            self._agent.environment.bus.emit(TasksUpdated(agent_id=self._agent.id, tasks=shown))

    # ---- as a source of messages ------------------------------------------------------------------------------

    def is_waiting(self, at: Boundary) -> bool:
        """Return whether the model has not looked at the board for a while."""
        agent = self._agent
        is_offered = agent.config.offers(UPDATE) and UPDATE in agent.environment.tools
        if at is not Boundary.ROUND or agent.parent is not None or not is_offered:
            return False
        return _rounds_without(agent.transcript.late(2 * REMIND_AFTER + 2)) >= REMIND_AFTER

    async def drain(self, at: Boundary) -> list[tuple[EntryKind, Message]]:
        """Return the reminder, if tasks are open."""
        is_open = any(task.status != "completed" for task in await self._load())
        return [("canonical_context", Message.user(REMINDER))] if is_open else []

    async def acknowledge(self) -> None:
        """Keep what the turn has changed. What a subagent changed is from now on a change of its parent's turn."""
        changes, self._changes = self._changes, []
        if self._above is not None:
            self._above._changes += changes

    async def requeue(self) -> None:
        """Take back what the turn has changed: it failed, and the conversation goes on without it."""
        changes, self._changes = self._changes, []
        if any(change.after for change in changes):
            await self.change(lambda board: board.take_back(changes))
            self._changes.clear()


def _rounds_without(entries: list[Entry]) -> int:
    """Return how many answers there are after the last call of a task tool that succeeded, or the last reminder."""
    rounds, succeeded = 0, set[str]()
    for entry in reversed(entries):
        if entry.kind == "canonical_context" and entry.message.text() == REMINDER:
            break
        succeeded |= {result.tool_use_id for result in entry.message.tool_results() if not result.is_error}
        if entry.message.role is Role.ASSISTANT:
            if any(call.name in TASK_TOOLS and call.id in succeeded for call in entry.message.tool_uses()):
                break
            rounds += 1
    return rounds


def _shown(task: TaskItem) -> dict[str, Any]:
    """Return a task as plain data, with the names that a model reads."""
    return task.model_dump(mode="json", by_alias=True)

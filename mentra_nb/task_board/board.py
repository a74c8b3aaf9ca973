"""The rules of a task board: who may change what, in which order tasks can be done, and how changes are taken back.

A board is a list of tasks. `blocks` holds its dependencies; `blocked_by` is worked out from them after each change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mentra_nb.errors import OperationDenied
from mentra_nb.store.work_records import TaskItem, TaskStatus

MAX_TASKS = 1_000
"""Tasks of one board."""
FIELDS = ("subject", "description", "status", "owner", "working_directory")
"""What a task has besides its dependencies."""


class Access(NamedTuple):
    """On whose behalf a board is changed. A lead may change everything, others only what they own."""

    name: str
    is_lead: bool = True
    may_claim: bool = False


class Updated(NamedTuple):
    """A task that was updated, and the tasks that it no longer holds up, or holds up again, by id."""

    task: TaskItem
    unblocked: tuple[TaskItem, ...] = ()
    reblocked: tuple[TaskItem, ...] = ()


class Listing(NamedTuple):
    """The tasks of a board, by id: all of them, and sorted by what can be done with them."""

    tasks: tuple[TaskItem, ...]
    ready: tuple[TaskItem, ...]
    blocked: tuple[TaskItem, ...]
    in_progress: tuple[TaskItem, ...]
    completed: tuple[TaskItem, ...]


class Change(NamedTuple):
    """What one change of a board did: the tasks that it touched, before (`None`: it made them) and after."""

    before: Mapping[int, TaskItem | None]
    after: Mapping[int, TaskItem]


def refused(why: str) -> OperationDenied:
    """Return the error of a change that breaks a rule of the board."""
    return OperationDenied(f"Task validation failed: {why}")


def listing(tasks: Sequence[TaskItem]) -> Listing:
    """Return the tasks, sorted by what can be done with them."""
    waiting = [task for task in tasks if task.status == "pending"]
    return Listing(
        tuple(tasks),
        tuple(task for task in waiting if not task.blocked_by),
        tuple(task for task in waiting if task.blocked_by),
        tuple(task for task in tasks if task.status == "in_progress"),
        tuple(task for task in tasks if task.status == "completed"),
    )


class Board:
    """A board while it is changed. Each method raises `OperationDenied` for a change that breaks a rule.

    The list that it was made from is as it was until `store` is called.
    """

    def __init__(self, tasks: list[TaskItem], access: Access) -> None:
        self._list, self._access = tasks, access
        self._tasks = {task.id: task for task in tasks}
        self._before = dict(self._tasks)

    # ---- changes ----------------------------------------------------------------------------------------------

    def get(self, task_id: int) -> TaskItem:
        """Return a task."""
        if (task := self._tasks.get(task_id)) is None:
            raise refused(f"task {task_id} does not exist")
        return task

    def create(self, subject: str, blocked_by: Iterable[int] = (), **fields: Any) -> TaskItem:
        """Add a pending task and return it. `fields` are others of `FIELDS`."""
        if not self._access.is_lead:
            raise refused("only the lead creates tasks")
        if len(self._tasks) >= MAX_TASKS:
            raise refused(f"a board has at most {MAX_TASKS:,} tasks")
        new = TaskItem(id=max(self._tasks, default=0) + 1, subject=_subject(subject), **fields)
        self._tasks[new.id] = new
        for blocker in blocked_by:
            self._depend(blocker, new.id)
        self._settle()
        return self._tasks[new.id]

    def claim(self, task_id: int | None = None) -> TaskItem:
        """Make the caller the owner of a task, by default of the first that is ready, and return it."""
        if not self._access.may_claim:
            raise refused("Only named teammates can claim tasks")
        if task_id is None:
            task = next((task for task in listing(self._ordered()).ready if not task.owner), None)
            if task is None:
                raise refused("No ready unowned tasks are available to claim")
        else:
            task = self.get(task_id)
            if task.owner:
                raise refused(f"task {task_id} is already owned by '{task.owner}'")
            if task.blocked_by:
                raise refused(f"task {task_id} is blocked by {list(task.blocked_by)} and cannot be claimed")
            if task.status != "pending":
                raise refused(f"task {task_id} is {task.status} and cannot be claimed")
        return self._set(task.id, owner=self._access.name)

    def update(
        self,
        task_id: int,
        fields: Mapping[str, Any],
        add_blocked_by: Iterable[int] = (),
        remove_blocked_by: Iterable[int] = (),
        add_blocks: Iterable[int] = (),
        remove_blocks: Iterable[int] = (),
    ) -> Updated:
        """Change `fields` (of `FIELDS`) and the dependencies of a task. A status is set last."""
        task, fields = self.get(task_id), dict(fields)
        dependencies = [*add_blocked_by, *remove_blocked_by, *add_blocks, *remove_blocks]
        self._check_access(task, fields, edits_dependencies=bool(dependencies))
        status: TaskStatus | None = fields.pop("status", None)
        if "subject" in fields:
            fields["subject"] = _subject(fields["subject"])
        self._set(task_id, **fields)
        for other in add_blocked_by:
            self._depend(other, task_id)
        for other in remove_blocked_by:
            self._undepend(other, task_id)
        for other in add_blocks:
            self._depend(task_id, other)
        for other in remove_blocks:
            self._undepend(task_id, other)
        self._settle()
        if status is None:
            return Updated(self._tasks[task_id])
        return self._with_status(task_id, status)

    def _check_access(self, task: TaskItem, fields: Mapping[str, Any], *, edits_dependencies: bool) -> None:
        name = self._access.name
        if self._access.is_lead:
            return
        if task.owner != name:
            raise refused(f"'{name}' can only update tasks that it owns; task {task.id} is owned by '{task.owner}'")
        if edits_dependencies:
            raise refused(f"'{name}' cannot edit the dependencies of tasks")
        if fields.get("owner", name) != name:
            raise refused(f"'{name}' cannot give a task to another")

    def _with_status(self, task_id: int, status: TaskStatus) -> Updated:
        before = self._tasks[task_id]
        if status != "pending" and before.blocked_by:
            raise refused(f"Task {task_id} cannot be {status} while blocked by {list(before.blocked_by)}")
        held = {task.id: task.blocked_by for task in self._ordered()}
        task = self._set(task_id, status=status)
        self._settle()
        others = [each for each in self._ordered() if each.id != task_id]
        return Updated(
            self._tasks[task.id],
            tuple(each for each in others if held[each.id] and not each.blocked_by),
            tuple(each for each in others if set(each.blocked_by) - set(held[each.id])),
        )

    # ---- dependencies -----------------------------------------------------------------------------------------

    def _depend(self, blocker_id: int, task_id: int) -> None:
        blocker, task = self.get(blocker_id), self.get(task_id)
        if blocker_id == task_id:
            raise refused(f"task {task_id} cannot depend on itself")
        if self._leads(task_id, blocker_id):
            raise refused(f"task {task_id} waiting for task {blocker_id} would create a cycle")
        if blocker.status != "completed" and task.status != "pending":
            raise refused(f"task {task_id} is {task.status}: it cannot wait for task {blocker_id}, which is open")
        self._set(blocker_id, blocks=tuple(sorted({*blocker.blocks, task_id})))

    def _undepend(self, blocker_id: int, task_id: int) -> None:
        blocker, _ = self.get(blocker_id), self.get(task_id)
        self._set(blocker_id, blocks=tuple(each for each in blocker.blocks if each != task_id))

    def _leads(self, start: int, end: int) -> bool:
        """Return whether `end` waits for `start`, directly or through others."""
        seen, left = set[int](), [start]
        while left:
            if (current := left.pop()) == end:
                return True
            if current not in seen:
                seen.add(current)
                left += self._tasks[current].blocks if current in self._tasks else ()
        return False

    def _settle(self) -> None:
        """Work out which tasks are held up by which: a task that is open, by the open ones that it depends on."""
        waits_for: dict[int, list[int]] = {task_id: [] for task_id in self._tasks}
        for task in self._ordered():
            if task.status != "completed":
                for other in task.blocks:
                    waits_for[other].append(task.id)
        for task in self._ordered():
            held_by = () if task.status == "completed" else tuple(waits_for[task.id])
            if task.blocked_by != held_by:
                self._set(task.id, blocked_by=held_by)

    # ---- taking back and storing ------------------------------------------------------------------------------

    def take_back(self, changes: Sequence[Change]) -> None:
        """Undo these changes, the newest first. What others have changed since stays as they left it."""
        for change in reversed(changes):
            new = [task_id for task_id in change.after if change.before[task_id] is None and task_id in self._tasks]
            kept = {task_id for task_id in new if not self._is_untouched(task_id, change)}
            for task_id in set(new) - kept:
                self._remove(task_id)
            for task_id, before in change.before.items():
                if before is not None and task_id in self._tasks:
                    self._restore(before, change.after[task_id], kept)
        self._settle()

    def _restore(self, before: TaskItem, after: TaskItem, kept: set[int]) -> None:
        """Give a task the fields and dependencies back that a change took, but what `kept` tasks wait for stays."""
        now = self._tasks[before.id]
        fields = {
            name: getattr(before, name)
            for name in FIELDS
            if getattr(before, name) != getattr(after, name) == getattr(now, name)
        }
        added, removed = set(after.blocks) - set(before.blocks) - kept, set(before.blocks) - set(after.blocks)
        again = {each for each in removed if each in self._tasks and not self._leads(each, now.id)}
        self._set(now.id, blocks=tuple(sorted(set(now.blocks) - added | again)), **fields)

    def _is_untouched(self, task_id: int, made: Change) -> bool:
        """Return whether a task is as it was made, and others have made nothing wait for it, nor it for anything."""
        now, then = self._tasks[task_id], made.after[task_id]
        same = all(getattr(now, name) == getattr(then, name) for name in FIELDS) and set(now.blocks) <= set(then.blocks)
        waits_for = {task.id for task in self._tasks.values() if task_id in task.blocks}
        return same and waits_for <= {each.id for each in made.after.values() if task_id in each.blocks}

    def _remove(self, task_id: int) -> None:
        del self._tasks[task_id]
        for task in self._ordered():
            if task_id in task.blocks:
                self._set(task.id, blocks=tuple(each for each in task.blocks if each != task_id))

    def store(self) -> Change:
        """Put the tasks into the list that the board was made from, and return what has changed."""
        self._list[:] = self._ordered()
        after = {task.id: task for task in self._list if self._before.get(task.id) != task}
        return Change({task_id: self._before.get(task_id) for task_id in after}, after)

    def _ordered(self) -> list[TaskItem]:
        return [self._tasks[task_id] for task_id in sorted(self._tasks)]

    def _set(self, task_id: int, **fields: Any) -> TaskItem:
        self._tasks[task_id] = task = self._tasks[task_id].model_copy(update=fields)
        return task


def _subject(text: str) -> str:
    if not text.strip():
        raise refused("the subject must not be blank")
    return text.strip()

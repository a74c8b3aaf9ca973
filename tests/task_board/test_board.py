"""The rules of a task board."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mentra_nb.errors import OperationDenied
from mentra_nb.store.work_records import TaskItem
from mentra_nb.task_board.board import MAX_TASKS, Access, Board, Change, listing

LEAD = Access("lead")
MATE = Access("ada", is_lead=False, may_claim=True)
TASKS = list[TaskItem]


def made(*waits: list[int]) -> TASKS:
    """A board with a task for each list of ids it waits for."""
    tasks: TASKS = []
    for number, blockers in enumerate(waits, 1):
        do(tasks, "create", subject=f"task {number}", blocked_by=blockers)
    return tasks


def do(tasks: TASKS, name: str, *args: Any, by: Access = LEAD, **fields: Any) -> Any:
    """Do what one call of a tool does."""
    board = Board(tasks, by)
    result = getattr(board, name)(*args, **fields)
    board.store()
    return result


def ids(tasks: tuple[TaskItem, ...]) -> list[int]:
    return [task.id for task in tasks]


def test_create_and_list_group_ready_blocked_and_completed_tasks() -> None:
    tasks = made([], [], [1], [])
    do(tasks, "update", 2, {"status": "completed"})
    do(tasks, "update", 4, {"status": "in_progress", "owner": "lead"})
    found = listing(tasks)
    assert ids(found.tasks) == [1, 2, 3, 4]
    assert (ids(found.ready), ids(found.blocked)) == ([1], [3])
    assert (ids(found.in_progress), ids(found.completed)) == ([4], [2])


def test_completion_unblocks_and_reopen_reblocks_dependents() -> None:
    tasks = made([], [], [1, 2], [1])
    first = do(tasks, "update", 1, {"status": "completed"})
    assert (ids(first.unblocked), ids(first.reblocked)) == ([4], [])
    second = do(tasks, "update", 2, {"status": "completed"})
    assert ids(second.unblocked) == [3]
    again = do(tasks, "update", 1, {"status": "pending"})
    assert (ids(again.unblocked), ids(again.reblocked)) == ([], [3, 4])
    assert [task.blocked_by for task in tasks] == [(), (), (1,), (1,)]


def test_a_task_in_progress_that_is_held_up_again_can_be_changed_but_not_completed() -> None:
    tasks = made([], [1])
    do(tasks, "update", 1, {"status": "completed"})
    do(tasks, "update", 2, {"status": "in_progress"})
    do(tasks, "update", 1, {"status": "in_progress"})
    assert do(tasks, "update", 2, {"description": "half done"}).task.blocked_by == (1,)
    with pytest.raises(OperationDenied, match=r"Task 2 cannot be completed while blocked by \[1\]"):
        do(tasks, "update", 2, {"status": "completed"})
    do(tasks, "update", 1, {"status": "completed"})
    assert do(tasks, "update", 2, {"status": "completed"}).task.status == "completed"


def test_adding_cycle_is_rejected() -> None:
    tasks = made([], [1], [2])
    before = list(tasks)
    for blockers in ([3], [2]):
        with pytest.raises(OperationDenied, match="would create a cycle"):
            do(tasks, "update", 1, {"subject": "other"}, add_blocked_by=blockers)
    with pytest.raises(OperationDenied, match="cannot depend on itself"):
        do(tasks, "update", 1, {}, add_blocks=[1])
    assert tasks == before  # all or nothing: the subject is as it was
    do(tasks, "update", 1, {"status": "completed"})
    with pytest.raises(OperationDenied, match="would create a cycle"):  # completed tasks count too
        do(tasks, "update", 1, {}, add_blocked_by=[3])


def test_blocked_task_cannot_start_or_complete() -> None:
    tasks = made([], [1])
    for status in ("in_progress", "completed"):
        with pytest.raises(OperationDenied, match=rf"Task 2 cannot be {status} while blocked by \[1\]"):
            do(tasks, "update", 2, {"status": status})
    do(tasks, "update", 2, {"status": "in_progress"}, remove_blocked_by=[1])
    assert tasks[1].status == "in_progress"
    assert tasks[0].blocks == ()


def test_completed_blocker_stays_out_of_unresolved_blocked_by() -> None:
    tasks = made([], [])
    do(tasks, "update", 1, {"status": "completed"})
    do(tasks, "update", 2, {}, add_blocked_by=[1])
    assert (tasks[0].blocks, tasks[1].blocked_by) == ((2,), ())
    do(tasks, "update", 1, {"status": "pending"})
    assert tasks[1].blocked_by == (1,)


def test_a_task_that_has_begun_cannot_be_made_to_wait_for_an_open_one() -> None:
    tasks = made([], [])
    do(tasks, "update", 1, {"status": "in_progress"})
    with pytest.raises(OperationDenied, match="task 1 is in_progress: it cannot wait for task 2"):
        do(tasks, "update", 1, {}, add_blocked_by=[2])


def test_a_missing_dependency_can_be_removed_and_a_missing_task_cannot() -> None:
    tasks = made([], [])
    do(tasks, "update", 1, {}, remove_blocks=[2], remove_blocked_by=[2])
    with pytest.raises(OperationDenied, match="task 9 does not exist"):
        do(tasks, "update", 1, {}, remove_blocks=[9])
    with pytest.raises(OperationDenied, match="task 9 does not exist"):
        do(tasks, "create", "waits", blocked_by=[9])


def test_a_subject_is_trimmed_and_not_blank_and_a_board_has_a_limit() -> None:
    tasks = made([])
    for blank in ("", " \n"):
        with pytest.raises(OperationDenied, match="subject must not be blank"):
            do(tasks, "create", blank)
        with pytest.raises(OperationDenied, match="subject must not be blank"):
            do(tasks, "update", 1, {"subject": blank})
    assert do(tasks, "update", 1, {"subject": " new "}).task.subject == "new"
    full = [TaskItem(id=number, subject="s") for number in range(1, MAX_TASKS + 1)]
    with pytest.raises(OperationDenied, match="at most 1,000 tasks"):
        do(full, "create", "one more")


def test_claim_first_ready_unowned_task() -> None:
    tasks = made([], [], [2], [])
    do(tasks, "update", 1, {"owner": "eve"})
    claimed = do(tasks, "claim", by=MATE)
    assert (claimed.id, claimed.owner, claimed.status) == (2, "ada", "pending")
    assert do(tasks, "claim", by=MATE).id == 4
    with pytest.raises(OperationDenied, match="No ready unowned tasks are available to claim"):
        do(tasks, "claim", by=MATE)


def test_claim_explicit_task_id() -> None:
    tasks = made([], [])
    assert do(tasks, "claim", 2, by=MATE).owner == "ada"


def test_claim_rejects_unclaimable_tasks() -> None:
    tasks = made([], [1], [], [])
    do(tasks, "update", 3, {"owner": "eve"})
    do(tasks, "update", 4, {"status": "in_progress"})
    for task_id, why in {
        9: "task 9 does not exist",
        3: "task 3 is already owned by 'eve'",
        2: r"task 2 is blocked by \[1\] and cannot be claimed",
        4: "task 4 is in_progress and cannot be claimed",
    }.items():
        with pytest.raises(OperationDenied, match=why):
            do(tasks, "claim", task_id, by=MATE)
    with pytest.raises(OperationDenied, match="Only named teammates can claim tasks"):
        do(tasks, "claim", 1)


def test_teammate_cannot_edit_task_dependencies() -> None:
    tasks = made([], [])
    do(tasks, "claim", 1, by=MATE)
    for edit in ("add_blocked_by", "remove_blocked_by", "add_blocks", "remove_blocks"):
        with pytest.raises(OperationDenied, match="'ada' cannot edit the dependencies"):
            do(tasks, "update", 1, {}, by=MATE, **{edit: [2]})
    with pytest.raises(OperationDenied, match="can only update tasks that it owns"):
        do(tasks, "update", 2, {"status": "completed"}, by=MATE)
    with pytest.raises(OperationDenied, match="cannot give a task to another"):
        do(tasks, "update", 1, {"owner": "eve"}, by=MATE)
    with pytest.raises(OperationDenied, match="only the lead creates tasks"):
        do(tasks, "create", "mine", by=MATE)
    assert do(tasks, "update", 1, {"status": "completed"}, by=MATE).task.status == "completed"


# ---- taking back ------------------------------------------------------------------------------------------------


def changed(tasks: TASKS, name: str, *args: Any, by: Access = LEAD, **fields: Any) -> Change:
    board = Board(tasks, by)
    getattr(board, name)(*args, **fields)
    return board.store()


def taken_back(tasks: TASKS, *changes: Change) -> None:
    board = Board(tasks, LEAD)
    board.take_back(changes)
    board.store()


def test_only_ones_own_changes_are_taken_back() -> None:
    tasks = made([], [], [1])
    mine = [
        changed(tasks, "update", 1, {"status": "completed", "description": "by me"}),
        changed(tasks, "create", "my own"),
        changed(tasks, "create", "taken up by another", blocked_by=[2]),
    ]
    do(tasks, "update", 2, {"subject": "changed by another"})
    do(tasks, "claim", 3, by=MATE)
    do(tasks, "update", 5, {"owner": "eve"})
    do(tasks, "update", 1, {"description": "by another"})
    taken_back(tasks, *mine)
    one, two, three, five = tasks
    assert (one.status, one.description) == ("pending", "by another")
    assert two.subject == "changed by another"
    assert (three.owner, three.blocked_by) == ("ada", (1,))
    assert (five.id, five.owner, five.blocked_by) == (5, "eve", (2,))


def test_dependencies_are_taken_back_and_those_of_others_stay() -> None:
    tasks = made([], [], [])
    mine = [
        changed(tasks, "update", 1, {}, add_blocks=[2]),
        changed(tasks, "create", "new", blocked_by=[1]),
    ]
    do(tasks, "update", 1, {}, add_blocks=[3])
    taken_back(tasks, *mine)
    assert [(task.id, task.blocks, task.blocked_by) for task in tasks] == [(1, (3,), ()), (2, (), ()), (3, (), (1,))]


def test_a_dependency_that_was_removed_does_not_come_back_as_a_cycle() -> None:
    tasks = made([], [1])
    mine = changed(tasks, "update", 2, {}, remove_blocked_by=[1])
    do(tasks, "update", 1, {}, add_blocked_by=[2])  # another turned it round
    taken_back(tasks, mine)
    assert [(task.id, task.blocks) for task in tasks] == [(1, ()), (2, (1,))]


STATUS = st.sampled_from(["pending", "in_progress", "completed"])
ID = st.integers(1, 6)
EDITS = st.one_of(
    st.tuples(st.just("create"), st.lists(ID, max_size=2)),
    st.tuples(st.just("status"), ID, STATUS),
    st.tuples(st.sampled_from(["add_blocked_by", "remove_blocked_by", "add_blocks", "remove_blocks"]), ID, ID),
)


def edited(tasks: TASKS, edit: tuple[Any, ...]) -> Change | None:
    """What an edit changed; `None` if it broke a rule, and then the board is as it was."""
    before = list(tasks)
    try:
        match edit:
            case ("create", blockers):
                return changed(tasks, "create", "s", blocked_by=blockers)
            case ("status", task_id, status):
                return changed(tasks, "update", task_id, {"status": status})
            case (name, task_id, other):
                return changed(tasks, "update", task_id, {}, **{name: [other]})
    except OperationDenied:
        assert tasks == before
    return None


def check(tasks: TASKS) -> None:
    """Both ends of each dependency agree, only open tasks hold others up, and nothing waits for itself."""
    known = {task.id: task for task in tasks}
    assert [task.id for task in tasks] == sorted(known)
    for task in tasks:
        assert set(task.blocks) <= set(known)
        holding = [each.id for each in tasks if task.id in each.blocks and each.status != "completed"]
        assert list(task.blocked_by) == ([] if task.status == "completed" else holding)
        reached, left = set[int](), list(task.blocks)
        while left:
            reached.add(current := left.pop())
            left += [each for each in known[current].blocks if each not in reached]
        assert task.id not in reached


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.booleans(), EDITS), max_size=25))
def test_any_edits_keep_the_board_consistent_and_alone_are_taken_back_whole(
    edits: list[tuple[bool, tuple[Any, ...]]],
) -> None:
    tasks = made([], [1], [])
    start, mine, alone = list(tasks), list[Change](), True
    for is_mine, edit in edits:
        change = edited(tasks, edit)
        check(tasks)
        if change is not None and is_mine:
            mine.append(change)
        elif change is not None and change.after:
            alone = False
    taken_back(tasks, *mine)
    check(tasks)
    if alone:
        assert tasks == start

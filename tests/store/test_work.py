"""The state store: task boards, team mail, background jobs."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest
from kits.stores import gone_pid, holder

from mentra_nb.errors import StoreError
from mentra_nb.store.records import BackgroundJob, TaskItem, TeamMember, TeamMessage, TeamRequest
from mentra_nb.store.sql_store import SqlStore

pytestmark = pytest.mark.anyio


def job(id: str, agent_id: str = "agent-1", at: float = 1.0, **owner: Any) -> BackgroundJob:
    return BackgroundJob(
        agent_id=agent_id, id=id, command="make", cwd="/w", owner=holder(**owner), output_path="/w/out", started_at=at
    )


def mail(id: str, at: float = 1.0) -> TeamMessage:
    return TeamMessage(id=id, sender="lead", content=f"do {id}", timestamp=at)


# ---- tasks ----------------------------------------------------------------------------------------------------


async def test_a_board_is_changed_in_place_and_what_the_change_returns_comes_back(store: SqlStore) -> None:
    def change(tasks: list[TaskItem]) -> str:
        tasks.append(TaskItem(id=2, subject="second", blocked_by=(1,)))
        tasks.append(TaskItem(id=1, subject="first", blocks=(2,), working_directory="/w"))
        return "made"

    assert await store.mutate_tasks("board", change) == "made"
    first, second = await store.load_tasks("board")
    assert (first, second) == (
        TaskItem(id=1, subject="first", blocks=(2,), working_directory="/w"),
        TaskItem(id=2, subject="second", blocked_by=(1,)),
    )
    assert first.model_dump(by_alias=True)["workingDirectory"] == "/w"

    def finish(tasks: list[TaskItem]) -> None:
        tasks[:] = [tasks[1].model_copy(update={"blocked_by": ()})]

    await store.mutate_tasks("board", finish)
    assert await store.load_tasks("board") == [TaskItem(id=2, subject="second")]
    assert await store.load_tasks("another") == []


async def test_a_change_that_raises_installs_nothing(store: SqlStore) -> None:
    await store.mutate_tasks("board", lambda tasks: tasks.append(TaskItem(id=1, subject="kept")))

    def change(tasks: list[TaskItem]) -> None:
        tasks.clear()
        tasks.append(TaskItem(id=7, subject="lost"))
        raise LookupError("no such task")

    with pytest.raises(LookupError, match="no such task"):
        await store.mutate_tasks("board", change)
    assert await store.load_tasks("board") == [TaskItem(id=1, subject="kept")]


async def test_a_task_is_claimed_by_one_of_many(store: SqlStore) -> None:
    await store.mutate_tasks("board", lambda tasks: tasks.append(TaskItem(id=1, subject="s")))
    won: list[str] = []

    async def claim(name: str) -> None:
        def change(tasks: list[TaskItem]) -> bool:
            if tasks[0].owner:
                return False
            tasks[0] = tasks[0].model_copy(update={"owner": name})
            return True

        if await store.mutate_tasks("board", change):
            won.append(name)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(claim, f"mate-{number}")
    [task] = await store.load_tasks("board")
    assert won == [task.owner]


# ---- teams ----------------------------------------------------------------------------------------------------


async def test_members_are_kept_by_name_within_their_team(store: SqlStore) -> None:
    ada = TeamMember(id="agent-1", name="ada", role="r", model="m")
    bob = TeamMember(id="agent-2", name="bob", role="r", model="m", status="failed", failure="why")
    for made in (bob, ada, ada.model_copy(update={"status": "working"})):
        await store.save_member("t", made)
    assert await store.list_members("t") == [ada.model_copy(update={"status": "working"}), bob]
    assert await store.list_members("u") == []


async def test_mail_is_taken_in_the_order_it_was_sent_and_only_by_its_recipient(store: SqlStore) -> None:
    one, two, three = mail("one", 1.0), mail("two", 2.0), mail("three", 3.0)
    for sent in (two, one):
        await store.post_message("t", ["ada"], sent)
    await store.post_message("t", ["ada", "bob"], three)
    assert await store.count_messages("t", "ada") == 3
    assert await store.take_messages("t", "ada") == [one, two, three]
    assert (await store.take_messages("t", "ada"), await store.count_messages("t", "ada")) == ([], 0)
    assert await store.take_messages("u", "bob") == []
    assert await store.take_messages("t", "bob") == [three]
    assert one.model_dump(by_alias=True)["from"] == "lead"


async def test_mail_of_a_failed_turn_waits_again_and_acknowledged_mail_never(store: SqlStore) -> None:
    one, two, three = mail("one", 1.0), mail("two", 2.0), mail("three", 3.0)
    await store.post_message("t", ["ada"], one)
    await store.post_message("t", ["ada"], two)
    await store.take_messages("t", "ada")
    await store.acknowledge_messages("t", "ada", ["one", "three"])
    await store.post_message("t", ["ada"], three)
    assert await store.requeue_messages("t", "ada", []) == 0
    assert await store.requeue_messages("t", "ada", ["one", "two"]) == 1
    assert await store.take_messages("t", "ada") == [two, three]
    assert await store.requeue_messages("t", "ada") == 2
    assert await store.count_messages("t", "ada") == 2


async def test_a_request_is_answered_once(store: SqlStore) -> None:
    asked = TeamRequest(request_id="q", protocol="shutdown", sender="lead", recipient="ada", content="?", created_at=1)
    other = asked.model_copy(update={"request_id": "p", "created_at": 2.0})
    for made in (other, asked):
        await store.save_request("t", made)
    before = time.time()
    assert await store.resolve_request("t", "q", approve=False, reason="busy") is True
    assert await store.resolve_request("t", "q", approve=True) is False
    assert await store.resolve_request("u", "p", approve=True) is False
    [answered, waiting] = await store.list_requests("t")
    assert waiting == other
    assert answered.resolved_at is not None
    assert before <= answered.resolved_at <= time.time()
    changed = {"status": "rejected", "resolution_reason": "busy", "resolved_at": answered.resolved_at}
    assert answered == asked.model_copy(update=changed)


# ---- background jobs ------------------------------------------------------------------------------------------


async def test_background_tasks_are_scoped_per_agent(store: SqlStore) -> None:
    one, two = job("bg-1"), job("bg-1", "agent-2")
    await store.start_job(one)
    await store.start_job(two)
    assert await store.finish_job("agent-1", "bg-1", "finished", output_preview="ok") is True
    [ended] = await store.list_jobs("agent-1")
    assert (ended.status, ended.output_preview, ended.owner, ended.output_path) == (
        "finished",
        "ok",
        one.owner,
        "/w/out",
    )
    assert await store.list_jobs("agent-2") == [two]
    assert await store.count_notifications("agent-2") == 0


async def test_a_job_id_is_never_used_twice(store: SqlStore) -> None:
    await store.start_job(job("bg-1"))
    await store.finish_job("agent-1", "bg-1", "finished")
    with pytest.raises(StoreError):
        await store.start_job(job("bg-1"))
    [kept] = await store.list_jobs("agent-1")
    assert kept.status == "finished"


async def test_a_job_ends_once(store: SqlStore) -> None:
    await store.start_job(job("bg-1"))
    assert await store.finish_job("agent-1", "bg-1", "failed", output_preview="no") is True
    assert await store.finish_job("agent-1", "bg-1", "finished") is False
    assert await store.finish_job("agent-1", "bg-2", "finished") is False
    assert [(j.status, j.output_preview) for j in await store.list_jobs("agent-1")] == [("failed", "no")]


async def test_notifications_come_in_the_order_jobs_ended_and_again_if_the_turn_fails(
    store: SqlStore,
) -> None:
    for number in (1, 2, 3):
        await store.start_job(job(f"bg-{number}", at=float(number)))
    assert await store.take_notifications("agent-1") == []
    await store.finish_job("agent-1", "bg-2", "finished")
    await store.finish_job("agent-1", "bg-1", "failed")
    assert await store.count_notifications("agent-1") == 2
    assert [j.id for j in await store.take_notifications("agent-1")] == ["bg-2", "bg-1"]
    assert await store.take_notifications("agent-1") == []
    assert await store.requeue_notifications("agent-1") == 2
    assert [j.id for j in await store.take_notifications("agent-1")] == ["bg-2", "bg-1"]
    await store.acknowledge_notifications("agent-1", ["bg-2", "bg-1"])
    assert await store.requeue_notifications("agent-1") == 0


async def test_only_jobs_whose_process_is_gone_are_recovered(store: SqlStore) -> None:
    await store.start_job(job("mine"))
    await store.start_job(job("of-a-neighbour", runtime_id="two"))
    await store.start_job(job("of-the-dead", runtime_id="three", pid=gone_pid()))
    await store.start_job(job("far-and-alive", runtime_id="four", host="elsewhere"))
    await store.start_job(job("far-and-gone", runtime_id="five", host="elsewhere"))
    await store.acquire_lease("agent:x", holder("four", host="elsewhere"), 60)
    await store.acquire_lease("agent:y", holder("five", host="elsewhere"), -1)
    recovered = await store.recover_jobs(holder())
    assert {j.id for j in recovered} == {"of-the-dead", "far-and-gone"}
    assert {j.status for j in recovered} == {"interrupted"}
    assert {j.id for j in await store.take_notifications("agent-1")} == {"of-the-dead", "far-and-gone"}
    assert await store.recover_jobs(holder()) == []
    assert await store.finish_job("agent-1", "mine", "finished") is True

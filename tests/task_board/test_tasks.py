"""The task tools in turns: what a model reads, what a failed turn leaves, reminders, several agents on a board."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from kits.core import MODEL, Bench, bench, heard, of

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.new_turn import companion
from mentra_nb.errors import MentraError, OperationDenied, ProviderError
from mentra_nb.event import types as e
from mentra_nb.providers.scripted import ScriptedAnswer, failure, text, tool_calls
from mentra_nb.store.work_records import TaskItem
from mentra_nb.task_board.keeper import REMINDER, TaskKeeper
from mentra_nb.task_board.tools import task_tools
from mentra_nb.tools.function import tool
from mentra_nb.tools.tool import Delegate, ToolContext

pytestmark = pytest.mark.anyio


@tool
async def ask_another(question: str, context: ToolContext) -> str:
    """Give a task to a subagent."""
    return await context.service(Delegate)(question)


@tool
def act() -> str:
    """Do it."""
    return "done"


def create(*subjects: str, **fields: Any) -> ScriptedAnswer:
    return tool_calls([("task_create", {"subject": subject, **fields}) for subject in subjects])


def update(task_id: int, **fields: Any) -> ScriptedAnswer:
    return tool_calls([("task_update", {"taskId": task_id, **fields})])


def keeper(agent: Agent) -> TaskKeeper:
    return companion(agent, TaskKeeper)


async def board(table: Bench, agent: Agent) -> list[TaskItem]:
    return await table.runtime.store.load_tasks(keeper(agent).namespace)


def results(agent: Agent) -> list[Any]:
    """What the model has read of its calls, as data where it is JSON."""
    found = [result.display() for message in agent.history() for result in message.tool_results()]
    return [json.loads(each) if each.startswith("{") else each for each in found]


def sent(table: Bench, at: int) -> list[str]:
    """The texts of the messages of one request."""
    return [message.text() for message in table.provider.recorded_requests[at].messages]


async def test_what_a_model_reads_of_the_board() -> None:
    script = (
        create("plan", description="first"),
        tool_calls([("task_create", {"subject": "build", "blockedBy": [1], "workingDirectory": " "})]),
        update(1, status="completed"),
        tool_calls([("task_list", {}), ("task_get", {"taskId": 2}), ("task_claim", {})]),
        text("ok"),
    )
    async with bench(*script, tools=task_tools()) as table:
        agent = await table.agent()
        await agent.send("go")
        first, second, done, listed, got, claimed = results(agent)
    plan = {
        "id": 1,
        "subject": "plan",
        "description": "first",
        "status": "pending",
        "blockedBy": [],
        "blocks": [],
        "owner": "",
        "workingDirectory": None,
    }
    build = {**plan, "id": 2, "subject": "build", "description": "", "blockedBy": [1]}
    assert (first, second) == (plan, build)
    plan |= {"status": "completed", "blocks": [2]}
    build |= {"blockedBy": []}
    assert done == {"task": plan, "unblocked": [build], "reblocked": []}
    assert listed == {"tasks": [plan, build], "ready": [build], "blocked": [], "inProgress": [], "completed": [plan]}
    assert got == build
    assert claimed == "Task validation failed: Only named teammates can claim tasks"


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("task_create", {"subject": "s", "priority": 1}, "priority: Extra inputs are not permitted"),
        ("task_create", {"subject": "s", "blocked_by": [1]}, "blocked_by: Extra inputs are not permitted"),
        ("task_create", {"subject": " "}, "Task validation failed: the subject must not be blank"),
        ("task_create", {}, "subject: Field required"),
        ("task_update", {"taskId": "first"}, "taskId: Input should be a valid integer"),
        ("task_update", {"taskId": 1, "status": "done"}, "Input should be 'pending', 'in_progress' or 'completed'"),
        ("task_get", {"taskId": 7}, "Task validation failed: task 7 does not exist"),
        ("task_list", {"all": True}, "all: Extra inputs are not permitted"),
    ],
)
async def test_parse_helpers_reject_bad_input(name: str, arguments: dict[str, Any], why: str) -> None:
    async with bench(tool_calls([(name, arguments)]), text("ok"), tools=task_tools()) as table:
        agent = await table.agent()
        await agent.send("go")
        assert why in results(agent)[0]
        assert await board(table, agent) == []


async def test_null_clears_the_folder_of_a_task_and_leaving_it_out_keeps_it() -> None:
    script = create("a", workingDirectory="src"), update(1, subject="b"), update(1, workingDirectory=None), text("ok")
    async with bench(*script, tools=task_tools()) as table:
        agent = await table.agent()
        await agent.send("go")
        _, kept, cleared = results(agent)
    assert kept["task"]["workingDirectory"] == "src"
    assert cleared["task"]["workingDirectory"] is None


async def test_nobody_is_asked_about_task_tools() -> None:
    async with bench(create("a"), text("ok"), tools=task_tools(), authorizer=None) as table:
        agent = await table.agent()
        await agent.send("go")
        assert len(await board(table, agent)) == 1


async def test_task_updates_snapshot_and_persists_for_new_agents() -> None:
    script = create("a", "b"), text("ok"), tool_calls([("task_list", {})]), text("ok")
    async with bench(*script, tools=task_tools()) as table:
        shared = AgentConfig(task_board="release")
        agent = await table.agent(shared)
        events = heard(agent)
        await agent.send("go")
        assert [task["subject"] for task in agent.snapshot().tasks] == ["a", "b"]
        assert [len(update.tasks) for update in of(events, e.TasksUpdated)] == [1, 2]
        other = await table.runtime.spawn("other", MODEL, shared)
        await other.send("go")
        assert [task["subject"] for task in other.snapshot().tasks] == ["a", "b"]
        alone = await table.agent()
        assert await board(table, alone) == []


async def test_an_agent_that_is_resumed_has_its_board_again() -> None:
    async with bench(create("a"), text("ok"), create("b"), text("ok"), tools=task_tools()) as table:
        agent = await table.agent()
        await agent.send("go")
        await agent.close()
        again = await table.runtime.resume_agent(agent.id)
        await again.send("on")
        assert [task.subject for task in await board(table, again)] == ["a", "b"]


# ---- turns that fail -------------------------------------------------------------------------------------------

BROKEN = failure(ProviderError("broken"))


async def failed(agent: Agent) -> None:
    with pytest.raises(MentraError):
        await agent.send("go")


async def test_a_failed_turn_that_is_left_behind_leaves_the_board_as_it_was() -> None:
    script = create("kept"), text("ok"), create("lost"), update(1, status="completed"), BROKEN, text("ok")
    async with bench(*script, tools=task_tools()) as table:
        agent = await table.agent()
        await agent.send("go")
        await failed(agent)
        await agent.send("something else")
        [task] = await board(table, agent)
        assert (task.subject, task.status) == ("kept", "pending")


async def test_a_failed_turn_that_is_resumed_keeps_what_it_did_to_the_board() -> None:
    async with bench(create("a"), BROKEN, create("b"), text("ok"), text("ok"), tools=task_tools()) as table:
        agent = await table.agent()
        await failed(agent)
        await agent.resume()
        await agent.send("on")
        assert [task.subject for task in await board(table, agent)] == ["a", "b"]


async def test_only_the_changes_of_the_failed_turn_are_taken_back() -> None:
    script = create("mine", "shared"), update(1, status="in_progress"), BROKEN, text("ok")
    async with bench(*script, tools=task_tools()) as table:
        shared = AgentConfig(task_board="release")
        agent, other = await table.agent(shared), await table.runtime.spawn("other", MODEL, shared)
        await keeper(other).change(lambda board: board.create("of another"))
        await failed(agent)
        await keeper(other).change(lambda board: board.update(3, {"owner": "other"}))
        await agent.send("something else")
        assert [(task.subject, task.status, task.owner) for task in await board(table, agent)] == [
            ("of another", "pending", ""),
            ("shared", "pending", "other"),
        ]


async def test_what_a_subagent_did_to_the_board_is_part_of_its_parents_turn() -> None:
    script = (
        tool_calls([("ask_another", {"question": "plan it"})]),
        create("by the subagent"),
        text("planned"),
        BROKEN,
        text("ok"),
    )
    async with bench(*script, tools=[*task_tools(), ask_another]) as table:
        agent = await table.agent()
        await failed(agent)
        assert [task.subject for task in await board(table, agent)] == ["by the subagent"]
        await agent.send("something else")
        assert await board(table, agent) == []


async def test_concurrent_intrinsic_creates_serialize_through_task_store_mutate() -> None:
    async with bench(tools=task_tools()) as table:
        shared = AgentConfig(task_board="release")
        agents = [await table.runtime.spawn(f"agent {number}", MODEL, shared) for number in range(4)]

        async def add(agent: Agent, number: int) -> None:
            await keeper(agent).change(lambda board: board.create(f"{agent.name}: {number}"))

        async with anyio.create_task_group() as group:
            for agent in agents:
                for number in range(10):
                    group.start_soon(add, agent, number)
        tasks = await board(table, agents[0])
    assert [task.id for task in tasks] == list(range(1, 41))
    assert len({task.subject for task in tasks}) == 40


async def test_an_edit_that_breaks_a_rule_changes_nothing() -> None:
    async with bench(tools=task_tools()) as table:
        agent = await table.agent()
        await keeper(agent).change(lambda board: board.create("a"))
        with pytest.raises(OperationDenied, match="does not exist"):
            await keeper(agent).change(lambda board: board.update(1, {"subject": "b"}, add_blocks=[2]))
        assert [task.subject for task in await board(table, agent)] == ["a"]


# ---- reminders -------------------------------------------------------------------------------------------------

ACT = tool_calls([("act", {})])


async def test_task_reminder_is_injected_after_three_rounds_without_task_tools() -> None:
    script = create("a"), ACT, ACT, ACT, ACT, update(1, status="completed"), ACT, ACT, ACT, ACT, text("ok")
    async with bench(*script, tools=[*task_tools(), act]) as table:
        agent = await table.agent()
        await agent.send("go")
        reminded = [REMINDER in sent(table, at) for at in range(11)]
        assert reminded == [False] * 4 + [True] * 7  # it stays in the conversation
        assert sent(table, 10).count(REMINDER) == 1  # nothing is open any more
        kinds = [entry.kind for entry in await table.runtime.store.load_path(agent.id, agent.leaf)]
        assert kinds.count("canonical_context") == 1


async def test_a_reminder_comes_again_after_three_more_rounds_and_counts_over_turns() -> None:
    script = create("a"), text("ok"), text("ok"), ACT, text("ok"), ACT, ACT, text("ok")
    async with bench(*script, tools=[*task_tools(), act]) as table:
        agent = await table.agent()
        for prompt in ("one", "two", "three", "four"):
            await agent.send(prompt)
        assert [sent(table, at).count(REMINDER) for at in range(8)] == [0, 0, 0, 0, 1, 1, 1, 2]


async def test_nobody_is_reminded_without_open_tasks_or_task_tools() -> None:
    script = create("a"), update(1, status="completed"), ACT, ACT, ACT, ACT, text("ok")
    async with bench(*script, tools=[*task_tools(), act]) as table:
        agent = await table.agent()
        await agent.send("go")
        assert all(REMINDER not in sent(table, at) for at in range(7))
    async with bench(ACT, ACT, ACT, ACT, text("ok"), tools=[*task_tools(), act]) as table:
        agent = await table.agent(AgentConfig(tools=("act",)))
        await keeper(agent).change(lambda board: board.create("a"))
        await agent.send("go")
        assert all(REMINDER not in sent(table, at) for at in range(5))
    async with bench(ACT, ACT, ACT, ACT, text("ok"), tools=[*task_tools(), act]) as table:
        session = await table.session()
        session.permissions.can_ask = lambda: False
        session.use_profile(["act"])
        await keeper(session.agent).change(lambda board: board.create("a"))
        await session.append_turn("go")
        assert all(REMINDER not in sent(table, at) for at in range(5))

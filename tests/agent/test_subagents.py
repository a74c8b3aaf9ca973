"""Subagents that a model asks for: what they are given, what they may, what their parent and the record keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from kits.core import Bench, allow_all, bench, heard, of

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.content import TokenUsage, ToolResult
from mentra_nb.errors import Cancelled, DeadlineExceeded, InvalidRequest
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e
from mentra_nb.providers.base import ToolChoice
from mentra_nb.providers.scripted import ControlledStream, ScriptedAnswer, ScriptedProvider, failure, text, tool_calls
from mentra_nb.task_board.tools import task_tools
from mentra_nb.tools.builtin.task import TaskTool, subagent_tools
from mentra_nb.tools.function import tool
from mentra_nb.tools.template import AgentTemplate

pytestmark = pytest.mark.anyio

TEN = TokenUsage(input_tokens=7, output_tokens=3)


@tool
def act() -> str:
    """Do it."""
    return "done"


@tool(reads_only=True)
def look() -> str:
    """Look."""
    return "seen"


def task(*prompts: str, **more: Any) -> ScriptedAnswer:
    """An answer that gives these tasks to subagents."""
    return tool_calls([("task", {"prompt": prompt, **more}) for prompt in prompts])


def offered(table: Bench, at: int) -> list[str]:
    return [each.name for each in table.provider.recorded_requests[at].tools]


def results(agent: Agent) -> list[ToolResult]:
    return [result for message in agent.history() for result in message.tool_results()]


async def test_task_tool_runs_child_with_isolated_history_and_filtered_tools() -> None:
    script = text("hello"), task("count the files"), text("there are 3"), text("three files")
    async with bench(*script, tools=[*subagent_tools(), act]) as table:
        agent = await table.agent(AgentConfig(system="Be brief."))
        await agent.send("hi")
        events = heard(agent)
        assert (await agent.send("how many?")).text() == "three files"
        child = table.provider.recorded_requests[2]
        assert [message.text() for message in child.messages] == ["count the files"]
        assert child.system is not None
        assert child.system.startswith("Be brief.\n\nYou are a subagent")
        assert offered(table, 1) == ["act", "task"]
        assert offered(table, 2) == ["act"]
        [result] = results(agent)
        [spawned] = of(events, e.SubagentSpawned)
        assert (result.content, result.subagents) == ("there are 3", (spawned.subagent_id,))
        assert (spawned.name, spawned.prompt) == ("tester::task", "count the files")
        assert [message.role.value for message in agent.history()][2:] == ["user", "assistant", "user", "assistant"]
        assert [each.id for each in await table.runtime.resume()] == [agent.id]
        stored = await table.runtime.store.load_agent(spawned.subagent_id)
        assert stored is not None
        assert (stored.kind, stored.parent_id) == ("subagent", agent.id)


async def test_task_subagent_inherits_tool_profile_and_internal_task_hide() -> None:
    script = task("go"), text("inner"), text("outer")
    async with bench(*script, tools=[*subagent_tools(), act, look]) as table:
        agent = await table.agent(AgentConfig(tools=("task", "act", "look"), hidden_tools=("look",)))
        await agent.send("go")
        assert (offered(table, 0), offered(table, 1)) == (["act", "task"], ["act"])


async def test_task_subagent_does_not_force_hidden_task_tool_choice() -> None:
    script = task("go"), text("inner"), text("outer")
    async with bench(*script, tools=[*subagent_tools(), act]) as table:
        agent = await table.agent(AgentConfig(tool_choice=ToolChoice(mode="tool", name="task")))
        await agent.send("go")
        assert [request.tool_choice for request in table.provider.recorded_requests] == [
            ToolChoice(mode="tool", name="task"),
            ToolChoice(),
            ToolChoice(mode="tool", name="task"),
        ]


async def test_task_subagent_keeps_load_skill_while_hiding_task(tmp_path: Path) -> None:
    (tmp_path / "review").mkdir()
    (tmp_path / "review" / "SKILL.md").write_text("---\ndescription: How to review.\n---\nRead it twice.")
    script = task("go"), text("inner"), text("outer")
    async with bench(*script, tools=subagent_tools(), skills=[tmp_path]) as table:
        await (await table.agent()).send("go")
        assert offered(table, 1) == ["load_skill"]
        assert "  - review: How to review." in (table.provider.recorded_requests[1].system or "")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"prompt": " \n"}, "Task prompt must not be empty"),
        ({}, "invalid arguments: prompt: Field required"),
        ({"prompt": "go", "tools": ["all"]}, "invalid arguments: tools: Extra inputs are not permitted"),
        ({"prompt": "go", "agent": "boss"}, "there is no kind of subagent 'boss'; there are: none: leave `agent` out"),
    ],
)
async def test_a_task_that_cannot_be_given_is_an_error_result(arguments: dict[str, Any], why: str) -> None:
    async with bench(tool_calls([("task", arguments)]), text("ok"), tools=subagent_tools()) as table:
        agent = await table.agent()
        await agent.send("go")
        [result] = results(agent)
        assert result.is_error
        assert why in result.content


async def test_a_nested_task_is_not_available_and_the_child_goes_on() -> None:
    async with bench(task("go"), task("deeper"), text("inner"), text("outer"), tools=subagent_tools()) as table:
        agent = await table.agent()
        await agent.send("go")
        nested = table.provider.recorded_requests[2].messages[-1].tool_results()[0]
        assert (nested.content, nested.is_error) == ("Tool 'task' is not available for this agent", True)
        assert results(agent)[0].content == "inner"


async def test_a_child_that_fails_is_an_error_result_and_one_that_says_nothing_is_not() -> None:
    script = (
        task("fail"),
        failure(InvalidRequest("no")),
        task("be silent"),
        tool_calls([("act", {})]),
        text(""),
        text("ok"),
    )
    async with bench(*script, tools=[*subagent_tools(), act]) as table:
        agent = await table.agent()
        events = heard(agent)
        assert (await agent.send("go")).text() == "ok"
        failed, silent = results(agent)
        assert (failed.content, failed.is_error) == ("Subagent failed: scripted/scripted failed: no", True)
        assert (silent.content, silent.is_error) == ("(no summary)", False)
        assert len(failed.subagents) == len(silent.subagents) == 1
        assert [each.error for each in of(events, e.SubagentFinished)] == ["scripted/scripted failed: no", None]


async def test_what_a_failed_child_did_to_the_board_is_taken_back_at_once() -> None:
    create = tool_calls([("task_create", {"subject": "lost"})])
    script = task("plan"), create, failure(InvalidRequest("no")), text("ok")
    async with bench(*script, tools=[*subagent_tools(), *task_tools()]) as table:
        agent = await table.agent()
        await agent.send("go")
        assert await table.runtime.store.load_tasks(agent.id) == []


# ---- several at once -------------------------------------------------------------------------------------------


async def test_the_tasks_of_one_answer_run_at_the_same_time() -> None:
    one, two = ControlledStream(), ControlledStream()
    async with bench(task("first", "second"), one, two, text("both"), tools=subagent_tools()) as table:
        agent = await table.agent()
        async with anyio.create_task_group() as group:
            group.start_soon(agent.send, "go")
            await one.wait_opened()
            await two.wait_opened()
            for stream, answer in ((two, "b"), (one, "a")):
                stream.send_answer(text(answer))
        contents = {result.content for result in results(agent)}
        assert contents == {"a", "b"}
        assert len({result.subagents for result in results(agent)}) == 2


async def test_a_stop_ends_all_children_and_their_results_say_so() -> None:
    one, two, token = ControlledStream(), ControlledStream(), CancellationToken()
    async with bench(task("first", "second"), one, two, tools=subagent_tools()) as table:
        agent = await table.agent()
        events = heard(agent)

        async def run() -> None:
            with pytest.raises(Cancelled):
                await agent.run("go", RunOptions(cancellation=token))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await one.wait_opened()
            await two.wait_opened()
            token.cancel()
        assert one.closed
        assert two.closed
        assert [each.error for each in of(events, e.SubagentFinished)] == ["it was stopped"] * 2
        assert all(result.is_error and len(result.subagents) == 1 for result in results(agent))


async def test_a_childs_time_is_its_parents() -> None:
    import time

    silent = ControlledStream()
    async with bench(task("wait"), silent, tools=subagent_tools()) as table:
        agent = await table.agent()
        with pytest.raises(DeadlineExceeded):
            await agent.run("go", RunOptions(deadline=time.time() + 0.3))
        assert silent.closed


# ---- templates -------------------------------------------------------------------------------------------------

REVIEWER = AgentTemplate(
    "reviewer", "Finds mistakes.", "You review.", tools=("look", "write", "hidden", "task"), max_rounds=2
)


async def test_a_template_gives_a_prompt_and_fewer_tools_and_rounds_and_no_tool_that_its_parent_lacks() -> None:
    @tool
    def hidden() -> str:
        """Hidden from the parent."""
        return "no"

    script = task("check", agent="reviewer"), *[tool_calls([("look", {})])] * 2, text("outer")
    async with bench(*script, tools=[*subagent_tools([REVIEWER]), act, look, hidden]) as table:
        agent = await table.agent(AgentConfig(system="Of the parent.", hidden_tools=("hidden",)))
        events = heard(agent)
        await agent.send("go")
        assert "- reviewer: Finds mistakes." in (table.provider.recorded_requests[0].tools[-1].description or "")
        assert offered(table, 1) == ["look"]
        system = table.provider.recorded_requests[1].system or ""
        assert system.startswith("You review.\n\nYou are a subagent")
        assert of(events, e.SubagentSpawned)[0].name == "tester::reviewer"
        assert results(agent)[0].content == "Subagent failed: max rounds exceeded at 2"


async def test_a_template_offers_none_of_the_tools_that_its_parent_was_not_given() -> None:
    kind = REVIEWER._replace(tools=("look", "act"))
    script, tools = (task("check", agent="reviewer"), text("a"), text("b")), [*subagent_tools([kind]), act, look]
    async with bench(*script, tools=tools) as table:
        agent = await table.agent(AgentConfig(tools=("task", "look")))
        await agent.send("go")
        assert offered(table, 1) == ["look"]


async def test_a_template_may_name_a_model_that_is_there() -> None:
    other = ScriptedProvider([text("from the other")], id="other")
    kinds = [REVIEWER._replace(model="other/big"), REVIEWER._replace(name="lost", model="nowhere/big")]
    script = task("check", agent="reviewer"), task("check", agent="lost"), text("outer")
    async with bench(*script, tools=subagent_tools(kinds)) as table:
        table.runtime.register_provider_instance(other)
        agent = await table.agent()
        await agent.send("go")
        found, lost = results(agent)
        assert found.content == "from the other"
        assert other.recorded_requests[0].model == "big"
        assert lost.content.startswith("Subagent failed: the subagent 'lost' wants the model nowhere/big: ")


async def test_an_unknown_kind_of_subagent_is_refused_with_those_there_are() -> None:
    with pytest.raises(Exception, match="there is no kind of subagent 'boss'; there are: reviewer"):
        TaskTool([REVIEWER]).validate({"prompt": "go", "agent": "boss"})


# ---- who is asked, who pays, what is recorded -------------------------------------------------------------------


async def test_a_question_of_a_child_says_who_asks_and_a_stop_of_the_person_holds_for_it() -> None:
    script = task("act"), tool_calls([("act", {})]), text("inner"), text("outer")
    async with bench(*script, tools=[*subagent_tools(), act]) as table:
        session = await table.session()
        questions = []

        def note(event: shown.SessionEvent) -> None:
            if isinstance(event, shown.QuestionAsked):
                questions.append(session.permissions.open_questions()[0].agent_name)

        session.subscribe(note)
        allow_all(session)
        await session.append_turn("go")
        assert questions == ["talk::task"]


async def test_a_screen_sees_what_a_child_does_and_its_turn_is_recorded_below_its_parents() -> None:
    script = task("act"), tool_calls([("look", {})], usage=TEN), text("inner", usage=TEN), text("outer", usage=TEN)
    async with bench(*script, tools=[*subagent_tools(), look]) as table:
        session = await table.session()
        seen: list[shown.SessionEvent] = []
        session.subscribe(seen.append)
        await session.append_turn("go", None, e.TurnOrigin(cell_id="cell-1", execution_count=3))
        agent, child = table.recorder.of(e.TurnStarted)
        steps = [(each.status, each.detail) for each in of(seen, shown.TaskUpdated)]
        assert steps == [("spawned", "act"), ("running", "look"), ("finished", None)]
        assert len(of(seen, shown.UsageReported)) == 3
        assert (child.parent_id, child.parent_run_id) == (agent.agent_id, agent.run_id)
        assert child.parent_call_id == "tool-1"
        assert (child.session_id, child.cell_id, child.execution_count) == (session.id, "cell-1", 3)
        assert (agent.parent_id, agent.parent_run_id) == (None, None)
        stored = await table.runtime.store.list_runs(child.agent_id)
        assert [run.state for run in stored] == ["finished"]


async def test_children_share_the_budgets_exactly() -> None:
    children = [text(f"answer {number}", usage=TEN) for number in range(4)]
    async with bench(task(*"abcd"), *children, text("never"), tools=subagent_tools()) as table:
        agent, options = await table.agent(), RunOptions(token_budget=40, model_budget=5)
        with pytest.raises(Exception, match="final assistant message"):
            await agent.run("go", options)
        assert (options.ended_early, options.spent.tokens, options.spent.requests) == ("token_budget", 40, 5)
        assert sorted(result.content for result in results(agent)) == [f"answer {number}" for number in range(4)]

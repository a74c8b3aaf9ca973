"""Turns in which the model may call no tool."""

from __future__ import annotations

import pytest
from kits.core import bench

from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.limits import RunOptions
from mentra_nb.providers.base import ToolChoice
from mentra_nb.providers.scripted import text, tool_calls
from mentra_nb.tools.function import tool

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("by", ["options", "settings"])
async def test_the_model_is_told_and_a_call_that_it_makes_all_the_same_does_not_run(by: str) -> None:
    ran = []
    act = tool(name="act", asks=False)(lambda: ran.append(1) or "done")
    config = AgentConfig(tool_choice=ToolChoice("none")) if by == "settings" else AgentConfig()
    options = RunOptions(without_tools=by == "options")
    async with bench(
        tool_calls([("act", {})]), text("ok"), tool_calls([("act", {})]), text("ok"), tools=[act]
    ) as table:
        agent = await table.agent(config)
        await agent.run("go", options)
        assert ran == []
        assert table.provider.recorded_requests[0].tool_choice == ToolChoice("none")
        (result,) = table.provider.recorded_requests[1].messages[-1].tool_results()
        assert (result.is_error, "not available" in result.display()) == (True, True)
        if by == "options":  # only that turn
            await agent.run("go on")
            assert (ran, table.provider.recorded_requests[2].tool_choice) == ([1], ToolChoice())
            assert agent.config.tool_choice == ToolChoice()

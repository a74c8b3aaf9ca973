"""Skills of a runtime: registered, listed in the prompt, and loaded in a turn."""

from __future__ import annotations

from pathlib import Path

import pytest
from kits.core import bench

from mentra_nb.agent.config import AgentConfig
from mentra_nb.content import ToolResult
from mentra_nb.providers.scripted import ScriptedCall, text, tool_calls

pytestmark = pytest.mark.anyio


def write(root: Path, name: str, description: str, body: str) -> None:
    (root / name).mkdir(parents=True)
    (root / name / "SKILL.md").write_text(f"---\nname: {name}\ndescription: {description}\n---\n{body}\n")


async def test_registered_skills_are_exposed_and_load_skill_returns_wrapped_content(tmp_path: Path) -> None:
    write(tmp_path, "git", "Git workflow", "Commit small.")
    async with bench(tool_calls([ScriptedCall("load_skill", {"name": "git"})]), text("done")) as b:
        assert b.runtime.tool_descriptor("load_skill") is None
        b.runtime.register_skills_dir(tmp_path)
        agent = await b.agent(AgentConfig(system="Be brief."))
        await agent.send("commit")
        (result,) = [block for message in agent.history() for block in message.content if isinstance(block, ToolResult)]
    first, second = b.provider.recorded_requests
    assert first.system is not None
    assert first.system.startswith("Be brief.\n\nSkills available:\n  - git: Git workflow\n")
    assert second.system == first.system
    assert "load_skill" in [tool.name for tool in first.tools]
    assert (result.content, result.is_error) == ('<skill name="git">\nCommit small.\n</skill>', False)


async def test_an_agent_that_may_not_load_skills_does_not_see_them(tmp_path: Path) -> None:
    write(tmp_path, "git", "Git workflow", "Commit small.")
    async with bench(text("done")) as b:
        b.runtime.register_skills_dir(tmp_path)
        agent = await b.agent(AgentConfig(hidden_tools=("load_skill",)))
        await agent.send("commit")
    assert b.provider.recorded_requests[0].system is None


async def test_a_root_registered_later_reaches_open_agents(tmp_path: Path) -> None:
    write(tmp_path / "one", "a", "First.", "one")
    write(tmp_path / "two", "b", "Second.", "two")
    async with bench(text("1"), text("2")) as b:
        b.runtime.register_skills_dir(tmp_path / "one")
        agent = await b.agent()
        await agent.send("?")
        b.runtime.register_skills_dir(tmp_path / "two")
        await agent.send("?")
        assert [skill.name for skill in b.runtime.skills()] == ["a", "b"]
    systems = [request.system or "" for request in b.provider.recorded_requests]
    assert ["  - b: Second." in system for system in systems] == [False, True]

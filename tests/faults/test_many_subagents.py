"""Two hundred subagents, fifty at a time, over real connections: nothing of them is left, and budgets hold exactly."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from pathlib import Path

import pytest
from kits.core import Unattended
from kits.delegating_model import AT_ONCE, TOKENS, DelegatingModel

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.limits import RunOptions
from mentra_nb.errors import EmptyAssistantResponse, ModelBudgetExceeded
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.base import ModelInfo
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.store.records import BudgetCount
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.tools.builtin.task import subagent_tools
from mentra_nb.tools.function import tool

pytestmark = [pytest.mark.anyio, pytest.mark.fault]

ROUNDS = 4


@tool(reads_only=True)
def look(what: str) -> str:
    """Look."""
    return f"seen {what}"


def left(model: DelegatingModel) -> dict[str, int]:
    """What a leak would make grow. Connections that are kept open have a task and two descriptors, all in here."""
    gc.collect()
    connections = len(model._tasks)
    descriptors = len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 2 * connections
    return {
        "tasks": len(asyncio.all_tasks()) - connections,
        "threads": sum("AnyIO worker" not in each.name for each in threading.enumerate()),  # those are kept for reuse
        "descriptors": descriptors - 2 * connections,
        "agents": sum(isinstance(each, Agent) for each in gc.get_objects()),
    }


class Table:
    """A runtime on such a server, and an agent of it."""

    def __init__(self, folder: Path, model: DelegatingModel) -> None:
        provider, self.model = ChatCompletionsProvider("lab", f"http://{model.address}", api_key="key"), model
        tools = [*subagent_tools(), look]
        self.store = SqliteStore(folder / "state.sqlite")
        self.runtime = Unattended([provider], tools, builtin_tools=False, store=self.store, audit=NullAudit())

    async def agent(self) -> Agent:
        config = AgentConfig(max_output_tokens=500)
        return await self.runtime.spawn("parent", ModelInfo(id="m", provider="lab"), config)

    async def spent(self) -> BudgetCount:
        return await self.store.count_budget("day", time.strftime("%Y-%m-%d"), "tokens")


async def test_nothing_of_two_hundred_subagents_is_left_and_each_token_is_counted(tmp_path: Path) -> None:
    async with DelegatingModel() as model:
        earlier = left(model)["agents"]  # of other tests
        table = Table(tmp_path, model)
        async with table.runtime:
            agent, budgets = await table.agent(), {"day": "9000k tokens"}
            before = {}
            for round in range(ROUNDS + 1):
                await agent.run(str(AT_ONCE), RunOptions(budgets=budgets))
                before = before or left(model)  # the first round opens the connections, and threads that stay
                assert len(model._tasks) <= AT_ONCE + 1
                results = [each for message in agent.history()[-2:] for each in message.tool_results()]
                assert sorted(each.content for each in results) == sorted(f"answer to item {n}" for n in range(AT_ONCE))
                assert len({made for each in results for made in each.subagents}) == AT_ONCE
                assert model.answers == (round + 1) * (2 * AT_ONCE + 2)
            after = left(model)
            assert {name: after[name] for name in before if after[name] > before[name]} == {}
            assert before["agents"] <= earlier + 1
            assert await table.spent() == BudgetCount(spent=model.answers * TOKENS)
            assert [each.id for each in await table.runtime.resume()] == [agent.id]


async def test_a_budget_that_fifty_subagents_exhaust_at_once_is_not_exceeded(tmp_path: Path) -> None:
    async with DelegatingModel() as model:
        table = Table(tmp_path, model)
        async with table.runtime:
            agent = await table.agent()
            with pytest.raises(EmptyAssistantResponse, match="budget"):
                await agent.run(str(AT_ONCE), RunOptions(budgets={"day": "6000 tokens"}))
            results = [each for message in agent.history() for each in message.tool_results()]
            refused = [each.content for each in results if each.is_error]
            assert refused
            assert all("budget" in each for each in refused)
            spent = await table.spent()
            assert spent == BudgetCount(spent=model.answers * TOKENS)
            assert 1 < model.answers <= 60
            with pytest.raises(ModelBudgetExceeded):
                await agent.run(str(AT_ONCE), RunOptions(model_budget=30))
            assert model.answers == spent.spent // TOKENS + 30

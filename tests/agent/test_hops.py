"""How often a turn goes to the store and to other threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio.to_thread
import pytest
from kits.core import allow_all, bench

from mentra_nb.agent.limits import RunOptions
from mentra_nb.agent.strategy import Continue, Decision, RoundContext
from mentra_nb.providers.scripted import text, tool_calls
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.function import tool

pytestmark = pytest.mark.anyio

ROUND = ["append_entries", "begin_tool_call", "finish_tool_call"]
"""The answer, that its call is about to run, and the result with the message that the model gets it in."""


class Counting(VolatileStore):
    """Keeps the names of the operations that were transactions."""

    def __init__(self) -> None:
        super().__init__()
        self.hops: list[str] = []

    async def _run(self, work: Callable[[Any], Any], mode: Any, brief: bool) -> Any:
        self.hops.append(work.__qualname__.partition(".<locals>")[0].rpartition(".")[2])
        return await super()._run(work, mode, brief)


@tool
def act() -> str:
    """Do it."""
    return "done"


async def test_a_round_with_a_call_goes_to_the_store_three_times() -> None:
    store = Counting()
    async with bench(
        tool_calls([("act", {})]), tool_calls([("act", {})]), text("ok"), store=store, tools=[act]
    ) as table:
        agent = await table.agent()
        store.hops.clear()
        await agent.send("go")
        assert store.hops == ["start_run", *ROUND, *ROUND, "save_partial", "finish_run"]
        assert [message.text() for message in await history(store, agent.id)] == ["go", "", "", "", "", "ok"]


async def test_in_a_session_the_rules_are_read_for_each_call_too() -> None:
    store = Counting()
    async with bench(tool_calls([("act", {})]), text("ok"), store=store, tools=[act]) as table:
        session = await table.session()
        allow_all(session)
        await session.permissions.add_rule("act", "*", allow=True)
        store.hops.clear()
        await session.append_turn("go")
        begun, answer, ran, result = "start_run", *ROUND
        decided = ["list_rules", "count_rule_use"]
        assert store.hops == [begun, answer, *decided, ran, result, "save_partial", "finish_run"]


async def test_a_strategy_is_asked_about_an_answer_that_is_stored() -> None:
    stored: list[int] = []
    store = Counting()

    async def strategy(context: RoundContext) -> Decision:
        stored.append(len(await history(store, agent.id)))
        return Continue()

    async with bench(text("ok"), store=store) as table:
        agent = await table.agent()
        await agent.run("go", RunOptions(round_strategy=strategy))
    assert stored == [2]


async def test_a_call_of_a_plain_function_goes_to_a_thread_for_the_function_and_for_the_sync_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hops: list[str] = []
    run_sync = anyio.to_thread.run_sync

    async def counted(work: Any, *args: Any, **how: Any) -> Any:
        hops.append(getattr(work, "func", work).__name__)
        return await run_sync(work, *args, **how)

    @tool
    def count() -> int:
        """Count."""
        return 7

    async with bench(tool_calls([("count", {})]), text("ok"), tools=[count]) as table:
        agent = await table.agent()
        monkeypatch.setattr(anyio.to_thread, "run_sync", counted)
        await agent.send("go")
    assert hops == ["sync", "_called"]


async def history(store: VolatileStore, agent_id: str) -> list[Any]:
    """Return the stored messages of the latest turn."""
    [*_, last] = await store.list_runs(agent_id)
    return [entry.message for entry in await store.run_entries(last.id)]

"""What is said to an agent while it works outlives its process, and reaches the model once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anyio.lowlevel
import pytest
from kits.core import MODEL, Bench, bench

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.errors import Cancelled, InvalidRequest, MentraError
from mentra_nb.providers.scripted import failure, text, tool_calls
from mentra_nb.store.records import SAID, Entry, TeamMessage
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.function import tool

pytestmark = pytest.mark.anyio


def sent(table: Bench) -> list[str]:
    """The texts of the messages of the last request."""
    return [message.text() for message in table.provider.recorded_requests[-1].messages]


async def states(agent: Agent) -> list[str]:
    return [delivery for _, delivery in await agent.environment.store.open_messages(SAID, agent.id)]


async def said(agent: Agent, *texts: str) -> None:
    """Say something that is stored when this returns."""
    for each in texts:
        agent.steering.steer(each)
    assert agent.steering.keeper is not None
    await agent.steering.keeper.kept()


async def test_what_was_said_is_stored_until_its_turn_has_ended() -> None:
    async with bench(text("ok")) as table:
        agent = await table.agent()
        await said(agent, "in euros")
        assert await states(agent) == ["pending"]
        await agent.send("go")
        assert sent(table) == ["go", "in euros"]
        assert await states(agent) == []


async def test_what_was_said_and_not_read_is_read_by_the_next_process(tmp_path: Path) -> None:
    async with bench(store=SqliteStore(tmp_path / "s")) as table:
        agent = await table.agent()
        await said(agent, "one", "two")
        agent.steering.follow_up("three")
    async with bench(text("a"), text("b"), text("c"), store=SqliteStore(tmp_path / "s")) as table:
        again = await table.runtime.resume_agent(agent.id)
        await again.send("go")
        assert [text for text in sent(table) if text not in "abc"] == ["go", "one", "two", "three"]
        assert await states(again) == []
    async with bench(text("d"), store=SqliteStore(tmp_path / "s")) as table:
        last = await table.runtime.resume_agent(agent.id)
        await last.send("on")
        assert sent(table).count("one") == 1


@pytest.mark.parametrize("resumes", [True, False])
async def test_what_a_failed_turn_has_read_is_read_once_more_only_without_it(tmp_path: Path, resumes: bool) -> None:
    async with bench(failure(InvalidRequest("no")), store=SqliteStore(tmp_path / "s")) as table:
        agent = await table.agent()
        await said(agent, "in euros")
        with pytest.raises(MentraError):
            await agent.send("go")
        assert await states(agent) == ["in_flight"]
    async with bench(text("a"), text("b"), store=SqliteStore(tmp_path / "s")) as table:
        again = await table.runtime.resume_agent(agent.id)
        await (again.resume() if resumes else again.send("anew"))
        assert sent(table) == (["go", "in euros"] if resumes else ["anew", "in euros"])
        assert await states(again) == []


async def test_what_was_cleared_is_forgotten(tmp_path: Path) -> None:
    async with bench(store=SqliteStore(tmp_path / "s")) as table:
        agent = await table.agent()
        await said(agent, "one")
        agent.steering.clear_steer()
        agent.steering.follow_up("two")
        agent.steering.clear_follow_up()
        assert agent.steering.keeper is not None
        await agent.steering.keeper.kept()
        assert await states(agent) == []
    async with bench(text("ok"), store=SqliteStore(tmp_path / "s")) as table:
        await (await table.runtime.resume_agent(agent.id)).send("go")
        assert sent(table) == ["go"]


async def test_several_messages_that_are_one_entry_are_delivered_together() -> None:
    async with bench(text("ok")) as table:
        agent = await table.agent()
        agent.steering.steer_mode = "all"
        await said(agent, "one", "two")
        await agent.run_queued()
        assert len(table.provider.recorded_requests[0].messages) == 1
        assert await states(agent) == []


class Slow(VolatileStore):
    """A store that takes its time with mail, and notes what it has done."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    async def post_message(self, team: str, recipients: Sequence[str], message: TeamMessage) -> None:
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        await super().post_message(team, recipients, message)
        self.done.append("posted")

    async def append_entries(self, entries: Sequence[Entry], *, holder: str | None = None) -> None:
        self.done += ["delivered" for entry in entries if entry.delivers]
        await super().append_entries(entries, holder=holder)


async def test_what_is_said_during_a_call_is_stored_before_it_is_read() -> None:
    agents, store = list[Agent](), Slow()

    @tool
    def act() -> str:
        """Act."""
        agents[0].steering.steer("in euros")
        return "done"

    async with bench(tool_calls([("act", {})]), text("ok"), tools=[act], store=store) as table:
        agents.append(await table.runtime.spawn("talk", MODEL))
        await agents[0].send("go")
        assert sent(table)[-1] == "in euros"
        assert store.done == ["posted", "delivered"]
        assert await states(agents[0]) == []


async def test_what_a_turn_was_to_begin_with_waits_again_if_it_was_stopped_before() -> None:
    async with bench(text("ok")) as table:
        agent, stopped = await table.agent(), CancellationToken()
        stopped.cancel()
        await said(agent, "in euros")
        with pytest.raises(Cancelled):
            await agent.run_queued(RunOptions(cancellation=stopped))
        assert await states(agent) == ["pending"]
        await agent.run_queued()
        assert sent(table) == ["in euros"]
        assert await states(agent) == []

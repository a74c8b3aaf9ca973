"""Messages of a person while the model is at work."""

from __future__ import annotations

from typing import Any

import pytest
from kits.core import Bench, bench

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.agent.steering import Boundary, Steering
from mentra_nb.content import Message
from mentra_nb.errors import EmptyAssistantResponse, FailedToStreamResponse, HttpError, OperationDenied, StoreError
from mentra_nb.providers.scripted import failure, text, tool_calls
from mentra_nb.store.records import EntryKind
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.function import tool
from mentra_nb.tools.tool import Tool

pytestmark = pytest.mark.anyio


def says(agents: list[Agent], steer: str | None = None, follow_up: str | None = None) -> Tool:
    """Return a tool during which a person steers the agent."""

    def act() -> str:
        if steer is not None:
            agents[0].steering.steer(steer)
        if follow_up is not None:
            agents[0].steering.follow_up(follow_up)
        return "done"

    return tool(act)


def asked(table: Bench, request: int) -> list[str]:
    return [m.text() for m in table.provider.recorded_requests[request].messages if m.text()]


async def test_live_steer_is_visible_in_the_next_provider_request() -> None:
    agents: list[Agent] = []
    async with bench(tool_calls([("act", {})]), text("ok"), tools=[says(agents, steer="shorter")]) as table:
        agents.append(await table.agent())
        await agents[0].send("go")
        assert asked(table, 1) == ["go", "shorter"]
        assert [m.text() for m in agents[0].history()] == ["go", "", "", "shorter", "ok"]
        assert not agents[0].steering.has_pending()


async def test_follow_up_waits_for_the_would_stop_boundary() -> None:
    agents: list[Agent] = []
    script = tool_calls([("act", {})]), text("first"), text("second")
    async with bench(*script, tools=[says(agents, follow_up="and then?")]) as table:
        agents.append(await table.agent())
        assert (await agents[0].send("go")).text() == "second"
        assert [asked(table, n) for n in (1, 2)] == [["go"], ["go", "first", "and then?"]]


@pytest.mark.parametrize(("mode", "second"), [("one_at_a_time", ["a"]), ("all", ["ab"])])
async def test_queue_modes_drain_one_or_all_entries_per_boundary(mode: Any, second: list[str]) -> None:
    async with bench(text("1"), text("2"), text("3")) as table:
        agent = await table.agent()
        agent.steering.follow_up_mode = mode
        agent.steering.follow_up("a")
        agent.steering.follow_up("b")
        await agent.send("go")
        assert asked(table, 1) == ["go", "1", *second]
        assert len(table.provider.recorded_requests) == (3 if mode == "one_at_a_time" else 2)


async def test_failed_run_requeues_steer_and_resume_reinjects_it() -> None:
    agents: list[Agent] = []
    script = tool_calls([("act", {})]), failure(HttpError(400)), text("ok")
    async with bench(*script, tools=[says(agents, steer="shorter")]) as table:
        agents.append(await table.agent())
        with pytest.raises(FailedToStreamResponse):
            await agents[0].send("go")
        await agents[0].resume()
        assert asked(table, 2) == ["go", "shorter"]


async def test_messages_drained_by_a_failed_turn_are_sent_in_the_next() -> None:
    agents: list[Agent] = []
    script = tool_calls([("act", {})]), failure(HttpError(400)), text("ok")
    async with bench(*script, tools=[says(agents, steer="shorter")]) as table:
        agents.append(await table.agent())
        with pytest.raises(FailedToStreamResponse):
            await agents[0].send("go")
        await agents[0].send("something else")
        assert asked(table, 2) == ["something else", "shorter"]


async def test_graceful_stop_does_not_consume_an_unrequestable_steer() -> None:
    agents: list[Agent] = []
    stop = CancellationToken()
    stop_too = says(agents, steer="shorter")
    async with bench(tool_calls([("act", {})]), tools=[stop_too]) as table:
        agents.append(await table.agent())
        agents[0].environment.bus.tap(lambda event: stop.cancel())
        with pytest.raises(EmptyAssistantResponse):
            await agents[0].run("go", RunOptions(stop=stop, max_rounds=1))
        agents[0].steering.steer("later")
        assert agents[0].steering.has_pending()


async def test_a_follow_up_stays_queued_when_no_request_is_left_in_the_budget() -> None:
    async with bench(text("ok")) as table:
        agent = await table.agent()
        agent.steering.follow_up("more")
        assert (await agent.run("go", RunOptions(max_rounds=1))).text() == "ok"
        assert agent.steering.has_pending()


async def test_a_turn_can_begin_with_a_queued_message() -> None:
    async with bench(text("ok")) as table:
        agent = await table.agent()
        with pytest.raises(OperationDenied):
            await agent.run_queued()
        agent.steering.steer("go")
        await agent.run_queued()
        assert asked(table, 0) == ["go"]
        assert not agent.steering.has_pending()


async def test_steering_is_isolated_between_agents_on_one_runtime() -> None:
    async with bench(text("ok")) as table:
        one, other = await table.agent(), await table.agent()
        one.steering.steer("for one")
        await other.send("go")
        assert asked(table, 0) == ["go"]


async def test_queues_can_be_emptied() -> None:
    steering = Steering()
    steering.steer("a")
    steering.follow_up("b")
    steering.clear_steer()
    assert steering.has_pending()
    steering.clear_follow_up()
    assert not steering.has_pending()
    assert repr(steering) == "<Steering: 0 to steer, 0 to follow up>"


async def test_finalization_error_requeues_steering_before_returning() -> None:
    class Breaks(VolatileStore):
        async def finish_run(self, run_id: str, state: Any, **rest: Any) -> None:
            if state == "finished":
                raise StoreError("the disk is full")
            await super().finish_run(run_id, state, **rest)

    async with bench(text("ok"), text("ok"), store=Breaks()) as table:
        agent = await table.agent()
        agent.steering.steer("hear this")
        with pytest.raises(StoreError):
            await agent.send("go")
        assert agent.history() == []
        assert table.recorder.kinds()[-2:] == ["run_aborted", "turn_finished"]
        await agent.steering.requeue()
        assert agent.steering.has_pending()


async def test_next_provider_request_orders_steering_and_then_other_sources() -> None:
    class Mail:
        def __init__(self) -> None:
            self.letters, self.fate = [Message.user("a letter")], ""

        def is_waiting(self, at: Boundary) -> bool:
            return bool(self.letters)

        async def drain(self, at: Boundary) -> list[tuple[EntryKind, Message]]:
            letters, self.letters = self.letters, []
            return [("delegation_request", letter) for letter in letters]

        async def acknowledge(self) -> None:
            self.fate = "acknowledged"

        async def requeue(self) -> None:
            self.fate = "requeued"

    async with bench(text("ok")) as table:
        agent, mail = await table.agent(), Mail()
        agent.add_source(mail)
        agent.steering.steer("steer")
        await agent.send("go")
        assert asked(table, 0) == ["go", "steer", "a letter"]
        assert [entry.kind for entry in agent.transcript.tail][1:3] == ["user_turn", "delegation_request"]
        assert mail.fate == "acknowledged"

"""Answers, changes, deadlines, stops and restarts in random order: each question has one answer, and none counts late.

What happens is tied to the operations of the store, before any of which another process may answer, a person here may,
the turn may be stopped, or its process may die: then a copy of the store, as it is at that moment, is taken up anew.
`MENTRA_FAULT_ANSWERS` is the number of runs (default 20).
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kits.core import MODEL, Recorder

from mentra_nb.agent.limits import CancellationToken, RunOptions
from mentra_nb.authorization import PermissionDecision
from mentra_nb.errors import MentraError, NoResumableTurn
from mentra_nb.event import types as e
from mentra_nb.event.bus import EventBus, NullAudit, RuntimeHooks
from mentra_nb.permission import asking, questions
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.runtime.session import Session
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.transactions import Transaction
from mentra_nb.tools.function import tool
from mentra_nb.tools.tool import ToolContext

T = TypeVar("T")
RUNS = int(os.environ.get("MENTRA_FAULT_ANSWERS", "20"))
pytestmark = [pytest.mark.fault, pytest.mark.timeout(900 + 3 * RUNS)]
ANSWERS = {
    "allow": PermissionDecision(allow=True),
    "deny": PermissionDecision(allow=False, reason="no"),
    "edit": PermissionDecision(allow=True, arguments={"what": "changed"}),
    "misfit": PermissionDecision(allow=True, arguments={"what": ["no text"]}),
    "always": PermissionDecision(allow=True, remember="session"),
}
ACTIONS = [*(f"{where} {how}" for where in ("here", "there") for how in ANSWERS), "stop", "restart"]
LAST_TICK = 60
"""Operations of the store within which all happens: two calls with their questions take about fifty."""


@dataclass
class World:
    """What is planned and what was seen, over all lives of the program."""

    plan: list[tuple[int, str]]
    deadline: float
    folder: Path
    life: int = 0
    ticks: int = 0
    session: Session | None = None
    token: CancellationToken = field(default_factory=CancellationToken)
    death: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    recorder: Recorder = field(default_factory=Recorder)
    """What was recorded by processes that lived: this one, and the one that answers elsewhere."""
    ran: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    """The runs of calls: turn, call and arguments."""
    accepted: list[tuple[str, PermissionDecision]] = field(default_factory=list)
    """The answers that another process was told it had given."""
    busy: bool = False

    @property
    def file(self) -> Path:
        return self.folder / f"{self.life}.sqlite"

    async def tick(self, life: int) -> None:
        """Do what is planned before the next operation of the store."""
        if life != self.life or self.busy:
            return
        self.busy, self.ticks = True, self.ticks + 1
        try:
            while self.plan and self.plan[0][0] <= self.ticks:
                await self.do(self.plan.pop(0)[1])
            if not self.plan and self.ticks > LAST_TICK:
                await self.do("here deny")  # nothing is left open for ever
        finally:
            self.busy = False

    async def do(self, action: str) -> None:
        what, _, how = action.partition(" ")
        match what:
            case "stop":
                self.token.cancel()
            case "restart":
                self.die()
            case "here" if self.session is not None:
                for question in self.session.permissions.open_questions()[:1]:
                    try:
                        self.session.resolve_permission(question.request_id, ANSWERS[how])
                    except MentraError:
                        assert how == "misfit"
            case "there":
                await self.answer_there(ANSWERS[how])

    async def answer_there(self, decision: PermissionDecision) -> None:
        """Answer the first open question as another process does, also one that it had read before."""
        store = Quick(self.file)
        try:
            for question in (await store.open_questions())[:1]:
                bus = EventBus(RuntimeHooks([self.recorder]), NullAudit())
                if await questions.close(store, bus, question, decision, None, in_time=True):
                    self.accepted.append((question.request_id, decision))
                assert not await questions.close(store, bus, question, ANSWERS["deny"], None, in_time=True)
        finally:
            store.close()

    def die(self) -> None:
        """Leave the store as it is now to the next life: what this one still does is not seen."""
        before = sqlite3.connect(self.file)
        if not before.execute("SELECT count(*) FROM sqlite_master WHERE name = 'leases'").fetchone()[0]:
            before.close()
            return  # it has not been opened yet
        self.life += 1
        after = sqlite3.connect(self.file)
        before.backup(after)
        after.execute("DELETE FROM leases")  # the process that held them is dead
        after.commit()
        after.close()
        before.close()
        self.session = None
        self.death.cancel()


class Quick(SqliteStore):
    """A store that does not wait for the disk."""

    async def _reach_disk(self) -> None:
        return


class Stepping(Quick):
    """A store before each of whose operations something may happen."""

    def __init__(self, world: World) -> None:
        super().__init__(world.file)
        self.world, self.life = world, world.life

    async def _run(self, work: Callable[[Transaction], T], mode: Any, brief: bool) -> T:
        await self.world.tick(self.life)
        return await super()._run(work, mode, brief)


@dataclass
class Alive:
    """Keeps the events of a life while it lasts."""

    world: World
    life: int

    def on_event(self, store: Any, event: e.RuntimeEvent) -> None:
        if self.life == self.world.life:
            self.world.recorder.events.append(event)


def acting(world: World, life: int) -> Any:
    @tool
    async def act(context: ToolContext, what: str) -> str:
        """Do something."""
        if life == world.life:
            world.ran.append((context.run_id, context.tool_call_id, {"what": what}))
        return "done"

    return act


async def live(world: World) -> bool:
    """Take or take up the turn until it ends or its process dies. Returns whether it died."""
    life, world.death, world.token = world.life, anyio.CancelScope(), CancellationToken()
    calls = tool_calls([("act", {"what": "a"}), ("act", {"what": "b"})])
    provider = ScriptedProvider([calls, text("ok")] if life == 0 else [text("ok"), calls, text("ok")])
    with world.death:
        async with Runtime(
            [provider],
            [acting(world, life)],
            builtin_tools=False,
            store=Stepping(world),
            audit=NullAudit(),
            hooks=[Alive(world, life)],
        ) as runtime:
            session = world.session = await _opened(runtime, life)
            session.permissions.ask_timeout = world.deadline
            options = RunOptions(cancellation=world.token)
            try:
                await (session.append_turn("go", options) if life == 0 else session.resume_turn(options))
            except NoResumableTurn:
                assert life > 0
            except MentraError:
                assert world.token.is_cancelled or world.life != life
    return world.life != life


async def _opened(runtime: Runtime, life: int) -> Session:
    if life and await runtime.store.load_session("talk") is not None:
        return await runtime.resume_session("talk")
    return await runtime.create_session("talk", MODEL)


def rows(file: Path) -> dict[str, dict[str, Any]]:
    connection = sqlite3.connect(file)
    connection.row_factory = sqlite3.Row
    found = {row["request_id"]: dict(row) for row in connection.execute("SELECT * FROM questions")}
    connection.close()
    return found


def check(world: World) -> None:
    """Hold what was recorded and what ran against the one answer that each question has in the store."""
    stored = rows(world.file)
    # A turn that was stopped before it took up its call again may be resumed once more.
    assert all(row["outcome"] for row in stored.values()) or world.token.is_cancelled, "a question was left open"
    answered = Counter(event.request_id for event in world.recorder.of(e.QuestionAnswered))
    assert not answered or max(answered.values()) == 1, "an answer was recorded twice"
    for event in world.recorder.of(e.QuestionAnswered):
        if event.request_id in stored:
            row = stored[event.request_id]
            assert (event.outcome, event.decided_by) == (row["outcome"], row["decided_by"])
    told = Counter(request_id for request_id, _ in world.accepted)
    assert not told or max(told.values()) == 1, "two answers were taken"
    for request_id, decision in world.accepted:
        if (row := stored.get(request_id)) is not None:
            assert row["outcome"] == ("allowed" if decision.allow else "denied"), "another answer counted"
            assert row["decided_at"] <= row["deadline"], "a late answer counted"
    decided = Counter((event.run_id, event.tool_call_id) for event in world.recorder.of(e.ToolAuthorizationFinished))
    assert not decided or max(decided.values()) == 1, "a call was decided twice"
    verdicts = {(each.run_id, each.tool_call_id): each for each in world.recorder.of(e.ToolAuthorizationFinished)}
    for run_id, call_id, arguments in world.ran:
        verdict = verdicts[run_id, call_id]
        assert str(verdict.outcome) == "allow", "a call ran that was not allowed"
        if verdict.decided_by == "user":
            row = stored[verdict.request_id or ""]
            assert (row["outcome"], row["decided_by"]) == ("allowed", "user")
            changed = json.loads(row["answer"])["arguments"]
            asked = json.loads(row["payload"])["arguments"]
            assert arguments == (changed or asked), "something else ran than what was approved"
        else:
            assert verdict.decided_by == "rule"
    runs = Counter((run_id, call_id) for run_id, call_id, _ in world.ran)
    assert not runs or max(runs.values()) == 1, "a call ran twice in one turn"


async def one(plan: list[tuple[int, str]], deadline: float) -> World:
    """Live through a plan: what happens, each so many operations after the one before."""
    times = accumulate(gap for gap, _ in plan)
    with tempfile.TemporaryDirectory() as folder:
        world = World([(at, action) for at, (_, action) in zip(times, plan, strict=True)], deadline, Path(folder))
        while await live(world):
            pass
        world.plan.clear()
        check(world)
    return world


GAPS = [1, 1, 1, 2, 3, 8, 13, 20]
"""Mostly close together, as the moments between an answer and its row are few."""
PLANS = st.lists(st.tuples(st.sampled_from(GAPS), st.sampled_from(ACTIONS)), max_size=10)


@settings(max_examples=RUNS, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(plan=PLANS, deadline=st.sampled_from([30.0, 30.0, 0.02]))
def test_each_call_has_one_decision_whatever_happens_in_whatever_order(
    plan: list[tuple[int, str]], deadline: float
) -> None:
    before, asking.LOOK_EVERY = asking.LOOK_EVERY, 0.004
    try:
        anyio.run(one, plan, deadline)
    finally:
        asking.LOOK_EVERY = before

"""Two people share one state in PostgreSQL and one record: each has their own, and it is told who did what."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from kits.postgres import Server

import mentra_nb as mn

PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
import mentra_nb as mn
from mentra_nb.authorization import PermissionDecision
from mentra_nb.budget.meter import key_now
from mentra_nb.content import TokenUsage
from mentra_nb.event.bus import EventBus
from mentra_nb.event.screen import QuestionAsked
from mentra_nb.permission import questions
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls
from mentra_nb.record.write.journal import Journal

@mn.tool
def act(what: str) -> str:
    "Do it."
    return "done"

FIRST, LAST = TokenUsage(input_tokens=60, output_tokens=10), TokenUsage(input_tokens=30, output_tokens=0)
ANSWERS = [tool_calls([("act", {"what": "x"})], usage=FIRST), text("done", usage=LAST)]
BUDGETS = {"project": "1000k", "day": "500k"}

def tell(**what):
    print(json.dumps(what), flush=True)

async def main():
    provider, model = ScriptedProvider(ANSWERS), mn.ModelInfo(id="scripted", provider="scripted")
    journal = Journal(Path(sys.argv[1]))
    async with mn.Runtime([provider], [act], builtin_tools=False, audit=journal) as runtime:
        for line in sys.stdin:
            order = json.loads(line)
            match order["do"]:
                case "ask":
                    session = await runtime.create_session(order["name"], model, None, "/p", notebook="a.ipynb")
                    session.permissions.can_ask = lambda: True
                    session.subscribe(lambda event: tell(asked=True) if isinstance(event, QuestionAsked) else None)
                    limits = mn.RunOptions(budgets=BUDGETS)
                    tell(said=(await session.append_turn("go", limits)).text())
                case "allow":
                    (question,) = await runtime.store.open_questions()
                    bus, decision = EventBus(runtime.hooks, journal), PermissionDecision(allow=True, reason="it may")
                    closed = await questions.close(runtime.store, bus, question, decision, "/p", in_time=True)
                    tell(closed=closed)
                case "look":
                    own = await runtime.store.last_session("/p", "a.ipynb")
                    every = await runtime.store.list_conversations("/p")
                    counts = {}
                    for period in ("day", "project"):
                        key = key_now(period, {"project": "/p"}, runtime.store.whose)
                        counts[period] = (await runtime.store.count_budget(period, key, "tokens")).spent
                    begun = sorted((each.session.name, each.session.os_user) for each in every)
                    tell(own=own and own.name, every=begun, counts=counts)
    journal.close()

asyncio.run(main())
"""


class Process:
    """A process of one person, which does what it is told."""

    def __init__(self, name: str, folder: Path, state: str) -> None:
        environ = {**os.environ, "LOGNAME": name, "MENTRA_STATE": state, "MENTRA_HOME": str(folder / name)}
        command = [sys.executable, "-c", PROGRAM, str(folder / "record")]
        self.process = subprocess.Popen(command, env=environ, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def tell(self, do: str, **more: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def close(self) -> None:
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0


@pytest.fixture
def person(tmp_path: Path, postgres: Server) -> Iterator[Callable[[str], Process]]:
    """Begin a process of a person on the shared state and record."""
    state = postgres.new_database()
    with ExitStack() as stack:

        def begin(name: str) -> Process:
            begun = Process(name, tmp_path, state)
            stack.callback(begun.process.kill)
            return begun

        yield begin


def by_person(frame: pd.DataFrame, *columns: str) -> list[list[Any]]:
    return frame[["os_user", *columns]].astype(object).to_numpy().tolist()


@pytest.mark.skipif(sys.platform == "win32", reason="needs PostgreSQL on a socket")
def test_each_has_their_own_and_it_is_told_who_asked_allowed_and_spent(
    person: Callable[[str], Process], tmp_path: Path
) -> None:
    ann, bob = person("ann"), person("bob")
    ann.tell("ask", name="plan")
    assert ann.hear() == {"asked": True}
    bob.tell("allow")
    assert bob.hear() == {"closed": True}
    assert ann.hear() == {"said": "done"}
    bob.tell("ask", name="check")
    assert bob.hear() == {"asked": True}
    ann.tell("allow")
    assert ann.hear() == {"closed": True}
    assert bob.hear() == {"said": "done"}
    for who, own in ((ann, "plan"), (bob, "check")):
        who.tell("look")
        seen = who.hear()
        assert seen["own"] == own  # which the notebook that both have opened goes on with
        assert seen["every"] == [["check", "bob"], ["plan", "ann"]]
        assert seen["counts"] == {"day": 100, "project": 200}
    for who in (ann, bob):
        who.close()

    here = {"folder": tmp_path / "record"}
    assert by_person(mn.turns(**here), "prompt") == [["ann", "go"], ["bob", "go"]]
    assert by_person(mn.sessions(**here), "title") == [["ann", "plan"], ["bob", "check"]]
    assert by_person(mn.decisions(**here), "decided_by", "reason") == [
        ["bob", "user", "it may"],
        ["ann", "user", "it may"],
    ]
    assert by_person(mn.tool_calls(**here), "outcome") == [["bob", "ok"], ["ann", "ok"]]
    assert by_person(mn.usage(**here)) == [["ann"], ["ann"], ["bob"], ["bob"]]
    assert by_person(mn.usage("os_user", **here), "responses", "total_tokens") == [["ann", 2, 100], ["bob", 2, 100]]
    assert by_person(mn.turns(os_user="bob", **here)) == [["bob"]]
    assert getpass.getuser() not in mn.events(**here).os_user.tolist()

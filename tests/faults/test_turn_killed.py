"""A process is killed at every step of a turn, and another process continues. Nothing that was acknowledged is missing,
no call that is not safe to repeat runs twice without a person's consent, and every request is a valid conversation.

By default there is one kill at each step. `MENTRA_FAULT_KILLS` sets the number of kills in all, at least ten at each
step, and prints the counts.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pandas as pd
import pytest
from kits import killable_turn as turn
from kits.killable_turn import NAME, Model, Person
from kits.validate import check_anthropic, check_chat, check_gemini, check_responses

from mentra_nb.authorization import PermissionDecision
from mentra_nb.content import Message, Text, ToolResult, ToolUse
from mentra_nb.errors import LeaseUnavailable, NoResumableTurn, StoreError
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.anthropic import AnthropicProvider
from mentra_nb.providers.base import ProviderEvent, Request
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.providers.gemini import GeminiProvider
from mentra_nb.providers.responses import ResponsesProvider
from mentra_nb.record.read import frames
from mentra_nb.record.write.journal import Journal
from mentra_nb.runtime.session import Session
from mentra_nb.store.records import SAID, Resolution
from mentra_nb.store.sqlite import SqliteStore

KILLS = int(os.environ.get("MENTRA_FAULT_KILLS", "0"))
PROGRAM = [sys.executable, turn.__file__]
WIRES: list[tuple[Any, Callable[[Any], None]]] = [
    (ResponsesProvider("openai", "http://h"), check_responses),
    (ChatCompletionsProvider("deepseek", "http://h"), check_chat),
    (AnthropicProvider("anthropic", "http://h"), check_anthropic),
    (GeminiProvider("gemini", "http://h"), check_gemini),
]

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9"),
    pytest.mark.timeout(300 + 3 * KILLS),
]


# ---- processes that die ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kill:
    """Where a process dies. `number` selects what the person does afterwards."""

    step: str
    occurrence: int
    number: int = 0

    def __str__(self) -> str:
        return f"{self.step} #{self.occurrence} ({self.number})"


class Killers:
    """Programs that carry out orders, each one order at a time."""

    def __init__(self, count: int) -> None:
        self.programs = [
            subprocess.Popen(PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        self.free: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
        for program in self.programs:
            self.free.put(program)

    def run(self, home: Path, kill: Kill | None = None, **order: Any) -> int:
        """Return the exit status of a process that is to die at `kill`, or of one that is not to die."""
        if kill is not None:
            order |= {"step": kill.step, "occurrence": kill.occurrence}
        program = self.free.get()
        try:
            assert program.stdin is not None
            assert program.stdout is not None
            program.stdin.write(json.dumps({"home": str(home), **order}) + "\n")
            program.stdin.flush()
            return int(program.stdout.readline())
        finally:
            self.free.put(program)

    def close(self) -> None:
        for program in self.programs:
            assert program.stdin is not None
            program.stdin.close()
            program.wait()
            assert program.stdout is not None
            program.stdout.close()


@pytest.fixture(scope="module")
def killers() -> Iterator[Killers]:
    made = Killers(2)
    yield made
    made.close()


@dataclass
class Notes:
    """What the processes of a home acknowledged."""

    rows: turn.Rows = field(default_factory=lambda: defaultdict(dict))
    events: dict[int, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    """By process id, in order."""
    answered: set[str] = field(default_factory=set)
    """Ids of questions whose answers were shown as accepted."""
    again: Counter[str] = field(default_factory=Counter)
    """How often a person was asked whether an interrupted `act` runs again, by its argument."""
    steps: dict[str, int] = field(default_factory=dict)
    """How often each step is reached by a process that is not killed."""

    @classmethod
    def of(cls, home: Path) -> Notes:
        notes = cls()
        for line in (home / "notes").read_text().splitlines():
            match json.loads(line):
                case {"table": table, "key": key, "row": row}:
                    notes.rows[table][key] = row
                case {"event": kind, "payload": payload, "pid": pid}:
                    notes.events[pid].append({"kind": kind, **payload})
                case {"answered": request_id}:
                    notes.answered.add(request_id)
                case {"again": what}:
                    notes.again[what] += 1
                case {"steps": steps}:
                    notes.steps = steps
        return notes


# ---- what comes after -----------------------------------------------------------------------------------------


def check_wires(messages: list[Message]) -> None:
    """Check that every API would accept this conversation."""
    for provider, check in WIRES:
        check(json.loads(provider.body(Request("m", messages))))


class CheckedModel(Model):
    """Accepts only requests that every API would accept."""

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[ProviderEvent]]:
        check_wires(list(request.messages))
        async with super().stream(request) as events:
            yield events


def shape(messages: list[Message]) -> list[Any]:
    """Return a conversation without what a death may change: results and steering."""

    def block(block: Any) -> Any:
        match block:
            case Text(text=text):
                return text
            case ToolUse(name=name, input=arguments):
                return name, arguments["what"]
            case ToolResult():
                return "result"
        raise AssertionError(block)

    return [(str(m.role), [block(b) for b in m.content]) for m in messages if m.text() != turn.STEER]


@dataclass
class Found:
    """A home as the killed processes left it."""

    home: Path
    rows: turn.Rows
    notes: Notes
    done: Counter[str]
    """How often `act` took effect, by its argument."""

    @classmethod
    def of(cls, home: Path) -> Found:
        return cls(home, turn.rows(home), Notes.of(home), turn.effects(home, "act"))

    def table(self, name: str) -> list[dict[str, Any]]:
        return list(self.rows.get(name, {}).values())

    @property
    def last_run(self) -> dict[str, Any] | None:
        return max(self.table("runs"), key=lambda run: (run["started_at"], run["id"]), default=None)

    @property
    def is_unfinished(self) -> bool:
        """Whether the last turn died and has not been resumed to its end."""
        return self.last_run is not None and self.last_run["state"] != "finished"

    @property
    def unknown(self) -> dict[str, dict[str, Any]]:
        """The calls of the unfinished turn that began and have no known result, by tool and argument."""
        runs, run = {run["id"]: run for run in self.table("runs")}, self.last_run if self.is_unfinished else None
        latest: dict[str, dict[str, Any]] = {}
        while run is not None:
            for call in self.table("tool_calls"):
                if call["run_id"] == run["id"]:
                    latest.setdefault(f"{call['tool']} {json.loads(call['arguments'])['what']}", call)
            run = runs.get(run["resumes"])
        return {about: call for about, call in latest.items() if call["finished_at"] is None}

    @property
    def may_have_acted(self) -> dict[str, dict[str, Any]]:
        """The `unknown` calls that may not be repeated without a question, by argument."""
        return {about.split()[1]: call for about, call in self.unknown.items() if call["tool"] == "act"}

    def check_rows(self) -> None:
        """Check that every row the store acknowledged is in it, with at least the values it had then."""
        if not self.rows:
            assert not self.notes.rows
            return
        with closing(sqlite3.connect(turn.state_file(self.home))) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        for table, noted in self.notes.rows.items():
            for key, row in noted.items():
                kept = self.rows[table].get(key)
                assert (row is None) == (kept is None), (table, key)
                values = {column: value for column, value in (row or {}).items() if column != "delivery"}
                gone = {column for column, value in values.items() if value is not None and kept[column] != value}
                assert not gone, (table, key, gone)


async def continue_turn(home: Path, number: int, undisturbed: list[Any]) -> Found:
    """Resume the turn that died. The person allows a call to run again if `number` is even."""
    found = Found.of(home)
    found.check_rows()
    model, store, record = CheckedModel(), SqliteStore(turn.state_file(home)), Journal(turn.record_folder(home))
    async with turn.open_runtime(home, model, lambda name: None, store, record) as runtime:
        if not found.table("sessions"):
            with pytest.raises(StoreError):
                await runtime.resume_session(NAME)
            assert not found.table("runs")
            session = await runtime.create_session(NAME, turn.MODEL)
        else:
            session = await runtime.resume_session(NAME)
        person = Person(session, again=number % 2 == 0)
        check_settled(session, found)
        unknown = await session.agent.unknown_calls()
        assert {f"{call.tool} {call.arguments['what']}" for call in unknown} == found.unknown.keys()
        answered = await answer_beforehand(session, found, number)

        if found.is_unfinished:
            answer = await session.resume_turn()
            assert answer.text() == turn.words(turn.SCRIPT[last_prompt(session)][-1])
        with pytest.raises(NoResumableTurn):
            await session.resume_turn()
        await turn.say_the_rest(session)

        check_wires([*session.history(), Message.user("And?")])
        assert shape(session.history()) == undisturbed
        heard = [said.text() for said in session.history()].count(turn.STEER)
        assert heard == len(found.table("team_mail")), "what was said and stored is read once"
        assert await store.open_messages(SAID, session.agent.id) == []
        assert session.status in ("idle", "created")
        assert [lease.holder.runtime_id for lease in await store.list_leases()] == [runtime.id]
        check_asked(person, found, answered)
    check_effects(home, found, person, number)
    check_store(home)
    return found


def last_prompt(session: Session) -> str:
    return next(prompt for said in reversed(session.history()) if (prompt := turn.prompt_in(said)))


def check_settled(session: Session, found: Found) -> None:
    """Check that the conversation is valid, and has everything that was shown of it."""
    check_wires([*session.history(), Message.user("And?")])
    texts = [said.text() for said in session.history()]
    for entry in found.table("entries"):
        said = Message.model_validate_json(entry["message"]).text()
        assert said in texts or entry["kind"] == "settlement", "an entry is missing in the conversation"
    if found.last_run is not None and (streamed := found.last_run["partial"]):
        assert texts[-1] == streamed, "saved text is missing in the conversation"


async def answer_beforehand(session: Session, found: Found, number: int) -> set[str]:
    """Answer some questions before they are asked, depending on `number`. Returns the ids of the answered ones."""
    for what, call in found.may_have_acted.items() if number % 4 > 1 else ():
        if call["resolution"] is None:
            no: Resolution = "done" if found.done[what] else "skipped"
            await session.agent.resolve_unknown(call["call_id"], "run_again" if number % 2 == 0 else no)
    answered = set()
    for question in await session.agent.environment.store.open_questions():
        if number % 2:
            await session.answer(question.request_id, PermissionDecision(allow=True))
            answered.add(question.request_id)
    return answered


def check_asked(person: Person, found: Found, answered: set[str]) -> None:
    """Check that no question was asked that a decision or a rule had answered."""
    for question in found.table("questions"):
        if question["request_id"] in answered | found.notes.answered:
            assert json.loads(question["payload"])["arguments"]["what"] not in person.asked
    for rule in found.table("rules"):
        covered = {"a"} if rule["pattern"] == turn.RULED_BEFORE else {"b1", "b2", "b3"}
        assert covered.isdisjoint(person.asked)
    assert len(set(person.asked)) == len(person.asked)
    assert len(set(person.asked_again)) == len(person.asked_again)


def check_effects(home: Path, found: Found, person: Person, number: int) -> None:
    """Check that every call with the effect `once` ran once, or as often as a person allowed."""
    decided = {what for what, call in found.may_have_acted.items() if call["resolution"] is not None}
    assert set(person.asked_again) == (found.may_have_acted.keys() - decided if number % 4 < 2 else set())
    done = turn.effects(home, "act")
    for what in ("a", "b1", "b2", "b3"):
        if what in found.may_have_acted:
            assert done[what] == found.done[what] + (what in decided or number % 2 == 0), what
        else:
            assert done[what] == max(found.done[what], 1), what
            assert done[what] <= 1 + found.notes.again[what], what
    assert all(turn.effects(home, "keep").values())


UNRECORDED = {
    *("store.save_session:after", "event.session_started:before"),
    *("store.start_run:after", "event.turn_started:before"),
    *("store.finish_run:after", "event.turn_finished:before"),
    *("store.mark_messages:before", "store.mark_messages:inside", "store.mark_messages:after"),
}
"""Steps between the store and the record: a beginning or an end is missing in the record if a process dies there."""


class Record:
    """The events of all homes in a folder."""

    def __init__(self, folder: Path) -> None:
        self.events = frames.events(folder=folder)
        assert self.events.id.is_unique
        assert "journal_gap" not in set(self.events.kind)
        by_source = defaultdict(list)
        for source, seq, payload in zip(self.events.source, self.events.seq, self.events.payload, strict=True):
            assert seq == len(by_source[source]), "a hole in the record"
            # added by the journal: who ran the process, and where
            told = {key: value for key, value in json.loads(payload).items() if key not in ("os_user", "host")}
            by_source[source].append(told)
        self.by_runtime = {written[0]["runtime_instance_id"]: written for written in by_source.values()}
        self.by_agent = dict(list(self.events.groupby("agent_id")))

    def check(self, kill: Kill, found: Found) -> None:
        """Check that every acknowledged event is recorded once and in order, and that what began has ended."""
        for acknowledged in found.notes.events.values():
            written = self.by_runtime[acknowledged[0]["runtime_instance_id"]]
            assert written[: len(acknowledged)] == acknowledged
            assert len(written) <= len(acknowledged) + 1  # one may be written while another thread dies
        for session in found.table("sessions"):
            self.check_ends(self.by_agent[session["agent_id"]], unrecorded=kill.step in UNRECORDED)

    def check_ends(self, events: pd.DataFrame, *, unrecorded: bool) -> None:
        assert 1 - unrecorded <= len(events[events.kind == "session_started"]) <= 1

        def counts(kind: str, *by: str) -> pd.Series[int]:
            return events[events.kind == kind].groupby([*by]).size()

        assert (counts("tool_authorization_finished", "run_id", "call_id") == 1).all()
        started = counts("tool_execution_started", "run_id", "call_id")
        finished = counts("tool_execution_finished", "run_id", "call_id")
        assert (started == 1).all()
        assert started.index.isin(finished.index).all(), "a call without an end"
        started, finished = counts("turn_started", "run_id"), counts("turn_finished", "run_id")
        assert (started == 1).all()
        assert len(set(started.index) ^ set(finished.index)) <= unrecorded, "turns without a beginning or an end"
        assert len(finished) == len(counts("turn_finished", "run_id", "stop_reason")), "turns with two ends"


def check_store(home: Path) -> None:
    after = turn.rows(home)
    assert not after["leases"]
    assert {run["state"] for run in after["runs"].values()} <= {"finished", "interrupted"}


# ---- the tests ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lived(killers: Killers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where no process died."""
    home = tmp_path_factory.mktemp("lived") / "home"
    assert killers.run(home) == 0, (home / "errors").read_text()
    return home


@pytest.fixture(scope="module")
def undisturbed(lived: Path) -> list[Any]:
    return anyio.run(_shape_of, lived)


async def _shape_of(home: Path) -> list[Any]:
    async with turn.open_runtime(
        home, Model(), lambda name: None, SqliteStore(turn.state_file(home)), NullAudit()
    ) as runtime:
        return shape((await runtime.resume_session(NAME)).history())


def planned(steps: dict[str, int], per_step: int, number: int = 0) -> list[Kill]:
    """Return `per_step` kills for each step, spread over its occurrences and over what the person may do."""
    kills = []
    for index, (name, count) in enumerate(steps.items(), start=number):
        for n in range(per_step):
            at = n * count // per_step if count > per_step > 1 else (n + index) % count
            kills.append(Kill(name, at + 1, index + n % count + n // count))
    return kills


def survive(kills: list[Kill], die: Callable[[Kill], Path], undisturbed: list[Any]) -> Counter[str]:
    """Carry out the kills, and continue after each. Returns how many there were at each step."""
    survived: dict[Kill, Found] = {}
    failed: dict[Kill, Exception] = {}

    def check(kill: Kill, checked: Callable[[], Any]) -> Any:
        try:
            return checked()
        except Exception as error:
            failed[kill] = error

    with ThreadPoolExecutor(2) as pool:
        dying = {pool.submit(die, kill): kill for kill in kills}
        for death in as_completed(dying):
            kill, home = dying[death], death.result()
            if found := check(kill, partial(anyio.run, continue_turn, home, kill.number, undisturbed)):
                survived[kill] = found
                shutil.rmtree(home)
    record = Record(turn.record_folder(home))
    for kill, found in survived.items():
        check(kill, partial(record.check, kill, found))
    for kill, error in failed.items():
        print(kill, type(error).__name__, str(error)[:1500])
    assert not failed, f"{len(failed)} of {len(kills)}"
    return Counter(kill.step for kill in kills)


def test_killed_at_every_step_of_a_turn(
    killers: Killers, lived: Path, undisturbed: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = Notes.of(lived).steps
    per_step = max(10, -(-KILLS // len(steps))) if KILLS else 1

    def die(kill: Kill) -> Path:
        home = tmp_path / f"{kill.step}-{kill.occurrence}-{kill.number}"
        assert killers.run(home, kill) == -9, (home / "errors").read_text()
        return home

    counts = survive(planned(steps, per_step), die, undisturbed)
    assert counts == dict.fromkeys(steps, per_step)
    if KILLS:
        with capsys.disabled():
            print("", *(f"{count:>6}  {step}" for step, count in counts.items()), sep="\n")
            print(f"{counts.total():>6}  kills at {len(counts)} steps of a turn")


FIRST_DEATHS = [
    Kill("tool.act:after", 2),
    Kill("tool.look:after", 1),
    Kill("store.finish_tool_call:after", 4),
    Kill("shown.permission_requested:before", 1),
    Kill("store.save_partial:after", 9),
]


@pytest.mark.parametrize(("number", "first"), [*enumerate(FIRST_DEATHS)], ids=map(str, FIRST_DEATHS))
def test_killed_again_while_it_resumes(
    killers: Killers, undisturbed: list[Any], tmp_path: Path, number: int, first: Kill
) -> None:
    lived = tmp_path / "lived"
    assert killers.run(lived, first) == -9
    assert killers.run(lived, resume=True) == 0, (lived / "errors").read_text()
    plan = planned(Notes.of(lived).steps, 1, number)

    def die(kill: Kill) -> Path:
        home = tmp_path / f"{kill.step}-{kill.occurrence}-{kill.number}"
        assert killers.run(home, first) == -9
        assert killers.run(home, kill, resume=True) == -9, (home / "errors").read_text()
        return home

    survive(plan if KILLS else plan[number % 8 :: 8], die, undisturbed)


def test_an_agent_of_a_live_process_is_refused_to_another(
    killers: Killers, undisturbed: list[Any], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    there, go = home / "there", home / "go on"
    os.mkfifo(there)
    os.mkfifo(go)
    with ThreadPoolExecutor(1) as pool:
        living = pool.submit(killers.run, home, Kill("tool.act:after", 2), hold=True)
        there.read_text()  # returns when the process has reached the step
        try:
            before = turn.rows(home)
            anyio.run(_refused, home)
            assert turn.rows(home) == before
        finally:
            go.write_text("")
        assert living.result() == 0, (home / "errors").read_text()
    assert anyio.run(_shape_of, home) == undisturbed
    assert set(turn.effects(home, "act").values()) == {1}
    written = Record(turn.record_folder(home)).by_runtime.values()
    assert sorted(len(events) for events in written)[0] == 1, "the refused process recorded more than its start"


async def _refused(home: Path) -> None:
    store, record = SqliteStore(turn.state_file(home)), Journal(turn.record_folder(home))
    async with turn.open_runtime(home, Model(), lambda name: None, store, record) as runtime:
        for _ in range(2):
            with pytest.raises(LeaseUnavailable, match="in use by process"):
                await runtime.resume_session(NAME)
        with pytest.raises(LeaseUnavailable):
            await runtime.resume_all()

"""A conversation whose process kills itself at a named step, and what the tests of it share.

As a program it reads orders from stdin, a line of JSON each, carries each out in a forked process (so that nothing is
imported again), and prints the exit status of that process:

    {"home": …, "resume": false, "step": "tool.act:after", "occurrence": 2, "hold": false}

The steps are found by wrapping, so there is no list of them: each write of the store (`before`, `inside` and `after`
its transaction), each event and each sync of the record, each event shown to the session's listener, and each effect of
a tool. The file `notes` has a line of JSON for everything that was acknowledged.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import anyio

from mentra_nb.agent import loop
from mentra_nb.authorization import PermissionDecision
from mentra_nb.content import Message, Role, TokenUsage
from mentra_nb.errors import NoResumableTurn
from mentra_nb.event import screen as shown
from mentra_nb.event.bus import AuditStore
from mentra_nb.permission.binding import AGAIN
from mentra_nb.providers.base import ModelInfo, ProviderEvent, Request
from mentra_nb.providers.scripted import (
    ScriptedAnswer,
    ScriptedProvider,
    message,
    stream_text,
    text,
    text_block,
    tool_calls,
)
from mentra_nb.record.write.journal import Journal
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.runtime.session import Session
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.tools.function import tool
from mentra_nb.tools.tool import Tool, ToolContext

Step = Callable[[str], None]
Rows = dict[str, dict[str, dict[str, Any]]]
"""The rows of a state store, by table and primary key."""

MODEL = ModelInfo(id="scripted", provider="scripted")
NAME = "talk"
FIRST, SECOND, STEER = "Lay the table.", "Clear it again.", "The blue plates, please."
ANSWER = ("The ", "table ", "is ", "laid ", "for ", "six, ", "with ", "the ", "good ", "plates.")
SCRIPT: dict[str, tuple[ScriptedAnswer, ...]] = {
    FIRST: (
        tool_calls([("look", {"what": "a"}), ("look", {"what": "b"}), ("act", {"what": "a"})], text="Let me see."),
        tool_calls([("keep", {"what": "a"}), ("act", {"what": "b1"})]),
        tool_calls([("act", {"what": "b2"}), ("look", {"what": "c"})], text="Nearly done."),
        message([text_block(0, ["One ", "moment: "])], "pause"),
        stream_text(ANSWER, usage=TokenUsage(input_tokens=80, output_tokens=20)),
    ),
    SECOND: (tool_calls([("look", {"what": "d"}), ("act", {"what": "b3"})]), text("Cleared.")),
}
"""The model's answers to each prompt, in order. Calls have the same ids in every answer."""
RULED_BEFORE, RULED_BY_ANSWER = '{"what":"a"}', '{"what":"b*"}'
"""Patterns of `act` that a rule allows: from the beginning, and after the first question was answered."""


class Model(ScriptedProvider):
    """Answers from `SCRIPT`, depending only on the conversation in the request, so that it continues from anywhere."""

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[ProviderEvent]]:
        self.push(next_answer(request.messages))
        async with super().stream(request) as events:
            yield events


def next_answer(messages: Sequence[Message]) -> ScriptedAnswer:
    at = max(n for n, said in enumerate(messages) if said.role is Role.USER and prompt_in(said))
    return SCRIPT[prompt_in(messages[at])][sum(said.role is Role.ASSISTANT for said in messages[at:])]


def prompt_in(said: Message) -> str:
    """Return the message's text if it is a prompt of the script, else an empty string."""
    return said.text() if said.text() in SCRIPT else ""


def make_tools(home: Path, step: Step) -> list[Tool]:
    """Return `look`, which reads, `keep`, which is idempotent, and `act`. Each adds a line to the file `effects`."""

    def take_effect(name: str, what: str) -> str:
        step(f"tool.{name}:before")
        append(home / "effects", f"{name} {what}")
        step(f"tool.{name}:after")
        return f"{name}: {what}"

    @tool(reads_only=True)
    def look(what: str) -> str:
        """See."""
        return take_effect("look", what)

    @tool(asks=False)
    async def keep(what: str, context: ToolContext) -> str:
        """Put it there; a second time changes nothing."""
        context.progress("putting it there")
        return take_effect("keep", what)

    @tool
    def act(what: str) -> str:
        """Do it, for good."""
        return take_effect("act", what)

    keep.spec = keep.spec.model_copy(update={"effect": "idempotent"})
    return [look, keep, act]


def append(file: Path, line: str) -> None:
    """Append a line and sync it to the disk."""
    fd = os.open(file, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.write(fd, line.encode() + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)


def effects(home: Path, name: str) -> Counter[str]:
    """Return how often a tool took effect, by its argument."""
    file = home / "effects"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []
    return Counter(what for tool_name, what in (line.split(" ") for line in lines) if tool_name == name)


def open_runtime(home: Path, model: Model, step: Step, store: RuntimeStore, record: AuditStore) -> Runtime:
    return Runtime([model], make_tools(home, step), builtin_tools=False, store=store, audit=record)


def state_file(home: Path) -> Path:
    return home / "state.sqlite"


def record_folder(home: Path) -> Path:
    """Return the folder of the record, which sibling homes share, as the kernels of a user do."""
    return home.parent / "record"


def rows(home: Path) -> Rows:
    """Return the rows that another process sees in the state store."""
    if not state_file(home).exists():
        return {}
    with closing(sqlite3.connect(state_file(home))) as connection:
        connection.row_factory = sqlite3.Row
        tables = connection.execute("SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'")
        return {name: _rows_of(connection, name) for (name,) in tables.fetchall() if not name.startswith("sqlite_")}


def _rows_of(connection: sqlite3.Connection, table: str) -> dict[str, dict[str, Any]]:
    keys = [name for (name,) in connection.execute(f"SELECT name FROM pragma_table_info('{table}') WHERE pk > 0")]
    found = (dict(row) for row in connection.execute(f"SELECT * FROM {table}"))
    return {"/".join(str(row[key]) for key in keys or row): row for row in found}


class Person:
    """Answers the session's questions: allows everything once, and `act` with `b1` by a rule for its kind.

    `again` is the answer to whether a call that may have taken effect runs again.
    """

    def __init__(self, session: Session, *, again: bool) -> None:
        self.session, self.again = session, again
        self.asked: list[str] = []
        self.asked_again: list[str] = []
        session.subscribe(self.hear)

    def hear(self, event: shown.SessionEvent) -> None:
        if not isinstance(event, shown.QuestionAsked):
            return
        what, again = asked_about(self.session, event.request_id), event.description == AGAIN
        (self.asked_again if again else self.asked).append(what)
        decision = PermissionDecision(allow=self.again) if again else PermissionDecision(allow=True)
        if what == "b1" and not again:
            decision = PermissionDecision(allow=True, remember="session", pattern=RULED_BY_ANSWER)
        self.session.resolve_permission(event.request_id, decision)


def asked_about(session: Session, request_id: str) -> str:
    """Return the argument `what` of the call that an open question is about."""
    [question] = [q for q in session.permissions.open_questions() if q.request_id == request_id]
    return str(question.arguments["what"])


# ---- the process that dies ------------------------------------------------------------------------------------


class Doomed:
    """One process: notes what it acknowledges, counts its steps, and dies or waits at the ordered one."""

    def __init__(self, home: Path, step: str | None, occurrence: int, hold: bool) -> None:
        self.home, self.end, self.hold = home, (step, occurrence), hold
        self.counts: Counter[str] = Counter()
        self.known = rows(home)
        self.lock = threading.Lock()
        self.fd = os.open(home / "notes", os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)

    def step(self, name: str) -> None:
        with self.lock:
            self.counts[name] += 1
            reached = (name, self.counts[name])
        if reached != self.end:
            return
        if not self.hold:
            os.kill(os.getpid(), signal.SIGKILL)
        (self.home / "there").write_text("")  # a FIFO: returns when the test reads it
        (self.home / "go on").read_text()

    def note(self, **what: Any) -> None:
        os.write(self.fd, json.dumps({"pid": os.getpid(), **what}).encode() + b"\n")

    def note_rows(self) -> None:
        """Note the rows that the store has acknowledged since the last call."""
        with self.lock:
            now = rows(self.home)
            for table, found in now.items():
                before = self.known.get(table, {})
                for key in found.keys() | before.keys():
                    if found.get(key) != before.get(key):
                        self.note(table=table, key=key, row=found.get(key))
            self.known = now


class WatchedStore(SqliteStore):
    def __init__(self, doomed: Doomed) -> None:
        super().__init__(state_file(doomed.home))
        self.doomed = doomed

    async def write(self, work: Callable[[Any], Any], *, sync: bool = False, brief: bool = False) -> Any:
        name = f"store.{work.__qualname__.partition('.<locals>')[0].rpartition('.')[2]}"

        def watched(db: Any) -> Any:
            result = work(db)
            self.doomed.step(f"{name}:inside")
            return result

        self.doomed.step(f"{name}:before")
        result = await super().write(watched, sync=sync, brief=brief)
        self.doomed.note_rows()
        self.doomed.step(f"{name}:after")
        return result


class WatchedJournal(Journal):
    def __init__(self, doomed: Doomed) -> None:
        super().__init__(record_folder(doomed.home))
        self.doomed = doomed

    def record_audit_event(self, scope: str, event_type: str, payload: dict[str, Any]) -> None:
        self.doomed.step(f"event.{event_type}:before")
        super().record_audit_event(scope, event_type, payload)
        self.doomed.note(event=event_type, payload=payload)
        self.doomed.step(f"event.{event_type}:after")

    def sync(self) -> None:
        if threading.current_thread().name == "mentra-journal":  # the periodic sync, not a step of the turn
            return super().sync()
        self.doomed.step("record.sync:before")
        super().sync()
        return self.doomed.step("record.sync:after")


class WatchedPerson(Person):
    """Steers while the model works, and notes its answers."""

    def __init__(self, session: Session, doomed: Doomed) -> None:
        self.doomed = doomed
        super().__init__(session, again=True)

    def hear(self, event: shown.SessionEvent) -> None:
        self.doomed.step(f"shown.{event.type}:before")
        if isinstance(event, shown.QuestionAsked) and event.description == AGAIN:
            self.doomed.note(again=asked_about(self.session, event.request_id))
        super().hear(event)
        if isinstance(event, shown.QuestionAnswered) and event.decided_by == "user":
            self.doomed.note(answered=event.request_id, outcome=event.outcome)
        if isinstance(event, shown.ToolCompleted) and event.tool_name == "keep":
            self.session.agent.steering.steer(STEER)
        self.doomed.step(f"shown.{event.type}:after")


async def converse(doomed: Doomed, resume: bool) -> None:
    """Hold the whole conversation, from its beginning or from where another process died."""
    loop.SAVE_EVERY = 0.0  # save at every delta
    store, record = WatchedStore(doomed), WatchedJournal(doomed)
    async with open_runtime(doomed.home, Model(), doomed.step, store, record) as runtime:
        if resume:
            session = await runtime.resume_session(NAME)
            WatchedPerson(session, doomed)
            with suppress(NoResumableTurn):
                await session.resume_turn()
        else:
            session = await runtime.create_session(NAME, MODEL)
            WatchedPerson(session, doomed)
            await session.permissions.add_rule("act", RULED_BEFORE, allow=True)
        await say_the_rest(session)


async def say_the_rest(session: Session) -> None:
    said = {prompt_in(message) for message in session.history()}
    for prompt, answers in SCRIPT.items():
        if prompt not in said:
            answer = await session.append_turn(prompt)
            assert answer.text() == words(answers[-1])


def words(answer: ScriptedAnswer) -> str:
    return "".join(getattr(event, "text", "") for event in answer.events)


def carry_out(order: dict[str, Any]) -> int:
    home = Path(order["home"])
    home.mkdir(exist_ok=True)
    os.dup2(os.open(home / "errors", os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600), 2)
    doomed = Doomed(home, order.get("step"), order.get("occurrence", 1), order.get("hold", False))
    try:
        anyio.run(converse, doomed, order.get("resume", False))
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    doomed.note(steps=doomed.counts)
    return 0


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os._exit(carry_out(json.loads(line)))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()

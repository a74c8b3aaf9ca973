"""A program that asked ends cleanly: exit code 0, nothing on stderr, no lease, a sealed record, also in mid-turn."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from kits.notebooks import Notebook

from mentra_nb.chat.chat import chat_on
from mentra_nb.chat.engine import Engine
from mentra_nb.errors import Cancelled
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.scripted import ControlledStream, ScriptedAnswer, ScriptedProvider, text
from mentra_nb.record.write import files
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import Settings
from mentra_nb.store.volatile import VolatileStore

ASKED = "import mentra_nb as mn; mn.ask('hi', model='demo')"
WORKING = "import mentra_nb as mn; mn.Chat('talk').start('hi', model='demo').events.get()"
WAITING = """
import mentra_nb as mn
from mentra_nb.chat.engine import engine
from mentra_nb.providers.scripted import ControlledStream, ScriptedProvider
stream = ControlledStream()
engine().use(ScriptedProvider([stream]), "m")
mn.Chat("talk").start("hi")
engine().call(stream.wait_opened)
"""
CALLING = """
import threading, time
import mentra_nb as mn
from mentra_nb.chat.engine import engine
from mentra_nb.providers.scripted import ScriptedProvider, tool_calls
began = threading.Event()
@mn.tool(asks=False)
def nap() -> str:
    "Sleep."
    began.set()
    time.sleep(60)
    return "awake"
engine().use(ScriptedProvider([tool_calls([("nap", {}), ("shell", {"command": "sleep 60"})])]), "m")
chat = mn.Chat("talk", tools=[nap])
chat.allow("shell")
chat.start("hi")
began.wait()
"""
ASKING_IN_A_THREAD = """
import threading
import mentra_nb as mn
def later():
    threading.main_thread().join()
    assert mn.ask("hi", model="demo").stop_reason == "end"
    open("asked", "w").close()
threading.Thread(target=later).start()
mn.Chat("other").ask("hi", model="demo")
"""
LEAVING = f"{ASKED}; import sys; sys.exit(0)"
PROGRAMS = {
    "asked": ASKED,
    "working": WORKING,
    "waiting": WAITING,
    "calling": CALLING,
    "thread": ASKING_IN_A_THREAD,
    "exit": LEAVING,
}


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    unset = {key for key in os.environ if key.endswith("_API_KEY") or key.startswith("MENTRA_")}
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    environment |= {"MENTRA_HOME": str(folder / "home"), "IPYTHONDIR": str(folder / "ipython")}
    folder.mkdir(exist_ok=True)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def assert_closed(home: Path) -> None:
    """No lease is left, every segment is sealed, and the record's files are there."""
    with closing(sqlite3.connect(home / "state.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM leases").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM runs WHERE state = 'running'").fetchone() == (0,)
    record = home / "record"
    links = [json.loads(line) for line in (record / "chain.jsonl").read_text().splitlines()]
    segments = {file.stem for kind in ("jsonl", "parquet") for file in files.named(record, kind)}
    assert segments
    assert segments == {link["segment"] for link in links}
    assert (home / "record" / "record.duckdb").is_file()


TIMES = 50 if "MENTRA_FAULT_KILLS" in os.environ else 5


def ends_cleanly(folder: Path, *command: str) -> None:
    done = run(folder, *command)
    assert (done.returncode, done.stderr) == (0, "")
    assert_closed(folder / "home")


@pytest.mark.slow
@pytest.mark.parametrize("program", ["asked", "working", "calling"])
def test_a_program_that_asked_ends_cleanly(tmp_path: Path, program: str) -> None:
    ends_cleanly(tmp_path, sys.executable, "-W", "error", "-c", PROGRAMS[program])


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.timeout(300)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_that_asked_ends_cleanly_every_time(tmp_path: Path, program: str) -> None:
    for n in range(TIMES):
        ends_cleanly(tmp_path / str(n), sys.executable, "-c", PROGRAMS[program])
        assert (tmp_path / str(n) / "asked").exists() == (program == "thread")


AS_SINCE_3_12 = """
import threading
import anyio
from mentra_nb.chat.engine import engine
start = threading.Thread.start
def refuse(self):
    if not threading.main_thread().is_alive():
        raise RuntimeError("can't create new thread at interpreter shutdown")
    start(self)
threading.Thread.start = refuse
engine().call(anyio.getaddrinfo, "localhost", 80)  # gives the loop an executor
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", ["asked", "working"])
def test_no_thread_is_started_at_exit(tmp_path: Path, program: str) -> None:
    ends_cleanly(tmp_path, sys.executable, "-c", AS_SINCE_3_12 + PROGRAMS[program])


@pytest.mark.slow
@pytest.mark.parametrize("program", ["asked", "working"])
def test_ipython_that_asked_ends_cleanly(tmp_path: Path, program: str) -> None:
    ends_cleanly(tmp_path, sys.executable, "-m", "IPython", "-c", PROGRAMS[program])


@pytest.mark.slow
def test_a_program_that_failed_says_only_that(tmp_path: Path) -> None:
    done = run(tmp_path, sys.executable, "-c", f"{ASKED}; raise ValueError('mine')")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ValueError: mine"
    assert done.stderr.count("Traceback") == 1
    assert_closed(tmp_path / "home")


@pytest.mark.kernel
@pytest.mark.parametrize("program", ["asked", "working"])
def test_a_kernel_that_is_shut_down_ends_cleanly(tmp_path: Path, program: str) -> None:
    notebook = Notebook(tmp_path)
    try:
        notebook.run("%env MENTRA_ASK=rules")  # there is no page that could answer
        assert notebook.run(PROGRAMS[program]).status == "ok"
        notebook.manager.shutdown_kernel(now=False)
    finally:
        notebook.close()
    assert_closed(notebook.home)


# ---- an engine that has ended -------------------------------------------------------------------------------------


def engine_of(*turns: ScriptedAnswer | ControlledStream) -> Engine:
    runtime = Runtime([ScriptedProvider(turns)], builtin_tools=False, store=VolatileStore(), audit=NullAudit())
    return Engine(Settings(model="scripted/scripted"), runtime)


async def leave() -> None:
    raise SystemExit


def test_an_engine_whose_thread_has_ended_starts_again() -> None:
    engine, others = engine_of(text("one"), text("two")), set(threading.enumerate())
    try:
        chat = chat_on(engine)
        first = chat.ask("hi")
        (thread,) = [each for each in set(threading.enumerate()) - others if each.name == "mentra-engine"]
        with pytest.raises(SystemExit):
            engine.call(leave)
        thread.join(20)
        assert not thread.is_alive()
        second = chat.ask("and?")
        assert (second.text, second.session, chat.turn_count) == ("two", first.session, 2)
    finally:
        engine.close()


def test_a_turn_is_cancelled_when_the_engine_ends() -> None:
    stream = ControlledStream()
    engine = engine_of(stream)
    try:
        turn = chat_on(engine).start("go")
        engine.call(stream.wait_opened)
        with pytest.raises(SystemExit):
            engine.call(leave)
        with pytest.raises(Cancelled):
            turn.result()
    finally:
        engine.close()


FORKING = """
import os
import mentra_nb as mn
from mentra_nb.chat import engine
chat = mn.Chat("talk")
chat.ask("hi", model="demo")
before = engine.engine()
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert engine.engine() is before
    assert chat.ask("and?", model="demo").stop_reason == "end"
else:
    assert engine.engine() is not before
    assert mn.ask("hi", model="demo").stop_reason == "end"
    try:
        chat.ask("and?", model="demo")
    except mn.errors.LeaseUnavailable as error:
        assert f"process {os.getppid()}" in str(error)
    else:
        raise AssertionError("the parent has this conversation")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_its_own_engine_and_both_end_cleanly(tmp_path: Path) -> None:
    ends_cleanly(tmp_path, sys.executable, "-c", FORKING)

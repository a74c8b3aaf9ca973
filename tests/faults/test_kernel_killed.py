"""A kernel is killed in the midst of a turn: what it had acknowledged is there for the next process, and nothing torn.

Each case is killed a few times, at another moment each time; `MENTRA_FAULT_SECONDS` makes it as many as fit.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from kits.fences import needs_fence
from kits.kernels import Cell
from kits.notebooks import Notebook

from mentra_nb.record.read import frames

pytestmark = [
    pytest.mark.fault,
    pytest.mark.kernel,
    pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9"),
]

SECONDS = float(os.environ.get("MENTRA_FAULT_SECONDS", "4"))
SAVED_EVERY = 0.25
AFTERWARDS = """
import json
import mentra_nb as mn
print(json.dumps({
    "decisions": mn.decisions()[["tool", "subject", "outcome"]].values.tolist(),
    "kinds": mn.events().kind.tolist(),
    "turns": mn.turns()[["prompt", "stop_reason"]].astype(object).where(lambda c: c.notna(), None).values.tolist(),
    "tools": mn.tool_calls()[["tool", "outcome"]].values.tolist(),
}))
"""


@contextlib.contextmanager
def killed_later(folder: Path) -> Iterator[Notebook]:
    running = Notebook(folder)
    try:
        running.begin()
        yield running
    finally:
        running.close()


def kill(notebook: Notebook) -> None:
    process = notebook.manager.provisioner.process  # type: ignore[union-attr]  # a local kernel has one
    assert isinstance(process, subprocess.Popen)
    process.kill()
    process.wait(20)


def afterwards(notebook: Notebook) -> dict[str, Any]:
    """What the record says, in a process that had no part in it."""
    environment = {**os.environ, "MENTRA_HOME": str(notebook.home)}
    out = subprocess.run(
        [sys.executable, "-c", AFTERWARDS], env=environment, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(out.stdout)
    return found


def rows(home: Path, query: str) -> list[dict[str, Any]]:
    with contextlib.closing(sqlite3.connect(home / "state.sqlite")) as connection:
        connection.row_factory = sqlite3.Row
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        return [dict(row) for row in connection.execute(query)]


def goes_on(notebook: Notebook, folder: Path, answer: str | None) -> list[str]:
    """`%mentra resume` in a new kernel finishes the turn, asking what it must; returns what the model got."""
    with killed_later(folder) as fresh:
        fresh.script("s.text('Gone on.')")
        cell = fresh.send("%mentra resume")
        if answer is not None:
            fresh.choose(cell, answer=answer, reason="")
        fresh.finish(cell)
        assert "Gone on." in cell.texts()
        told = fresh.said()
    assert [run["state"] for run in rows(notebook.home, "SELECT state FROM runs ORDER BY started_at")] == [
        "interrupted",
        "finished",
    ]
    return told


def works_again(notebook: Notebook, folder: Path) -> None:
    """A new kernel on the same home answers, asks, and adds to what is there."""
    before = len(frames.turns(folder=notebook.home / "record"))
    with killed_later(folder) as fresh:
        fresh.script("shell('echo back')", "s.text('Here again.')")
        cell = fresh.send("%mentra are you there?")
        fresh.choose(cell, answer="allow")
        fresh.finish(cell)
        assert "Here again." in cell.texts()
        assert fresh.value("len(mn.turns())") == before + 1


def times() -> Iterator[float]:
    """Moments, as fractions of a second, to wait before a kill: a few, or as many as the time allows."""
    end, n = time.monotonic() + SECONDS, 0
    while n < 2 or (SECONDS > 10 and time.monotonic() < end):
        yield (n * 0.137) % 0.6
        n += 1


def wait(notebook: Notebook, seconds: float) -> None:
    until = time.monotonic() + seconds
    notebook.until(lambda: time.monotonic() > until)


def test_killed_while_a_question_is_open(tmp_path: Path) -> None:
    for n, pause in enumerate(times()):
        folder = tmp_path / str(n)
        folder.mkdir()
        with killed_later(folder) as notebook:
            notebook.script("shell('echo hi')")
            asking = notebook.send("%mentra say hi")
            notebook.ready(asking)
            wait(notebook, pause)
            kill(notebook)
            found = afterwards(notebook)
            assert found["decisions"] == [["shell", "echo hi", "pending"]]
            assert found["turns"] == [["say hi", None]]
            assert found["tools"] == [["shell", "pending"]]
            expected = ["session_started", "turn_started", "model_request_started", "permission_requested"]
            assert [kind for kind in expected if kind not in found["kinds"]] == []
            assert "tool_execution_started" not in found["kinds"]
            (question,) = rows(notebook.home, "SELECT * FROM questions")
            assert question["outcome"] is None
            assert json.loads(question["payload"])["subject"]["parts"] == ["echo hi"]
            assert [run["state"] for run in rows(notebook.home, "SELECT state FROM runs")] == ["running"]
            kinds = [entry["kind"] for entry in rows(notebook.home, "SELECT kind FROM entries ORDER BY id")]
            assert kinds == ["user_turn", "assistant_turn"]
            assert rows(notebook.home, "SELECT * FROM tool_calls") == []
            if n == 0:
                assert goes_on(notebook, folder, "allow") == ["say hi", "I run a command. ", "hi"]
                works_again(notebook, folder)


def test_killed_while_what_a_command_did_in_the_sandbox_waits(tmp_path: Path) -> None:
    needs_fence()
    made = tmp_path / "work" / "made.txt"
    cards = []
    with killed_later(tmp_path) as notebook:
        notebook.run("engine().settings.sandbox = 'auto'")
        notebook.script("shell('head -c 9 /dev/urandom | base64 >made.txt; cat made.txt')")
        asking = notebook.send("%mentra make it")
        notebook.ready(asking)
        cards += [state["question"] for state in notebook.models.values() if "question" in state]
        kill(notebook)
    assert not made.exists()
    waiting = tmp_path / "home" / "effects" / "waiting"
    [held] = waiting.iterdir()
    (waiting / f"overdue{held.suffix}").mkdir()
    with killed_later(tmp_path) as fresh:
        fresh.run("%mentra")
        assert list(waiting.iterdir()) == [held]
        fresh.run("engine().settings.sandbox = 'auto'")
        fresh.script("s.text('Gone on.')")
        cell = fresh.send("%mentra resume")
        fresh.ready(cell)
        cards += [state["question"] for state in fresh.models.values() if "question" in state]
        fresh.choose(cell, answer="allow")
        fresh.finish(cell)
        assert fresh.said()[-1] == made.read_text().strip()
        assert fresh.value("mn.effects()[['change', 'outcome']].values.tolist()") == [["created", "made"]]
    first, *others = (
        cards  # of the killed kernel; of bare `%mentra`, which lists the open question; of the resumed turn
    )
    assert [card["diff"] for card in others] == [first["diff"]] * len(others)
    assert made.read_text().strip() in str(first["diff"])
    assert list(waiting.iterdir()) == []


def shown_numbers(cell: Cell) -> int:
    """How many of the words `w0 w1 …` are on the page."""
    return max((int(word[1:]) + 1 for word in cell.texts().split() if word[1:].isdigit()), default=0)


STREAM = """
import threading
stream = silent('')
script(stream)
def feed():
    for n in range(10**6):
        stream.send(ContentBlockDelta(0, f'w{n} '))
        time.sleep(0.005)
threading.Thread(target=feed, daemon=True).start()
"""


def test_killed_while_an_answer_streams(tmp_path: Path) -> None:
    for n, pause in enumerate(times()):
        folder = tmp_path / str(n)
        folder.mkdir()
        with killed_later(folder) as notebook:
            notebook.run(STREAM)
            asking = notebook.send("%mentra count")
            notebook.until(lambda cell=asking: shown_numbers(cell) > 100)  # type: ignore[misc]
            seen: list[tuple[float, int]] = []
            until = time.monotonic() + SAVED_EVERY + 0.2 + pause
            while time.monotonic() < until:
                notebook.receive()
                seen.append((time.monotonic(), shown_numbers(asking)))
            kill(notebook)
            died = time.monotonic()
            (run,) = rows(notebook.home, "SELECT * FROM runs")
            assert run["state"] == "running"
            saved = run["partial"].split()
            assert saved == [f"w{k}" for k in range(len(saved))]
            # What the page had shown one save (and a busy machine's moment) before the end is saved.
            assert len(saved) >= max(shown for at, shown in seen if at < died - SAVED_EVERY - 0.15)
            found = afterwards(notebook)
            assert found["turns"] == [["count", None]]
            assert "model_request_finished" in found["kinds"]
            assert "model_response_finished" not in found["kinds"]
            assert [entry["kind"] for entry in rows(notebook.home, "SELECT kind FROM entries")] == ["user_turn"]
            if n == 0:
                assert goes_on(notebook, folder, None) == ["count"]
                works_again(notebook, folder)


def until_gone(*processes: int) -> None:
    """Return when none of them is left; fail after two seconds."""
    until = time.monotonic() + 2
    while any(map(psutil.pid_exists, processes)):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_killed_while_a_command_runs(tmp_path: Path) -> None:
    for n, pause in enumerate(times()):
        folder = tmp_path / str(n)
        folder.mkdir()
        with killed_later(folder) as notebook:
            pid, child = notebook.work / "pid", notebook.work / "child"
            daemon = f'setsid sh -c "echo \\$\\$ > {child}; exec sleep 600" & until [ -s {child} ]; do :; done'
            notebook.script(f"shell({f'{daemon}; echo $$ > {pid}; exec sleep 600'!r})")
            asking = notebook.send("%mentra sleep")
            notebook.choose(asking, answer="allow")
            notebook.until(lambda file=pid: file.exists() and file.read_text().strip())  # type: ignore[misc]
            wait(notebook, pause)
            kill(notebook)
            try:
                until_gone(int(pid.read_text()), int(child.read_text()))
                found = afterwards(notebook)
                assert [row[2] for row in found["decisions"]] == ["allow"]
                assert found["tools"] == [["shell", "unfinished"]]
                assert found["kinds"].count("permission_resolved") == 1
                assert found["kinds"].count("tool_execution_started") == 1
                assert "tool_execution_finished" not in found["kinds"]
                (call,) = rows(notebook.home, "SELECT * FROM tool_calls")
                assert call["effect"] == "once"
                assert call["finished_at"] is None
                assert call["result"] is None
                (question,) = rows(notebook.home, "SELECT * FROM questions")
                assert (question["outcome"], question["decided_by"]) == ("allowed", "user")
                assert [run["state"] for run in rows(notebook.home, "SELECT state FROM runs")] == ["running"]
                if n == 0:
                    told = goes_on(notebook, folder, "deny")
                    assert "may have taken effect, and was not run again" in told[-1]
                    works_again(notebook, folder)
            finally:
                for file in (pid, child):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(file.read_text()), signal.SIGKILL)

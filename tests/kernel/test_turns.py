"""Real turns that ask, wait, run and are stopped: by widget messages, by typed commands, and by the stop button."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from kits.kernels import Cell
from kits.notebooks import Notebook

pytestmark = pytest.mark.kernel

DEADLINE = 15.0
"""Seconds after which a step counts as failed; the tools below run for twice as long unless they are stopped."""


def decided(notebook: Notebook) -> list[str]:
    """Return the tool, outcome and decider of the newest decision."""
    found: list[str] = notebook.value("mn.decisions().iloc[-1][['tool', 'outcome', 'decided_by']].tolist()")
    return found


def answer(notebook: Notebook, cell: Cell, how: str) -> None:
    """Answer the question in `cell` as `allow`, `always`, `deny` or `stop`, by `card …` or by `typed …`."""
    way, what = how.split()
    if way == "card":
        said: dict[str, dict[str, Any]] = {
            "allow": {"answer": "allow"},
            "always": {"answer": "always", "pattern": None, "scope": "session"},
            "deny": {"answer": "deny", "reason": "it is late"},
            "stop": {"answer": "stop"},
        }
        notebook.choose(cell, **said[what])
        return
    typed = {"always": "allow always", "deny": "deny because it is late"}.get(what, what)
    command = notebook.type_command(cell, f"%mentra {typed}")
    notebook.finish(command)
    assert command.status == "ok"


@pytest.mark.parametrize("how", ["card allow", "typed allow"])
def test_allowed_once_the_command_runs_and_its_result_is_used(notebook: Notebook, how: str) -> None:
    notebook.script("shell('echo forty-two')", "s.text('It says 42.')", "shell('echo forty-two')", "s.text('Again.')")
    asking, queued = notebook.send("%%mentra\nwhat does it say?"), notebook.send("print('NEXT')")
    notebook.ready(asking)
    assert not queued.events
    answer(notebook, asking, how)
    notebook.finish(asking, queued)
    assert asking.status == queued.status == "ok"
    (line,) = (text for text in asking.texts().splitlines() if "echo forty-two" in text)
    assert line.startswith("✓ shell  echo forty-two")
    assert "you, once" in line
    assert "It says 42." in asking.texts()
    assert queued.stdout == "NEXT\n"
    assert notebook.said()[-1] == "forty-two"
    assert decided(notebook) == ["shell", "allow", "user"]
    again = notebook.send("%mentra once more")  # it was allowed once
    notebook.choose(again, answer="deny", reason="")
    notebook.finish(again)


@pytest.mark.parametrize("how", ["card deny", "typed deny"])
def test_denied_it_does_not_run_and_the_model_gets_the_reason(notebook: Notebook, how: str) -> None:
    marker = Path(notebook.work) / f"no{time.monotonic_ns() % 10**6}"  # short, as a long line of a row is cut
    notebook.script(f"shell('touch {marker}')", "s.text('Then not.')")
    asking, queued = notebook.send("%mentra make it"), notebook.send("print('NEXT')")
    answer(notebook, asking, how)
    notebook.finish(asking, queued)
    assert "Then not." in asking.texts()
    assert "it is late" in notebook.said()[-1]
    assert queued.stdout == "NEXT\n"  # a denial is an answer, not an error
    assert f"✗ shell  touch {marker}  denied by you: it is late" in asking.texts()
    assert not marker.exists()
    assert decided(notebook) == ["shell", "deny", "user"]


@pytest.mark.parametrize("how", ["card always", "typed always"])
def test_allowed_always_it_does_not_ask_again(notebook: Notebook, how: str) -> None:
    notebook.script("shell('echo hi')", "s.text('A.')", "shell('echo hi', 'call-2')", "s.text('B.')")
    asking = notebook.send("%mentra say hi")
    answer(notebook, asking, how)
    notebook.finish(asking)
    assert "you, for this session echo hi " in asking.texts()
    again = notebook.run("%mentra say it again")
    assert "B." in again.texts()
    assert "✓ shell  echo hi  " in again.texts()
    assert "rule echo hi\n" in again.texts()
    rules = notebook.value("mn.rules()[['id', 'tool', 'pattern', 'scope']].values.tolist()")
    assert [rule[1:] for rule in rules] == [["shell", "echo hi", "session"]]
    assert decided(notebook) == ["shell", "allow", "rule"]
    assert notebook.value("mn.decisions().iloc[-1].rule_id") == rules[0][0]
    notebook.script("shell('echo other')", "s.text('C.')")
    other = notebook.send("%mentra say another thing")  # the rule does not cover it
    notebook.choose(other, answer="deny", reason="")
    notebook.finish(other)


@pytest.mark.parametrize(("named", "resume"), [("", "%mentra resume"), ("-s report ", "%mentra resume report")])
def test_an_open_question_says_how_to_go_on_if_the_kernel_is_gone(notebook: Notebook, named: str, resume: str) -> None:
    notebook.script("shell('echo hi')", "s.text('Done.')")
    asking = notebook.send(f"%mentra {named}say hi")
    card = notebook.card(asking)
    assert notebook.models[card]["question"]["resume"] == resume
    assert any(row.get("text/plain", "").endswith(f"if the kernel is gone: {resume}") for row in asking.outputs())
    notebook.choose(asking, answer="deny", reason="")
    notebook.finish(asking)


@pytest.mark.parametrize("scope", ["session", "project", "global"])
def test_always_can_be_for_the_session_the_project_or_everywhere(notebook: Notebook, scope: str) -> None:
    command = f"echo for-{scope}"
    notebook.script(f"shell('{command}')", "s.text('A.')", f"shell('{command}')", "s.text('B.')")
    asking = notebook.send("%mentra say it")
    scopes = dict(notebook.models[notebook.card(asking)]["question"]["scopes"])
    assert scopes == {
        "session": "this session",
        "project": f"this project ({notebook.work})",
        "global": "every project",
    }
    notebook.choose(asking, answer="always", pattern=f"{command}*", scope=scope)
    notebook.finish(asking)
    notebook.run("engine().chats.clear()")  # a new conversation
    other = notebook.send("%mentra say it")
    if scope == "session":
        notebook.choose(other, answer="deny", reason="")
    notebook.finish(other)
    assert other.status == "ok"
    assert decided(notebook)[1] == ("deny" if scope == "session" else "allow")


def test_a_wide_pattern_that_was_typed_is_remembered_once_a_person_was_told_what_it_covers(notebook: Notebook) -> None:
    notebook.script("shell('git --version')", "shell('git --help')", "s.text('A.')")
    before = notebook.value("mn.rules().pattern.tolist()")
    asking = notebook.send("%mentra say it")
    card = notebook.ready(asking)
    told = notebook.type_command(asking, "%mentra allow always git -*")  # in another cell
    notebook.finish(told)
    assert "'git -*' is broad: git -c" in told.stdout
    notebook.widget_message(card, {"answer": "always", "pattern": "git --*", "scope": "session", "reason": ""})
    notebook.until(lambda: any("refused" in content for id, content in notebook.messages if id == card))
    [refused] = [content["refused"] for id, content in notebook.messages if id == card and "refused" in content]
    assert "'git --*' is broad: git --config-env" in refused
    notebook.widget_message(card, {"answer": "always", "pattern": "git --*", "scope": "session", "reason": ""})
    notebook.finish(asking)
    after = notebook.value("mn.rules().pattern.tolist()")
    assert [pattern for pattern in after if pattern not in before] == ["git --*"]


def test_an_answer_queued_by_run_all_does_not_count_and_one_typed_afterwards_does(notebook: Notebook) -> None:
    notebook.script("shell('echo hi')", "s.text('A.')")
    asking, early, last = (notebook.send(code) for code in ("%mentra say hi", "%mentra allow", "print('LAST')"))
    notebook.ready(asking)
    notebook.request("kernel_info_request")  # by its reply the kernel has seen what was sent before
    assert not asking.ended
    assert not early.events
    answer(notebook, asking, "typed allow")
    notebook.finish(asking, early, last)
    assert "you, once" in asking.texts()
    assert "no question is open here" in early.error
    assert (early.status, last.status) == ("error", "aborted")


def test_a_question_nobody_answers_is_denied_in_time_and_a_late_answer_is_refused(notebook: Notebook) -> None:
    notebook.script("shell('echo hi')", "s.text('Nobody came.')")
    notebook.run("%config Mentra.ask_timeout = 0.7")
    try:
        code = "from mentra_nb.notebook.magics import show\nfrom mentra_nb.chat.api import conversation\n"
        asking = notebook.send(f"{code}turn = conversation().start('say hi')\nshow(turn, globals())")
        card = notebook.ready(asking)
        notebook.finish(asking)
    finally:
        notebook.run("%config Mentra.ask_timeout = 600")
    assert "✗ shell  echo hi  denied: no answer in time" in asking.texts()
    assert "Nobody came." in asking.texts()
    assert "nobody answered" in notebook.said()[-1]
    assert decided(notebook) == ["shell", "deny", "timeout"]
    notebook.widget_message(card, {"answer": "allow"})
    late = notebook.run(
        "from mentra_nb.authorization import PermissionDecision\n"
        "asked = mn.decisions().request_id.iloc[-1]\n"
        "turn.answer(asked, PermissionDecision(allow=True))"
    )
    assert late.reply is not None
    assert late.reply["traceback"] == [
        "OperationDenied: that question is closed: it was answered, timed out, or its turn was stopped"
    ]
    assert decided(notebook) == ["shell", "deny", "timeout"]
    assert not notebook.records("tool_execution_started")


def alive(group: int) -> list[int]:
    """Return the processes of a group that run. Zombies do not."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


# ---- stopping ---------------------------------------------------------------------------------------------------


def started(notebook: Notebook, what: str) -> tuple[Cell, Cell]:
    """Start a turn, wait until it is busy with `what`, and return its cell and a cell queued behind it."""
    pid = Path(notebook.work) / "pid"
    pid.unlink(missing_ok=True)
    first = {
        "stream": "silent('As I was saying, ')",
        "shell": f"shell('echo $$ > {pid}; sleep 30')",
        "question": "shell('sleep 30')",
    }[what]
    notebook.script(first)
    if what == "shell":
        notebook.run(f"mn.allow('shell', 'echo $$ > {pid}; sleep 30')")
    running, queued = notebook.send("%%mentra\ntell me"), notebook.send("print('NEXT')")
    if what == "stream":
        notebook.until(lambda: "As I was saying" in running.texts())
    elif what == "shell":
        notebook.until(lambda: pid.exists() and pid.read_text().strip())
    else:
        notebook.ready(running)
    return running, queued


@pytest.mark.parametrize("what", ["stream", "shell", "question"])
def test_the_stop_button_ends_the_turn(notebook: Notebook, what: str) -> None:
    running, queued = started(notebook, what)
    notebook.manager.interrupt_kernel()
    notebook.until(lambda: running.ended, timeout=DEADLINE)
    notebook.finish(queued)
    assert running.reply is not None
    assert running.reply["traceback"] == ["Stopped."]
    assert (running.status, queued.status) == ("error", "aborted")
    assert not queued.stdout
    row, footer = ("I was saying" if what == "stream" else "✗ shell"), running.texts().splitlines()[-1]
    assert row in running.texts()
    assert footer.startswith("scripted/scripted · ")
    assert not [line for line in running.texts().splitlines() if line.startswith("stopped")]
    if what == "shell":
        group = int((Path(notebook.work) / "pid").read_text())
        notebook.until(lambda: not alive(group), timeout=DEADLINE)

    notebook.manager.interrupt_kernel()  # an idle kernel survives it
    assert [event["reason"] for event in notebook.records("run_aborted")] == ["stopped by the user"]
    assert [event["stop_reason"] for event in notebook.records("turn_finished")] == ["cancelled"]
    if what == "question":
        assert decided(notebook) == ["shell", "deny", "cancelled"]
    notebook.script("s.text('Yes?')")
    assert "Yes?" in notebook.run("%mentra go on").texts()
    kept = notebook.said()
    assert kept[0] == "tell me"
    assert kept[-1] == "go on"
    assert kept[1].strip() == ("As I was saying," if what == "stream" else "I run a command.")
    if what != "stream":
        assert "stopped" in kept[2]  # every call has its result


def test_a_failed_turn_shows_its_error_and_no_footer_above_it(notebook: Notebook) -> None:
    notebook.script("s.failure(mn.errors.InvalidRequest('no such thing'))")
    cell = notebook.run("%mentra tell me")
    assert cell.status == "error"
    assert "scripted/scripted ·" not in cell.texts()


PRESS_LATE = """
import os, signal
kernel = get_ipython().kernel
def press_late(*args, finish=kernel.finish_metadata):
    os.kill(os.getpid(), signal.SIGINT)
    return finish(*args)
kernel.finish_metadata = press_late
"""


def test_a_press_while_the_kernel_replies_to_the_stopped_cell_does_not_lose_the_reply(notebook: Notebook) -> None:
    notebook.script("silent('As I was saying, ')")
    running = notebook.send(f"{PRESS_LATE}\n%mentra tell me")
    notebook.until(lambda: "As I was saying" in running.texts())
    for _ in range(30):
        notebook.manager.interrupt_kernel()
    try:
        notebook.finish(running)
        assert running.reply is not None
        assert running.reply["traceback"] == ["Stopped."]
    finally:
        notebook.run("del kernel.finish_metadata")


@pytest.mark.parametrize("how", ["card stop", "typed stop"])
def test_stop_as_an_answer_is_the_stop_button(notebook: Notebook, how: str) -> None:
    asking, queued = started(notebook, "question")
    answer(notebook, asking, how)
    notebook.finish(asking, queued)
    assert (asking.status, queued.status) == ("error", "aborted")
    assert [event["stop_reason"] for event in notebook.records("turn_finished")] == ["cancelled"]


def test_stopping_one_of_two_questions_to_the_model_in_a_cell_ends_the_cell(notebook: Notebook) -> None:
    notebook.script("silent('As I was saying, ')", "s.text('never asked')")
    running = notebook.send("mn.ask('1?')\nmn.ask('2?')")
    notebook.until(lambda: "As I was saying" in running.texts())
    notebook.manager.interrupt_kernel()
    notebook.finish(running)
    assert running.status == "error"
    assert notebook.value("model.remaining") == 1


def test_a_tool_starts_after_the_click_that_allows_it_and_before_the_cell_ends(notebook: Notebook) -> None:
    notebook.script("shell('true')", "s.text('Done.')")
    asking, queued = notebook.send("%mentra do it"), notebook.send("import time; print(time.time())")
    notebook.ready(asking)
    sent = time.time()
    notebook.widget_message(notebook.card(asking), {"answer": "allow"})
    notebook.finish(asking, queued)
    (resolved,), (began,) = notebook.records("permission_resolved"), notebook.records("tool_execution_started")
    assert sent <= resolved["ts"] <= began["ts"] <= float(queued.stdout) < sent + DEADLINE

"""Turns that no cell waits for: one begins when a background command has ended, and `--bg` goes on behind its cell."""

from __future__ import annotations

import pytest
from kits.kernels import Cell
from kits.notebooks import Notebook

pytestmark = pytest.mark.kernel

on_one_ipykernel = pytest.mark.parametrize("_notebooks", ["7"], indirect=True)


def background(command: str) -> str:
    return f"s.tool_calls([s.ScriptedCall('background_run', {{'command': {command!r}}}, 'call-b')])"


BUILD = background("sh build.sh")
"""A command that waits for the file `go`, and then says that it has built."""


@pytest.fixture
def started(notebook: Notebook) -> Notebook:
    """Return a notebook in which the model may run any command, without the files of earlier tests."""
    for file in notebook.work.iterdir():
        file.unlink()
    (notebook.work / "build.sh").write_text("until [ -e go ]; do sleep 0.01; done; echo built")
    notebook.run("mn.allow('background_run', 'sh build.sh')")
    return notebook


def shows(notebook: Notebook, cell: Cell, text: str) -> None:
    notebook.until(lambda: text in cell.texts())


def requests(notebook: Notebook) -> int:
    return int(notebook.value("len(model.recorded_requests)"))


def test_a_turn_begins_when_the_command_has_ended_and_is_shown_in_its_cell(started: Notebook) -> None:
    started.script(BUILD, "s.text('It runs.')", "s.text('It is *built*.')")
    cell = started.run("%mentra build it")
    assert "It runs." in cell.texts()
    other = started.run("print('OTHER')")
    (started.work / "go").touch()
    shows(started, cell, "It is *built*.")
    shows(started, cell, "scripted/scripted")
    started.until(lambda: cell.texts().count("scripted/scripted ·") == 2)
    assert "background task bg-1 has ended: the model now reads its result" in cell.texts()
    assert other.stdout == "OTHER\n"
    assert not other.outputs()
    assert requests(started) == 3
    prompt, result = started.said()[-2:]
    assert prompt.startswith("Background tasks that you started have ended.")
    assert result.startswith("<background-results>\n[bg:bg-1] status=finished")
    assert started.run("%mentra last").texts().strip() == "It is *built*."
    assert started.value("str(_mentra)") == "It is *built*."
    [begun] = started.records("turn_started")
    assert begun["woken_by"] == "bg-1"
    assert begun["cell_id"] == started.value("mn.turns().cell_id.iloc[-2]")


def test_a_question_of_such_a_turn_is_answered_while_no_cell_runs(started: Notebook) -> None:
    started.script(BUILD, "s.text('It runs.')", "shell('echo forty-two')", "s.text('It says 42.')")
    cell = started.run("%mentra build it")
    (started.work / "go").touch()
    started.choose(cell, answer="allow")
    shows(started, cell, "It says 42.")
    assert "you, once" in cell.texts()
    assert started.said()[-1] == "forty-two"


@on_one_ipykernel
def test_a_question_of_such_a_turn_is_shown_again_and_answered_by_a_command(started: Notebook) -> None:
    started.script(BUILD, "s.text('It runs.')", "shell('echo forty-two')", "s.text('It says 42.')")
    cell = started.run("%mentra build it")
    (started.work / "go").touch()
    card = started.card(cell)
    turns = "[mn.jobs().id.str.startswith('turn-')]"
    assert started.value(f"mn.jobs(){turns}.status.tolist()") == ["running"]
    assert started.value(f"mn.jobs(){turns}.command.tolist()") == ["the model reads the result of bg-1"]
    look = started.run("%mentra")
    assert "1 question to answer:" in look.stdout
    assert "echo forty-two" in look.stdout
    assert started.card(look) != card
    answered = started.type_command(look, "%mentra allow")
    started.finish(answered)
    assert answered.stdout.startswith("Allowed")
    shows(started, cell, "It says 42.")


@on_one_ipykernel
def test_such_a_turn_is_stopped_and_tells_nothing_twice(started: Notebook) -> None:
    started.script(BUILD, "s.text('It runs.')", "silent('As I was saying')", "s.text('Well.')")
    cell = started.run("%mentra build it")
    (started.work / "go").touch()
    shows(started, cell, "As I was saying")
    assert started.run("%mentra stop").stdout == "1 turn stopped\n"
    shows(started, cell, "stopped: the next prompt goes on from here")
    assert "no turn is running here" in started.run("%mentra stop").error
    assert "Well." in started.run("%mentra and?").texts()
    assert sum("[bg:bg-1]" in text for text in started.said()) == 1


@on_one_ipykernel
def test_a_prompt_waits_for_such_a_turn_and_then_goes_on(started: Notebook) -> None:
    started.script(BUILD, "s.text('It runs.')", "shell('echo forty-two')", "s.text('It says 42.')", "s.text('Well.')")
    cell = started.run("%mentra build it")
    (started.work / "go").touch()
    started.card(cell)
    asked = started.send("%mentra and?")
    shows(started, asked, "waits for the turn of this conversation that goes on in the background")
    started.choose(cell, answer="allow")  # served by the cell that waits
    started.finish(asked)
    shows(started, cell, "It says 42.")
    assert "Well." in asked.texts()


@on_one_ipykernel
def test_what_ends_while_a_turn_runs_is_told_in_it_and_begins_none(started: Notebook) -> None:
    started.script(BUILD, "shell('echo forty-two')", "s.text('Seen.')")
    cell = started.send("%mentra build it")
    started.ready(cell)
    (started.work / "go").touch()
    shows(started, cell, "background task bg-1: ")
    started.choose(cell, answer="allow")
    started.finish(cell)
    assert "Seen." in cell.texts()
    assert sum("[bg:bg-1]" in text for text in started.said()) == 1
    assert started.value("mn.jobs().id.str.startswith('turn-').sum().item()") == 0
    assert requests(started) == 3


@on_one_ipykernel
def test_after_three_such_turns_in_a_row_a_line_says_that_the_next_prompt_tells_it(started: Notebook) -> None:
    (started.work / "build.sh").write_text("until mv go taken 2>/dev/null; do sleep 0.01; done")
    started.script(*[BUILD, "s.text('It runs.')"] * 5, "s.text('Built.')")
    cell = started.run("%mentra build it")
    for turns in (1, 2, 3, 4):
        started.until(lambda turns=turns: cell.texts().count("scripted/scripted ·") == turns)
        (started.work / "go").touch()
    shows(started, cell, "background task bg-4 has ended: the next prompt tells the model")
    assert requests(started) == 8
    asked = started.run("%mentra and?")
    assert "[bg:bg-4]" in started.said()[-3]
    (started.work / "go").touch()
    shows(started, asked, "Built.")  # a person asked, so that they begin again


@on_one_ipykernel
def test_the_setting_turns_it_off(started: Notebook) -> None:
    started.run("%config Mentra.wake = False")
    started.script(BUILD, "s.text('It runs.')", "s.text('Seen.')")
    cell = started.run("%mentra build it")
    (started.work / "go").touch()
    started.run("[agent_id] = engine().runtime.jobs.agents()[-1:]")
    started.run("ended = engine().call(engine().runtime.jobs.wait, agent_id, 'bg-1')")
    assert "Seen." in started.run("%mentra and?").texts()
    assert started.said()[-1].startswith("<background-results>")
    assert cell.texts().count("scripted/scripted ·") == 1
    started.run("%config Mentra.wake = True")


@on_one_ipykernel
def test_where_nobody_looks_none_begins(started: Notebook) -> None:
    started.script(BUILD, "s.text('It runs.')", "s.text('Seen.')")
    cell = started.run("%mentra build it", allow_stdin=False)
    (started.work / "go").touch()
    started.run("[agent_id] = engine().runtime.jobs.agents()[-1:]")
    started.run("ended = engine().call(engine().runtime.jobs.wait, agent_id, 'bg-1')")
    assert "Seen." in started.run("%mentra and?").texts()
    assert "It runs." in cell.texts()
    assert requests(started) == 3


def test_bg_goes_on_behind_its_cell_and_another_conversation_beside_it(started: Notebook) -> None:
    started.script("shell('echo forty-two')", "s.text('It says 42.')", "s.text('Beside.')")
    cell = started.run("%%mentra --bg\nwhat does it say?")
    assert started.run("print('NEXT')").stdout == "NEXT\n"
    started.choose(cell, answer="allow")
    shows(started, cell, "It says 42.")
    beside = started.run("%mentra --bg -s beside and here?")
    shows(started, beside, "Beside.")
    started.until(lambda: "scripted/scripted ·" in beside.texts())


@on_one_ipykernel
def test_the_kernel_exits_cleanly_during_such_a_turn(started: Notebook) -> None:
    started.script("silent('As I was saying')")
    cell = started.run("%mentra --bg tell me")
    shows(started, cell, "As I was saying")
    log = started.work / "stderr"
    started.run(f"import os, sys; os.dup2(os.open({str(log)!r}, os.O_CREAT | os.O_WRONLY), 2)")
    started.manager.shutdown_kernel()
    assert "Traceback" not in log.read_text()
    import sqlite3

    with sqlite3.connect(started.home / "state.sqlite") as store:
        assert store.execute("SELECT count(*) FROM leases").fetchone() == (0,)
    store.close()


@on_one_ipykernel
def test_a_sign_of_life_asked_of_a_closed_card_is_not_warned_of(started: Notebook) -> None:
    started.run("import logging, queue\nfrom logging.handlers import QueueHandler\nwarned = queue.SimpleQueue()")
    started.run("logging.getLogger('Comm').addHandler(QueueHandler(warned))")
    started.script("shell('echo one', 'call-1')", "shell('echo two', 'call-2')", "s.text('Done.')")
    cell = started.send("%mentra say it")
    first = started.card(cell)
    started.choose(cell, answer="allow")
    started.until(lambda: first not in started.models)
    started.widget_message(first, {"ready": True})
    started.widget_message("not-a-card", {"ready": True})
    started.choose(cell, answer="allow")  # is served after them
    started.finish(cell)
    assert "Done." in cell.texts()
    warnings = started.value("[warned.get().getMessage() for _ in range(warned.qsize())]")
    assert set(warnings) == {"No such comm: not-a-card"}  # ipykernel 7 warns twice

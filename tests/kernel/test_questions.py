"""Questions of one notebook, answered from another of the same home: also when the kernel that asked is dead."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kits.kernels import Cell
from kits.mcp_programs import KIT
from kits.notebooks import Notebook

pytestmark = [pytest.mark.kernel, pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")]


@contextlib.contextmanager
def begun(folder: Path) -> Iterator[Notebook]:
    running = Notebook(folder)
    try:
        running.begin()
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def _other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    with begun(tmp_path_factory.mktemp("questions")) as running:
        yield running


@pytest.fixture(scope="module")
def _asking(_other: Notebook) -> Iterator[Notebook]:
    with begun(_other.home.parent) as running:
        yield running


@pytest.fixture
def other(_other: Notebook) -> Notebook:
    _other.forget()
    _other.begin()
    return _other


@pytest.fixture
def asking(_asking: Notebook) -> Notebook:
    _asking.forget()
    _asking.begin()
    return _asking


def killed(asking: Notebook) -> None:
    process = asking.manager.provisioner.process  # type: ignore[union-attr]  # a local kernel has one
    assert isinstance(process, subprocess.Popen)
    process.kill()
    process.wait(20)


WHICH = "s.tool_calls([('ask_user', {'question': 'Which?', 'choices': ['red', 'blue']})], text='')"
KITTED = f"""import sys
mn.mcp("kit", command=sys.executable, args=[{str(KIT)!r}, "stdio"])
mn.allow("mcp__kit__plan", scope="global")"""


def listed(other: Notebook) -> Cell:
    """List the questions there, and wait as long as it takes to read them."""
    cell = other.run("%mentra")
    readable = time.monotonic() + 0.4
    other.until(lambda: time.monotonic() > readable)
    return cell


def test_another_notebook_lists_a_question_and_its_click_lets_the_turn_go_on(asking: Notebook, other: Notebook) -> None:
    asking.script("shell('echo forty-two')", "s.text('It says 42.')")
    turn = asking.send("%mentra -s report what does it say?")
    asking.ready(turn)
    cell = listed(other)
    assert "1 question to answer:\n1  Run a command — shell: echo forty-two in 'report'" in cell.stdout
    card = other.ready(cell)
    assert other.models[card]["question"]["can_stop"] is False
    clicked = time.monotonic()
    other.widget_message(card, {"answer": "allow", "reason": "go on"})
    asking.finish(turn)
    print(f"click to end of the turn: {time.monotonic() - clicked:.2f} s")
    assert time.monotonic() - clicked < 2
    assert "It says 42." in turn.texts()
    assert "you, once" in turn.texts()
    assert asking.said()[-1] == "[the user allowed it and says: go on]\nforty-two"
    other.until(lambda: other.updated == ["Allowed: shell: echo forty-two"])
    other.until(lambda: card not in other.models)
    assert "question" not in other.run("%mentra").stdout


def test_a_card_elsewhere_goes_when_the_question_was_answered_where_it_was_asked(
    asking: Notebook, other: Notebook
) -> None:
    asking.script("shell('echo hi')", "s.text('Done.')")
    turn = asking.send("%mentra say hi")
    asking.ready(turn)
    cell = listed(other)
    card = other.ready(cell)
    asking.choose(turn, answer="deny", reason="")
    asking.finish(turn)
    other.widget_message(card, {"ready": True})  # as an open card does all the time
    other.until(lambda: any(text.startswith("Denied: shell: echo hi (answered by") for text in other.updated))
    late = other.run("%mentra allow 1")
    assert "that question is closed" in late.error


def test_a_typed_number_answers_what_was_listed_and_read_and_nothing_else(asking: Notebook, other: Notebook) -> None:
    asking.script("shell('echo hi')", "s.text('Done.')")
    other.run("from mentra_nb.notebook import listed; listed._last = listed._List()")
    turn = asking.send("%mentra say hi")
    asking.ready(turn)
    assert "no question is open here: %mentra lists" in other.run("%mentra allow").error
    cells = [other.send(code, stop_on_error=False) for code in ("%mentra", "%mentra allow 1")]  # as *Run all* does
    other.finish(*cells)
    assert "read them first" in cells[1].error
    listed(other)
    assert "alone in its cell" in other.run("x = 1\n%mentra allow 1").error
    assert "alone in its cell" in other.run("get_ipython().run_line_magic('mentra', 'allow 1')").error
    assert "by a person" in other.run("%mentra allow 1", allow_stdin=False).error
    assert "no question 2" in other.run("%mentra deny 2").error
    assert other.run("%mentra deny 1 because it is late").stdout == "Denied: shell: echo hi\n"
    asking.finish(turn)
    assert asking.said()[-1] == "Tool execution denied: it is late"


def test_an_answer_after_kill_9_is_used_by_resume_in_another_notebook(other: Notebook) -> None:
    marker = other.work / "marker"
    with begun(other.home.parent) as asking:
        asking.script(f"shell('echo ran >> {marker}')")
        asking.ready(asking.send("%mentra -s dead do it"))
        killed(asking)
    assert "in 'dead'" in listed(other).stdout
    assert other.run("%mentra allow 1 because it is fine").status == "ok"
    assert not marker.exists()
    other.script("s.text('Done.')")
    resumed = other.run("%mentra resume dead")
    assert resumed.status == "ok", resumed.error
    assert marker.read_text() == "ran\n"
    assert "you, earlier" in resumed.texts()
    assert other.said()[-1].startswith("[the user allowed it and says: it is fine]")
    about = "mn.decisions(session='dead')[['outcome', 'decided_by', 'request_id']].drop_duplicates().values.tolist()"
    assert [row[:2] for row in other.value(about)] == [["allow", "user"]]  # one answer, of the call in both turns
    assert other.value("len(mn.events(session='dead', kind='permission_resolved'))") == 1


def test_values_are_typed_in_another_notebook_and_a_wrong_name_leaves_the_question_open(
    asking: Notebook, other: Notebook
) -> None:
    asking.script(WHICH, "s.text('Done.')")
    turn = asking.send("%mentra ask me")
    asking.ready(turn)
    assert "   %mentra answer 1 answer=red|blue\n" in listed(other).stdout
    assert "there is no field 'anser': did you mean 'answer'?" in other.run("%mentra answer 1 anser=red").error
    assert "did you mean 'red'?" in other.run("%mentra answer 1 answer=rad").error
    assert "asks for no values" not in other.run("%mentra answer 1 answer=red").error
    asking.finish(turn)
    assert asking.said()[-1] == "red"


def test_an_answer_to_the_model_after_kill_9_is_used_by_resume(other: Notebook) -> None:
    with begun(other.home.parent) as asking:
        asking.script(WHICH)
        asking.ready(asking.send("%mentra -s dead-choice ask me"))
        killed(asking)
    assert "— ask_user: Which? in 'dead-choice'" in listed(other).stdout
    assert other.run("%mentra answer 1 answer=blue").stdout == "Sent: ask_user: Which?\n"
    other.script("s.text('Blue it is.')")
    assert "Blue it is." in other.run("%mentra resume dead-choice").texts()
    assert other.said()[-1] == "blue"


def test_what_a_server_asked_before_kill_9_cannot_be_answered_and_is_asked_again_by_a_call_that_runs_again(
    other: Notebook,
) -> None:
    with begun(other.home.parent) as asking:
        asking.run(KITTED)
        asking.script("s.tool_calls([('mcp__kit__plan', {})], text='')")
        turn = asking.send("%mentra -s dead-trip plan it")
        asking.ready(turn)
        assert "   %mentra answer 1 city=… days=… sea=yes|no season=summer|winter" in listed(other).stdout
        killed(asking)
    assert "The MCP server 'kit' asks — mcp__kit__plan: Where to? in 'dead-trip'" in listed(other).stdout
    refused = other.run("%mentra answer 1 city=Oslo").error
    assert "has died with its kernel, so nobody would get the answer: %mentra resume goes on" in refused
    assert "question" not in other.run("%mentra").stdout  # it can no longer be answered
    other.run(KITTED)
    other.script("s.text('Planned.')")
    turn = other.send("%mentra resume dead-trip")
    first = other.card(turn)
    other.choose(turn, answer="allow")  # the call that was interrupted may run again
    other.until(lambda: other.card(turn) != first)
    other.choose(turn, answer="allow", values={"city": "Oslo"})
    other.finish(turn)
    assert "Planned." in turn.texts()
    assert other.said()[-1].startswith("accept: city='Oslo'")


def test_after_an_ordinary_restart_the_status_says_what_was_asked_and_resume_asks_it_again(tmp_path: Path) -> None:
    with begun(tmp_path) as asking:
        asking.script("shell('echo once more')")
        asking.ready(asking.send("%mentra do it"))
        asking.manager.shutdown_kernel()  # with a word before, as a restart does
    with begun(tmp_path) as again:
        shown = again.run("%mentra").stdout
        assert "a question was open:\n   Run a command — shell: echo once more\n" in shown
        assert "To be asked again: %mentra resume\n" in shown
        again.script("s.text('Done.')")
        turn = again.send("%mentra resume")
        again.choose(turn, answer="allow")
        again.finish(turn)
        assert "Done." in turn.texts()
        assert "a question was open" not in again.run("%mentra").stdout


def test_a_plan_that_waits_beyond_kill_9_is_approved_in_another_notebook_and_carried_out_there(
    other: Notebook,
) -> None:
    marker = other.work / "planned"
    with begun(other.home.parent) as asking:
        asking.script("s.text('1. Run touch.')")
        asking.ready(asking.send("%mentra --plan -s dead-plan make it"))
        killed(asking)
    assert "Carry out this plan? — plan: 1. Run touch. in 'dead-plan'" in listed(other).stdout
    assert other.run("%mentra allow 1 because it is short").stdout == "Sent: plan: 1. Run touch.\n"
    other.script(f"shell('touch {marker}')", "s.text('Made.')")
    turn = other.send("%mentra resume dead-plan")
    other.choose(turn, answer="allow")  # the command is asked about as in any turn
    other.finish(turn)
    assert turn.status == "ok", turn.error
    assert marker.exists()
    assert other.said(0)[-1].startswith("[The user approved this plan and says: it is short]")
    assert other.value("[t.name for t in model.recorded_requests[0].tools if t.name == 'shell']") == ["shell"]


def test_a_plan_in_a_run_that_nobody_watches_is_made_and_refused_with_the_reason(other: Notebook) -> None:
    other.script("s.text('1. Run it.')")
    cell = other.run("%mentra --plan run it", allow_stdin=False)
    assert cell.status == "ok", cell.error
    assert "1. Run it." in cell.texts()
    assert "✗ plan" in cell.texts()
    assert "nobody could be asked" in cell.texts()
    assert "the plan was not approved, and nothing was changed" in cell.texts()
    assert other.value("[t.name for t in model.recorded_requests[0].tools]") == [
        "ask_user",
        "check_background",
        "read",
        "variables",
    ]


def test_the_arguments_can_be_changed_from_another_notebook(asking: Notebook, other: Notebook) -> None:
    asking.script("shell('echo more')", "s.text('Done.')")
    turn = asking.send("%mentra say it")
    asking.ready(turn)
    card = other.ready(listed(other))
    assert other.models[card]["question"]["editable"] == [["command", "echo more"]]
    other.widget_message(card, {"answer": "allow", "arguments": {"command": "echo less"}, "reason": ""})
    asking.finish(turn)
    assert asking.said()[-1].endswith("\nless")
    assert 'so this ran: {"command": "echo less"' in asking.said()[-1]
    ran = asking.value("mn.tool_calls().iloc[-1][['subject', 'decided_by']].tolist()")
    assert ran == ["echo less", "user"]

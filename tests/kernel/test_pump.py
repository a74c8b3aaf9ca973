"""A cell that waits for an answer: clicks, commands, the stop button and queued cells, on real kernels."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import pytest
from kits.kernels import WIDGET, Cell, Kernel

pytestmark = pytest.mark.kernel


def leaves_nothing_open(kernel: Kernel, cell: Cell) -> bool:
    return not kernel.models and not any(WIDGET in data for data in cell.outputs())


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ({"answer": "allow"}, "you, once"),
        ({"answer": "always", "pattern": "ls*", "scope": "session"}, "you, for this session"),
        ({"answer": "deny", "reason": "not now"}, "denied by you: not now"),
    ],
)
def test_an_answer_lets_the_turn_go_on_and_queued_cells_keep_their_order(
    kernel: Kernel, answer: dict[str, Any], line: str
) -> None:
    asking, second, third = kernel.send("%%turn\nls -la"), kernel.send("print('B')"), kernel.send("print('C')")
    kernel.ready(asking)
    late = kernel.send("print('D')")
    kernel.request("kernel_info_request")  # served in order of arrival, so the pump has seen the late cell by then
    assert not asking.ended
    assert not second.events
    kernel.choose(asking, **answer)
    cells = kernel.finish(asking, second, third, late)
    assert line in asking.texts()
    assert [cell.stdout for cell in cells] == ["", "B\n", "C\n", "D\n"]
    assert kernel.started[-4:] == [cell.msg_id for cell in cells]
    assert leaves_nothing_open(kernel, asking)


def test_a_decision_carries_what_was_typed(kernel: Kernel) -> None:
    asking = kernel.send("%%turn\nls -la")
    kernel.choose(asking, answer="always", pattern="ls*", scope="session")
    kernel.finish(asking)
    shown = kernel.run("d = decisions[0]; print(d.allow, d.remember, d.pattern, d.by)").stdout
    assert shown == "True session ls* user\n"


@pytest.mark.parametrize(
    "answer",
    [
        {"answer": "always", "pattern": "*", "scope": "global"},  # not offered
        {"answer": "always", "pattern": " ", "scope": "session"},
        {"answer": "deny"},
        {"answer": ["allow"]},
        {"allow": True},
    ],
)
def test_only_a_complete_answer_counts_and_only_the_first(kernel: Kernel, answer: dict[str, Any]) -> None:
    asking = kernel.send("%%turn\nls -la")
    kernel.choose(asking, **answer)
    kernel.request("kernel_info_request")
    assert not asking.ended
    card = kernel.card(asking)
    kernel.widget_message(card, {"answer": "deny", "reason": ""})
    kernel.widget_message(card, {"answer": "allow"})
    kernel.finish(asking)
    assert "denied by you" in asking.texts()


def test_questions_are_put_one_at_a_time(kernel: Kernel) -> None:
    asking = kernel.send("%%turn\nls\npwd")
    kernel.choose(asking, answer="allow")
    kernel.until(lambda: "you, once" in asking.texts())
    kernel.choose(asking, answer="deny", reason="")
    kernel.finish(asking)
    decided = [row for row in asking.texts().split("\n") if " by you" in row or "you, once" in row]
    assert ["shell  ls" in decided[0], "shell  pwd" in decided[1]] == [True, True]
    assert leaves_nothing_open(kernel, asking)


def test_an_error_aborts_what_waits(kernel: Kernel) -> None:
    asking = kernel.send("get_ipython().run_cell_magic('turn', '', 'ls')\n1/0")
    before = kernel.send("print('B')")
    kernel.ready(asking)
    during = kernel.send("print('C')")
    kernel.request("kernel_info_request")
    kernel.choose(asking, answer="deny", reason="")
    kernel.finish(asking, before, during)
    assert [cell.reply["status"] for cell in (asking, before, during) if cell.reply] == ["error", "aborted", "aborted"]
    assert kernel.run("print('E')").stdout == "E\n"


@pytest.mark.parametrize("how", ["interrupt", "button", "command"])
def test_stopping_ends_the_turn_and_aborts_what_waits(kernel: Kernel, how: str) -> None:
    asking, queued = kernel.send("%%turn\nls"), kernel.send("print('B')")
    if how == "interrupt":
        kernel.ready(asking)
        kernel.manager.interrupt_kernel()
    elif how == "button":
        kernel.choose(asking, answer="stop")
    else:
        kernel.finish(kernel.type_command(asking, "%mentra stop"))
    kernel.finish(asking, queued)
    assert asking.reply is not None
    assert asking.reply["ename"] == "TurnStopped"
    assert asking.reply["traceback"] == ["Stopped."]
    assert queued.reply is not None
    assert queued.reply["status"] == "aborted"
    assert "✗ shell  ls  not run" in asking.texts()
    assert leaves_nothing_open(kernel, asking)
    kernel.manager.interrupt_kernel()  # an idle kernel survives an interrupt
    assert kernel.run("print('E')").stdout == "E\n"


def test_an_idle_kernel_survives_an_interrupt_after_a_click(kernel: Kernel) -> None:
    asking = kernel.send("%%turn\nls")
    kernel.choose(asking, answer="deny", reason="")
    kernel.finish(asking)
    kernel.manager.interrupt_kernel()
    assert kernel.run("print('E')").stdout == "E\n"
    assert kernel.manager.is_alive()


def test_a_reloaded_page_gets_its_answers_and_its_card_back(kernel: Kernel) -> None:
    asking = kernel.send("%%turn\nls")
    card = kernel.ready(asking)
    comms = kernel.request("comm_info_request", {"target_name": "jupyter.widget"})["content"]["comms"]
    assert card in comms
    assert kernel.request("kernel_info_request")["content"]["status"] == "ok"
    kernel.widget_message(card, {"ready": True})
    kernel.until(lambda: [left for comm, left in kernel.messages if comm == card and left.get("left", 0) > 500][1:])
    kernel.choose(asking, answer="allow")
    kernel.finish(asking)


def test_a_command_typed_while_a_cell_waits_answers_it_at_once(kernel: Kernel) -> None:
    asking, queued = kernel.send("%%turn\nls"), kernel.send("print('B')")
    command = kernel.type_command(asking, "%mentra deny because it is late  # tonight")
    kernel.finish(command)
    assert command.reply is not None
    assert command.reply["status"] == "ok"
    assert command.stdout == "Denied: shell: ls\n"
    assert [kind for kind, _ in command.events] == ["execute_input", "stream"]
    kernel.finish(asking, queued)
    assert "it is late" in asking.texts()
    assert queued.stdout == "B\n"
    assert kernel.started.index(command.msg_id) < kernel.started.index(queued.msg_id)
    # The running cell's number is not used up: the next one follows it.
    assert asking.reply is not None
    assert queued.reply is not None
    assert command.reply["execution_count"] == asking.reply["execution_count"]
    assert queued.reply["execution_count"] == asking.reply["execution_count"] + 1


def test_a_silent_command_answers_and_publishes_nothing(kernel: Kernel) -> None:
    asking = kernel.send("%%turn\nls")
    command = kernel.type_command(asking, "%mentra allow", silent=True)
    kernel.finish(asking, command)
    assert not command.events
    assert "you, once" in asking.texts()


def test_a_command_queued_before_the_question_never_answers_it(kernel: Kernel) -> None:
    asking, command = kernel.send("%%turn pause=0.02\nls"), kernel.send("%mentra allow")
    kernel.ready(asking)
    kernel.request("kernel_info_request")
    assert not command.events
    assert not asking.ended
    kernel.choose(asking, answer="deny", reason="")
    kernel.finish(asking, command)
    assert "denied by you" in asking.texts()
    assert command.stdout == "ran as a cell: allow\n"


def test_a_command_sent_before_the_question_but_late_on_the_wire_never_answers_it(kernel: Kernel) -> None:
    asking = kernel.send("%%turn pause=0.02\nls")
    early = kernel.client.session.msg("execute_request", {"code": "%mentra allow", "allow_stdin": True})
    kernel.cells[early["header"]["msg_id"]] = command = Cell(early["header"]["msg_id"])
    kernel.type_command(asking, "1")
    kernel.client.shell_channel.send(early)
    kernel.request("kernel_info_request")
    assert not command.events
    kernel.choose(asking, answer="deny", reason="")
    kernel.finish(asking, command)
    assert command.stdout == "ran as a cell: allow\n"


@pytest.mark.parametrize("late", [-60.0, 0.0, 60.0])
def test_a_command_of_another_client_counts_once_the_question_could_be_read(kernel: Kernel, late: float) -> None:
    asking = kernel.send("%%turn\nls")
    kernel.ready(asking)
    shown = asking.published("display_data" if late > 0 else "execute_input")
    command = kernel.send_dated("%mentra allow", shown + late, other=True)
    kernel.request("kernel_info_request", other=True)  # by its reply the pump has seen the command
    if late > 0:
        kernel.finish(asking, command)
        assert command.stdout == "Allowed: shell: ls\n"
        assert "you, once" in asking.texts()
        return
    assert not command.events
    kernel.choose(asking, answer="deny", reason="")
    kernel.finish(asking, command)
    assert "denied by you" in asking.texts()
    assert command.stdout == "ran as a cell: allow\n"


@pytest.mark.parametrize("late", [0.0, 60.0])
def test_a_command_of_the_same_client_counts_once_the_question_could_be_read(kernel: Kernel, late: float) -> None:
    asking = kernel.send_dated("%%turn pause=0.02\nls", time.time())
    kernel.ready(asking)
    command = kernel.send_dated("%mentra allow", asking.sent + late)
    kernel.request("kernel_info_request")
    if late:
        kernel.finish(asking, command)
        assert command.stdout == "Allowed: shell: ls\n"
        return
    assert not command.events
    kernel.choose(asking, answer="deny", reason="")
    kernel.finish(asking, command)
    assert command.stdout == "ran as a cell: allow\n"


def test_a_command_that_arrives_before_the_question_never_answers_it_whatever_its_date(kernel: Kernel) -> None:
    asking = kernel.send("%%turn behind=True\nls")
    kernel.until(lambda: asking.events)  # else the kernel may take up both at once, and the pump sees only one
    command = kernel.send_dated("%mentra allow", time.time() + 3600)  # a clock that was set while the page was open
    kernel.ready(asking)
    kernel.request("kernel_info_request")
    assert not command.events
    assert not asking.ended
    kernel.choose(asking, answer="deny", reason="")
    kernel.finish(asking, command)
    assert "denied by you" in asking.texts()
    assert command.stdout == "ran as a cell: allow\n"


def test_a_cell_that_is_more_than_a_command_waits(kernel: Kernel) -> None:
    asking = kernel.send("%%turn\nls")
    cell = kernel.type_command(asking, "%mentra allow\nprint('B')")
    kernel.request("kernel_info_request")
    assert not cell.events
    kernel.choose(asking, answer="deny", reason="")
    kernel.finish(asking, cell)
    assert cell.stdout == "ran as a cell: allow\nB\n"


def test_where_no_card_appears_the_input_box_asks(kernel: Kernel) -> None:
    asking, queued = kernel.send("%%turn\nls"), kernel.send("print('B')")
    for typed in ("maybe", "allow"):
        asked = kernel.client.get_stdin_msg(timeout=20)
        assert "Run a command — shell: ls" in asked["content"]["prompt"]
        assert ("That is not an answer" in asked["content"]["prompt"]) is (typed == "allow")
        kernel.client.input(typed)
    kernel.finish(asking, queued)
    assert "you, once" in asking.texts()
    assert queued.stdout == "B\n"


@pytest.mark.parametrize("how", ["deadline", "interrupt"])
def test_the_input_box_does_not_hold_up_the_deadline_or_the_stop_button(kernel: Kernel, how: str) -> None:
    asking = kernel.send(f"%%turn deadline={4.0 if how == 'deadline' else 600.0}\nls")
    kernel.client.get_stdin_msg(timeout=20)
    if how == "interrupt":
        kernel.manager.interrupt_kernel()
    kernel.finish(asking)
    assert ("no answer in time" if how == "deadline" else "not run") in asking.texts()
    assert leaves_nothing_open(kernel, asking)


def test_without_a_front_end_nobody_is_asked_and_the_output_is_the_same_every_time(kernel: Kernel) -> None:
    first, again = (kernel.run("%%turn\nls -la", allow_stdin=False) for _ in range(2))
    assert {kind for kind, _ in first.events} == {"execute_input", "display_data"}
    assert first.events[1:] == again.events[1:]
    assert "✗ shell  ls -la  denied: nobody could be asked; to allow it beforehand: " in first.texts()
    assert "mn.allow('shell', pattern='ls -la')" in first.texts()
    assert not kernel.models


def test_the_kernel_knows_cell_number_and_notebook(kernel: Kernel) -> None:
    code = "from mentra_nb.notebook import kernel as k; import os\n"
    code += "print(k.cell_id(), k.execution_count(), k.notebook_name() == os.getcwd(), k.front_end_answers())"
    code += "; print(k.running_cell().cell_id, k.running_cell().execution_count)"
    cell = kernel.run(code)
    assert cell.reply is not None
    count, stand_in = cell.reply["execution_count"], hashlib.sha256(code.encode()).hexdigest()[:16]
    assert cell.stdout == f"None {count} True True\n{stand_in} {count}\n"


@pytest.mark.parametrize("code", ["%mentra", "%mentra last", " %mentra  # what is it doing?\n"])
def test_a_look_at_the_turn_shows_the_open_question_again(kernel: Kernel, code: str) -> None:
    asking = kernel.send("%%turn\nls")
    look = kernel.type_command(asking, code)
    kernel.finish(look)
    assert not asking.ended
    assert "A turn is running: " in look.stdout
    assert "It asks: Run a command — shell: ls" in look.stdout
    card = kernel.card(asking)
    assert look.outputs()[0][WIDGET]["model_id"] == card
    (again,) = (content for kind, content in look.events if kind == "display_data")
    shown = [content["transient"]["display_id"] for kind, content in asking.events if kind == "display_data"]
    assert again["transient"]["display_id"] in shown  # so that the answer replaces both
    kernel.widget_message(card, {"answer": "allow"})
    kernel.finish(asking)
    assert "you, once" in asking.texts()


def test_a_look_at_a_turn_without_a_question_says_so(kernel: Kernel) -> None:
    running = kernel.send_dated("%%turn pause=0.2\nls", time.time())
    kernel.until(running.outputs)
    look = kernel.send_dated("%mentra", running.sent + 0.5)
    kernel.finish(look)
    assert "No question is open" in look.stdout
    kernel.choose(running, answer="deny", reason="")
    kernel.finish(running)


def test_a_look_queued_by_run_all_waits_for_the_turn(kernel: Kernel) -> None:
    asking, look = kernel.send("%%turn\nls"), kernel.send("%mentra")
    kernel.ready(asking)
    kernel.request("kernel_info_request")
    assert not look.events
    kernel.choose(asking, answer="deny", reason="")
    kernel.finish(asking, look)
    assert look.stdout == "ran as a cell: \n"

"""Turns that are asked for outside of a plain cell: by a button, from threads, under `%%capture`, after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest
from kits.kernels import Cell
from kits.notebooks import Notebook

pytestmark = pytest.mark.kernel

BUTTON = """
import ipywidgets
button = ipywidgets.Button()
def clicked(_button):
    print(mn.ask("say hi"))
button.on_click(clicked)
print(button.comm.comm_id)
"""


def click(notebook: Notebook) -> Cell:
    """Press a button that asks, as a page does. Returns what is shown for the message of the click."""
    made = notebook.run(BUTTON)
    data = {"comm_id": made.stdout.strip(), "data": {"method": "custom", "content": {"event": "click"}}}
    message = notebook.client.session.msg("comm_msg", data)
    cell = notebook.cells[message["header"]["msg_id"]] = Cell(message["header"]["msg_id"])
    notebook.client.shell_channel.send(message)
    return cell


def test_a_button_that_asks_gets_a_card_whose_clicks_are_served(notebook: Notebook) -> None:
    notebook.script("shell('echo forty-two')", "s.text('It says 42.')")
    shown = click(notebook)
    notebook.choose(shown, answer="allow")
    notebook.until(lambda: "It says 42." in shown.stdout)
    assert notebook.said()[-1] == "forty-two"


def test_a_button_whose_card_no_page_draws_is_denied(notebook: Notebook) -> None:
    notebook.script("shell('echo hi')", "s.text('Then not.')")
    shown = click(notebook)
    notebook.card(shown)
    notebook.until(lambda: "Then not." in shown.stdout)
    assert "no page has drawn the question" in notebook.said()[-1]


THREADS = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor() as pool:
    (reply,) = pool.map(mn.ask, ["say hi"])
print(reply)
"""


def test_a_thread_that_asks_while_the_cell_waits_for_it_is_denied(notebook: Notebook) -> None:
    notebook.script("shell('echo hi')", "s.text('Then not.')")
    cell = notebook.run(THREADS)
    assert cell.stdout.endswith("Then not.\n")
    assert "asked from a thread while the cell waits" in notebook.said()[-1]


def test_a_thread_that_asks_after_its_cell_gets_a_card(notebook: Notebook) -> None:
    notebook.script("shell('echo forty-two')", "s.text('It says 42.')")
    cell = notebook.run("import threading\nthread = threading.Thread(target=mn.ask, args=['say hi'])\nthread.start()")
    notebook.choose(cell, answer="allow")
    notebook.run("thread.join()")
    assert notebook.said()[-1] == "forty-two"


def test_a_captured_turn_is_collected_once(notebook: Notebook) -> None:
    notebook.script("s.stream_text(['One ', 'two ', 'three.'])")
    notebook.run("%%capture cap\n%mentra count")
    texts = notebook.value("[output.data['text/plain'] for output in cap.outputs if output.data]")
    assert [text for text in texts if "One two three." in text] == ["One two three."]
    assert "" not in texts


def test_a_question_of_a_captured_turn_is_asked_in_the_input_box(notebook: Notebook) -> None:
    notebook.script("shell('echo forty-two')", "s.text('It says 42.')")
    cell = notebook.send("%%capture cap\n%mentra say hi")
    asked = notebook.client.get_stdin_msg(timeout=20)
    assert "echo forty-two" in asked["content"]["prompt"]
    notebook.client.input("allow")
    notebook.finish(cell)
    assert notebook.said()[-1] == "forty-two"


def test_a_reply_in_code_is_kept_as_that_of_the_magic(notebook: Notebook) -> None:
    notebook.script("s.text('one')", "s.text('two')")
    notebook.run("mn.ask('first')")
    assert notebook.value("_mentra.text") == "one"
    notebook.run("%mentra second")
    assert notebook.value("_mentra.text") == "two"


def test_a_new_kernel_goes_on_with_the_conversation_of_the_last_one(tmp_path: Path) -> None:
    first = Notebook(tmp_path)
    try:
        first.begin()
        first.script("s.text('one')")
        first.run("%mentra what was first?")
    finally:
        first.close()
    again = Notebook(tmp_path)
    try:
        again.begin()
        again.script("s.text('two')", "s.text('three')")
        asked = again.run("%mentra go on", allow_stdin=True).texts()
        assert "Going on with 'what was first?', 1 turn, last " in asked
        assert "To start anew: %mentra --new and the question" in asked
        assert again.said() == ["what was first?", "one", "go on"]
        assert "Going on" not in again.run("%mentra and on").texts()
    finally:
        again.close()

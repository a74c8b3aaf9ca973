"""`%mentra say` in another cell while a turn runs, in real kernels."""

from __future__ import annotations

import pytest
from kits.notebooks import Notebook

pytestmark = pytest.mark.kernel


def test_another_cell_says_something_to_the_turn_that_waits(notebook: Notebook) -> None:
    notebook.script("shell('echo hi')", "s.text('Done.')")
    turn = notebook.send("%mentra what now?")
    notebook.ready(turn)
    said = notebook.type_command(turn, "%mentra say in one line, not 2 # please")
    notebook.finish(said)
    assert said.stdout == "Said: the model reads it with its next request.\n"
    notebook.choose(turn, answer="allow", reason="")
    notebook.finish(turn)
    assert "You said: in one line, not 2 # please" in turn.texts()
    assert notebook.said() == ["what now?", "I run a command. ", "hi", "in one line, not 2 # please"]
    after = notebook.run("%mentra say hello")  # no turn runs: a question
    assert "the script has no answer" in after.error


def test_cells_that_were_sent_with_the_turn_say_nothing_to_it(notebook: Notebook) -> None:
    notebook.script("s.text('One.')", "s.text('Two.')")
    cells = [notebook.send(code) for code in ("%mentra what now?", "%mentra say hello")]  # as *Run all* does
    notebook.finish(*cells)
    assert notebook.said() == ["what now?", "One.", "say hello"]

"""Commands of real turns that run in the sandbox first, and what becomes of their effect."""

from __future__ import annotations

import pytest
from kits.fences import needs_fence
from kits.notebooks import Notebook

pytestmark = pytest.mark.kernel

MAKE = "echo one >made.txt; cat made.txt"


def test_a_command_is_kept_or_discarded_by_what_it_did(notebook: Notebook) -> None:
    needs_fence()
    made, texts = notebook.work / "made.txt", ""
    notebook.run("engine().settings.sandbox = 'auto'")
    try:
        for command, effect, answer in (
            (MAKE, "+ made.txt: created, file, 4 bytes", {"answer": "allow"}),
            (
                "rm made.txt; mkdir made.txt",
                "~ made.txt: changed, file, 4 bytes → folder",
                {"answer": "deny", "reason": ""},
            ),
        ):
            notebook.script("shell('echo nothing')", f"shell({command!r})", "s.text('Done.')")
            asking = notebook.send("%mentra make it")
            notebook.ready(asking)
            (card,) = (state["question"] for state in notebook.models.values() if "question" in state)
            assert (card["headline"], card["effect"]) == ("Keep what a command changed: 1 file", effect)
            notebook.choose(asking, **answer)
            notebook.finish(asking)
            texts += asking.texts()
    finally:
        notebook.run("engine().settings.sandbox = 'off'")
    assert any(line.startswith("✓ shell  echo nothing") and "changed nothing" in line for line in texts.splitlines())
    assert "1 file kept by you" in texts
    assert "1 file discarded, denied by you" in texts
    assert made.read_text() == "one\n"
    assert notebook.value("mn.decisions().tail(4).decided_by.tolist()") == ["sandbox", "user", "sandbox", "user"]


def test_check_says_whether_there_is_a_sandbox(notebook: Notebook) -> None:
    found = "[f.detail for f in findings(engine()) if f.check == 'sandbox'][0]"
    notebook.run("from mentra_nb.chat.doctor import findings")
    assert notebook.value(found) == "off: commands are asked about beforehand"
    notebook.run("engine().settings.sandbox = 'auto'")
    try:
        assert notebook.value(found).startswith(f"commands run in a view of {notebook.work} first")
    finally:
        notebook.run("engine().settings.sandbox = 'off'")

"""Commands of real turns that run in the sandbox first, and what becomes of their effect."""

from __future__ import annotations

import pytest
from kits.fences import needs_fence
from kits.notebooks import Notebook

pytestmark = pytest.mark.kernel

MAKE = "echo one >made.txt; cat made.txt"


@pytest.mark.parametrize(
    ("answer", "row"), [("allow", "1 file kept by you"), ("deny", "1 file discarded, denied by you")]
)
def test_a_command_is_kept_or_discarded_by_what_it_did(notebook: Notebook, answer: str, row: str) -> None:
    needs_fence()
    made = notebook.work / "made.txt"
    made.unlink(missing_ok=True)
    notebook.run("engine().settings.sandbox = 'auto'")
    try:
        notebook.script("shell('echo nothing')", f"shell({MAKE!r})", "s.text('Done.')")
        asking = notebook.send("%mentra make it")
        notebook.ready(asking)
        assert not made.exists()
        (card,) = (state for state in notebook.models.values() if "question" in state)
        assert card["question"]["headline"] == "Keep what a command changed: 1 file"
        assert card["question"]["effect"] == "+ made.txt: created, file, 4 bytes"
        assert card["question"]["diff"] == ["@@ made.txt @@", "@@ line 1 @@", "+one"]
        said = {"answer": answer, "reason": ""} if answer == "deny" else {"answer": answer}
        notebook.choose(asking, **said)
        notebook.finish(asking)
    finally:
        notebook.run("engine().settings.sandbox = 'off'")
    lines = asking.texts().splitlines()
    assert any(line.startswith("✓ shell  echo nothing") and "changed nothing" in line for line in lines)
    assert any(row in line for line in lines)
    assert made.exists() == (answer == "allow")
    assert notebook.value("mn.decisions().tail(2).decided_by.tolist()") == ["sandbox", "user"]


def test_check_says_whether_there_is_a_sandbox(notebook: Notebook) -> None:
    found = "[f.detail for f in findings(engine()) if f.check == 'sandbox'][0]"
    notebook.run("from mentra_nb.chat.doctor import findings")
    assert notebook.value(found) == "off: commands are asked about beforehand"
    notebook.run("engine().settings.sandbox = 'auto'")
    try:
        assert notebook.value(found).startswith(f"commands run in a view of {notebook.work} first")
    finally:
        notebook.run("engine().settings.sandbox = 'off'")

"""An hour at a notebook, in both front ends: a reload, turns behind cells, undo, a restart, and its cells."""

from __future__ import annotations

import os

import pytest
from kits.lab import Lab, Opener
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

BEGIN = """
from kits.notebooks import BEGIN
exec(BEGIN)
import os, threading
os.path.exists("%(pipe)s") or os.mkfifo("%(pipe)s")
def half():
    stream = silent("As I was saying, ")
    def end():
        open("%(pipe)s").read()  # waits until the test writes
        stream.send(ContentBlockDelta(0, "**all is well**."), *s.text("x").events[-3:])
        stream.finish()
    threading.Thread(target=end, daemon=True).start()
    return stream
def write(path):
    return s.tool_calls([s.ScriptedCall("write", {"path": path, "content": "# Notes"}, "c1")])
mn.allow("python")
"""
SCRIPT = """
script(half(), s.text("The first."), s.text("The second."), write("%(notes)s"), s.text("Written."),
       s.tool_calls([s.ScriptedCall("python", {"code": "total = 21 * 2"}, "c2")]), s.text("Counted."),
       shell("echo pending"))
"""
SOURCES = (
    BEGIN + SCRIPT,
    "%%mentra\nstream",
    "%mentra last",
    "%%mentra --bg\none",
    "%%mentra --bg\ntwo",
    "%%mentra\nwrite it",
    "%mentra undo",
    "%%mentra\ncount",
    "%%mentra\nask me",
    BEGIN + "script(s.text('It went on.'))",
    "%mentra",
    "%mentra resume",
    "%mentra cells",
)
RESTART = "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"


@pytest.mark.parametrize("app", ["lab", "notebook"] if os.environ.get("MENTRA_CARD") == "all" else ["lab"])
def test_nothing_is_lost_by_a_reload_a_restart_or_turns_behind_cells(opened: Opener, lab: Lab, app: str) -> None:
    names = {"pipe": f"pipe-{app}", "notes": f"notes-{app}.md"}
    notebook = opened(*(source % names if "%(" in source else source for source in SOURCES), app=app)

    def shows(cell: int, text: str) -> None:
        expect(notebook.output(cell)).to_contain_text(text, timeout=30_000)

    def run(cell: int, text: str) -> None:
        notebook.run(cell)
        shows(cell, text)

    notebook.run(0)
    expect(notebook.prompt(0)).to_have_text("[1]:", timeout=30_000)
    run(1, "As I was saying")
    notebook.saved()
    notebook.page.reload()
    notebook.ready()
    (lab.root / names["pipe"]).write_text("go on")
    run(2, "As I was saying, all is well.")

    notebook.run(3)
    notebook.run(4)
    shows(3, "The first.")
    shows(4, "The second.")

    notebook.run(5)
    notebook.card().get_by_role("button", name="Allow once").click()
    shows(5, "Written.")
    assert (lab.root / names["notes"]).exists()
    run(6, names["notes"])
    assert not (lab.root / names["notes"]).exists()

    run(7, "Counted.")
    notebook.run(8)
    notebook.card()
    notebook.page.evaluate(RESTART)
    expect(notebook.page.locator(".mentra-status").first).to_contain_text("%mentra resume", timeout=20_000)
    notebook.run(9)
    notebook.run(10)
    shows(10, "To be asked again: %mentra resume")
    notebook.run(11)
    shown = notebook.output(11).locator(".mentra-card")
    expect(shown.locator(".mentra-left")).to_contain_text("left", timeout=30_000)
    notebook.page.wait_for_timeout(350)  # the card refuses clicks made before it could be read
    shown.get_by_role("button", name="Allow once").click()
    shows(11, "It went on.")
    shows(11, "echo pending")

    notebook.run(12)
    expect(notebook.cell(13)).to_contain_text("pending", timeout=30_000)
    expect(notebook.prompt(13)).to_have_text("[ ]:")

"""`%%mentra` in a real JupyterLab, with the extension itself: answered by clicks, stopped by the toolbar."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kits.kernels import IPYKERNEL_6, overlay
from kits.lab import Lab, Notebook
from playwright.sync_api import BrowserContext, expect

pytestmark = pytest.mark.browser

BEGIN = "from kits.notebooks import BEGIN\nexec(BEGIN)\n"
STARTED = "print(mn.events().query(\"kind == 'tool_execution_started'\").ts.iloc[-1].timestamp())"
DEADLINE = 15.0
"""Seconds after which a step counts as failed; the tools below run for twice as long unless they are stopped."""

# The time of the next click in Unix milliseconds, and the milliseconds from it to the end of cell `n`.
CLICKED = """() => { document.addEventListener('click', () => { window.clicked = Date.now(); },
  {capture: true, once: true}); }"""
ENDED = """n => { window.ended = new Promise(resolve => document.addEventListener('click', () => {
  const began = performance.now();
  const prompt = document.querySelectorAll('.jp-Notebook .jp-CodeCell')[n].querySelector('.jp-InputPrompt');
  const timer = setInterval(() => { if (!prompt.textContent.includes('*')) {
    clearInterval(timer); resolve(performance.now() - began); } }, 5);
}, {capture: true, once: true})); }"""


@pytest.fixture(params=["7", "6"])
def line(request: pytest.FixtureRequest) -> str:
    overlay(request.param)  # skips the test where it is missing
    return str(request.param)


class Opener:
    def __init__(self, lab: Lab, browser: BrowserContext) -> None:
        self.lab, self.browser = lab, browser
        self.notebooks: list[Notebook] = []

    def __call__(self, line: str, *sources: str) -> Notebook:
        kernel = "python3" if line == "7" else IPYKERNEL_6.name
        self.notebooks.append(self.lab.open(self.browser, *sources, kernel=kernel))
        return self.notebooks[-1]


@pytest.fixture
def opened(lab: Lab, browser: BrowserContext) -> Iterator[Opener]:
    opener = Opener(lab, browser)
    yield opener
    for notebook in opener.notebooks:
        notebook.close()


def test_run_all_waits_for_a_click_and_goes_on(opened: Opener, line: str, tmp_path: Path) -> None:
    answers = "script(shell('echo forty-two'), s.text('It says **42**.'), shell('date'), s.text('Then not.'))"
    notebook = opened(
        line,
        "import ipykernel; print(ipykernel.__version__)\n" + BEGIN + answers,
        "%%mentra -o first\nWhat does it say?",
        STARTED + "; print('NEXT')",
        "%mentra and the date?",
        "print(mn.decisions().tail(2).outcome.tolist()); print('LAST')",
    )
    notebook.run_all()
    shown = notebook.card()
    expect(notebook.output(0)).to_contain_text(f"{line}.")
    expect(notebook.prompt(1)).to_have_text("[*]:")
    expect(notebook.prompt(2)).to_have_text("[*]:")
    expect(notebook.output(2)).not_to_contain_text("NEXT")
    notebook.page.screenshot(path=tmp_path / "pending.png")
    notebook.page.evaluate(CLICKED)
    shown.get_by_role("button", name="Allow once").click()
    expect(notebook.output(1)).to_contain_text("It says 42.")
    expect(notebook.output(1)).to_contain_text("you, once")
    expect(notebook.output(2)).to_contain_text("NEXT", timeout=15_000)
    began = float(notebook.output(2).inner_text().split()[0])
    took = began - notebook.page.evaluate("window.clicked") / 1000
    assert 0 <= took < DEADLINE

    notebook.card().get_by_role("button", name="Deny").click()
    expect(notebook.output(3)).to_contain_text("denied by you")
    expect(notebook.output(3)).to_contain_text("Then not.")
    expect(notebook.output(4)).to_contain_text("['allow', 'deny']", timeout=15_000)
    expect(notebook.output(4)).to_contain_text("LAST")
    expect(notebook.page.locator(".mentra-card")).to_have_count(0)
    notebook.page.screenshot(path=tmp_path / "finished.png")
    document = notebook.saved()
    assert "It says **42**." in "".join(str(output.get("data")) for output in document["cells"][1]["outputs"])
    assert "widgets" not in document["metadata"]


def test_the_stop_button_of_the_toolbar_ends_whatever_runs(opened: Opener, line: str) -> None:
    notebook = opened(
        line,
        BEGIN
        + "script(silent('As I was saying, '), shell('sleep 30'), shell('sleep 31'))\nmn.allow('shell', 'sleep 30')",
        "%%mentra\nstream",
        "%%mentra\nshell",
        "%%mentra\nquestion",
        "print('NEXT')",
        "print(mn.turns().tail(3).stop_reason.tolist())",
    )
    notebook.run(0)
    expect(notebook.prompt(0)).to_have_text("[1]:", timeout=30_000)
    stop = notebook.page.locator('[data-command="notebook:interrupt-kernel"]').first
    for cell, what, sign in ((1, "stream", "As I was saying"), (2, "shell", "sleep 30"), (3, "question", "sleep 31")):
        notebook.run(cell)
        notebook.run(4)
        expect(notebook.output(cell)).to_contain_text(sign, timeout=15_000)
        if what == "question":
            notebook.card()
        notebook.page.evaluate(ENDED, cell)
        stop.click()
        took = notebook.page.evaluate("window.ended")
        assert took < 1000 * DEADLINE
        expect(notebook.output(cell)).to_contain_text("Stopped.")
        expect(notebook.prompt(4)).to_have_text("[ ]:")
        expect(notebook.output(4)).not_to_contain_text("NEXT")
    notebook.run(5)
    expect(notebook.output(5)).to_contain_text("['cancelled', 'cancelled', 'cancelled']", timeout=15_000)


def test_code_on_the_card_is_coloured_and_its_table_appears_in_the_cell(opened: Opener, line: str) -> None:
    code = (
        "def double(x):\n    return 2 * x  # twice\n\ntotal = double(21)\nprint('hello')\npd.DataFrame({'n': [total]})"
    )
    call = f"s.tool_calls([s.ScriptedCall('python', {{'code': {code!r}}}, 'call-1')], text='I compute it.')"
    notebook = opened(
        line,
        f"import pandas as pd\n{BEGIN}script({call}, s.text('It is **42**.'))",
        "%%mentra\nHow much is it?",
        "%mentra undo",
    )
    notebook.run_all()
    shown = notebook.card()
    expect(shown).to_contain_text("full access")
    colour = "node => getComputedStyle(node).color"
    pieces = {
        text: shown.locator(".mentra-code span", has_text=text).first.evaluate(colour) for text in ("def", "# twice")
    }
    shown.get_by_role("button", name="Allow once").click()
    expect(notebook.output(1)).to_contain_text("It is 42.")
    expect(notebook.output(1).locator("table")).to_contain_text("42")
    expect(notebook.output(1)).to_contain_text("created double (function), total (int)")
    expect(notebook.output(2)).to_contain_text("removed double, total")
    assert len(set(pieces.values())) > 1


def test_a_turn_that_begins_by_itself_is_drawn_in_its_cell_and_answered_while_none_runs(
    opened: Opener, lab: Lab, tmp_path: Path
) -> None:
    (lab.root / "build.sh").write_text("until [ -e built ]; do sleep 0.05; done; echo 42 files")
    call = "s.tool_calls([s.ScriptedCall('background_run', {'command': 'sh build.sh'}, 'call-b')])"
    notebook = opened(
        "7",
        f"{BEGIN}mn.allow('background_run', 'sh build.sh')\n"
        f"script({call}, s.text('It runs.'), shell('echo forty-two'), s.text('It is **built**.'))",
        "%%mentra\nBuild it.",
        "print('MY', 'OWN WORK')",
    )
    notebook.run_all()
    expect(notebook.output(2)).to_contain_text("MY OWN WORK", timeout=30_000)
    expect(notebook.output(1)).not_to_contain_text("has ended")
    (lab.root / "built").touch()
    shown = notebook.card()
    expect(notebook.output(1).locator(".mentra-card")).to_have_count(1)
    expect(notebook.output(1)).to_contain_text("background task bg-1 has ended: the model now reads its result")
    expect(notebook.prompt(1)).not_to_have_text("[*]:")
    notebook.page.screenshot(path=tmp_path / "begun.png")
    shown.get_by_role("button", name="Allow once").click()
    expect(notebook.output(1)).to_contain_text("It is built.")
    expect(notebook.output(1).locator("strong")).to_have_text("built")
    expect(notebook.page.locator(".mentra-card")).to_have_count(0)
    expect(notebook.output(2)).to_have_text("MY OWN WORK\n")


@pytest.mark.parametrize("sent", ["Enter", "Say"])
def test_what_is_typed_while_a_turn_runs_reaches_the_model(opened: Opener, tmp_path: Path, sent: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    tool = f'@mn.tool(asks=False)\ndef wait() -> str:\n    "Wait."\n    return open({str(pipe)!r}).read()\n'
    begin = f"{BEGIN}{tool}from mentra_nb.notebook import saying; saying.AFTER = 0.2\n"
    answers = "script(s.tool_calls([s.ScriptedCall('wait', {}, 'call-1')]), s.text('Done.'))"
    read = "print([m.text() for m in model.recorded_requests[-1].messages if m.text()])"
    notebook = opened("7", begin + answers, "%%mentra -t wait\nGo.", read)
    notebook.run_all()
    field = notebook.output(1).get_by_placeholder("Say something to the model while it works")
    field.click()
    notebook.page.keyboard.type("in euros, dd")
    if sent == "Enter":
        notebook.page.keyboard.press("Enter")
    else:
        notebook.output(1).get_by_role("button", name="Say").click()
    expect(field).to_have_value("")
    expect(notebook.output(1)).to_contain_text("You said: in euros, dd")
    pipe.write_text("waited")
    expect(notebook.output(1)).to_contain_text("Done.")
    expect(field).to_have_count(0)
    expect(notebook.output(2)).to_contain_text("['Go.', 'in euros, dd']")
    kinds = {kind for output in notebook.saved()["cells"][1]["outputs"] for kind in output.get("data", {})}
    assert kinds == {"text/html", "text/plain"}

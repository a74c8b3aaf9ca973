"""The approval card in real notebooks: seen, answered, gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from kits.lab import Lab, Notebook
from playwright.sync_api import BrowserContext, expect

pytestmark = pytest.mark.browser

COMMAND = "git status --short"
SOURCES = ("%load_ext kits.scripted_turn", f"%%turn\n{COMMAND}", "print('SECOND')")
Opener = Callable[..., Notebook]


@pytest.fixture
def opened(lab: Lab, browser: BrowserContext) -> Iterator[Opener]:
    notebooks: list[Notebook] = []

    def open_notebook(*sources: str, app: str = "lab") -> Notebook:
        notebooks.append(lab.open(browser, *sources, app=app))
        return notebooks[-1]

    yield open_notebook
    for notebook in notebooks:
        notebook.close()


@pytest.mark.parametrize("app", ["lab", "notebook"])
@pytest.mark.parametrize(("button", "line"), [("Allow once", "you, once"), ("Deny", "Denied by you")])
def test_a_click_lets_the_cell_go_on_and_only_text_remains(opened: Opener, app: str, button: str, line: str) -> None:
    notebook = opened(*SOURCES, app=app)
    notebook.run_all()
    shown = notebook.card()
    expect(shown).to_contain_text("Run a command")
    expect(shown.locator(".mentra-arguments")).to_have_text(f"command: {COMMAND}")
    expect(notebook.cell(1).locator(".jp-InputPrompt")).to_have_text("[*]:")
    expect(notebook.output(2)).not_to_contain_text("SECOND")
    clicked = time.monotonic()
    shown.get_by_role("button", name=button, exact=True).click()
    expect(notebook.output(2)).to_contain_text("SECOND")
    print(f"{app} {button}: click to next cell done {time.monotonic() - clicked:.2f} s")
    expect(notebook.output(1)).to_contain_text(line)
    expect(notebook.page.locator(".mentra-card")).to_have_count(0)
    document = notebook.saved()
    kinds = {kind for output in document["cells"][1]["outputs"] for kind in output.get("data", {})}
    assert kinds == {"text/html", "text/plain"}
    assert "widgets" not in document["metadata"]


def test_the_card_takes_no_focus_and_its_first_control_is_harmless(opened: Opener) -> None:
    notebook = opened(*SOURCES)
    notebook.run_all()
    shown = notebook.card()
    assert not shown.evaluate("card => card.contains(document.activeElement)")
    controls = shown.locator("button, input, select").evaluate_all("all => all.map(c => c.textContent || c.type)")
    assert controls[:5] == ["text", "Allow once", "Always…", "Deny", "Stop"]
    # Keys typed into a field are text, not commands of the notebook.
    reason = shown.get_by_label("Reason if you deny")
    reason.focus()
    cells = notebook.page.locator(".jp-Notebook .jp-Cell").count()
    notebook.page.keyboard.type("add b, a, dd, 00")
    notebook.page.keyboard.press("Enter")
    expect(reason).to_have_value("add b, a, dd, 00")
    assert notebook.page.locator(".jp-Notebook .jp-Cell").count() == cells
    for _ in range(3):
        notebook.page.keyboard.press("Tab")
    expect(shown.get_by_role("button", name="Deny")).to_be_focused()
    notebook.page.keyboard.press("Enter")
    expect(notebook.output(1)).to_contain_text("Denied by you")
    expect(notebook.output(1)).to_contain_text("add b, a, dd, 00")


def test_a_click_made_by_a_script_is_refused(opened: Opener) -> None:
    notebook = opened(*SOURCES)
    notebook.run_all()
    shown = notebook.card()
    for button in shown.get_by_role("button").all():
        button.dispatch_event("click")
    shown.evaluate("card => card.querySelector('.mentra-allow').click()")
    expect(shown.locator(".mentra-status")).to_have_text("")
    shown.get_by_role("button", name="Deny").click()
    expect(notebook.output(1)).to_contain_text("Denied by you")


def test_always_offers_the_exact_subject_as_an_editable_pattern(opened: Opener) -> None:
    notebook = opened(*SOURCES[:2], "d = decisions[0]; print(d.remember, d.pattern)")
    notebook.run_all()
    shown = notebook.card()
    shown.get_by_role("button", name="Always…").click()
    pattern = shown.get_by_label("Pattern")
    expect(pattern).to_be_focused()
    expect(pattern).to_have_value(COMMAND)
    pattern.fill("git status*")
    shown.get_by_role("button", name="Always allow").click()
    expect(notebook.output(2)).to_contain_text("session git status*")


def test_the_card_works_again_after_a_reload(opened: Opener) -> None:
    notebook = opened(*SOURCES, "print(decisions)")
    notebook.run_all()
    notebook.card()
    notebook.saved()
    notebook.page.reload()
    shown = notebook.card()
    shown.get_by_role("button", name="Allow once").click()
    expect(shown).to_have_count(0)


def test_arguments_are_text_however_hostile(opened: Opener) -> None:
    hostile = '<img src=x onerror="window.P_card=1">\\u202e'
    notebook = opened(SOURCES[0], f'get_ipython().run_cell_magic("turn", "", """{hostile}""")')
    notebook.run_all()
    shown = notebook.card()
    expect(shown.locator(".mentra-arguments")).to_have_text('command: <img src=x onerror="window.P_card=1">\\u202e')
    assert notebook.page.evaluate("() => window.P_card") is None
    shown.get_by_role("button", name="Stop").click()
    expect(notebook.output(1)).to_contain_text("Stopped.")


RESTART = "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"


def test_the_card_of_a_kernel_that_is_gone_says_so(opened: Opener) -> None:
    notebook = opened(*SOURCES)
    notebook.run_all()
    shown = notebook.card()
    notebook.page.evaluate(RESTART)
    shown.get_by_role("button", name="Allow once").click()
    expect(shown.locator(".mentra-status")).to_contain_text("No answer from the kernel", timeout=10_000)
    expect(shown.locator(".mentra-status")).to_contain_text("%mentra resume")

"""Several questions on one card."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from kits.lab import Lab, Notebook, Opener
from playwright.sync_api import Locator, expect

pytestmark = pytest.mark.browser

BEGIN = "from kits.notebooks import BEGIN\nexec(BEGIN)\n"
PEEK = """
@mn.tool(reads_only=True)
def peek(where: str) -> str:
    "Look somewhere."
    return f"seen {where}"
from mentra_nb.chat.api import conversation
conversation().add_tool(peek)
engine().settings.change("ask", "always", "test")
script(s.tool_calls([("peek", {"where": each}) for each in "abc"]), s.text("All seen."))
"""
ELSEWHERE = """
import threading
from mentra_nb.chat.questions import answer, open_questions
def allow_the_last():
    open("elsewhere").read()
    [last] = [each for each in open_questions() if '"c"' in str(each.question.subject)]
    answer(last, mn.PermissionDecision(allow=True))
threading.Thread(target=allow_the_last).start()
"""
"""Answers the third question once the file `elsewhere` is written to."""
SAID = (
    "print([[b.display() for b in m.content if hasattr(b, 'display')] for m in model.recorded_requests[-1].messages])"
)


def nothing_serious(notebook: Notebook, shown: Locator) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install 'mentra-nb[dev]'").Axe()
    found = axe.run(notebook.page, context=".mentra-card")
    bad = [row for row in found.response["violations"] if row["impact"] in ("serious", "critical")]
    assert not bad, [(row["id"], row["nodes"][0]["html"], row["nodes"][0]["failureSummary"]) for row in bad]


def dark(notebook: Notebook) -> None:
    change = "window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
    notebook.page.evaluate(f"() => {change}")
    notebook.page.wait_for_load_state("networkidle")


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_several_questions_are_one_list_with_keys_and_one_answer_for_those_alike(
    opened: Opener, app: str, tmp_path: Path
) -> None:
    notebook = opened(BEGIN + PEEK, "%mentra look", SAID, app=app)
    notebook.run_all()
    shown = notebook.card()
    expect(shown.locator(".mentra-row")).to_have_count(3)
    shown.locator(".mentra-row").first.focus()
    notebook.page.keyboard.press("2")
    expect(notebook.page.locator(".mentra-row[aria-current]")).to_contain_text('2  peek: {"where":"b"}')
    expect(notebook.page.locator(".mentra-row[aria-current]")).to_be_focused()
    for key, where in (("3", "c"), ("2", "b")):  # the keyboard goes on from the list of the new card
        shown = notebook.card()
        notebook.page.keyboard.press(key)
        row = notebook.page.locator(".mentra-row[aria-current]")
        expect(row).to_contain_text(f'{key}  peek: {{"where":"{where}"}}')
        expect(row).to_be_focused()
    shown = notebook.card()
    shown.screenshot(path=tmp_path / "list-light.png")
    nothing_serious(notebook, shown)
    if app == "lab":
        dark(notebook)
        shown.screenshot(path=tmp_path / "list-dark.png")
        nothing_serious(notebook, shown)
    shown.get_by_role("button", name="Allow all 3 alike").click()
    expect(notebook.output(1)).to_contain_text("All seen.", timeout=15_000)
    expect(notebook.output(2)).to_contain_text("['seen a', 'seen b', 'seen c']")
    expect(notebook.page.locator(".mentra-card")).to_have_count(0)


def test_the_keyboard_stays_in_the_list_when_a_question_is_answered_elsewhere(opened: Opener, lab: Lab) -> None:
    os.mkfifo(lab.root / "elsewhere")
    notebook = opened(BEGIN + PEEK + ELSEWHERE, "%mentra look")
    notebook.run_all()
    rows = notebook.card().locator(".mentra-row")
    expect(rows).to_have_count(3)
    rows.nth(1).focus()
    (lab.root / "elsewhere").write_text("now")
    expect(rows).to_have_count(2)
    expect(rows.nth(1)).to_contain_text('2  peek: {"where":"b"}')
    expect(rows.nth(1)).to_be_focused()
    notebook.card().get_by_role("button", name="Allow all 2 alike").click()
    expect(notebook.output(1)).to_contain_text("All seen.", timeout=15_000)


PLAN = """1. Read the table sales.csv and count its rows.
2. Write the count into notes.md:
   - one line, with the name of the table;
   - nothing else."""
MORE = "\n".join(f"{n}. Look at part {n} once more." for n in range(3, 30))
PLANNING = f"""{BEGIN}
engine().settings.change("ask", "always", "test")
script(s.text({PLAN!r}), s.text({f"{PLAN}{chr(10)}{MORE}"!r}), shell("echo counted"), s.text("It is counted."))
"""


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_a_plan_is_sent_back_with_a_word_and_the_next_one_approved_and_carried_out(
    opened: Opener, app: str, tmp_path: Path
) -> None:
    notebook = opened(PLANNING, "%mentra --plan count the sales", SAID, app=app)
    notebook.run_all()
    card = notebook.card()
    expect(card.locator(".mentra-headline")).to_have_text("Carry out this plan?")
    expect(card.locator(".mentra-effect")).to_have_text(PLAN)
    card.screenshot(path=tmp_path / "plan-light.png")
    nothing_serious(notebook, card)
    expect(card.get_by_role("button", name="Always…")).to_have_count(0)
    card.get_by_label("Say to the model").fill("look at every part")
    card.get_by_role("button", name="Deny and say").click()
    expect(notebook.page.locator(".mentra-effect.mentra-long")).to_contain_text("29. Look at part 29 once more.")
    card = notebook.card()
    whole = card.bounding_box()
    assert whole is not None
    assert whole["height"] < 600  # of 900 in sight
    if app == "lab":
        dark(notebook)
    card.screenshot(path=tmp_path / "plan-dark.png")
    nothing_serious(notebook, card)
    card.get_by_role("button", name="Approve plan").focus()
    notebook.page.keyboard.press("Enter")
    expect(notebook.page.locator(".mentra-headline")).to_have_text("Run a command")
    notebook.card().get_by_role("button", name="Allow once").click()
    expect(notebook.output(1)).to_contain_text("It is counted.", timeout=15_000)
    expect(notebook.output(1)).to_contain_text("Approve plan: you")
    expect(notebook.output(1)).to_contain_text("denied by you: look at every part")
    expect(notebook.output(2)).to_contain_text("counted")


def test_a_rule_that_the_answers_suggest_is_accepted_by_a_click(opened: Opener, tmp_path: Path) -> None:
    call = "s.tool_calls([('shell', {'command': 'ls'})])"
    notebook = opened(
        f"{BEGIN}script({call}, s.text('One.'), {call}, s.text('Two.'))",
        "%mentra look",
        "%mentra look again",
        "%mentra rules suggest",
        "mn.rules()[['tool', 'pattern']].values.tolist()",
    )
    notebook.run(0)
    for n, said in ((1, "One."), (2, "Two.")):
        notebook.run(n)
        notebook.card().get_by_role("button", name="Allow once").click()
        expect(notebook.output(n)).to_contain_text(said, timeout=15_000)
    notebook.run(3)
    expect(notebook.output(3)).to_contain_text("Accept one with", timeout=60_000)
    button = notebook.output(3).get_by_role("button", name=re.compile(r"^Accept \d: shell ls$"))
    button.click(timeout=15_000)
    expect(notebook.output(3).get_by_role("button", name="Allowed: shell ls")).to_be_disabled()
    notebook.output(3).screenshot(path=tmp_path / "suggested.png")
    notebook.run(4)
    expect(notebook.output(4)).to_contain_text("['shell', 'ls']", timeout=15_000)

"""Every path of the card, by mouse and by keyboard alone, in JupyterLab and Notebook 7."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from kits.lab import Notebook, Opener
from playwright.sync_api import Locator, expect

pytestmark = pytest.mark.browser

BEGIN = """
from kits.notebooks import BEGIN
exec(BEGIN)
from mentra_nb.chat.api import conversation
@mn.tool
def peek(where: str) -> str:
    "Look somewhere and make a note."
    return f"seen {where}"
conversation().add_tool(peek)
engine().settings.change("ask", "always", "test")
def ask(question):
    return s.tool_calls([("ask_user", {"question": question, "choices": ["red", "blue"]})])
"""
TURN = """
script(
    *map(shell, ("echo once", "echo no", "echo not", "echo why", "echo five", "%(p)s 1 2", "%(p)s 1 3", "%(p)s 2 3")),
    shell("%(p)s 4 4"), ask("Which?"), ask("Really?"),
    s.tool_calls([("peek", {"where": each}) for each in "abc"]), s.text("Done."),
)
"""
EFFECTS = """
said = [b.display() for m in model.recorded_requests[-1].messages for b in m.content if hasattr(b, "display")]
print(*said, sep="\\n")
engine().settings.sandbox = "auto"
engine().settings.change("ask", "changes", "test")
folder = "%(p)s-" + str(time.time_ns())
lines = "touch {0}.kept", "mkdir {0}; touch {0}/1", "touch {0}/2", "touch {0}.thrown"
script(*(shell(each.format(folder)) for each in lines), s.text("Done."))
"""
LATE = """
import glob
print("there:", sorted(glob.glob(f"{folder}*/**", recursive=True) + glob.glob(f"{folder}.*")))
engine().settings.sandbox = "off"
engine().settings.ask_timeout = 1.5
script(shell("echo late"), s.text("Done."))
"""
STOP = """
engine().settings.ask_timeout = 600
script(shell("echo stop"), s.text("Not said."))
mn.decisions(session="this")[["subject", "outcome", "decided_by"]]
"""
EXPECTED = ["allow user", "deny user", "deny user", *["allow user"] * 5, "allow rule", "allow user", "deny user"]
EXPECTED += [*["allow user"] * 5, "allow rule", "deny user", "deny timeout"]
"""Who decided what, in the order of the calls."""
GONE = "script(shell('echo gone'))"
RESTART = "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
DARK = "() => window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
PROGRAMS = {"lab mouse": "seq", "lab keyboard": "factor", "notebook mouse": "basename", "notebook keyboard": "dirname"}
"""A program for each way, since rules for a project and for all projects outlast a notebook."""


def chooser(card: Locator, label: str) -> Locator:
    return card.locator(".mentra-field:visible", has_text=label).locator("select")


@dataclass
class Mouse:
    """A person with a mouse, and a keyboard for text only."""

    notebook: Notebook

    def press(self, card: Locator, name: str) -> None:
        card.get_by_role("button", name=name, exact=True).click()

    def write(self, card: Locator, label: str, text: str) -> None:
        card.get_by_label(label).click(click_count=3)
        self.notebook.page.keyboard.type(text)

    def take(self, radio: Locator) -> None:
        radio.click()

    def select(self, card: Locator, label: str, value: str) -> None:
        chooser(card, label).select_option(value)  # the page does not draw the list of options

    def go_to(self, card: Locator, n: int) -> None:
        card.locator(".mentra-row").nth(n - 1).click()


@dataclass
class Keyboard:
    """A person with a keyboard alone, which starts at the cell."""

    notebook: Notebook

    def press(self, card: Locator, name: str) -> None:
        self._reach(card.get_by_role("button", name=name, exact=True))
        self.notebook.page.keyboard.press("Enter")

    def write(self, card: Locator, label: str, text: str) -> None:
        self._reach(card.get_by_label(label))
        self.notebook.page.keyboard.press("Control+A")
        self.notebook.page.keyboard.type(text)

    def take(self, radio: Locator) -> None:
        group = radio.page.locator(".mentra-offer input")
        self._reach(group.and_(radio.page.locator(":checked")))
        while not radio.is_checked():
            self.notebook.page.keyboard.press("ArrowDown")

    def select(self, card: Locator, label: str, value: str) -> None:
        chosen = chooser(card, label)
        self._reach(chosen)
        while chosen.input_value() != value:
            self.notebook.page.keyboard.press("ArrowDown")

    def go_to(self, card: Locator, n: int) -> None:
        self._reach(card.locator(".mentra-row").first)
        self.notebook.page.keyboard.press(str(n))

    def _reach(self, control: Locator) -> None:
        """Press Tab until a control has the focus: forwards from the cell, in a circle within the page."""
        for _ in range(60):
            if control.evaluate("node => node === document.activeElement"):
                return
            self.notebook.page.keyboard.press("Tab")
        raise AssertionError(f"Tab does not lead to {control}")


@dataclass
class Looks:
    """Looks at each state of the card in JupyterLab: by axe-core, and as a picture in `folder`."""

    notebook: Notebook
    folder: Path
    on: bool

    def at(self, card: Locator, state: str) -> None:
        if not self.on:
            return
        card.screenshot(path=self.folder / f"{state}.png")
        self.nothing_serious(".mentra-card")

    def nothing_serious(self, where: str) -> None:
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install 'mentra-nb[dev]'").Axe()
        found = axe.run(self.notebook.page, context=where)
        bad = [row for row in found.response["violations"] if row["impact"] in ("serious", "critical")]
        assert not bad, [(row["id"], row["nodes"][0]["html"], row["nodes"][0]["failureSummary"]) for row in bad]


def asks(notebook: Notebook, text: str) -> Locator:
    """Wait for the card of a question that says `text`."""
    expect(notebook.page.locator(".mentra-card").get_by_text(text).first).to_be_visible(timeout=15_000)
    return notebook.card()


def once(hand: Mouse | Keyboard, notebook: Notebook, look: Looks) -> None:
    card = asks(notebook, "echo once")
    look.at(card, "command")
    hand.press(card, "Allow once")
    hand.press(asks(notebook, "echo no"), "Deny")
    card = asks(notebook, "echo not")
    hand.write(card, "Say to the model", "use printf")
    hand.press(card, "Deny and say")
    card = asks(notebook, "echo why")
    hand.write(card, "Say to the model", "go on")
    hand.press(card, "Allow once")
    card = asks(notebook, "echo five")
    hand.press(card, "Change…")
    hand.write(card, "command", "echo 5")
    expect(card.get_by_role("button", name="Always…")).to_be_disabled()
    look.at(card, "changed")
    hand.press(card, "Allow as changed")


def always(hand: Mouse | Keyboard, notebook: Notebook, look: Looks, program: str) -> None:
    rows = ((f"{program} 1 2", "session"), (f"{program} 1 *", "project"), (f"{program} *", "global"))
    for n, (pattern, scope) in enumerate(rows):
        card = asks(notebook, f"{program} {('1 2', '1 3', '2 3')[n]}")
        hand.press(card, "Always…")
        offers = card.get_by_role("radio")
        expect(offers).to_have_count(3)
        hand.take(offers.nth(n))
        expect(card.get_by_label("Pattern")).to_have_value(pattern)
        hand.select(card, "this session", scope)
        look.at(card, f"always-{n}")
        hand.press(card, "Always allow shell for this")


def asked(hand: Mouse | Keyboard, notebook: Notebook, look: Looks) -> None:
    card = asks(notebook, "Which?")
    expect(card.locator(".mentra-title")).to_contain_text(re.compile("^mentra asks[0-9]"))
    expect(card.get_by_role("button", name="Always…")).to_have_count(0)
    hand.select(card, "Your answer", "blue")
    look.at(card, "form")
    hand.press(card, "Send")
    card = asks(notebook, "Really?")
    hand.write(card, "Reason if you decline", "not now")
    hand.press(card, "Decline")


def listed(hand: Mouse | Keyboard, notebook: Notebook, look: Looks) -> None:
    card = asks(notebook, "peek")
    expect(card.locator(".mentra-row")).to_have_count(3)
    hand.go_to(card, 2)
    expect(notebook.page.locator(".mentra-row[aria-current]")).to_contain_text('2  peek: {"where":"b"}')
    card = notebook.card()
    look.at(card, "list")
    hand.press(card, "Allow all 3 alike")


def effects(hand: Mouse | Keyboard, notebook: Notebook, look: Looks) -> None:
    card = asks(notebook, ".kept: created")
    look.at(card, "effect")
    hand.press(card, "Keep")
    card = asks(notebook, "/1: created")
    hand.press(card, "Always…")
    folder = card.get_by_label("Inside these folders")
    hand.write(card, "Pattern", f"touch {folder.input_value()}/?")
    hand.press(card, "Always keep this")
    expect(card.locator(".mentra-status")).to_contain_text("does not cover this call")
    hand.write(card, "Pattern", "*")
    look.at(card, "folders")
    hand.press(card, "Always keep this")
    hand.press(asks(notebook, ".thrown: created"), "Discard")


ALL = [("lab", Keyboard), ("notebook", Mouse), ("lab", Mouse), ("notebook", Keyboard)]
"""The long form, with `MENTRA_CARD=all`, has all four; the short one each app and each way of answering once."""


@pytest.mark.parametrize(("app", "kind"), ALL if os.environ.get("MENTRA_CARD") == "all" else ALL[:2])
def test_every_path_of_the_card(opened: Opener, app: str, kind: type[Mouse] | type[Keyboard], tmp_path: Path) -> None:
    name = PROGRAMS[f"{app} {kind.__name__.lower()}"]
    fill, go = {"p": name}, "%mentra go"
    sources = (BEGIN + TURN % fill, go, EFFECTS % fill, go, LATE, go, STOP, "%mentra rules", go, GONE, go)
    notebook = opened(*sources, app=app)
    hand, look = kind(notebook), Looks(notebook, tmp_path, on=app == "lab")
    if app == "lab" and kind is Keyboard:
        notebook.page.evaluate(DARK)
        notebook.page.wait_for_load_state("networkidle")
    notebook.run_all()
    once(hand, notebook, look)
    always(hand, notebook, look, name)
    asked(hand, notebook, look)
    listed(hand, notebook, look)
    effects(hand, notebook, look)
    asks(notebook, "echo late")
    card = asks(notebook, "echo stop")
    expect(notebook.output(5)).to_contain_text("nobody answered within 1500ms")
    look.nothing_serious(".jp-Notebook .jp-CodeCell .jp-OutputArea-output")
    if app == "notebook":  # which shows nothing more of a cell that runs beyond a reload, but that the card is gone
        notebook.saved()
        notebook.page.reload()
        card = asks(notebook, "echo stop")
    hand.press(card, "Stop")
    expect(notebook.page.locator(".mentra-card")).to_have_count(0, timeout=15_000)
    if app == "lab":
        expect(notebook.output(8)).to_contain_text("Stopped.", timeout=15_000)

    said = notebook.output(2)
    for words in (
        "denied by the user",
        "use printf",
        "the user allowed it and says: go on",
        "the user changed the arguments before allowing it",
        "blue",
        "seen c",
    ):
        expect(said).to_contain_text(words)
    expect(notebook.output(4)).to_contain_text(re.compile(r"there: \['.*\.kept', '.*/', '.*/1', '.*/2'\]"))
    rows = [row.split("\t")[1:] for row in notebook.output(6).locator("tr").all_inner_texts()[1:]]
    assert [row[0] for row in rows[:5]] == ["echo once", "echo no", "echo not", "echo why", "echo 5"]
    assert [" ".join(row[1:]) for row in rows] == EXPECTED
    if app == "notebook":
        notebook.run(9)
        notebook.run(10)
        card = asks(notebook, "echo gone")
        notebook.page.evaluate(RESTART)
        expect(card.locator(".mentra-status")).to_contain_text("The kernel that asked is gone", timeout=10_000)
        expect(card.get_by_role("button", name="Allow once")).to_be_disabled()

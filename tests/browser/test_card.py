"""The approval card in real notebooks: seen, answered, gone."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest
from kits.lab import Opener
from kits.mcp_programs import KIT
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

COMMAND = "git status --short"
SOURCES = ("%load_ext kits.scripted_turn", f"%%turn\n{COMMAND}", "print('SECOND')")


@pytest.mark.parametrize("app", ["lab", "notebook"])
@pytest.mark.parametrize(("button", "line"), [("Allow once", "you, once"), ("Deny", "denied by you")])
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
    assert controls[:6] == ["text", "Allow once", "Always…", "Change…", "Deny", "Stop"]
    # Keys typed into a field are text, not commands of the notebook.
    reason = shown.get_by_label("Say to the model")
    reason.focus()
    cells = notebook.page.locator(".jp-Notebook .jp-Cell").count()
    notebook.page.keyboard.type("add b, a, dd, 00")
    expect(reason).to_have_value("add b, a, dd, 00")
    assert notebook.page.locator(".jp-Notebook .jp-Cell").count() == cells
    for _ in range(4):
        notebook.page.keyboard.press("Tab")
    expect(shown.get_by_role("button", name="Deny and say")).to_be_focused()
    notebook.page.keyboard.press("Enter")
    expect(notebook.output(1)).to_contain_text("denied by you")
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
    expect(notebook.output(1)).to_contain_text("denied by you")


def test_always_offers_the_exact_subject_as_an_editable_pattern(opened: Opener) -> None:
    notebook = opened(*SOURCES[:2], "d = decisions[0]; print(d.remember, d.pattern)")
    notebook.run_all()
    shown = notebook.card()
    shown.get_by_role("button", name="Always…").click()
    pattern = shown.get_by_label("Pattern")
    expect(pattern).to_be_focused()
    expect(pattern).to_have_value(COMMAND)
    proposed = shown.get_by_role("radio")
    expect(proposed).to_have_count(2)
    expect(proposed.first).to_be_checked()
    proposed.last.check()
    expect(pattern).to_have_value("*")
    expect(shown.locator(".mentra-broad")).to_have_text("broad: covers every call")
    pattern.fill("git status*")
    shown.get_by_role("button", name="Always allow").click()
    expect(notebook.output(2)).to_contain_text("session git status*")


def test_a_long_pattern_is_seen_whole_in_a_narrow_window_and_its_button_is_in_sight(
    opened: Opener, tmp_path: Path
) -> None:
    command = f"grep -n {' '.join(f'--include=part-{n}.csv' for n in range(12))} revenue sales"
    notebook = opened(
        SOURCES[0], f'get_ipython().run_cell_magic("turn", "", "{command}")', "print(decisions[0].pattern)"
    )
    notebook.page.set_viewport_size({"width": 700, "height": 620})
    notebook.run_all()
    shown = notebook.card()
    shown.get_by_role("button", name="Always…").click()
    pattern = shown.get_by_label("Pattern")
    expect(pattern).to_have_value(command)
    expect(shown.get_by_role("radio")).to_have_count(2)
    hidden = pattern.evaluate(
        "e => [e.scrollLeft, e.scrollTop, e.scrollHeight - e.clientHeight, e.scrollWidth - e.clientWidth]"
    )
    shown.screenshot(path=tmp_path / "narrow.png")
    assert hidden == [0, 0, 0, 0]
    expect(shown.get_by_role("button", name="Always allow")).to_be_in_viewport(ratio=1)
    pattern.press("Enter")
    expect(notebook.output(2)).to_have_text("None")


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
    expect(shown.locator(".mentra-status")).to_have_text(
        "The kernel that asked is gone: %mentra resume", timeout=10_000
    )
    expect(shown.get_by_role("button", name="Allow once")).to_be_disabled()
    expect(shown.locator(".mentra-left")).to_have_text("")


def test_the_card_of_a_kernel_that_died_says_so_without_a_click(opened: Opener) -> None:
    notebook = opened("import os; print(os.getpid())", *SOURCES)
    notebook.run_all()
    shown = notebook.card()
    os.kill(int(notebook.output(0).inner_text()), signal.SIGKILL)  # the server starts another by itself
    silent = "No answer from the kernel. If it was restarted: %mentra resume"
    expect(shown.locator(".mentra-status")).to_have_text(silent, timeout=10_000)
    expect(shown.get_by_role("button", name="Allow once")).to_be_disabled()
    expect(shown.locator(".mentra-left")).to_have_text("")


def test_a_card_that_waits_is_not_taken_for_one_of_a_dead_kernel(opened: Opener) -> None:
    notebook = opened(*SOURCES)
    notebook.run_all()
    shown = notebook.card()
    notebook.page.wait_for_timeout(5_000)  # longer than a kernel may be silent
    expect(shown.locator(".mentra-status")).to_have_text("")
    shown.get_by_role("button", name="Deny").click()
    expect(notebook.output(1)).to_contain_text("denied by you")


def test_a_card_can_be_answered_once_a_kernel_that_was_silent_goes_on(opened: Opener) -> None:
    notebook = opened("import os; print(os.getpid())", *SOURCES)
    notebook.run_all()
    shown = notebook.card()
    kernel = int(notebook.output(0).inner_text())
    os.kill(kernel, signal.SIGSTOP)  # as in a debugger, or in long code that holds the interpreter's lock
    try:
        expect(shown.get_by_role("button", name="Allow once")).to_be_disabled(timeout=10_000)
    finally:
        os.kill(kernel, signal.SIGCONT)
    expect(shown.get_by_role("button", name="Allow once")).to_be_enabled(timeout=10_000)
    expect(shown.locator(".mentra-status")).to_have_text("")
    shown.get_by_role("button", name="Deny").click()
    expect(notebook.output(2)).to_contain_text("denied by you")
    expect(notebook.output(3)).to_contain_text("SECOND")


# The page's own socket stays open, but nothing more is sent to the kernel.
MUTE = """() => { const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  kernel._ws.send = () => {}; }"""


def test_a_click_that_the_kernel_does_not_answer_is_not_left_as_sent(opened: Opener) -> None:
    notebook = opened(*SOURCES)
    notebook.run_all()
    shown = notebook.card()
    notebook.page.evaluate(MUTE)
    shown.get_by_role("button", name="Allow once").click()
    expect(shown.locator(".mentra-status")).to_have_text("Sent.")
    expect(shown.locator(".mentra-status")).to_have_text(
        "No answer from the kernel. If it was restarted: %mentra resume", timeout=10_000
    )


def test_a_notebook_saved_while_a_question_was_open_says_what_it_waited_for(opened: Opener) -> None:
    notebook = opened(*SOURCES)
    notebook.run_all()
    notebook.card()
    document = notebook.saved()
    rows = [str(output.get("data", {}).get("text/html", "")) for output in document["cells"][1]["outputs"]]
    assert any("waits for your answer; if the kernel is gone: %mentra resume" in row for row in rows)
    notebook.page.evaluate(RESTART)
    notebook.page.reload()
    expect(notebook.output(1)).to_contain_text("waits for your answer", timeout=30_000)
    expect(notebook.page.locator(".mentra-card")).to_have_count(0)


def test_a_card_lost_with_its_page_is_shown_again_by_a_look(opened: Opener) -> None:
    notebook = opened(*SOURCES[:2], "%mentra")
    notebook.run(0)
    expect(notebook.prompt(0)).to_have_text("[1]:", timeout=30_000)
    notebook.run(1)
    notebook.card()
    notebook.page.reload()  # not saved: the running cell has no output any more
    notebook.ready()
    expect(notebook.page.locator(".mentra-card")).to_have_count(0)
    notebook.run(2)
    shown = notebook.card()
    expect(notebook.output(2)).to_contain_text("It asks: Run a command")
    shown.get_by_role("button", name="Deny").click()
    expect(shown).to_have_count(0)


WHERE = "() => document.activeElement.className"


def test_the_keyboard_goes_on_from_the_cell_once_the_card_is_gone(opened: Opener) -> None:
    notebook = opened(*SOURCES)
    notebook.run_all()
    shown = notebook.card()
    shown.get_by_role("button", name="Deny").focus()
    notebook.page.keyboard.press("Enter")
    expect(shown).to_have_count(0)
    assert "jp-Cell" in notebook.page.evaluate(WHERE)


def test_escape_leaves_the_card_and_does_not_answer(opened: Opener) -> None:
    notebook = opened(*SOURCES)
    notebook.run_all()
    shown = notebook.card()
    shown.get_by_label("Say to the model").focus()
    notebook.page.keyboard.press("Escape")
    assert "jp-Cell" in notebook.page.evaluate(WHERE)
    expect(shown).to_have_count(1)
    shown.get_by_role("button", name="Deny").click()


def test_enter_in_a_field_gives_the_answer_that_the_field_is_for(opened: Opener) -> None:
    shows = "print([(d.allow, d.pattern, d.reason) for d in decisions])"
    notebook = opened(SOURCES[0], f"%%turn\n{COMMAND}\nls", shows)
    notebook.run_all()
    shown = notebook.card()
    shown.get_by_role("button", name="Always…").click()
    shown.get_by_label("Pattern").fill("git *")
    notebook.page.keyboard.press("Enter")
    expect(shown.locator(".mentra-arguments")).to_have_text("command: ls")
    notebook.card().get_by_label("Say to the model").fill("not now")
    notebook.page.keyboard.press("Enter")
    expect(notebook.output(2)).to_contain_text("[(True, 'git *', None), (False, None, 'not now')]")


def test_what_a_reviewer_says_is_on_the_card_as_text(opened: Opener) -> None:
    said = "s.text('high\\nIt sends <b>data</b> elsewhere.')"
    notebook = opened(
        f"{REAL}script(shell({COMMAND!r}), {said}, s.text('Done.'))",
        "%config Mentra.reviewer = 'model'",
        "%mentra go",
    )
    notebook.run_all()
    shown = notebook.card()
    advice = "A reviewer says, risk high: It sends <b>data</b> elsewhere. (advice only)"
    expect(shown.get_by_text(advice, exact=True)).to_be_visible()
    expect(shown.get_by_role("button", name="Allow once")).to_be_enabled()
    shown.get_by_role("button", name="Deny", exact=True).click()
    expect(notebook.output(2)).to_contain_text("denied by you")


def test_the_card_is_announced_without_taking_the_focus(opened: Opener) -> None:
    notebook = opened(*SOURCES)
    notebook.run_all()
    shown = notebook.card()
    region = shown.locator("[aria-live=polite].mentra-announced")
    expect(region).to_have_text("mentra asks for permission: Run a command")
    assert region.get_attribute("role") == "status"
    shown.get_by_role("button", name="Deny").click()


REAL = "from kits.notebooks import BEGIN\nexec(BEGIN)\n"
WRITE = """
from pathlib import Path
Path("notes.md").write_text("".join(f"line {n}\\n" for n in range(60)))
hostile = "<img src=x onerror='window.P_diff=1'>"
new = "".join(f"line {n}\\n" if n % 20 else f"changed {n} {hostile}\\n" for n in range(60))
script(s.tool_calls([s.ScriptedCall("write", {"path": "notes.md", "content": new}, "c1")]), s.text("Done."))
"""


def test_a_write_over_a_file_shows_what_would_change(opened: Opener) -> None:
    notebook = opened(REAL + WRITE, "%%mentra\nwrite it")
    notebook.run_all()
    shown = notebook.card()
    expect(shown).to_contain_text("Replace a file of 60 lines")
    expect(shown.locator(".mentra-effect")).to_contain_text("notes.md: replaces 60 lines, +3 −3")
    expect(shown.locator(".mentra-removed")).to_have_text(["-line 0", "-line 20", "-line 40"])
    expect(shown.locator(".mentra-added").first).to_contain_text("<img src=x")
    assert notebook.page.evaluate("() => window.P_diff") is None
    shown.get_by_role("button", name="Always…").click()
    expect(shown.locator("option[value=project]")).to_have_text(f"this project ({notebook.path.parent})")
    shown.get_by_role("button", name="Allow once").click()
    expect(notebook.output(1)).to_contain_text("Done.")
    assert notebook.path.with_name("notes.md").read_text().startswith("changed 0")


RICH = r"""
TEXT = '''# Title

A formula \\(a^2\\), \\[E=mc^2\\] and a [link](https://a.example/).

```python
def f(): return "%s"
```

| a | b |
|---|--:|
| x | 1 |

- [ ] task
''' % ("long " * 60)
script(s.tool_calls([s.ScriptedCall('read', {'path': 'nope'}, 'c0')], text=TEXT), shell('ls'), s.text('x'))
"""


TABLES = """
for line in ("check", "config", "tools", "rules", "sessions"):
    display(get_ipython().run_line_magic("mentra", line))
display(mn.turns(), mn.tool_calls(), mn.decisions(), mn.budgets())
"""


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_axe_finds_nothing_serious_on_a_turn_on_its_card_and_on_tables(opened: Opener, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install 'mentra-nb[dev]'").Axe()
    notebook = opened(REAL + RICH, "%%mentra -v\ngo", WRITE + TABLES, "%%mentra\nwrite it")
    notebook.page.evaluate(f"() => window.jupyterapp.commands.execute('apputils:change-theme', {{theme: '{theme}'}})")
    notebook.page.wait_for_load_state("networkidle")
    notebook.run_all()
    for cell in (1, 3):
        shown = notebook.card()
        shown.get_by_role("button", name="Always…").click()
        found = axe.run(notebook.page, context=".jp-Notebook .jp-CodeCell .jp-OutputArea-output")
        bad = [row for row in found.response["violations"] if row["impact"] in ("serious", "critical")]
        assert not bad, [(row["id"], row["nodes"][0]["html"], row["nodes"][0]["failureSummary"]) for row in bad]
        assert len(found.response["passes"]) > 5
        shown.get_by_role("button", name="Allow once").click()
        expect(notebook.prompt(cell)).not_to_have_text("[*]:")


def test_what_a_command_changed_is_kept_remembered_for_a_folder_or_discarded(opened: Opener, tmp_path: Path) -> None:
    begin = "from kits.notebooks import BEGIN\nexec(BEGIN)\nengine().settings.sandbox = 'auto'\n"
    here = "cat >out/2 <<'EOF'\ntwo\nthree\nEOF\ntouch .gitmodules"
    commands = ("mkdir -p out; echo one >out/1", here, "rm out/1")
    calls = ", ".join(f"shell({command!r})" for command in commands)
    listed = "import os; print(sorted(os.listdir('out')), os.path.exists('.gitmodules'))"
    notebook = opened(begin + f"script({calls}, s.text('Done.'))", "%mentra make them", "%mentra rules", listed)
    notebook.run_all()
    shown = notebook.card()
    expect(shown.locator(".mentra-headline")).to_have_text("Keep what a command changed: 2 files")
    expect(shown.locator(".mentra-effect")).to_contain_text("+ out/1: created, file, 4 bytes")
    expect(shown.locator(".mentra-arguments")).to_be_visible()
    expect(shown.locator(".mentra-arguments")).to_have_text(f"command: {commands[0]}")
    expect(shown.get_by_role("region", name="What it changed")).to_contain_text("+one")
    shown.get_by_role("button", name="Always…").click()
    expect(shown.get_by_label("Inside these folders")).to_have_value("out")
    shown.get_by_label("Pattern").fill("mkdir -p out; echo * >out/*")
    shown.screenshot(path=tmp_path / "always.png")
    shown.get_by_role("button", name="Always keep this").click()
    expect(shown.locator(".mentra-status")).to_contain_text("does not cover this call")
    shown.get_by_label("Pattern").fill(commands[0])
    shown.get_by_role("button", name="Always keep this").click()
    expect(notebook.output(1)).to_contain_text("2 files kept by you, for this session")

    expect(notebook.card().locator(".mentra-effect")).to_contain_text("⚠ it belongs to Git, which runs what is in it")
    expect(notebook.card().get_by_role("button", name="Always…")).to_have_count(0)
    expect(notebook.card().locator(".mentra-diff")).to_contain_text("+three")
    expect(notebook.card().locator(".mentra-arguments")).to_be_hidden()  # it is not shown twice
    notebook.card().get_by_text("cat >out/2 <<'EOF' … 4 more lines of the whole call").click()
    expect(notebook.card().locator(".mentra-arguments")).to_be_visible()
    notebook.card().get_by_role("button", name="Keep", exact=True).click()
    expect(notebook.output(1)).to_contain_text("2 files kept by you")
    expect(notebook.card().locator(".mentra-effect")).to_contain_text("− out/1: deleted, file, 4 bytes")
    notebook.card().get_by_role("button", name="Discard", exact=True).click()
    expect(notebook.output(1)).to_contain_text("1 file discarded, denied by you")
    expect(notebook.output(2)).to_contain_text("keeps what it changes in")
    expect(notebook.output(3)).to_contain_text("['1', '2'] True")


PLAN = f"""import sys
import mentra_nb as mn
from mentra_nb.chat.engine import engine
from mentra_nb.providers.scripted import text, tool_calls
mn.load_ipython_extension(get_ipython())
mn.mcp("kit", command=sys.executable, args=[{str(KIT)!r}, "stdio"])
mn.allow("mcp__kit__plan")
engine().use(mn.ScriptedProvider([tool_calls([("mcp__kit__plan", {{}})]), text("A plan.")]), "scripted")"""


def test_what_an_mcp_server_asks_is_filled_in_on_the_card(opened: Opener) -> None:
    notebook = opened(PLAN, "%mentra plan a trip", "chat = mn.messages(session='this').parts.astype(str).sum(); chat")
    notebook.run_all()
    shown = notebook.card()
    expect(shown).to_contain_text("The MCP server 'kit' asks")
    expect(shown.locator(".mentra-effect")).to_have_text("Where to?")
    expect(shown.get_by_role("button", name="Always…")).to_have_count(0)
    shown.get_by_role("button", name="Send").click()
    expect(shown.locator(".mentra-status")).to_have_text("'City' is needed: fill it in on the card, or type city=…")
    shown.get_by_label("City (needed)").fill("Oslo")
    shown.get_by_label("Days", exact=True).fill("3")
    shown.get_by_label("Sea", exact=True).check()
    shown.get_by_label("Season").select_option("winter")
    shown.get_by_role("button", name="Send").click()
    expect(notebook.output(1)).to_contain_text("A plan.", timeout=30_000)
    expect(notebook.output(2)).to_contain_text("days=3 sea=True season=")


AT_END = """details => {
  details.open = true;
  const box = details.querySelector('div[tabindex]'), text = box.firstElementChild;
  const [shown, whole] = [box, text].map(each => each.getBoundingClientRect());
  return whole.height > 2 * shown.height && whole.bottom <= shown.bottom && whole.bottom > shown.bottom - 30;
}"""


def test_the_fold_of_a_command_shows_the_end_of_its_output_also_after_a_reload(opened: Opener) -> None:
    setup = (
        "from kits.notebooks import BEGIN\nexec(BEGIN)\nmn.allow('shell')\nscript(shell('seq 200'), s.text('Done.'))"
    )
    notebook = opened(setup, "%%mentra\ncount")
    notebook.run_all(wait=True)
    for _ in range(2):
        expect(notebook.output(1)).to_contain_text("Done.", timeout=30_000)
        fold = notebook.output(1).locator("details")
        assert fold.evaluate(AT_END)
        expect(fold.locator("pre").first.locator("span").first).to_have_attribute("style", re.compile("mirror-editor"))
        notebook.saved()
        notebook.page.reload()
        notebook.ready()

"""IPython at a real terminal: text streams, a person is asked, and nothing is shown twice."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pexpect = pytest.importorskip("pexpect", reason="there are no terminals of this kind on Windows")

pytestmark = pytest.mark.kernel

TESTS = Path(__file__).parents[1]


class Terminal:
    """IPython in a pseudo-terminal, with the extension and a scripted model."""

    def __init__(self, folder: Path, *, simple: bool = True) -> None:
        unset = {name: "" for name in os.environ if name.startswith("MENTRA_") or name.endswith("_API_KEY")}
        path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
        own = {"MENTRA_HOME": str(folder / "home"), "IPYTHONDIR": str(folder / "ipython"), "PYTHONPATH": path}
        arguments = ["-m", "IPython", "--no-banner", "--no-confirm-exit", "--colors=nocolor"]
        arguments += ["--simple-prompt"] * simple
        self.child = pexpect.spawn(
            sys.executable,
            arguments,
            cwd=folder,
            env={**os.environ, **unset, **own, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
            encoding="utf-8",
            timeout=30,
            dimensions=(40, 200),
        )
        self.child.setecho(False)
        drawn = "" if simple else r"\x1b\[\d+D\x1b\[\d+C[^\n]*?\x1b\[\?25h"
        self.prompt = rf"In \[\d+\]:{drawn or ' '}"
        self.enter = "\n" if simple else "\r"
        self.child.expect(self.prompt)
        self.run("from kits.notebooks import BEGIN; exec(BEGIN)")

    def run(self, code: str) -> str:
        """Type a line, wait for the next prompt, and return what was written, as the screen shows it in the end."""
        self.child.send(code + self.enter)
        return self.rest()

    def rest(self) -> str:
        self.child.expect(self.prompt)
        return re.sub(r"[^\n]*\r\x1b\[K", "", str(self.child.before).replace("\r\n", "\n"))


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    running = Terminal(tmp_path)
    yield running
    running.child.close(force=True)


def test_text_comes_as_it_is_written_and_the_stop_key_ends_it(terminal: Terminal) -> None:
    terminal.run("script(silent('As I was saying, \\x1b[31mred'))")
    terminal.child.sendline("%mentra tell me")
    terminal.child.expect_exact("As I was saying, ␛[31mred")  # though the model has not finished
    terminal.child.sendintr()
    shown = terminal.rest()
    assert "Stopped." in shown
    assert "\x1b[31m" not in shown


def test_an_answer_has_a_footer_and_no_empty_value(terminal: Terminal) -> None:
    terminal.run("script(s.text('It is *42*.'), s.text('Again.'))")
    shown = terminal.run("%mentra what is it?")
    assert shown.count("It is *42*.") == 1
    assert re.search(r"^scripted/scripted · .*\d\.\d s$", shown, re.MULTILINE)
    assert "Out[" not in shown
    terminal.run("answer = %mentra once more")
    assert "Again." in terminal.run("print(answer.text)")


def test_a_wrong_answer_is_told_what_would_be_right(terminal: Terminal) -> None:
    terminal.run("script(shell('echo forty-two'), s.text('Then not.'))")
    terminal.child.sendline("%mentra what does it say?")
    terminal.child.expect_exact("[a]llow once, al[w]ays, [d]eny, [s]top: ")
    assert "mentra asks: Run a command (shell)" in terminal.child.before
    terminal.child.sendline("what?")
    terminal.child.expect_exact("That is not an answer. Type a, w, d or s, or: deny because REASON")
    terminal.child.expect_exact("[s]top: ")
    terminal.child.sendline("d because no")
    shown = terminal.rest()
    assert "✗ shell  echo forty-two  denied by you: no" in shown
    assert "Then not." in shown
    assert shown.count("echo forty-two") == 1


def test_always_offers_patterns_and_a_wide_one_of_your_own_is_remembered_once_you_know_what_it_covers(
    terminal: Terminal,
) -> None:
    terminal.run("script(shell('git --version'), s.text('Done.'))")
    terminal.child.sendline("%mentra which git?")
    for typed, said in (
        ("w", "  3  git *  ⚠ broad: git -c"),
        ("git -*", "'git -*' is broad: git -c"),
        ("w", "Number, a pattern of your own"),
    ):
        terminal.child.expect_exact(("[s]top: ", "to go back: ")[typed != "w"])
        terminal.child.sendline(typed)
        terminal.child.expect_exact(said)
    terminal.child.expect_exact("to go back: ")
    terminal.child.sendline("git -*")
    assert re.search(r"✓ shell  git --version  .*for this session git -\*", terminal.rest())


def test_values_are_asked_for_one_by_one(terminal: Terminal) -> None:
    call = "('ask_user', {'question': 'Which?', 'choices': ['red', 'blue']})"
    terminal.run(f"script(s.tool_calls([{call}]), s.text('So.'))")
    terminal.child.sendline("%mentra ask me")
    terminal.child.expect_exact("answer=red|blue, or [a]nswer one by one, [d] Decline, [s]top: ")
    terminal.child.sendline("a")
    terminal.child.expect_exact("Your answer (answer): one of red, blue, needed: ")
    terminal.child.sendline("green")
    terminal.child.expect_exact("'Your answer' must be one of red, blue")
    terminal.child.expect_exact("needed: ")
    terminal.child.sendline("blue")
    assert "So." in terminal.rest()
    assert "blue" in terminal.run("print(model.recorded_requests[-1].messages[-1])")


def test_an_allowed_call_is_one_row(terminal: Terminal) -> None:
    terminal.run("script(shell('echo forty-two'), s.text('It says 42.'))")
    terminal.child.sendline("%mentra what does it say?")
    terminal.child.expect_exact("[s]top: ")
    terminal.child.sendline("a")
    shown = terminal.rest()
    assert re.search(r"^✓ shell  echo forty-two  (?:\d\.\d s · )?you, once \d\d:\d\d$", shown, re.MULTILINE)
    assert "I run a command.\n✓" not in shown  # it was written before the question
    assert "It says 42.\n" in shown


def test_a_line_above_the_prompt_says_that_a_background_command_has_ended(tmp_path: Path) -> None:
    """At the prompt as a person has it: what was typed so far stays and is run."""
    (tmp_path / "build.sh").write_text("until [ -e go ]; do sleep 0.01; done; echo built")
    terminal = Terminal(tmp_path, simple=False)
    try:
        call = "s.tool_calls([s.ScriptedCall('background_run', {'command': 'sh build.sh'}, 'call-b')])"
        terminal.run("mn.allow('background_run', 'sh build.sh'); None")
        terminal.run(f"build = {call}")
        terminal.run("script(build, s.text('It runs.'), s.text('Seen.'))")
        assert "It runs." in terminal.run("%mentra build it")
        terminal.child.send("1234 + 1")
        terminal.child.expect_exact("1234 + 1")
        (tmp_path / "go").touch()
        terminal.child.expect_exact("▸ background task bg-1 has ended: the next prompt tells the model\r\n")
        assert "\r\n" not in str(terminal.child.before)
        terminal.child.expect(r"In \[\d+\]: 1234 \+ 1")  # drawn again below the line
        terminal.child.send("\r")
        terminal.child.expect_exact("1235")
        assert "background task" not in str(terminal.child.before)
        terminal.rest()
        assert "Seen." in terminal.run("%mentra and?")
    finally:
        terminal.child.close(force=True)

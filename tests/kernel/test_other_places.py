"""Turns where no Jupyter page is: papermill, nbconvert and marimo as programs, and what VS Code does to a kernel."""

from __future__ import annotations

import ast
import html
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kits.notebooks import Notebook

pytestmark = pytest.mark.kernel

PARAMETERS = "command = 'echo forty-one'"
ASK = """\
import mentra_nb as mn
from mentra_nb.chat.engine import engine
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls
calls = [tool_calls([("shell", {"command": line})]) for line in ("echo forty-one", "echo forty-two")]
engine().use(ScriptedProvider([*calls, text("I have tried.")]), "m")
mn.allow("shell", command)
reply = mn.ask("Say both numbers.")"""
DECIDED = 'print(mn.decisions(session=reply.session)[["outcome", "subject"]].values.tolist())'
MARIMO = """
import marimo

app = marimo.App()


@app.cell
async def asking():
    command = "echo forty-two"
{ask}
    (await mn.aask("Is a cell left free?", model="demo")).text
    reply
    return mn, reply


@app.cell
def decided(mn, reply):
    {decided}


if __name__ == "__main__":
    app.run()
"""


def run(folder: Path, *arguments: str) -> str:
    """Run a module of Python's with a new home and no sandbox, and return what it printed."""
    unset = {name: "" for name in os.environ if name.startswith("MENTRA_") or name.endswith("_API_KEY")}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, **unset, "MENTRA_HOME": str(folder / "home"), "MENTRA_SANDBOX": "off"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def notebook_of(folder: Path) -> Path:
    """Write a notebook that asks, with one parameter: the command that is allowed."""
    made = nbformat.v4.new_notebook()
    made.cells = [nbformat.v4.new_code_cell(source) for source in (PARAMETERS, ASK, "reply", DECIDED)]
    made.cells[0].metadata.tags = ["parameters"]
    made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, folder / "in.ipynb")
    return folder / "in.ipynb"


def said(file: Path) -> tuple[str, dict[str, str]]:
    """Return what a notebook's outputs say, and who decided what: the outcome of each command."""
    outputs = [output for cell in nbformat.read(file, 4).cells for output in cell.get("outputs", [])]
    texts = [str(output.get("text") or output["data"].get("text/plain") or output["data"]) for output in outputs]
    (listed,) = (text for text in texts if text.startswith("[["))
    return "\n".join(texts), {subject: outcome for outcome, subject in ast.literal_eval(listed)}


@pytest.mark.slow
def test_papermill_sets_what_is_allowed_and_what_is_not_is_denied(tmp_path: Path) -> None:
    pytest.importorskip("papermill")
    source = notebook_of(tmp_path)
    run(tmp_path, "papermill", source.name, "out.ipynb", "-p", "command", "echo forty-two", "--no-progress-bar")
    text, outcomes = said(tmp_path / "out.ipynb")
    assert outcomes == {"echo forty-one": "deny", "echo forty-two": "allow"}
    assert "I have tried." in text
    assert "%mentra" in text or "mn.allow(" in text  # how to allow it


@pytest.mark.slow
def test_nbconvert_runs_a_notebook_and_its_page_says_what_was_denied(tmp_path: Path) -> None:
    notebook_of(tmp_path)
    run(tmp_path, "nbconvert", "--execute", "--to", "html", "in.ipynb")
    page = (tmp_path / "in.html").read_text(encoding="utf-8")
    assert "I have tried." in page
    assert "[['allow', 'echo forty-one'], ['deny', 'echo forty-two']]" in html.unescape(page)


@pytest.mark.slow
def test_marimo_shows_an_answer_of_ask_and_of_aask_and_denies_what_no_rule_allows(tmp_path: Path) -> None:
    pytest.importorskip("marimo")
    indented = "\n".join(f"    {line}" for line in ASK.splitlines())
    (tmp_path / "app.py").write_text(MARIMO.format(ask=indented, decided=DECIDED), encoding="utf-8")
    run(tmp_path, "marimo", "export", "ipynb", "app.py", "-o", "out.ipynb", "--include-outputs")
    text, outcomes = said(tmp_path / "out.ipynb")
    assert outcomes == {"echo forty-one": "deny", "echo forty-two": "allow"}
    assert "mentra-text" in text
    assert "I have tried." in text


def test_a_cell_that_awaits_a_turn_gets_its_reply_and_nobody_is_asked(notebook: Notebook) -> None:
    notebook.script("shell('echo hi')", "s.text('Then not.')")
    cell = notebook.run("print((await mn.aask('say hi')).text)")
    assert cell.stdout == "Then not.\n"
    assert "denied" in notebook.said()[-1]


def test_a_cell_does_other_things_while_it_awaits_a_turn(notebook: Notebook) -> None:
    notebook.run("held = s.ControlledStream()")
    notebook.script("held")
    cell = notebook.run(
        "import asyncio\n"
        "asking = asyncio.ensure_future(mn.aask('say hi'))\n"
        "await asyncio.to_thread(engine().call, held.wait_opened)\n"
        "print('meanwhile', asking.done())\n"
        "held.send_answer(s.text('It is here.'))\n"
        "print((await asking).text)"
    )
    assert cell.stdout == "meanwhile False\nIt is here.\n"


def test_a_notebook_of_vs_code_is_named_by_its_file(notebook: Notebook) -> None:
    notebook.script("s.text('one')")
    notebook.run("__vsc_ipynb_file__ = '/home/me/report.ipynb'")
    cell = notebook.send_as("vscode-notebook-cell:/home/me/report.ipynb#W0sZmlsZQ==", "%mentra hello")
    notebook.finish(cell)
    assert cell.status == "ok"
    row: dict[str, Any] = json.loads(notebook.value("mn.turns()[['notebook', 'cell_id']].iloc[-1].to_json()"))
    assert row["notebook"] == "/home/me/report.ipynb"
    assert row["cell_id"].startswith("vscode-notebook-cell:")

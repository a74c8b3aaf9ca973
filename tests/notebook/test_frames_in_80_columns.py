"""Every frame of the package, after a real turn: its text fits in 80 columns, and no whole id is in sight."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kits.shells import loaded_shell

import mentra_nb as mn
from mentra_nb.chat.engine import engine, reset
from mentra_nb.notebook.commands.command import Command
from mentra_nb.notebook.commands.table import COMMANDS
from mentra_nb.providers.scripted import ScriptedProvider, text, tool_calls

ARGUMENTS: dict[str, dict[str, Any]] = {
    "backtest": {"rules": ["allow shell ls*"]},
    "prune": {"keep_days": 1, "dry_run": True},
    "sql": {"text": "SELECT * FROM turns"},
}
"""Of the functions that need some."""
ELSEWHERE = {"columns", "compare", "map"}
"""Functions whose frames hold no text of a model, or are the user's own."""
ID = re.compile(r"\b(session|run|agent|rule|call|effect|request|entry|segment)-[0-9a-f]{8}")
SALES = Path(__file__).parents[2] / "notebooks" / "sales.csv"


def made(function: Any) -> str:
    return str(inspect.signature(function).return_annotation)


FUNCTIONS = [
    name for name in mn.__all__ if inspect.isfunction(getattr(mn, name)) and "DataFrame" in made(getattr(mn, name))
]
TABLES = [
    command for command in COMMANDS if "DataFrame" in made(command.run) and command.words(command.name) is not None
]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A notebook after two turns: one of tools that were allowed, denied and undone, one with a long prompt."""
    folder = tmp_path_factory.mktemp("a folder of a project with a rather long name")
    with pytest.MonkeyPatch.context() as patch, loaded_shell() as shell:
        patch.setenv("MENTRA_HOME", str(folder / "home"))
        patch.chdir(folder)
        reset()
        engine().settings.change("sandbox", "off", "a test")
        calls = [("shell", {"command": "echo one"}), ("shell", {"command": "rm -rf notes " + "and more " * 20})]
        calls += [("write", {"path": "notes.md", "content": "# Notes\n"}), ("read", {"path": "nowhere.txt"})]
        engine().use(ScriptedProvider([tool_calls(calls), text("Done. " * 40), text("Yes.")]), "scripted")
        mn.allow("shell", "echo *")
        mn.allow("write", "notes*", scope="project")
        mn.deny("shell", "rm *", reason="these notes are needed by the people who wrote them")
        mn.ask("What is there to do with " + "the sales of each month and " * 10)
        mn.ask("And then?")
        mn.undo()
        yield shell
        reset()


def check(shell: Any, frame: Any) -> None:
    shown = shell.display_formatter.format(frame)[0]
    table = shown["text/plain"].partition("\n\n[")[0]
    widest = max(table.splitlines(), key=len)
    assert frame.empty or len(widest) <= 80, f"{len(widest)} characters: {widest}"
    for kind in ("text/plain", "text/html"):
        assert ID.search(shown.get(kind, "")) is None, shown[kind]
        assert re.search(r"\b(NaN|NaT|None)\b|<NA>|&lt;NA", shown.get(kind, "")) is None, shown[kind]


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ELSEWHERE])
def test_a_frame_of_a_function_is_read_in_80_columns(shell: Any, name: str) -> None:
    frame = getattr(mn, name)(**ARGUMENTS.get(name, {}))
    assert frame.attrs["mentra_nb"]  # else it is open to MathJax
    check(shell, frame)


@pytest.mark.parametrize("command", TABLES, ids=lambda command: command.name)
def test_a_table_of_a_subcommand_is_read_in_80_columns(shell: Any, command: Command) -> None:
    check(shell, shell.run_line_magic("mentra", command.name))

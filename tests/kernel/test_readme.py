"""The snippets of the README and of `docs`, checked by their marks.

`run` runs here in a kernel, in order; `script` as a program; `install` in a fresh environment (`test_install.py`);
`config` and `prices` are files that are read (`test_docs.py`); `ci` must be in the CI script; `shown` is not run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kits.documents import DOCUMENTS, ROOT, Snippet, snippets
from kits.kernels import Kernel

MARKS = {"run", "script", "install", "config", "prices", "ci", "shown"}
SNIPPETS = snippets()


def marked(mark: str) -> list[Snippet]:
    return [snippet for snippet in SNIPPETS if snippet.mark == mark]


def test_every_snippet_says_how_it_is_checked() -> None:
    assert len(SNIPPETS) > 20
    assert {snippet.mark for snippet in SNIPPETS} == MARKS


def test_the_commands_for_ci_are_what_ci_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    commands = [line for snippet in marked("ci") for line in snippet.body.splitlines()]
    assert commands
    assert [command for command in commands if command not in script] == []


@pytest.mark.slow
@pytest.mark.parametrize("program", marked("script"), ids=lambda snippet: snippet.document)
def test_a_program_runs(program: Snippet, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", program.body],
        cwd=tmp_path,
        env={**os.environ, "MENTRA_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.strip()


@pytest.mark.slow
@pytest.mark.kernel
@pytest.mark.parametrize("document", sorted({snippet.document for snippet in marked("run")}))
def test_the_snippets_marked_run_do(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert document in DOCUMENTS
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path / "home"))
    for name in ("OPENAI_API_KEY", "OPENROUTER_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    kernel = Kernel()
    try:
        kernel.run(f"%cd -q {tmp_path}")
        for snippet in marked("run"):
            if snippet.document != document:
                continue
            cell = kernel.run(snippet.body, allow_stdin=False)
            assert cell.reply is not None
            assert cell.reply["status"] == "ok", (snippet.body, cell.events)
            assert not [event for event in cell.events if event[0] == "error"], snippet.body
    finally:
        kernel.close()


@pytest.mark.slow
@pytest.mark.kernel
def test_the_demo_prints_what_its_cells_say_and_nothing_else(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, ROOT / "notebooks" / "run.py", ROOT / "notebooks" / "01_first_turn.ipynb"],
        env={**os.environ, "MENTRA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(">>> %load_ext mentra_nb")
    assert "wc -l sales.csv" in ran.stdout

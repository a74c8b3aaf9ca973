"""The snippets of the README, checked by their marks.

`run` runs here in a kernel, in order; `script` as a program; `ci` must be in the CI script; `shown` is not run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kits.kernels import Kernel

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(?:<!-- (?P<mark>\w+) -->\n)?```(?P<info>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPETS = [found.groupdict() for found in FENCE.finditer((ROOT / "README.md").read_text(encoding="utf-8"))]


def test_every_snippet_says_how_it_is_checked() -> None:
    assert len(SNIPPETS) > 5
    assert {snippet["mark"] for snippet in SNIPPETS} == {"run", "script", "ci", "shown"}


def test_the_commands_for_ci_are_what_ci_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    commands = [line for s in SNIPPETS if s["mark"] == "ci" for line in s["body"].splitlines()]
    assert commands
    assert [command for command in commands if command not in script] == []


def test_the_program_runs(tmp_path: Path) -> None:
    (program,) = (snippet["body"] for snippet in SNIPPETS if snippet["mark"] == "script")
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "MENTRA_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "Hello."), ran.stderr


@pytest.mark.kernel
def test_the_snippets_marked_run_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path))
    for name in ("OPENAI_API_KEY", "OPENROUTER_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    kernel = Kernel()
    try:
        for snippet in SNIPPETS:
            if snippet["mark"] != "run":
                continue
            cell = kernel.run(snippet["body"], allow_stdin=False)
            assert cell.reply is not None
            assert cell.reply["status"] == "ok", (snippet["body"], cell.events)
            assert not [event for event in cell.events if event[0] == "error"], snippet["body"]
    finally:
        kernel.close()

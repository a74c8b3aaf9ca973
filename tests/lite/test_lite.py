"""In a browser, as Pyodide is: it runs here in Node.js, with what the package index has for it, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from kits.documents import ROOT
from kits.programs import node, pyodide

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LITE = Path(__file__).parent
ROOMS = [
    "tests/event",
    "tests/budget",
    "tests/secrets",
    "tests/test_content.py",
    "tests/test_forms.py",
    "tests/test_words.py",
]
if os.environ.get("MENTRA_LITE") == "all":
    ROOMS += [
        "tests/permission",
        "tests/store",
        "tests/agent",
        "tests/runtime",
        "tests/chat",
        "tests/tools",
        "tests/providers",
    ]
    ROOMS += ["tests/notebook", "tests/namespace", "tests/rows"]
ENOUGH = 0.9
"""The share of the tests that must pass, of those for which there is all that they need."""


def run(*words: str) -> str:
    """Run a file of this folder in Pyodide, with words as its arguments, and return what it printed."""
    found = pyodide()
    if found is None:
        missing = "no Pyodide: run `make pyodide`"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    options = ["--experimental-wasm-jspi", "--stack-size=8000"]
    command = [str(node()), *options, str(LITE / "pyodide.mjs"), *map(str, found), str(ROOT), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, (done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout


def printed(output: str, word: str) -> dict[str, Any]:
    """Return the JSON behind a word that begins a line."""
    (line,) = (line for line in output.splitlines() if line.startswith(f"{word} "))
    found: dict[str, Any] = json.loads(line.removeprefix(f"{word} "))
    return found


def test_the_demo_answers_in_a_browser_and_its_turn_is_on_record() -> None:
    said = printed(run(str(LITE / "demo.py")), "SAID")
    assert said["tools"] == [["read", False]]  # there is no shell in a browser
    assert "2026-03,2400" in said["first"]
    assert "I am still the **demo**" in said["again"]
    assert said["history"] == 8
    assert said["rule"] == "*.csv"
    assert said["waited"] == "I am still the **demo**"
    assert "await mn.aask" in said["streamed"]
    assert {"turn_started", "tool_execution_finished", "turn_finished"} <= set(said["kinds"])


def test_nine_in_ten_of_the_tests_that_a_browser_can_run_pass_there() -> None:
    ends = printed(run(str(LITE / "in_browser.py"), *ROOMS), "ENDS")
    passed, failed = ends["passed"], ends.get("failed", 0)
    print(f"{passed} passed, {failed} failed, {ends.get('absent', 0)} not for a browser: {ends['reasons']}")
    print("\n".join(ends["which"]))
    assert passed > 500
    assert passed / (passed + failed) >= ENOUGH

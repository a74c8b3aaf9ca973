"""The README's installation, in a fresh environment: a checkout, a wheel, and then a first turn."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from kits.documents import ROOT, snippets

INSTALLS = [snippet.body for snippet in snippets() if snippet.mark == "install"]
FIRST_TURN = """
import mentra_nb as mn
print(mn.__file__)
mn.allow("shell", "echo *")
print(mn.ask("What can you do here?", model="demo"))
"""
PARTS = ("mentra_nb", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")


def run(folder: Path, environment: Path, *command: str) -> str:
    """Run a command with the programs of an environment first. Returns what it printed; fails with what it said."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME")}
    programs = os.pathsep.join((str(environment / "bin"), os.environ["PATH"]))
    done = subprocess.run(
        command,
        cwd=folder,
        env={**clean, "PATH": programs, "MENTRA_HOME": str(environment / "home"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "Could not find a version" in done.stderr and os.environ.get("CI") != "true":
        pytest.skip(f"no package index: {done.stderr.strip()[-300:]}")
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform == "win32", reason="the commands are for a POSIX shell")
@pytest.mark.parametrize("commands", INSTALLS, ids=["checkout", "wheel"])
def test_what_is_installed_by_the_readme_answers(commands: str, tmp_path: Path) -> None:
    checkout, environment, elsewhere = tmp_path / "checkout", tmp_path / "environment", tmp_path / "elsewhere"
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
        checkout.mkdir(exist_ok=True)
        copy(ROOT / part, checkout / part)
    elsewhere.mkdir()
    venv.create(environment, with_pip=True, symlinks=True)
    run(checkout, environment, "bash", "-ec", commands)
    shutil.rmtree(checkout)
    where, answer = run(elsewhere, environment, "python", "-c", FIRST_TURN).split("\n", 1)
    assert Path(where).is_relative_to(environment)
    assert "hello from your shell" in answer
    run(elsewhere, environment, "python", "-m", "IPython", "-c", "%load_ext mentra_nb\n%mentra what can you do here?")
    card = {file.suffix for file in Path(where).parent.glob("notebook/approval.*")}
    assert card == {".py", ".js", ".css"}

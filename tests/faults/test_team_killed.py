"""A team whose process is killed: its members come back, no message is lost or read twice, and work is done once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kits import killable_team

pytestmark = pytest.mark.fault

EVERY = 1 if os.environ.get("MENTRA_FAULT_KILLS") else 8
STEPS = (
    *(f"request:{number}" for number in range(4)),
    *("worked:0", "worked:1", "taken:0", "finished:0", "acknowledged:0", "posted:0", "posted:1"),
)
WRITES = 32


def runs(folder: Path, steps: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    program, paths = [sys.executable, killable_team.__file__, str(folder), *steps], os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=environment)
    return {found["at"]: found for found in map(json.loads, done.stdout.splitlines())}


def test_a_killed_team_is_revived_and_its_work_is_done_once(tmp_path: Path) -> None:
    found = runs(tmp_path, STEPS)
    assert list(found) == list(STEPS)
    for at, left in found.items():
        assert left["killed"] == -signal.SIGKILL, at
        assert left["members"] == [["bob", "idle"]], at
        assert left["read"] == 1, at
        assert (left["work"], left["to_lead"], left["to_bob"]) == (["1", "2"], ["Both are done."], 0), at


def test_a_team_that_is_killed_at_any_write_has_done_nothing_twice(tmp_path: Path) -> None:
    steps = tuple(f"write:{number}" for number in range(0, WRITES, EVERY))
    found = runs(tmp_path, steps)
    assert list(found) == list(steps)
    for at, left in found.items():
        assert left["killed"] == -signal.SIGKILL, at
        if left["members"]:
            assert left["members"] == [["bob", "idle"]], at
            assert left["to_bob"] == 0, at
        assert left["read"] in (0, 1), at
        assert left["work"] in ([], ["1"], ["1", "2"]), at
        assert left["to_lead"] in ([], ["Both are done."]), at

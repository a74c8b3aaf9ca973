"""A process is killed at any step of a change to files: the change is finished or taken back, as a whole.

`MENTRA_FAULT_KILLS` makes it kill before and after each call that changes the file system instead of some dozens.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from kits import killable_apply

LONG = bool(os.environ.get("MENTRA_FAULT_KILLS"))
MEMORY = Path("/dev/shm")

pytestmark = [
    pytest.mark.fault,
    pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9"),
    pytest.mark.timeout(3600 if LONG else 120),
]


def test_a_kill_at_any_step_leaves_files_as_before_or_as_afterwards() -> None:
    tests = str(Path(killable_apply.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path])}
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        program = [sys.executable, killable_apply.__file__, folder, *(("1", "40") if LONG else ("29", "1000"))]
        done = subprocess.run(program, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    counts: dict[str, dict[str, int]] = json.loads(done.stdout)
    print(counts)
    assert counts.keys() == killable_apply.SHAPES.keys()
    assert sum(sum(each.values()) for each in counts.values()) > (1_500 if LONG else 60)
    every = {outcome for each in counts.values() for outcome in each}
    assert every >= {"finished", "taken back", "taken back, recovery killed", "entered", "not entered"}
    if LONG:
        ends = [{outcome.partition(",")[0] for outcome in each} for each in counts.values()]
        assert all(each == {"finished", "taken back", "entered", "not entered"} for each in ends)

"""A process is killed at any step of a change to files: the change is finished or taken back, as a whole.

`MENTRA_FAULT_KILLS` makes it kill at every tenth step instead of a few dozen.
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
    pytest.mark.timeout(1200 if LONG else 120),
]


def test_a_kill_at_any_step_leaves_files_as_before_or_as_afterwards() -> None:
    tests = str(Path(killable_apply.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, *sys.path])}
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as folder:
        stride = "10" if LONG else "433"
        program = [sys.executable, killable_apply.__file__, folder, "0", stride]
        done = subprocess.run(program, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    print(counts)
    assert sum(counts.values()) > (300 if LONG else 20)
    assert {kind.partition(",")[0] for kind in counts} == {"finished", "taken back"}

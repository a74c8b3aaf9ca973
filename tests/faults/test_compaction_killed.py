"""A process that is killed around a compaction: nothing that was said is lost, and the conversation goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kits.killable_compaction import QUESTIONS

pytestmark = pytest.mark.fault

EVERY = 1 if os.environ.get("MENTRA_FAULT_KILLS") else 3


def test_a_kill_at_any_write_loses_no_message_and_the_conversation_goes_on(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    program = [sys.executable, "-m", "kits.killable_compaction", str(tmp_path), str(EVERY)]
    done = subprocess.run(program, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) >= 45 // EVERY
    for each in found:
        assert each["answer"] == "seen"
        assert each["asked"][-1] == "and now?"
        asked = each["asked"][:-1]
        assert asked == QUESTIONS[: len(asked)]
        assert len(asked) >= len(each["acknowledged"])
    assert {each["summaries"] for each in found} >= {0, 1}
    assert any(each["sent"] for each in found)

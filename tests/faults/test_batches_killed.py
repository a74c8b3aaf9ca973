"""Maps in batches whose process is killed: nothing is handed in twice, and the next one reads what is there.

With `MENTRA_FAULT_ROWS` of more than 1000 (the long form) over each format, else over the one without our key.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
from kits.batch_server import BatchServer

pytestmark = [
    pytest.mark.fault,
    pytest.mark.timeout(180),
    pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9"),
]
ROWS = 40
Wire = Literal["responses", "anthropic_messages", "gemini_generate_content"]
WIRES: list[Wire] = ["anthropic_messages"]
if int(os.environ.get("MENTRA_FAULT_ROWS", "200")) > 1000:
    WIRES += ["responses", "gemini_generate_content"]

PROGRAM = """
import sys
import mentra_nb as mn
from mentra_nb.rows import batching
batching.FIRST_LOOK = batching.LONGEST_LOOK = 0.05
url, wire, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
mn.connect("lab", url, wire=wire, model="m")
found = mn.map("{value}", [f"row {n}" for n in range(rows)], batch=True, progress=False)
print(int((found.answer == "yes to " + found.value).sum()))
"""


@pytest.mark.parametrize("wire", WIRES)
def test_a_kill_at_any_moment_hands_in_no_row_twice(wire: Wire, tmp_path: Path) -> None:
    """The process dies when its batch was taken but not answered, when it is looked at, and when results are read."""
    environment = {**os.environ, "MENTRA_HOME": str(tmp_path / "home"), "MENTRA_RECORD": str(tmp_path / "record")}
    process: subprocess.Popen[str] | None = None
    moments = ["taken", "looked at", "read"]

    def kill() -> None:
        assert process is not None
        moments.pop(0)
        os.kill(process.pid, signal.SIGKILL)

    def on_call(call: str) -> None:
        is_read = call.endswith(("/content", "/results", ":download"))
        is_look = call.startswith("GET") and not is_read and not call.endswith("/batches")
        if moments and {"taken": False, "looked at": is_look, "read": is_read}[moments[0]]:
            kill()

    with BatchServer(wire, looks=3) as server:
        server.on_batch = lambda batch: kill()
        server.on_call = on_call
        for number in range(4):
            command = [sys.executable, "-c", PROGRAM, server.url, wire, str(ROWS)]
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
            printed = process.communicate(timeout=120)[0]
            assert process.returncode == (-signal.SIGKILL if number < 3 else 0)
    assert int(printed) == ROWS
    assert len(server.batches) == 1
    assert set(server.handed_in.values()) == {1}
    assert server.single == []

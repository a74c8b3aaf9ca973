"""Writers are killed at any moment while others read and compact: nothing acknowledged is lost, nothing is seen twice.

`MENTRA_FAULT_SECONDS` makes the run longer.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mentra_nb.audit import segments, tables

SECONDS = float(os.environ.get("MENTRA_FAULT_SECONDS", "4"))
WRITERS = 3
WRITER = """
import os, sys, time
from pathlib import Path
from mentra_nb.audit.sink import Journal
journal, mark = Journal(Path(sys.argv[1]), max_bytes=200_000), f"{os.getpid()}-{os.urandom(4).hex()}"
for n in range(10**9):
    call = f"{mark}-{n}"
    journal.record_audit_event("a", "tool_execution_started", {"tool_call_id": call, "note": "x" * (n % 300)})
    os.write(1, (call + "\\n").encode())
    time.sleep(0.0003)  # else the reader has too much to read
"""
COMPACTOR = """
import sys, time
from pathlib import Path
from mentra_nb.audit.segments import compact
while True:
    compact(Path(sys.argv[1]), grace=0)
    time.sleep(0.05)
"""


class Writer:
    """A process that prints the name of each event after the journal has taken it."""

    def __init__(self, folder: Path, acknowledged: Path) -> None:
        self.file = acknowledged
        with acknowledged.open("wb") as out:
            self.process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=out)

    def kill(self) -> set[str]:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        whole = self.file.read_bytes().rpartition(b"\n")[0]
        return set(whole.decode().split())

    def wait_until_writing(self) -> None:
        end = time.monotonic() + 60
        while not self.file.stat().st_size:
            assert self.process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)


def calls(folder: Path) -> list[str]:
    return list(tables.sql("SELECT call_id FROM events WHERE kind = 'tool_execution_started'", folder=folder).call_id)


@pytest.mark.fault
@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
@pytest.mark.timeout(120 + 4 * SECONDS)
def test_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path) -> None:
    folder, chance = tmp_path / "record", random.Random(7)
    started = 0

    def start() -> Writer:
        nonlocal started
        started += 1
        return Writer(folder, tmp_path / f"acknowledged-{started}")

    writers = [start() for _ in range(WRITERS)]
    compactor = subprocess.Popen([sys.executable, "-c", COMPACTOR, str(folder)])
    acknowledged: set[str] = set()
    kills = seen = 0
    try:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or kills < WRITERS:
            index = chance.randrange(WRITERS)
            writers[index].wait_until_writing()
            acknowledged |= writers[index].kill()
            kills += 1
            writers[index] = start()
            if chance.random() < 0.3:
                compactor.kill()
                compactor.wait()
                compactor = subprocess.Popen([sys.executable, "-c", COMPACTOR, str(folder)])
            now = calls(folder)
            assert len(now) == len(set(now))
            assert len(now) >= seen
            assert acknowledged <= set(now)
            seen = len(now)
    finally:
        for writer in writers:
            acknowledged |= writer.kill()
        compactor.kill()
        compactor.wait()

    live = calls(folder)
    for thread in threading.enumerate():  # a reader's own compaction: there is one at a time
        if thread.name == "mentra-record-compaction":
            thread.join()
    segments.compact(folder, grace=0)
    segments.compact(folder, grace=0)
    compacted = calls(folder)
    for found in (live, compacted):
        assert len(found) == len(set(found))
        assert acknowledged <= set(found)
    assert len(acknowledged) > 1000
    report = segments.verify(folder)
    assert report.missing.sum() == 0
    assert set(report.state) == {"compacted"}

"""Writers are killed at any moment while others compact, merge and read: nothing acknowledged is lost or seen twice.

`MENTRA_FAULT_KILLS` says how many are killed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mentra_nb.record.keep.compact import compact
from mentra_nb.record.keep.verify import verify
from mentra_nb.record.read import frames
from mentra_nb.record.write import chain, files

KILLS = int(os.environ.get("MENTRA_FAULT_KILLS", "12"))
WRITERS = 4
WRITER = """
import os, sys, time
from pathlib import Path
from mentra_nb.record.write.journal import Journal
journal, mark = Journal(Path(sys.argv[1]), max_bytes=100_000), f"{os.getpid()}-{os.urandom(4).hex()}"
for n in range(10**9):
    call = f"{mark}-{n}"
    journal.record_audit_event("a", "tool_execution_started", {"tool_call_id": call, "note": "x" * (n % 300)})
    os.write(1, (call + "\\n").encode())
    time.sleep(0.001)  # else the reader has too much to read
"""
COMPACTOR = """
import sys, time
from pathlib import Path
from mentra_nb.record.keep.compact import compact
while True:
    compact(Path(sys.argv[1]), grace=0, many=4)
    time.sleep(0.05)
"""
READER = """
import sys, time
from pathlib import Path
from mentra_nb.record.read import frames
seen = reads = 0
while True:
    calls = frames.sql("SELECT call_id FROM events WHERE kind = 'tool_execution_started'", folder=Path(sys.argv[1]))
    assert len(calls) == calls.call_id.nunique(), f"{len(calls) - calls.call_id.nunique()} seen twice"
    assert len(calls) >= seen, f"{seen} were there, now {len(calls)}"
    seen, reads = len(calls), reads + 1
    print(seen, reads, flush=True)
    time.sleep(0.05)
"""


class Helper:
    """A process that is ended with the test, whatever happens."""

    def __init__(self, code: str, folder: Path, out: Path) -> None:
        self.file = out
        with out.open("wb") as stdout:
            self.process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=stdout)

    def kill(self) -> list[str]:
        """What it printed, in whole lines."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return self.file.read_bytes().rpartition(b"\n")[0].decode().splitlines()

    def wait_until_it_works(self) -> None:
        end = time.monotonic() + 60
        while not self.file.stat().st_size:
            assert self.process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.005)


@pytest.fixture
def outputs(tmp_path: Path) -> Iterator[Path]:
    return (tmp_path / f"output-{n}" for n in range(10**6))


def calls(folder: Path) -> list[str]:
    return list(frames.sql("SELECT call_id FROM events WHERE kind = 'tool_execution_started'", folder=folder).call_id)


@pytest.mark.fault
@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
@pytest.mark.timeout(120 + 4 * KILLS)
def test_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path, outputs: Iterator[Path]) -> None:
    folder, chance = tmp_path / "record", random.Random(7)
    writers = [Helper(WRITER, folder, next(outputs)) for _ in range(WRITERS)]
    writers[0].wait_until_it_works()
    compactor, reader = Helper(COMPACTOR, folder, next(outputs)), Helper(READER, folder, next(outputs))
    acknowledged: set[str] = set()
    compactors = 0
    try:
        reader.wait_until_it_works()
        for kill in range(KILLS):
            index = chance.randrange(WRITERS)
            writers[index].wait_until_it_works()
            time.sleep(chance.random() * 0.2)  # the moment it is killed at
            acknowledged |= set(writers[index].kill())
            writers[index] = Helper(WRITER, folder, next(outputs))
            if chance.random() < 0.3:
                compactor.kill()
                compactors += 1
                compactor = Helper(COMPACTOR, folder, next(outputs))
            if kill % 50 == 0:
                assert acknowledged <= set(calls(folder))
            assert reader.process.poll() is None, "the reader saw an event twice, or not any more"
    finally:
        for writer in writers:
            acknowledged |= set(writer.kill())
        compactor.kill()
        *_, last = reader.kill()

    live = calls(folder)
    for thread in threading.enumerate():  # a reader compacts too, and there is one compaction at a time
        if thread.name == "mentra-record-compaction":
            thread.join()
    while compact(folder, grace=0, many=4):
        pass
    compact(folder, grace=0, many=2)
    compacted = calls(folder)
    for found in (live, compacted):
        assert len(found) == len(set(found))
        assert acknowledged <= set(found)
    report = verify(folder)
    assert report.problem.isna().all(), report.dropna(subset="problem").to_string()
    assert report.missing.sum() == 0
    assert set(report.state) == {"compacted"}
    links, broken = chain.read(folder)
    assert broken == []
    assert sum(link.events for link in links) == len(live) + report.lost.sum()
    print(
        f"{KILLS} writers and {compactors} compactors killed: {len(acknowledged)} acknowledged, {len(live)} stored, "
        f"{len(links)} segments in {len(files.named(folder, 'parquet'))} files, {last.split()[1]} reads meanwhile"
    )

"""Reading, writing and compacting the record do not wait for each other; a full disk stops no turn."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mentra_nb.providers import scripted
from mentra_nb.providers.scripted import ScriptedProvider
from mentra_nb.record.keep.compact import compact
from mentra_nb.record.keep.verify import verify
from mentra_nb.record.read import frames
from mentra_nb.record.write.journal import Journal
from mentra_nb.runtime.runtime import Runtime

LIMIT = 0.25
WRITER = """
import sys, time
from pathlib import Path
from mentra_nb.record.write.journal import Journal
print("ready", flush=True)
input()
journal, longest, end = Journal(Path(sys.argv[1]), max_bytes=20_000), 0.0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    began = time.perf_counter()
    journal.record_audit_event("a", "tool_execution_started", {"tool_call_id": "c", "note": "x" * 300})
    longest = max(longest, time.perf_counter() - began)
    time.sleep(0.001)
journal.close()
assert journal.health().lost == 0
print(longest)
"""
READER = """
import sys, time
from pathlib import Path
from mentra_nb.record.write import files
from mentra_nb.record.read import query
print("ready", flush=True)
input()
folder, longest, end = Path(sys.argv[1]), 0.0, time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    began = time.perf_counter()
    with files.commit_lock(folder):
        longest = max(longest, time.perf_counter() - began)
    with query.connection(folder=folder, costs=False) as con:  # a notebook whose query takes its time
        con.execute("SELECT count(*) FROM events").fetchall()
        time.sleep(0.05)
print(longest)
"""
COMPACTOR = """
import sys, time
from pathlib import Path
from mentra_nb.record.keep.compact import compact
print("ready", flush=True)
input()
end, done = time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < end:
    done += compact(Path(sys.argv[1]), grace=0, many=4)
print(done)
"""


def together(folder: Path, seconds: float) -> dict[str, float]:
    """Run all processes at once on one record, from the moment when each is ready. Return what each prints."""
    codes = {"writer": WRITER, "other writer": WRITER, "reader": READER, "compactor": COMPACTOR}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = {
        name: subprocess.Popen([sys.executable, "-c", code, str(folder), str(seconds)], **pipes)
        for name, code in codes.items()
    }
    for process in processes.values():
        assert process.stdout.readline() == "ready\n"
    for process in processes.values():
        process.stdin.write("\n")
        process.stdin.flush()
    return {name: float(process.communicate(timeout=60)[0]) for name, process in processes.items()}


@pytest.mark.fault
def test_reader_writer_and_compactor_do_not_wait_for_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "record"
    Journal(folder).record_audit_event("a", "run_aborted", {"reason": "so that there is a record"})
    for attempt in range(3):  # a busy machine makes anyone wait now and then; whoever waits for a lock always does
        longest = together(folder, 2.0 + attempt)
        assert longest.pop("compactor") > 0
        if max(longest.values()) < LIMIT:
            break
    print({name: f"{seconds * 1000:.1f} ms" for name, seconds in longest.items()})
    assert max(longest.values()) < LIMIT, longest


@pytest.mark.fault
def test_an_open_reader_does_not_keep_a_writer_waiting(tmp_path: Path) -> None:
    from mentra_nb.record.read import query

    folder = tmp_path / "record"
    journal = Journal(folder, max_bytes=2000)
    journal.record_audit_event("a", "run_aborted", {"reason": "x"})
    with query.connection(folder=folder, costs=False) as con:
        began = time.monotonic()
        for _ in range(100):
            journal.record_audit_event("a", "run_aborted", {"reason": "x" * 100})
        journal.sync()
        journal.close()
        assert time.monotonic() - began < 5  # with the reader's lock held all the time
        assert con.execute("SELECT count(*) > 0 FROM events").fetchone() == (True,)
    assert len(frames.events(folder=folder)) == 101


# ---- a full disk -------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = sys.platform == "linux" and shutil.which("mount")
    made = mounted and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], capture_output=True)
    if not made or made.returncode:
        pytest.skip("needs the right to mount a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.fault
def test_a_full_disk_leaves_a_gap_and_runs_unharmed(small_disk: Path) -> None:
    folder = small_disk / "record"
    journal = Journal(folder, max_bytes=100_000)

    async def turns(number: int) -> None:
        provider = ScriptedProvider([scripted.text("An answer.")] * number)
        async with Runtime([provider], audit=journal) as runtime:
            model = (await runtime.list_models())[0]
            for n in range(number):
                agent = await runtime.spawn(f"agent-{n}", model)
                answer = await agent.send("a question " + "x" * 4000)
                assert "An answer." in str(answer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MENTRA_STATE", str(small_disk.parent / "state.sqlite"))
        asyncio.run(turns(150))
        lost = journal.health().lost
        assert lost > 0
        assert not journal.health().alive
        assert compact(folder, grace=0) >= 0  # it may have no room either, and then leaves all as it is
        stored = len(frames.events(folder=folder))
        assert stored == journal.health().written > 0
        subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
        asyncio.run(turns(1))
    assert journal.health().alive
    gaps = frames.sql("SELECT lost FROM events WHERE kind = 'journal_gap'", folder=folder)
    assert gaps.lost.sum() == lost
    journal.close()
    report = verify(folder)
    assert report.problem.isna().all(), report.problem.dropna().to_list()
    assert report.missing.sum() == 0
    assert report.lost.sum() == lost
    compact(folder, grace=0)
    assert set(verify(folder).state) == {"compacted"}

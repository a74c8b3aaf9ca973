"""Compaction, merging and pruning: every event is found exactly once throughout."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from kits.records import problems, seen, write

from mentra_nb.errors import ConfigurationError, StoreError
from mentra_nb.record.keep.compact import compact
from mentra_nb.record.keep.prune import prune
from mentra_nb.record.keep.verify import verify
from mentra_nb.record.read import frames, views
from mentra_nb.record.write import chain, files
from mentra_nb.record.write.journal import Journal

pytestmark = pytest.mark.slow


def parquet(folder: Path) -> list[Path]:
    return files.named(folder, "parquet")


def many(folder: Path, number: int) -> list[str]:
    names = [write(folder, f"{n}-a", f"{n}-b") for n in range(number)]
    compact(folder, grace=0)
    compact(folder, grace=0)
    assert len(parquet(folder)) == number
    return names


# ---- merging -----------------------------------------------------------------------------------------------------


def test_small_files_are_merged_and_hold_the_same_events(folder: Path) -> None:
    names = many(folder, 5)
    before = frames.events(folder=folder)
    compact(folder, many=6)
    assert len(parquet(folder)) == 5
    compact(folder, many=5)
    (merged,) = parquet(folder)
    pd.testing.assert_frame_equal(frames.events(folder=folder), before)
    report = verify(folder)
    assert list(report.segment) == names
    assert set(report.state) == {"compacted"}
    assert report.problem.isna().all()
    write(folder, "later")
    compact(folder, grace=0)
    compact(folder, grace=0, many=2)
    assert len(parquet(folder)) == 1
    assert parquet(folder) != [merged]
    assert problems(folder) == {}
    assert len(seen(folder)) == 11


def test_files_above_a_size_are_not_merged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many(folder, 4)
    size = max(map(files.size, parquet(folder)))
    monkeypatch.setattr("mentra_nb.record.keep.compact.MERGED_FILE", 2 * size)
    compact(folder, many=2)
    assert len(parquet(folder)) == 2
    monkeypatch.setattr("mentra_nb.record.keep.compact.SMALL_FILE", size)
    compact(folder, many=2)
    assert len(parquet(folder)) == 2


def test_an_event_altered_in_a_merged_file_is_found_at_its_segment(folder: Path) -> None:
    names = many(folder, 4)
    compact(folder, many=2)
    (merged,) = parquet(folder)
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE t AS FROM '{merged}'")
        con.execute(f"COPY (SELECT * REPLACE (replace(payload, '2-b', '2-x') AS payload) FROM t) TO '{merged}'")
    assert problems(folder) == {names[2]: "was altered since it was sealed"}


def test_a_file_that_was_altered_or_is_broken_is_not_merged(folder: Path) -> None:
    names = many(folder, 5)
    altered, broken = (folder / "events" / f"{name}.parquet" for name in names[:2])
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE t AS FROM '{altered}'")
        con.execute(f"COPY (SELECT * REPLACE (replace(payload, '0-b', '0-x') AS payload) FROM t) TO '{altered}'")
    broken.write_bytes(broken.read_bytes()[:-9])
    compact(folder, many=2)
    assert len(parquet(folder)) == 3
    assert altered.exists()
    assert broken.exists()
    assert set(problems(folder)) == set(names[:2])


def test_older_parquet_gets_the_current_columns_when_it_is_merged(folder: Path) -> None:
    many(folder, 2)
    old = parquet(folder)[0]
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE t AS SELECT * EXCLUDE (reason) FROM '{old}'")
        con.execute(f"COPY t TO '{old}' (FORMAT parquet)")
    assert pd.isna(seen(folder)[0])
    compact(folder, many=2)
    assert seen(folder) == ["0-a", "0-b", "1-a", "1-b"]
    assert problems(folder) == {}


@pytest.mark.parametrize("done", [0, 1, 2, 3])
def test_an_interrupted_merge_is_finished_by_the_next_reader(folder: Path, done: int) -> None:
    many(folder, 3)
    small = parquet(folder)
    new = folder / "events" / "01a1fcd8-b73e-7b01-b397-2246a46a9c07.tmp"
    with duckdb.connect() as con:
        con.execute(f"COPY (FROM read_parquet({[str(file) for file in small]})) TO '{new}' (FORMAT parquet)")
    plan = {"put": {new.name: f"{new.stem}.parquet"}, "remove": [file.name for file in small]}
    (folder / "events" / ".change").write_text(json.dumps(plan))
    if done:
        new.replace(new.with_suffix(".parquet"))
    for file in small[: done - 1] if done else ():
        file.unlink()
    assert len(seen(folder)) == 6
    assert [file.stem for file in parquet(folder)] == [new.stem]
    assert not (folder / "events" / ".change").exists()
    assert problems(folder) == {}


@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
def test_upkeep_killed_at_any_moment_loses_and_duplicates_nothing(folder: Path) -> None:
    notes = [f"{n}-{note}" for n in range(12) for note in "ab"]
    for n in range(12):
        write(folder, f"{n}-a", f"{n}-b")
    code = f"""
from pathlib import Path
from mentra_nb.record.keep.compact import compact
import duckdb, os
os.write(1, b"x")
while True:
    compact(Path({str(folder)!r}), grace=0, many=2)
"""
    chance = random.Random(11)
    for _ in range(12):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout
        process.stdout.read(1)
        time.sleep(chance.random() * 0.15)  # the moment it is killed at
        process.kill()
        process.wait()
        process.stdout.close()
        assert sorted(seen(folder)) == sorted(notes)
        assert problems(folder) == {}
    for _ in range(3):
        compact(folder, grace=0, many=2)
    assert len(parquet(folder)) == 1
    assert sorted(seen(folder)) == sorted(notes)


def test_a_slow_query_blocks_others_only_until_a_timeout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_TIMEOUT", 0.05)
    name = write(folder, "a")
    with files.commit_lock(folder):
        with pytest.raises(StoreError, match="another process has been using the record"):
            compact(folder, grace=0)
        with pytest.raises(StoreError, match="another process has been using the record"):
            prune(keep_days=0, folder=folder)
        assert [file.stem for file in files.named(folder, "jsonl")] == [name]
    with files.held(folder / "events" / ".compact", wait=0), pytest.raises(StoreError, match="compacting"):
        prune(keep_days=0, folder=folder)
    with files.held(folder / "events" / ".chain", wait=0):
        journal = Journal(folder)
        journal.record_audit_event("agent-1", "run_aborted", {"reason": "b"})
        journal.close()
    assert "another process" in (journal.health().last_error or "")
    assert (journal.health().written, journal.health().lost) == (1, 0)
    compact(folder)  # links what could not be
    assert len(chain.read(folder)[0]) == 2
    assert seen(folder) == ["a", "b"]
    assert problems(folder) == {}


# ---- what is removed ---------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_removed_and_removes_nothing(folder: Path) -> None:
    names = many(folder, 2)
    late = write(folder, "late")
    listing = sorted((folder / "events").iterdir())
    would = prune(keep_days=0, dry_run=True, folder=folder)
    assert list(would.segment) == [*names, late]
    assert list(would.events) == [2, 2, 1]
    assert str(would["last"].dtype) == "datetime64[us, UTC]"
    assert datetime.now(UTC) - would["first"].min() < timedelta(minutes=1)
    assert sorted((folder / "events").iterdir()) == listing
    assert prune(keep_days=1, dry_run=True, folder=folder).empty
    assert len(seen(folder)) == 5


@pytest.mark.parametrize("merged", [False, True])
def test_older_segments_are_removed_and_the_chain_stays_whole(folder: Path, merged: bool) -> None:
    names = many(folder, 4)
    if merged:
        compact(folder, many=2)
    cut = chain.read(folder)[0][2].first
    before = datetime.fromtimestamp(cut, UTC)
    gone = prune(before=before, folder=folder)
    assert list(gone.segment) == names[:2]
    assert seen(folder) == ["2-a", "2-b", "3-a", "3-b"]
    report = verify(folder)
    assert dict(zip(report.segment, report.state, strict=True)) == {
        **dict.fromkeys(names[2:], "compacted"),
        **dict.fromkeys(names[:2], "pruned"),
    }
    assert report.problem.isna().all()
    assert len(parquet(folder)) == (1 if merged else 2)
    assert prune(before=before, folder=folder).empty
    assert len(prune(keep_days=0, folder=folder)) == 2
    assert seen(folder) == []
    assert parquet(folder) == []
    assert problems(folder) == {}


def test_text_is_removed_too_and_a_segment_being_written_stays(folder: Path) -> None:
    done = write(folder, "done")
    journal = Journal(folder)
    journal.record_audit_event("agent-1", "run_aborted", {"reason": "still"})
    code = f"""
import os, signal
from pathlib import Path
from mentra_nb.record.write.journal import Journal
Journal(Path({str(folder)!r})).record_audit_event("a", "run_aborted", {{"reason": "killed"}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    gone = prune(keep_days=0, folder=folder)
    assert len(gone) == 2
    assert gone.segment[0] == done
    assert seen(folder) == ["still"]
    journal.close()
    assert problems(folder) == {}
    assert sorted(verify(folder).state) == ["complete", "pruned", "pruned"]


def test_an_interrupted_prune_is_finished(folder: Path) -> None:
    names = many(folder, 2)
    links, _ = chain.read(folder)
    (folder / "events" / ".pruning").touch()
    chain.append(folder, [chain.Link("pruned", names[0], 2, links[0].first, links[0].last, links[0].sha256)])
    assert problems(folder) == {names[0]: "was pruned and is still there; the next compaction removes it"}
    compact(folder)
    assert seen(folder) == ["1-a", "1-b"]
    assert problems(folder) == {}


@pytest.mark.parametrize("given", [{}, {"before": "2026-01-01", "keep_days": 3}, {"before": "yesterday"}])
def test_a_prune_without_one_clear_time_is_refused(folder: Path, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        prune(folder=folder, **given)


def test_a_prune_of_no_record_is_an_empty_frame(folder: Path) -> None:
    gone = prune(keep_days=0, folder=folder)
    assert list(gone.columns) == ["segment", "events", "first", "last"]
    assert gone.empty
    assert not folder.exists()


# ---- modes, health -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_every_file_of_the_record_is_private(folder: Path) -> None:
    old = os.umask(0)
    try:
        many(folder, 3)
        views.write_database(folder)
        write(folder, "text")
        frames.usage(folder=folder)
        compact(folder, many=2)
        prune(before=datetime.fromtimestamp(chain.read(folder)[0][1].first, UTC), folder=folder)
        frames.events(folder=folder)
    finally:
        os.umask(old)
    everything = [folder, *folder.rglob("*")]
    kinds = {path.suffix for path in everything}
    assert {".jsonl", ".parquet", ".duckdb", ".lock"} <= kinds
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in everything if path.is_dir()} == {
        "record": "0o700",
        "events": "0o700",
    }
    assert {path.name for path in everything if path.is_file() and stat.S_IMODE(path.stat().st_mode) != 0o600} == set()


def test_health_says_what_is_there(folder: Path) -> None:
    journal = Journal(folder)
    empty = journal.health()
    assert (empty.alive, empty.written, empty.writing, empty.chain_links) == (True, 0, 0, 0)
    assert empty.disk_free
    assert not folder.exists()
    many(folder, 2)
    write(folder, "waiting")
    journal.record_audit_event("agent-1", "run_aborted", {"reason": "x"})
    (folder / "events" / "notes.txt").write_text("mine")
    health = journal.health()
    assert (health.alive, health.written, health.lost, health.last_error) == (True, 1, 0, None)
    assert (health.writing, health.waiting, health.parquet) == (1, 1, 2)
    assert health.writing_bytes == (folder / "events" / f"{health.segment}.jsonl").stat().st_size
    assert health.waiting_bytes > 0
    assert health.parquet_bytes == sum(map(files.size, parquet(folder)))
    assert health.foreign == ("notes.txt",)
    assert (health.chain_links, health.chain_head, health.chain_sound) == (3, chain.head(folder), True)
    journal.close()
    (folder / "chain.jsonl").write_bytes(b"{}\n")
    assert not journal.health().chain_sound

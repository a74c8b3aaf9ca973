"""Files that must survive a power cut are synced in the right order: a fake `files.sync` records the calls."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mentra_nb.record.keep.compact import compact
from mentra_nb.record.parquet import connection, write_parquet
from mentra_nb.record.write import chain, files
from mentra_nb.record.write.journal import Journal

pytestmark = pytest.mark.slow


@dataclass
class Syncs:
    """The files and folders that were synced, in order: the name, and the size at that time."""

    root: Path
    done: list[tuple[str, int]] = field(default_factory=list)
    before: Callable[[str], object] = lambda name: None
    """Called with the name before each sync is noted."""
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __call__(self, fd: int, *, folder: bool = False) -> None:
        found = os.fstat(fd)
        places = [self.root, *self.root.rglob("*")]
        (place,) = [place for place in places if os.path.samestat(place.stat(), found)]
        assert place.is_dir() == folder
        name = place.name if place.stem.startswith(".") or folder else place.name.replace(place.stem, "*")
        name = place.name if place.name in ("chain.jsonl", "x.parquet") else name
        self.before(name)
        with self.changed:
            self.done.append((name, found.st_size if not folder else 0))
            self.changed.notify_all()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.done]


@pytest.fixture
def syncs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Syncs:
    folder.mkdir()
    found = Syncs(folder)
    monkeypatch.setattr(files, "sync", found)
    return found


def size(folder: Path, kind: str) -> int:
    (file,) = files.named(folder, kind)
    return files.size(file)


def wait_for(syncs: Syncs, names: list[str]) -> None:
    with syncs.changed:
        assert syncs.changed.wait_for(lambda: syncs.names == names, 30), syncs.names


@pytest.mark.parametrize("is_folder", [False, True])
def test_sync_asks_the_operating_system(is_folder: bool) -> None:
    read, write = os.pipe()
    try:
        with pytest.raises(OSError, match=r"Invalid argument|not supported"):  # as it answers for a pipe
            files.sync(write, folder=is_folder)
    finally:
        os.close(read)
        os.close(write)


def test_those_that_wait_for_a_sync_share_the_next_one(folder: Path, syncs: Syncs) -> None:
    journal, go_on, waiting = Journal(folder, sync_every=1000), threading.Event(), threading.Barrier(11)
    journal.record_audit_event("a", "run_aborted", {"reason": "x"})
    wait_for(syncs, [".known", "events", "*.jsonl"])  # by the thread
    syncs.before = lambda name: go_on.wait(30)

    def store_and_sync() -> None:
        journal.record_audit_event("a", "run_aborted", {"reason": "x"})
        waiting.wait(30)
        journal.sync()

    threads = [threading.Thread(target=store_and_sync) for _ in range(10)]
    for thread in threads:
        thread.start()
    waiting.wait(30)
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert syncs.names[3:] == ["*.jsonl"]
    assert syncs.done[-1] == ("*.jsonl", size(folder, "jsonl"))
    journal.close()


def test_a_journal_syncs_its_segment_and_once_the_folder(folder: Path, syncs: Syncs) -> None:
    journal = Journal(folder, sync_every=1000)
    journal.record_audit_event("a", "run_aborted", {"reason": "x"})
    wait_for(syncs, [".known", "events", "*.jsonl"])  # by the thread
    assert syncs.done[2] == ("*.jsonl", size(folder, "jsonl"))
    journal.record_audit_event("a", "run_aborted", {"reason": "y"})
    journal.sync()
    assert syncs.names == [".known", "events", "*.jsonl", "*.jsonl"]
    assert syncs.done[3] == ("*.jsonl", size(folder, "jsonl"))
    journal.close()


def test_the_thread_syncs_again_after_later_events(folder: Path, syncs: Syncs) -> None:
    journal = Journal(folder, sync_every=0.01)
    for n in range(3):
        journal.record_audit_event("a", "run_aborted", {"reason": "x"})
        wait_for(syncs, [".known", "events", *["*.jsonl"] * (n + 1)])
        assert syncs.done[-1] == ("*.jsonl", size(folder, "jsonl"))
    journal.close()


def test_a_sealed_segment_is_on_disk_before_its_link_and_the_link_before_close_returns(
    folder: Path, syncs: Syncs
) -> None:
    heads = {}
    syncs.before = lambda name: heads.setdefault(len(syncs.done), chain.head(folder))
    journal = Journal(folder, sync_every=1000)
    journal.record_audit_event("a", "run_aborted", {"reason": "x"})
    wait_for(syncs, [".known", "events", "*.jsonl"])
    del syncs.done[:]
    heads.clear()
    journal.close()
    assert syncs.names[-2:] == ["*.jsonl", "chain.jsonl"]
    assert syncs.done[-2:] == [
        ("*.jsonl", size(folder, "jsonl")),
        ("chain.jsonl", files.size(folder / "chain.jsonl")),
    ]
    assert [heads[n] for n in range(len(syncs.done))][-2:] == [None, chain.head(folder)]


def test_each_appended_link_is_on_disk_when_append_returns(folder: Path, syncs: Syncs) -> None:
    files.make_folder(folder)
    for n in range(2):
        chain.append(folder, [chain.Link("sealed", str(n), 1, 0.0, 0.0, "x")])
        assert syncs.done[n:] == [("chain.jsonl", files.size(folder / "chain.jsonl"))]


def test_the_plan_of_a_change_is_on_disk_before_a_file_is_touched(folder: Path, syncs: Syncs) -> None:
    events = files.make_folder(folder)
    new, target, old = events / "new.tmp", events / "x.parquet", events / "old.jsonl"
    new.write_text("rows")
    old.write_text("lines")
    there: list[list[str]] = []
    syncs.before = lambda name: there.append(sorted(path.name for path in events.iterdir() if path.name[0] != "."))
    files.change(folder, put={new: target}, remove=[old])
    assert syncs.names == [".change.tmp", "events", "events"]
    assert syncs.done[0][1] > 0
    assert there == [["new.tmp", "old.jsonl"], ["new.tmp", "old.jsonl"], ["x.parquet"]]


def test_parquet_is_on_disk_before_it_takes_its_name(folder: Path, syncs: Syncs) -> None:
    with connection() as con:
        write_parquet(con, "SELECT 1 AS number", folder / "x.parquet")
    assert syncs.done == [("*.tmp", files.size(folder / "x.parquet")), ("record", 0)]


def test_a_compacted_segment_is_on_disk_before_the_change_is_planned(folder: Path, syncs: Syncs) -> None:
    journal = Journal(folder)
    journal.record_audit_event("a", "run_aborted", {"reason": "x"})
    journal.close()
    del syncs.done[:]
    assert compact(folder, grace=0) == 1
    assert syncs.names == ["*.tmp", ".change.tmp", "events", "events"]
    assert syncs.done[0][1] == size(folder, "parquet")

"""Files that are torn, damaged or not ours: they are named, the rest is read, and nothing is overwritten."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path

import pytest
from kits.records import problems, seen, write

from mentra_nb.errors import StoreError
from mentra_nb.record.keep.compact import compact
from mentra_nb.record.keep.verify import verify
from mentra_nb.record.read import frames, views
from mentra_nb.record.write import files
from mentra_nb.record.write.journal import Journal

pytestmark = pytest.mark.slow


def text(folder: Path, *notes: str) -> Path:
    """A sealed segment with an event for each note."""
    return folder / "events" / f"{write(folder, *notes)}.jsonl"


def parquet(folder: Path, *notes: str) -> Path:
    segment = text(folder, *notes)
    compact(folder, grace=0)
    compact(folder, grace=0)
    return segment.with_suffix(".parquet")


@pytest.mark.parametrize(
    "junk",
    [
        b'{"id":"01a1fbe9-7f85-719e-9a62-192db57fbea3","ts":17882',
        b"\x00" * 4096,
        b"\xff\xfe\n{}\n[1]\nnull\n\n",
        b'{"id":"no id","ts":"x","seq":[],"source":1,"v":{},"scope":null,"event_type":7,"payload":3}\n',
    ],
)
def test_lines_that_are_not_events_are_skipped_and_counted(folder: Path, junk: bytes) -> None:
    file = text(folder, "a", "b")
    other = text(folder, "c")
    first, second = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + junk + b"\n" + second + junk)
    content = file.read_bytes()
    assert seen(folder) == ["a", "b", "c"]
    report = verify(folder).set_index("segment")
    assert report.bad_lines[file.stem] >= 1
    assert report.events[file.stem] == 2
    assert report.bad_lines[other.stem] == 0
    assert file.read_bytes() == content
    compact(folder, grace=0)
    assert seen(folder) == ["a", "b", "c"]
    assert problems(folder) == {}


def test_a_gap_is_reported_and_counted(folder: Path) -> None:
    (folder.parent / "record").write_text("in the way")
    journal = Journal(folder)
    journal.record_audit_event("agent-1", "run_aborted", {"reason": "lost"})
    folder.unlink()
    journal.record_audit_event("agent-1", "run_aborted", {"reason": "kept"})
    journal.close()
    assert seen(folder) == ["kept"]
    gap = frames.sql("SELECT lost, reason FROM events WHERE kind = 'journal_gap'", folder=folder)
    assert (list(gap.lost), "Not a directory" in gap.reason[0]) == ([1], True)
    assert list(verify(folder).lost) == [1]


@pytest.mark.parametrize(
    "harm",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-20],
        lambda whole: whole[:-6] + b"\xff" + whole[-5:],
        lambda whole: b"",
        lambda whole: b"not Parquet at all",
    ],
)
def test_a_broken_parquet_file_is_named_and_the_rest_is_read(folder: Path, harm: object) -> None:
    broken = parquet(folder, "a", "b")
    parquet(folder, "c")
    write(folder, "d")
    whole = broken.read_bytes()
    broken.write_bytes(harm(whole))  # type: ignore[operator]
    content = broken.read_bytes()
    with pytest.warns(RuntimeWarning, match=f"left out damaged files of.*{broken.name}"):
        assert seen(folder) == ["c", "d"]
    assert "cannot be read" in problems(folder)[broken.stem]
    compact(folder, grace=0, many=2)
    assert broken.read_bytes() == content
    broken.write_bytes(whole)  # put back from a backup
    assert seen(folder) == ["a", "b", "c", "d"]
    assert problems(folder) == {}


def test_a_file_that_fails_while_it_is_read_is_named_and_then_left_out(folder: Path) -> None:
    broken, other = parquet(folder, *(f"note {n}" for n in range(300))), parquet(folder, "other")
    whole, chance, found = broken.read_bytes(), random.Random(4), 0
    for at in chance.sample(range(4, len(whole) - 2000), 40):  # before the footer
        broken.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :])
        os.utime(broken, ns=(at, at))  # so that it is not taken for the damaged file before
        message = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of those that fail when they are opened
            try:
                frames.events(folder=folder)
            except StoreError as error:
                message = str(error)
        if message:
            found += 1
            assert broken.name in message
            assert other.name not in message
            with pytest.warns(RuntimeWarning, match=broken.name):
                assert list(frames.events(folder=folder).reason) == ["other"]
    assert found > 3


def test_files_that_are_not_ours_are_not_read_and_not_touched(folder: Path) -> None:
    mine = parquet(folder, "a")
    write(folder, "b")
    strange = {
        "notes.jsonl": b'{"id":"01a1fbe9-7f85-719e-9a62-192db57fbea3","ts":1,"payload":{"kind":"run_aborted"}}\n',
        "copy of a.parquet": mine.read_bytes(),
        "broken.parquet": b"PAR1",
        "empty.jsonl": b"",
        "image.png": b"\x89PNG",
    }
    for name, content in strange.items():
        (folder / "events" / name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert seen(folder) == ["a", "b"]
    assert set(problems(folder)) == set(strange) == set(files.foreign(folder))
    compact(folder, grace=0, many=2)
    views.write_database(folder)
    import duckdb

    with duckdb.connect(str(folder / "record.duckdb"), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM events").fetchone() == (2,)
    assert {name: (folder / "events" / name).read_bytes() for name in strange} == strange


@pytest.mark.parametrize(
    "plan",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"put": {}}',
        b'{"put": [], "remove": []}',
        b'{"put": {}, "remove": 3}',
        b'{"put": {"a": 1}, "remove": []}',
        b'{"put": {}, "remove": ["../chain.jsonl"]}',
        b'{"put": {"../chain.jsonl": "x"}, "remove": []}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_plan_of_a_change_is_set_aside_and_queries_go_on(
    folder: Path, plan: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    name = write(folder, "a")
    (folder / "events" / ".change").write_bytes(plan)
    with caplog.at_level("WARNING"):
        assert seen(folder) == seen(folder) == ["a"]
    assert [".change was damaged and is set aside" in record.message for record in caplog.records] == [True]
    assert problems(folder) == {".change.damaged": "is not a file of the record, and is not read"}
    assert (folder / "chain.jsonl").exists()
    assert compact(folder, grace=0) == 1
    assert files.named(folder, "parquet")[0].stem == name

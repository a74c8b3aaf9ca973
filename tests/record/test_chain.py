"""The chain of digests: the links, and every way in which the record can differ from what was written."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kits.records import problems, write

from mentra_nb.record.keep.compact import compact
from mentra_nb.record.keep.verify import verify
from mentra_nb.record.write import chain, files
from mentra_nb.record.write.journal import Journal

pytestmark = pytest.mark.slow


def links(folder: Path) -> list[chain.Link]:
    found, broken = chain.read(folder)
    assert broken == []
    return found


def text_of(folder: Path, name: str) -> Path:
    return folder / "events" / f"{name}.jsonl"


# ---- links -------------------------------------------------------------------------------------------------------


def test_a_sealed_segment_has_a_link_with_the_digest_of_its_lines(folder: Path) -> None:
    first, second = write(folder, "a", "b"), write(folder, "c")
    one, two = links(folder)
    assert (one.kind, one.segment, one.events, one.previous) == ("sealed", first, 2, None)
    assert (two.segment, two.events, two.previous) == (second, 1, one.digest)
    assert one.sha256 == hashlib.sha256(text_of(folder, first).read_bytes()).hexdigest()
    written = [json.loads(line)["ts"] for line in text_of(folder, first).read_text().splitlines()]
    assert [one.first, one.last] == written
    assert chain.head(folder) == two.digest
    assert [row["digest"] for row in chain.chain_rows(folder)] == [one.digest, two.digest]
    assert problems(folder) == {}


def test_full_and_old_segments_are_sealed_by_themselves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append, linked = chain.append, threading.Condition()

    def note(*args: Any) -> None:
        with linked:
            append(*args)
            linked.notify_all()

    monkeypatch.setattr(chain, "append", note)
    journal = Journal(folder, max_bytes=1000, max_age=0.2, sync_every=0.01)
    for n in range(10):
        journal.record_audit_event("agent-1", "run_aborted", {"reason": str(n) * 100})
    with linked:
        assert linked.wait_for(lambda: sum(link.events for link in links(folder)) == 10, 30)  # the last one by its age
    assert journal.health().segment is None
    journal.close()
    assert all(map(files.sealed, files.named(folder, "jsonl")))
    assert sum(link.events for link in links(folder)) == 10
    assert len(links(folder)) == len(files.named(folder, "jsonl")) > 1


def test_a_segment_whose_writer_was_killed_is_linked_when_it_is_compacted(folder: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from mentra_nb.record.write.journal import Journal
j = Journal(Path({str(folder)!r}))
for n in range(5):
    j.record_audit_event("a", "run_aborted", {{"reason": str(n), "odd": 1e-7}})
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -signal.SIGKILL
    assert links(folder) == []
    assert problems(folder) == {}
    before = chain.contents(duckdb.connect(), files.named(folder, "jsonl")[0])
    assert compact(folder, grace=0) == 1
    (link,) = links(folder)
    assert (link.events, link.sha256) == (5, before[0].sha256)
    assert problems(folder) == {}


def test_kernels_that_seal_at_once_make_one_chain(folder: Path) -> None:
    code = f"""
from pathlib import Path
from mentra_nb.record.write.journal import Journal
for n in range(20):
    j = Journal(Path({str(folder)!r}))
    j.record_audit_event("a", "run_aborted", {{"reason": str(n)}})
    j.close()
"""
    kernels = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [kernel.wait(60) for kernel in kernels] == [0] * 4
    found = links(folder)
    assert len({link.segment for link in found}) == len(found) == 80
    assert problems(folder) == {}


@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
def test_a_chain_survives_the_death_of_its_writers(folder: Path) -> None:
    files.make_folder(folder)
    code = f"""
import os
from pathlib import Path
from mentra_nb.record.write import chain
n = 0
while True:
    chain.append(Path({str(folder)!r}), [chain.Link("sealed", f"{{os.getpid()}}-{{n}}", 1, 0.0, 0.0, "x")])
    n += 1
    os.write(1, f"{{os.getpid()}}-{{n - 1}}\\n".encode())
"""
    chance, printed = random.Random(3), set[str]()
    for _ in range(5):
        both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
        for process in both:
            assert process.stdout
            printed |= {process.stdout.readline().decode().strip() for _ in range(chance.randrange(1, 30))}
            process.kill()
            printed |= set(process.stdout.read().decode().split("\n")[:-1])
            process.wait()
            process.stdout.close()
    found = [link.segment for link in links(folder)]
    assert len(found) == len(set(found))
    assert printed <= set(found)


def test_a_torn_link_is_skipped_and_the_chain_continues(folder: Path) -> None:
    first = write(folder, "a")
    with (folder / "chain.jsonl").open("ab") as file:
        file.write(b'{"kind":"sealed","segment":"01')
    assert [link.segment for link in links(folder)] == [first]
    second = write(folder, "b")
    assert [link.segment for link in links(folder)] == [first, second]
    assert problems(folder) == {}


# ---- one digest, whatever the file -------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(scope=st.text(), notes=st.lists(VALUES, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_text_and_parquet_have_the_digest_that_their_writer_computed(
    tmp_path: Path, scope: str, notes: list[Any]
) -> None:
    folder = tmp_path / os.urandom(8).hex()
    journal = Journal(folder)
    for note in notes:
        journal.record_audit_event(scope, "tool_execution_started", {"input": {"x": note}, "é\n": 1.50})
    journal.close()
    (link,) = links(folder)
    (text,) = files.named(folder, "jsonl")
    with duckdb.connect() as con:
        assert [c.link().sha256 for c in chain.contents(con, text)] == [link.sha256]
        assert compact(folder) == 1
        (content,) = chain.contents(con, text.with_suffix(".parquet"))
    assert link._replace(at=0, previous=None, digest="") == content.link()
    assert content.missing == 0


def test_a_line_that_could_not_be_written_whole_is_in_no_digest(folder: Path) -> None:
    code = f"""
import resource
from pathlib import Path
from mentra_nb.record.write.journal import Journal
j = Journal(Path({str(folder)!r}))
put = lambda n: j.record_audit_event("a", "run_aborted", {{"reason": str(n) * 100}})
put(0)
(file,) = (Path({str(folder)!r}) / "events").glob("0*.jsonl")
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
for room in range(1, 500, 33):
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + room, hard))
    put(1); put(2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    put(3)
length = len(file.read_bytes().splitlines()[-1]) + 1
resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + length - 1, hard))
put(3)  # all of it but the newline
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
j.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    (row,) = verify(folder).itertuples()
    assert (row.state, row.missing, pd.isna(row.problem)) == ("complete", 0, True)
    assert row.lost > 10
    assert compact(folder, grace=0) == 1
    assert problems(folder) == {}


# ---- what is found -----------------------------------------------------------------------------------------------


def replace_bytes(file: Path, old: bytes, new: bytes) -> None:
    content = file.read_bytes()
    assert content.count(old) == 1
    file.write_bytes(content.replace(old, new))


def swap_lines(file: Path) -> None:
    first, second, *rest = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join((second, first, *rest)))


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda file: replace_bytes(file, b'"reason":"beta"', b'"reason":"bets"'), "was altered since it was sealed"),
        (lambda file: replace_bytes(file, b'"seq":1', b'"seq":7'), "was altered since it was sealed"),
        (lambda file: file.write_bytes(file.read_bytes().split(b"\n", 1)[1]), "lacks 1 of the 3 events"),
        (lambda file: replace_bytes(file, b'"reason":"beta"', b'"reason":"beta'), "lacks 1 of the 3 events"),
        (swap_lines, "was altered since it was sealed"),
        (lambda file: file.unlink(), "is missing and was not pruned"),
        (lambda file: file.write_bytes(file.read_bytes() + file.read_bytes().splitlines(True)[0]), "was altered"),
    ],
)
def test_changes_of_a_segments_text_are_found(folder: Path, harm: Callable[[Path], object], problem: str) -> None:
    name, other = write(folder, "alpha", "beta", "gamma"), write(folder, "delta")
    harm(text_of(folder, name))
    assert list(problems(folder)) == [name]
    assert problem in problems(folder)[name]
    compact(folder, grace=0)
    if text_of(folder, name).exists():  # kept as evidence
        assert problem in problems(folder)[name]
    assert not text_of(folder, other).exists() or text_of(folder, other).with_suffix(".parquet").exists()


def test_one_lost_event_is_counted_as_one(folder: Path) -> None:
    name = write(folder, "alpha")
    text_of(folder, name).write_bytes(b"")
    assert problems(folder) == {name: "lacks 1 of the 1 event it was sealed with"}


def rewrite(select: str) -> Callable[[Path], None]:
    def harm(file: Path) -> None:
        with duckdb.connect() as con:
            con.execute(f"CREATE TABLE t AS FROM '{file}'")
            con.execute(f"COPY ({select}) TO '{file}' (FORMAT parquet)")

    return harm


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (rewrite("SELECT * REPLACE (replace(payload, 'beta', 'bets') AS payload) FROM t"), "was altered"),
        (rewrite("SELECT * REPLACE (ts + INTERVAL 1 microsecond AS ts) FROM t"), "was altered"),
        (rewrite("FROM t WHERE seq <> 1"), "lacks 1 of the 3 events"),
        (rewrite("FROM t ORDER BY seq DESC"), "was altered"),
        (lambda file: file.unlink(), "is missing and was not pruned"),
        (lambda file: file.write_bytes(file.read_bytes()[:-20]), "cannot be read"),
    ],
)
def test_changes_of_parquet_are_found(folder: Path, harm: Callable[[Path], object], problem: str) -> None:
    name = write(folder, "alpha", "beta", "gamma")
    write(folder, "delta")
    assert compact(folder, grace=0) == 2
    compact(folder, grace=0)
    harm(text_of(folder, name).with_suffix(".parquet"))
    assert list(problems(folder)) == [name]
    assert problem in problems(folder)[name]


def test_altering_any_byte_of_a_payload_in_parquet_is_found(folder: Path) -> None:
    name = write(folder, *"abcdefgh")
    compact(folder, grace=0)
    compact(folder, grace=0)
    file = text_of(folder, name).with_suffix(".parquet")
    whole, before, chance = file.read_bytes(), frozenset(events(folder)), random.Random(5)
    for at in chance.sample(range(4, len(whole) - 4), 60):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :])
        if not problems(folder):  # a byte of padding, of a statistic, of a column derived from the payload
            assert frozenset(events(folder)) == before
    file.write_bytes(whole)
    assert problems(folder) == {}


def events(folder: Path) -> list[tuple[Any, ...]]:
    file = str(folder / "events" / "0*.parquet")
    with duckdb.connect() as con:
        return con.execute(
            # as text: an altered byte may say of a column that its bytes are no text, and leave the bytes as they are
            "SELECT id::VARCHAR, epoch_us(ts), seq, source::VARCHAR, scope::VARCHAR, kind::VARCHAR, payload::VARCHAR "
            f"FROM '{file}'"
        ).fetchall()


@pytest.mark.parametrize("at", [0, 30, 80, 120, 200, -100, -10, -3, -1])
@pytest.mark.parametrize("line", [0, 1, 2])
def test_every_byte_of_the_chain_counts(folder: Path, line: int, at: int) -> None:
    for note in "abc":
        write(folder, note)
    written = (folder / "chain.jsonl").read_bytes().splitlines(keepends=True)
    place = at % len(written[line])
    altered = written[line][:place] + bytes([written[line][place] ^ 2]) + written[line][place + 1 :]
    (folder / "chain.jsonl").write_bytes(b"".join([*written[:line], altered, *written[line + 1 :]]))
    last_newline = (line, at) == (2, -1)  # then it is a link that was not written to its end
    assert any(name == "chain.jsonl" for name in problems(folder)) or last_newline


@pytest.mark.parametrize(
    "harm",
    [
        lambda lines: lines[1:],
        lambda lines: [lines[0], lines[2]],
        lambda lines: [lines[1], lines[0], lines[2]],
        lambda lines: [lines[0], lines[0], *lines[1:]],
    ],
)
def test_a_link_that_was_removed_moved_or_inserted_is_found(
    folder: Path, harm: Callable[[list[bytes]], list[bytes]]
) -> None:
    for note in "abc":
        write(folder, note)
    file = folder / "chain.jsonl"
    file.write_bytes(b"".join(harm(file.read_bytes().splitlines(keepends=True))))
    assert "a line was altered, removed, moved or inserted" in problems(folder)["chain.jsonl"]


def test_a_link_in_another_form_is_found_though_its_content_is_the_same(folder: Path) -> None:
    write(folder, "a")
    file = folder / "chain.jsonl"
    written = file.read_bytes()
    file.write_bytes(json.dumps(json.loads(written)).encode() + b"\n")
    assert json.loads(file.read_bytes()) == json.loads(written)
    assert problems(folder) == {"chain.jsonl": "line 1 of chain.jsonl was altered"}


def test_a_segment_that_was_copied_or_inserted_is_found(folder: Path) -> None:
    name, copy = write(folder, "a"), "01a1fcd8-b73e-7b01-b397-2246a46a9c07"
    text_of(folder, copy).write_bytes(text_of(folder, name).read_bytes())
    assert problems(folder) == {copy: "holds events that were written elsewhere"}
    compact(folder, grace=0)
    text_of(folder, copy).unlink()
    parquet = text_of(folder, name).with_suffix(".parquet")
    text_of(folder, copy).with_suffix(".parquet").write_bytes(parquet.read_bytes())
    assert problems(folder) == {name: "is there more than once"}
    with duckdb.connect() as con:
        forged = f"SELECT * REPLACE ('{copy}'::UUID AS source) FROM '{parquet}'"
        con.execute(f"COPY ({forged}) TO '{parquet}-x' (FORMAT parquet)")
    Path(f"{parquet}-x").replace(text_of(folder, copy).with_suffix(".parquet"))
    assert problems(folder) == {copy: "is not in the chain"}


# ---- what a file holds of a segment --------------------------------------------------------------------------------


def test_a_repeated_line_does_not_hide_one_that_is_missing(folder: Path) -> None:
    name = write(folder, "a", "b", "c")
    first, second, _ = text_of(folder, name).read_bytes().splitlines(keepends=True)
    text_of(folder, name).write_bytes(first + second + second)
    with duckdb.connect() as con:
        (held,) = chain.contents(con, text_of(folder, name))
    assert (held.events, held.missing) == (3, 0)
    text_of(folder, name).write_bytes(second + second)
    with duckdb.connect() as con:
        (held,) = chain.contents(con, text_of(folder, name))
    assert (held.events, held.missing) == (2, 1)


def test_the_digest_is_of_the_lines_in_the_order_of_their_positions(folder: Path) -> None:
    text = text_of(folder, write(folder, "a", "b", "c"))
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE backwards AS SELECT * FROM ({chain.lines(text)}) ORDER BY seq DESC")
        assert chain.contents_of(con, "backwards", "seq") == chain.contents(con, text)

"""The record in a DuckLake: a real PostgreSQL for its catalog, and DuckDB's own extensions."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mentra_nb.errors import ConfigurationError, OperationDenied, StoreError
from mentra_nb.record.keep import lake, lake_tables
from mentra_nb.record.keep.compact import compact
from mentra_nb.record.keep.prune import prune
from mentra_nb.record.keep.verify import verify
from mentra_nb.record.open import open_journal
from mentra_nb.record.parquet import connection
from mentra_nb.record.read import frames
from mentra_nb.record.write import chain, files
from mentra_nb.record.write.journal import Journal

pytestmark = pytest.mark.slow


@pytest.fixture
def url(postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A lake that is not made yet, in the environment; the home is this test's own."""
    with duckdb.connect() as con:
        try:
            lake_tables.load_extension(con, "postgres_scanner")
            lake_tables.load_extension(con, "ducklake")
        except ConfigurationError as error:
            pytest.skip(str(error))
    database = postgres.new_database()
    url = f"ducklake:postgres:{database} data_path={tmp_path / 'lake'}"
    monkeypatch.setenv("MENTRA_RECORD", url)
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(lake, "SHIP_INTERVAL", 0.0)
    (tmp_path / "lake").mkdir()
    return url


def record() -> Path:
    return (Path(os.environ["MENTRA_HOME"]) / "record").resolve()


def write(*notes: Any) -> str:
    """A segment on this machine's disk with an event for each note, sealed and not shipped."""
    journal = Journal(record())
    for note in notes:
        journal.record_audit_event("agent-1", "run_aborted", {"reason": str(note), "odd": 1e-7})
    name = journal.health().segment
    journal.close()
    assert name
    return name


def here() -> list[str]:
    return [path.name for kind in ("jsonl", "parquet") for path in files.named(record(), kind)]


def seen() -> list[str]:
    return list(frames.sql("SELECT reason FROM events WHERE kind = 'run_aborted' ORDER BY id").reason)


def configured() -> lake_tables.Lake:
    found = lake_tables.configured()
    assert found
    return found


def settle() -> None:
    """Wait for shipments in threads."""
    for thread in threading.enumerate():
        if thread.name.startswith("mentra-record"):
            thread.join()


# ---- the address -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "catalog", "data_path"),
    [
        (
            "ducklake:postgres:host=db dbname=audit data_path=s3://bucket/mentra",
            "postgres:host=db dbname=audit connect_timeout=10",
            "s3://bucket/mentra",
        ),
        (
            "ducklake:postgres:data_path='/srv/my lake' host=db connect_timeout=2",
            "postgres:host=db connect_timeout=2",
            "/srv/my lake/",
        ),
        (
            "ducklake:postgres:postgresql://me@db/audit data_path=gs://b",
            "postgres:postgresql://me@db/audit",
            "gs://b",
        ),
    ],
)
def test_where_the_lake_is(monkeypatch: pytest.MonkeyPatch, url: str, catalog: str, data_path: str) -> None:
    monkeypatch.setenv("MENTRA_RECORD", url)
    assert lake_tables.configured() == lake_tables.Lake(catalog, data_path)


@pytest.mark.parametrize("url", ["ducklake:postgres:host=db", "ducklake:sqlite:x data_path=/srv/lake"])
def test_an_incomplete_address_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("MENTRA_RECORD", url)
    with pytest.raises(ConfigurationError, match="data_path"):
        lake_tables.configured()


def test_a_folder_is_not_a_lake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MENTRA_RECORD", str(tmp_path))
    assert lake_tables.configured() is None


def test_a_lake_that_cannot_be_reached_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    write("kept")
    away = f"ducklake:postgres:host=127.0.0.1 port=1 password=hunter22 dbname=x data_path={tmp_path}"
    monkeypatch.setenv("MENTRA_RECORD", away)
    with pytest.raises(StoreError, match="the lake cannot be reached") as raised:
        frames.events()
    assert "hunter22" not in str(raised.value)
    settle()
    journal = open_journal()
    journal.record_audit_event("agent-1", "run_aborted", {"reason": "kept too"})
    journal.close()
    assert "could not be shipped and stays on this machine" in caplog.text
    assert "hunter22" not in caplog.text
    monkeypatch.setenv("MENTRA_RECORD", url)
    assert seen() == ["kept", "kept too"]


# ---- shipping ----------------------------------------------------------------------------------------------------


def test_what_is_shipped_is_read_from_the_lake_and_the_rest_from_here(url: str) -> None:
    first = write("a", "b")
    assert seen() == ["a", "b"]
    settle()
    assert here() == []
    journal = Journal(record())
    journal.record_audit_event("agent-1", "run_aborted", {"reason": "c"})
    assert seen() == ["a", "b", "c"]
    assert len(here()) == 1
    journal.close()
    before = frames.events()
    settle()
    after = frames.events()
    assert before.equals(after)
    assert here() == []
    assert lake.ship(record(), configured()) == 0
    report = verify()
    assert report.segment[0] == first
    assert list(report.state) == ["in the lake"] * 2
    assert report.problem.isna().all()
    assert [(content.events, problem) for content, _, problem in lake.check(configured())] == [(2, None), (1, None)]


def test_a_journal_ships_when_it_is_closed(url: str) -> None:
    journal = open_journal()
    journal.record_audit_event("agent-1", "run_aborted", {"reason": "a"})
    assert len(here()) == 1
    journal.close()
    assert here() == []
    assert journal.health().last_error is None
    assert seen() == ["a"]


def test_every_table_reads_the_lake(url: str) -> None:
    journal = open_journal()
    same = {"run_id": "r", "model": "gpt-4o", "provider": "openai", "request_id": "q", "attempt": 1}
    journal.record_audit_event(
        "a", "turn_started", {"run_id": "r", "session_id": "s", "model": "gpt-4o", "prompt": "?"}
    )
    usage = {"usage": {"input_tokens": 1000, "output_tokens": 10}, "success": True}
    journal.record_audit_event("a", "model_response_finished", same | usage)
    journal.record_audit_event("a", "tool_execution_started", {"run_id": "r", "tool_call_id": "c", "tool_name": "t"})
    journal.close()
    assert here() == []
    assert list(frames.turns().prompt) == ["?"]
    assert frames.usage().cost_usd[0] > 0
    assert list(frames.tool_calls().tool) == ["t"]
    assert list(frames.sessions().total_tokens) == [1010]
    assert len(frames.events(session="s")) == 3


def test_the_lake_is_read_and_nothing_else(url: str, tmp_path: Path) -> None:
    write("a")
    lake.ship(record(), configured())
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    with pytest.raises(OperationDenied):
        frames.sql(f"FROM read_csv('{tmp_path / 'secret.csv'}')")
    for statement in ("DELETE FROM lake.events", "DETACH lake", "COMMIT"):
        with pytest.raises(OperationDenied):
            frames.sql(statement)


def test_an_interrupted_shipment_is_finished_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a"), write("b")
    with monkeypatch.context() as patch:
        patch.setattr(chain, "append", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))  # after the commit
        upkeep_done = compact(record(), grace=0)
        assert upkeep_done == 2
        with pytest.raises(KeyboardInterrupt):
            lake.ship(record(), configured())
    assert len(here()) == 2
    assert seen() == ["a", "b"]
    settle()
    assert here() == []
    assert seen() == ["a", "b"]
    assert verify(record()).problem.isna().all()


def test_a_segment_that_was_altered_stays_here(url: str) -> None:
    name = write("alpha")
    write("beta")
    file = record() / "events" / f"{name}.jsonl"
    file.write_bytes(file.read_bytes().replace(b"alpha", b"alphb"))
    assert lake.ship(record(), configured()) == 1
    assert here() == [file.name]


def test_changes_in_the_lake_are_found(url: str) -> None:
    write("alpha", "beta")
    write("gamma")
    shared = configured()
    lake.ship(record(), shared)
    with connection() as con:
        lake_tables.attach(con, shared, read_only=False)
        con.execute("UPDATE lake.events SET payload = replace(payload, 'beta', 'betb')::JSON WHERE reason = 'beta'")
        con.execute("DELETE FROM lake.events WHERE reason = 'gamma'")
    found = [problem for *_, problem in lake.check(shared)]
    assert found == ["was altered since it was sealed", "lacks 1 of the 1 event it was sealed with"]
    assert list(verify().problem) == found


def test_a_lake_of_an_older_version_gets_the_current_columns(url: str) -> None:
    write("a")
    shared = configured()
    lake.ship(record(), shared)
    with connection() as con:
        lake_tables.attach(con, shared, read_only=False)
        con.execute("ALTER TABLE lake.events DROP COLUMN stop_reason")
    write("b")
    assert "stop_reason" in frames.events().columns
    settle()
    assert lake.ship(record(), shared) == 0
    assert seen() == ["a", "b"]
    assert "stop_reason" in frames.events().columns
    with connection() as con:
        lake_tables.attach(con, shared, read_only=False)
        con.execute("ALTER TABLE lake.events DROP COLUMN stop_reason")
    cut = now()
    write("c")
    assert len(prune(before=cut)) == 2
    assert lake.ship(record(), shared) == 1
    assert seen() == ["c"]


def test_columns_that_a_lake_of_an_older_version_lacks_are_read_from_its_payloads(url: str) -> None:
    journal = Journal(record())
    turn = {"run_id": "r", "session_id": "s", "prompt": "what  is it?"}
    journal.record_audit_event("agent-1", "turn_started", turn)
    journal.close()
    shared = configured()
    lake.ship(record(), shared)
    with connection() as con:
        lake_tables.attach(con, shared, read_only=False)
        for column in ("columns_v", "first_words"):
            con.execute(f"ALTER TABLE lake.events DROP COLUMN {column}")
    assert list(frames.sessions().title) == ["what is it?"]
    settle()
    write("b")
    lake.ship(record(), shared)  # the table has the columns again
    assert list(frames.sessions().title) == ["what is it?"]
    assert seen() == ["b"]


# ---- pruning -----------------------------------------------------------------------------------------------------

LATER = "2999-01-01"


def now() -> datetime:
    return datetime.now(UTC)


def holders(url: str, text: str) -> list[str]:
    """Where in the lake a text is, in any snapshot: names of files, and `catalog`."""
    import psycopg

    database, data = url.removeprefix("ducklake:postgres:").split(" data_path=")
    found = [file.name for file in Path(data).rglob("*") if file.is_file() and text.encode() in file.read_bytes()]
    with psycopg.connect(database) as con:
        names = con.execute("SELECT tablename FROM pg_tables WHERE tablename LIKE 'ducklake%'").fetchall()
        rows = [con.execute(f'SELECT t::text FROM "{name}" t').fetchall() for (name,) in names]  # type: ignore[arg-type]
    return found + ["catalog"] * any(each in str(rows) for each in (text, text.encode().hex()))


def stays(file_or_folder: Path) -> set[Path]:
    return {path for path in file_or_folder.rglob("*") if path.is_file()}


def test_older_segments_of_every_machine_are_removed_from_the_lake(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [write(*(f"old-{n}" for n in range(30))), write("few")]
    cut = now()
    kept = write("late")
    lake.ship(record(), configured())
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path / "home-2"))
    other = write("later")
    lake.ship(record(), configured())
    before = seen()
    would = prune(before=cut, dry_run=True)
    assert seen() == before
    gone = prune(before=cut)
    assert gone.equals(would)
    assert list(gone.segment) == old
    assert list(gone.events) == [30, 1]
    assert str(gone["last"].dtype) == "datetime64[us, UTC]"
    assert seen() == ["late", "later"]
    assert prune(before=cut).empty
    for home in ("home", "home-2"):
        monkeypatch.setenv("MENTRA_HOME", str(tmp_path / home))
        report = verify().set_index("segment")
        assert dict(report.state) == {**dict.fromkeys(old, "pruned"), kept: "in the lake", other: "in the lake"}
        assert list(report.events[old]) == [30, 1]
        assert report.problem.isna().all()
    assert list(prune(before=LATER).segment) == [kept, other]
    assert seen() == []


def test_a_dry_run_changes_nothing_in_the_lake(url: str, tmp_path: Path) -> None:
    names = [write("a"), write(*"bcdefghijklmnop")]
    lake.ship(record(), configured())
    unshipped = write("here")
    listing = {path: path.stat().st_mtime_ns for path in stays(tmp_path)}
    with connection() as con:
        lake_tables.attach(con, configured(), read_only=True)
        snapshots = con.execute("SELECT count(*) FROM lake.snapshots()").fetchone()
        assert list(prune(before=LATER, dry_run=True).segment) == [unshipped, *names]
        assert con.execute("SELECT count(*) FROM lake.snapshots()").fetchone() == snapshots
    assert {path: path.stat().st_mtime_ns for path in stays(tmp_path) if path in listing} == listing
    assert prune(keep_days=1).empty
    assert len(seen()) == 17


def test_the_files_of_pruned_segments_are_removed_after_the_grace(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = configured()
    write("Quagmire", *range(30))
    lake.ship(record(), shared)
    write("few-1")
    lake.ship(record(), shared)  # so few are kept in the catalog
    write("Vexillology", *range(30))
    cut = now()
    write("Huckleberry", *range(30))
    lake.ship(record(), shared)
    write("zero-1")
    lake.ship(record(), shared)
    gone = ("Quagmire", "few-1", "Vexillology")
    assert all(holders(url, text) for text in gone)
    assert len(prune(before=cut)) == 3
    files = stays(Path(shared.data_path))
    for file in files:
        os.utime(file, (0, 0))
    assert prune(before=cut).empty
    assert stays(Path(shared.data_path)) == files
    monkeypatch.setattr(lake, "GRACE", 0)
    write("next")
    lake.ship(record(), shared)  # the snapshots go, and then the files
    assert [holders(url, text) for text in gone] == [[], [], []]
    assert holders(url, "Huckleberry")
    assert len(seen()) == 33
    assert verify().problem.isna().all()


@pytest.mark.parametrize("emptied", [True, False])
def test_the_catalog_keeps_no_statistics_of_removed_files(
    url: str, monkeypatch: pytest.MonkeyPatch, emptied: bool
) -> None:
    write("Zanzibar", *range(30))  # the greatest `reason`, which the catalog notes for the whole table
    lake.ship(record(), configured())
    cut = now()
    write("Mango", *range(30))
    lake.ship(record(), configured())
    assert "catalog" in holders(url, "Zanzibar")
    monkeypatch.setattr(lake, "GRACE", 0)
    assert len(prune(before=LATER if emptied else cut)) == (2 if emptied else 1)
    assert holders(url, "Zanzibar") == []
    write("Orange", *range(30))
    lake.ship(record(), configured())
    fruit = ["Orange"] if emptied else ["Mango", "Orange"]
    assert list(frames.sql("SELECT reason FROM events WHERE reason > 'L' ORDER BY id").reason) == fruit
    assert verify().problem.isna().all()


def test_a_prune_does_not_disturb_readers(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(*"abcdefghijklmnop")
    write("few")
    shared = configured()
    lake.ship(record(), shared)
    count = "SELECT count(*), count(DISTINCT payload) FROM lake.events"
    with connection() as early, connection() as reader:
        for con in (early, reader):
            lake_tables.attach(con, shared, read_only=True)
            con.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM lake.shipped").fetchone() == (2,)
        assert len(prune(before=LATER)) == 2
        assert early.execute(count).fetchone() == (0, 0)  # it had seen nothing yet
        assert reader.execute(count).fetchone() == (17, 17)
        assert prune(before=LATER).empty
        assert reader.execute(count).fetchone() == (17, 17)


def test_a_pruned_segment_that_is_shipped_again_stays_pruned(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, shared = write("old"), configured()
    with monkeypatch.context() as patch:
        patch.setattr(chain, "append", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))  # after the commit
        assert compact(record(), grace=0) == 1
        with pytest.raises(KeyboardInterrupt):
            lake.ship(record(), shared)
    assert here() == [f"{old}.parquet"]
    later = now().timestamp()
    assert [link.segment for link in lake.prune(shared, later, dry_run=False)] == [old]  # from another machine
    assert seen() == []
    settle()
    assert lake.ship(record(), shared) == 0
    assert here() == []
    assert seen() == []
    assert verify().state.tolist() == ["pruned"]
    assert verify().problem.isna().all()


def test_a_segment_in_the_lake_and_here_is_pruned_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write("a")
    with monkeypatch.context() as patch:
        patch.setattr(chain, "append", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        compact(record(), grace=0)
        with pytest.raises(KeyboardInterrupt):
            lake.ship(record(), configured())
    assert prune(before=LATER).segment.tolist() == [name]
    assert here() == []
    assert seen() == []


def test_an_interrupted_prune_of_the_lake_is_finished_by_the_next(url: str) -> None:
    name = write("a")
    shared = configured()
    lake.ship(record(), shared)
    with connection() as con:
        lake_tables.attach(con, shared, read_only=False)
        lake_tables.mark(con, lake_tables.older(con, now().timestamp()))
    assert seen() == []
    assert verify().problem.tolist() == ["was pruned and is still there; the next prune removes it"]
    assert prune(before=LATER).empty
    assert seen() == []
    assert verify().segment.tolist() == [name]
    assert verify().problem.isna().all()


def test_files_without_a_commit_are_removed_if_known_and_reported_if_not(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(*(f"a-{n}" for n in range(30)))
    shared = configured()
    lake.ship(record(), shared)
    data = Path(shared.data_path)
    (file,) = stays(data)
    left = file.with_name("ducklake-left.parquet")
    left.write_bytes(file.read_bytes())
    foreign = data / "foreign.parquet"
    assert prune(before=LATER, dry_run=False).events.tolist() == [30]
    assert left.exists()  # a shipment may be about to commit it
    monkeypatch.setattr(lake, "GRACE", 0)
    with duckdb.connect() as con:
        con.execute(f"COPY (SELECT uuid() AS source) TO '{foreign}'")
    assert prune(before=LATER).empty
    assert foreign.exists()
    assert left.exists()
    assert str(foreign) in caplog.text
    foreign.unlink()
    assert prune(before=LATER).empty
    assert stays(data) == set()


def test_a_prune_without_the_lake_fails_and_the_next_one_finishes_it(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a")
    monkeypatch.setenv("MENTRA_RECORD", f"ducklake:postgres:host=127.0.0.1 port=1 dbname=x data_path={tmp_path}")
    with pytest.raises(StoreError, match="the lake cannot be reached"):
        prune(before=LATER)
    monkeypatch.setenv("MENTRA_RECORD", url)
    assert prune(before=LATER).empty  # what had not been shipped was removed before
    assert verify().state.tolist() == ["pruned"]


# ---- several machines --------------------------------------------------------------------------------------------

SHIPPER = """
import os, sys
from mentra_nb.record.open import open_journal
for n in range(int(sys.argv[1])):
    journal = open_journal()
    for note in range(25):
        journal.record_audit_event("a", "run_aborted", {"reason": f"{sys.argv[2]}-{n}-{note}"})
    journal.close()
    assert journal.health().last_error is None, journal.health().last_error
"""
KILLED = """
import os, random, sys, threading, time
from pathlib import Path
from mentra_nb import paths
from mentra_nb.record.keep import lake, lake_tables
threading.Thread(target=lambda: (time.sleep(random.random() * 2.5), os._exit(9)), daemon=True).start()
while True:
    lake.ship(paths.record_folder(), lake_tables.configured())
"""
PRUNER = """
import sys
from mentra_nb.record.keep.prune import prune
prune(before=sys.argv[1])
"""
KILLED_PRUNER = """
import os, random, sys, threading, time
from mentra_nb.record.keep import lake_tables
from mentra_nb.record.keep.prune import prune
from mentra_nb.record.parquet import connection
with connection() as con:
    lake_tables.attach(con, lake_tables.configured(), read_only=True)
threading.Thread(target=lambda: (time.sleep(random.random()), os._exit(9)), daemon=True).start()
while True:
    prune(before=sys.argv[1])
"""


def machine(code: str, home: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "MENTRA_HOME": str(home)}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment)


@pytest.mark.fault
def test_machines_that_ship_at_once_make_one_record(url: str, tmp_path: Path) -> None:
    machines = [machine(SHIPPER, tmp_path / f"home-{n}", "4", str(n)) for n in range(4)]
    assert [one.wait(100) for one in machines] == [0] * 4
    notes = sorted(f"{m}-{n}-{note}" for m in range(4) for n in range(4) for note in range(25))
    assert sorted(seen()) == notes
    assert all(problem is None for *_, problem in lake.check(configured()))


@pytest.mark.fault
def test_a_shipper_killed_at_any_moment_loses_and_duplicates_nothing(url: str) -> None:
    names = [write(f"{n}-{note}" for note in "ab") for n in range(12)]
    before = seen()
    settle()
    for _ in range(6):
        names.append(write("more"))
        assert machine(KILLED, record().parent).wait(60) == 9
        found = seen()
        assert len(found) == len(names)
        settle()
    lake.ship(record(), configured())
    assert here() == []
    assert seen()[: len(before)] == before
    assert sorted(content.segment for content, _, problem in lake.check(configured()) if not problem) == sorted(names)


@pytest.mark.fault
def test_a_pruner_killed_at_any_moment_prunes_all_or_nothing(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, kept, pruned = configured(), [], []
    for n in range(6):
        pruned += [write("old"), write("old", *range(20))]
        lake.ship(record(), shared)
        pruned.append(write("beside"))
        cut = now()
        kept.append(write(f"kept-{n}", *range(20)))
        lake.ship(record(), shared)
        assert machine(KILLED_PRUNER, tmp_path / "home-2", cut.isoformat()).wait(60) == 9
        states = {content.segment: state for content, state, problem in lake.check(shared) if problem is None}
        assert {states[name] for name in pruned[-3:]} in ({"pruned"}, {"in the lake"})
        assert {states[name] for name in kept} == {"in the lake"}
        kept, pruned, cut = [], [*pruned, *kept], now()
    assert machine(PRUNER, tmp_path / "home-2", cut.isoformat()).wait(60) == 0
    for file in stays(Path(shared.data_path)):
        if not file.read_bytes().endswith(b"PAR1"):  # torn, so its segment is unknown
            file.unlink()
    monkeypatch.setattr(lake, "GRACE", 0)
    assert prune(before=LATER).empty
    assert all((state, problem) == ("pruned", None) for _, state, problem in lake.check(shared))
    assert sorted(content.segment for content, *_ in lake.check(shared)) == sorted(pruned)
    assert stays(Path(shared.data_path)) == set()


@pytest.mark.fault
def test_machines_that_ship_and_prune_at_once_lose_nothing_and_keep_nothing(url: str, tmp_path: Path) -> None:
    write(*range(30)), write("few")
    lake.ship(record(), configured())
    cut = now().isoformat()
    shippers = [machine(SHIPPER, tmp_path / f"home-{n}", "4", str(n)) for n in range(2)]
    pruners = [machine(PRUNER, tmp_path / f"home-{n}", cut) for n in (2, 3)]
    assert [one.wait(100) for one in (*shippers, *pruners)] == [0] * 4
    assert sorted(seen()) == sorted(f"{m}-{n}-{note}" for m in range(2) for n in range(4) for note in range(25))
    assert verify().problem.isna().all()

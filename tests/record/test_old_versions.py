"""Records of other versions: the files in `record_v1` were written by the first one, and every later one reads them.

They hold a session of one turn and one event of each kind as Parquet, and two sessions of two turns as text, with an
event of a kind that no version knows. They are never written anew.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from kits.records import Record, only

import mentra_nb.event.types as e
from mentra_nb.content import TokenUsage
from mentra_nb.record import schema
from mentra_nb.record.keep.compact import compact
from mentra_nb.record.keep.verify import verify
from mentra_nb.record.parquet import connection, write_parquet
from mentra_nb.record.read import frames, views
from mentra_nb.record.write import files
from mentra_nb.record.write.journal import Journal

pytestmark = pytest.mark.slow

FIRST = Path(__file__).with_name("record_v1")
ROWS = {"events": 91, "sessions": 3, "turns": 6, "model_calls": 9, "tool_calls": 8, "decisions": 8, "usage": 6}


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIRST, tmp_path / "record"))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that takes one more part of the payload for a column."""
    monkeypatch.setitem(schema.PROMOTED, "vividness", "TRY_CAST((payload->>'$.vividness') AS DOUBLE)")
    columns = ", ".join(f"{expression} AS {name}" for name, expression in schema.PROMOTED.items())
    monkeypatch.setattr(schema, "TYPED", f"{schema.TYPED.partition(', payload, ')[0]}, payload, {columns}")
    monkeypatch.setattr(schema, "SCHEMA_VERSION", schema.SCHEMA_VERSION + 1)


def test_every_row_of_the_first_version_is_read(first: Path) -> None:
    assert {name: len(getattr(frames, name)(folder=first)) for name in ROWS} == ROWS
    assert set(verify(first).problem.isna()) == {True}


def test_values_of_the_first_version_are_unchanged(first: Path) -> None:
    turn = frames.turns(folder=first).iloc[0]
    assert (turn.session_id, turn.run_id, turn.cell_id, turn.execution_count) == ("s1", "r1", "cell-9", 7)
    assert (turn.notebook, turn.project, turn.prompt, turn.stop_reason) == ("n.ipynb", "p", "list files", "end")
    assert (turn.seconds, turn.tools, turn.denials, turn.total_tokens, turn.human_wait_s) == (2.0, 3, 1, 3850, 3.0)
    assert turn.cost_usd == pytest.approx(0.01215)
    calls = frames.tool_calls(folder=first)
    assert list(calls.outcome) == ["ok", "denied", "error", "denied", "ok", "error", "ok", "error"]
    assert list(calls.decided_by[:3]) == ["user", "user", "rule"]
    assert list(calls.rule_id[:3].fillna("")) == ["", "", "1"]
    denied = frames.decisions(folder=first).iloc[1]
    assert (denied.outcome, denied.subject, denied.scope, denied.reason) == ("deny", "ls", "project", "because")


def test_an_unknown_kind_stays_among_the_events(first: Path) -> None:
    dream = only(frames.events(kind="dream_started", folder=first))
    assert (dream.run_id, dream.tool) == ("s1-r1", "shell")
    assert json.loads(dream.payload)["vividness"] == 0.5


@pytest.mark.usefixtures("later")
def test_a_column_added_later_is_null_in_old_parquet(first: Path) -> None:
    events = frames.events(folder=first)
    assert list(events.vividness.dropna()) == [0.5]  # the text has it
    for text in (first / "events").glob("0*.jsonl"):
        text.unlink()
    events = frames.events(folder=first)  # and where there is only old Parquet, the column is there all the same
    assert len(events) > 40
    assert events.vividness.isna().all()
    assert len(frames.turns(folder=first)) == 2


def test_old_and_new_parquet_are_read_side_by_side(first: Path, request: pytest.FixtureRequest) -> None:
    before = frames.events(folder=first)
    request.getfixturevalue("later")
    assert compact(first, grace=0) == 1
    compact(first, grace=0)
    assert not list((first / "events").glob("0*.jsonl"))
    after = frames.events(folder=first)
    assert list(after.vividness.dropna()) == [0.5]
    pd.testing.assert_frame_equal(after.drop(columns="vividness"), before, check_categorical=False)
    assert set(verify(first).problem.isna()) == {True}


@pytest.mark.usefixtures("later")
def test_an_older_version_reads_what_a_later_one_wrote(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    record.journal.record_audit_event("a", "dream_started", {"agent_id": "a", "vividness": 1, "model": "m"})
    record.journal.close()
    assert compact(record.folder, grace=0) == 1
    monkeypatch.undo()
    dream = only(frames.events(folder=record.folder))
    assert (dream.kind, dream.model) == ("dream_started", "m")


BEFORE_9 = {"columns_v", "reported_cost_usd", "first_words", "invalid"}
"""The columns of Parquet that version 9 brought."""


@pytest.fixture
def answers() -> Callable[[Path], dict[str, pd.DataFrame]]:
    names = (*ROWS, "rule_changes", "effects")
    return lambda folder: {name: getattr(frames, name)(folder=folder) for name in names}


@pytest.fixture
def told(record: Record) -> Record:
    """Two segments of Parquet, each with all that version 9 took for a column, and some that cannot be one."""
    prompts = f"  what\n\tis {'very ' * 90}old?", "\n" * 300 + "short"
    for run, session, prompt in zip("ab", ("s1", "s2"), prompts, strict=True):
        record.add(e.SessionStarted, session_id=session, title=session, model="m", project="p", notebook="n.ipynb")
        record.add(e.TurnStarted, run_id=run, model="m", prompt=prompt, session_id=session)
        record.response(f"q{run}", run, TokenUsage(input_tokens=9, output_tokens=1, cost_usd=0.25))
        record.response(f"r{run}", run, TokenUsage(input_tokens=2000, output_tokens=50))
        record.call(f"c{run}", run)
        misfit = {"run_id": run, "tool_call_id": f"m{run}", "tool_name": "shell", "decided_by": "runtime"}
        record.add(e.ToolAuthorizationFinished, **misfit, outcome="deny", invalid=True)
        for odd in ({"usage": {"cost_usd": "dear", "input_tokens": 1}}, {"usage": 1}, {"prompt": {"a": 1}}):
            kind = "turn_started" if "prompt" in odd else "model_response_finished"
            record.journal.record_audit_event("agent-1", kind, {"run_id": f"{run}-odd", "session_id": session, **odd})
        record.end(run, session)
        record.journal.close()
        record.journal = Journal(record.folder)
    record.journal.close()
    assert compact(record.folder, grace=0) == 2
    compact(record.folder, grace=0)
    return record


def as_before(file: Path) -> None:
    """Write a file as the versions before 9 did, without the columns that version 9 brought."""
    with connection() as con:
        write_parquet(con, f"SELECT * EXCLUDE ({', '.join(BEFORE_9)}) FROM read_parquet('{file}')", file)


@pytest.mark.parametrize("old", [1, 2])
def test_what_older_versions_stored_gives_the_same_answers(
    told: Record, old: int, answers: Callable[[Path], dict[str, pd.DataFrame]]
) -> None:
    now = answers(told.folder)
    assert now["usage"].cost_usd[0] == 0.25
    assert list(now["sessions"].title) == [f"what is{' very' * 7}…", "short"]
    assert list(now["tool_calls"].outcome) == ["ok", "invalid"] * 2
    for file in files.named(told.folder, "parquet")[:old]:
        as_before(file)
    then = answers(told.folder)
    for name, frame in now.items():
        pd.testing.assert_frame_equal(frame, then[name])
    views.write_database(told.folder)
    with duckdb.connect(str(told.folder / "record.duckdb"), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        titles = con.execute("SELECT title FROM sessions ORDER BY started").fetchall()
        assert [title for (title,) in titles] == list(now["sessions"].title)
        (cost,) = con.execute("SELECT sum(cost_usd) FROM usage").fetchone() or ()
        assert cost == pytest.approx(now["usage"].cost_usd.sum())
        assert con.execute("SELECT count(*) FROM tool_calls WHERE outcome = 'invalid'").fetchone() == (2,)


@pytest.mark.parametrize(("small", "left"), [(1 << 20, 1), (1, 2)])
def test_compaction_gives_old_files_the_current_columns(
    told: Record, small: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in files.named(told.folder, "parquet"):
        as_before(file)
    monkeypatch.setattr("mentra_nb.record.keep.compact.SMALL_FILE", small)  # they are merged, or each is large
    compact(told.folder, grace=0, many=2)
    now = files.named(told.folder, "parquet")
    assert len(now) == left
    for file in now:
        with connection() as con:
            found = con.execute(f"FROM read_parquet('{file}') LIMIT 0").description or ()
        assert {name for name, *_ in found} >= BEFORE_9
    compact(told.folder, grace=0, many=3)
    assert files.named(told.folder, "parquet") == now
    assert set(verify(told.folder).problem.isna()) == {True}


def test_other_clients_see_the_first_version_too(first: Path) -> None:
    views.write_database(first)
    with duckdb.connect(str(first / "record.duckdb"), read_only=True) as con:
        for name, rows in ROWS.items():
            assert con.execute(f"SELECT count(*) FROM {name}").fetchone() == (rows,)

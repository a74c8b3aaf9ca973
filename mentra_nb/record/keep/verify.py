# ruff: noqa: S608  # the SQL is made of our own constants and paths
"""Verification: compares every segment with the chain, and checks the chain itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mentra_nb import paths
from mentra_nb.errors import ConfigurationError
from mentra_nb.record import schema
from mentra_nb.record.keep import lake, lake_tables
from mentra_nb.record.write import chain, files

if TYPE_CHECKING:
    import duckdb
    import pandas as pd


@dataclass(frozen=True)
class VerifyRow:
    """A row of `verify`."""

    segment: str
    state: str
    events: int = 0
    missing: int = 0
    bad_lines: int = 0
    lost: int = 0
    problem: str | None = None
    sha256: str | None = None


def verify(folder: str | Path | None = None) -> pd.DataFrame:
    """Check the record. Returns a row per segment, per broken place of the chain and per foreign file.

    Columns:
        segment: its name, or the name of a file.
        state: `writing`, `complete`, `compacted`, `pruned`, `shipped`, `in the lake` or `removed`; `chain` or `foreign`
            for what is not a segment.
        events: how many it has.
        missing: holes in `seq`.
        bad_lines: lines that are torn or not JSON; known until compaction.
        lost: events that could not be stored, as counted by `journal_gap` events.
        problem: what is wrong, null if nothing is: an altered, missing or reordered event, a segment that is missing
            or exists twice, a broken chain.

    Raises:
        ConfigurationError: the folder that is named holds no record.

    Example:
        >>> mn.verify().problem.dropna().tolist()
        []
    """
    import duckdb
    import pandas as pd

    named, folder = folder, paths.record_folder(folder).resolve()
    if named is not None and not (folder / "events").is_dir():
        raise ConfigurationError(f"there is no record in {folder}: name the folder that holds `events`")
    with duckdb.connect() as con, files.commit_lock(folder):
        findings = [*_findings(con, folder)]
    if (shared := lake_tables.configured(folder)) is not None:
        for content, state, problem in lake.check(shared):
            findings = [found for found in findings if (found.segment, found.state) != (content.segment, "shipped")]
            findings.append(VerifyRow(content.segment, state, content.events, content.missing, problem=problem))
    columns = ["segment", "state", "events", "missing", "bad_lines", "lost", "problem"]
    frame = pd.DataFrame([[getattr(finding, name) for name in columns] for finding in findings], columns=columns)
    return frame.astype({"segment": "string", "state": "string", "problem": "string"})


def _findings(con: duckdb.DuckDBPyConnection, folder: Path) -> Iterator[VerifyRow]:
    links, problems = chain.read(folder)
    sealed = {link.segment: link for link in links if link.kind == "sealed"}
    away = {link.segment: link.kind for link in links if link.kind != "sealed"}
    found = [*_found(con, folder)]
    number = Counter(finding.segment for finding in found)
    for finding in sorted(found, key=lambda each: each.segment):
        problem = finding.problem or _problem(finding, sealed.get(finding.segment))
        if number[finding.segment] > 1:
            problem = "is there more than once"
        elif finding.segment in away:
            problem = f"was {away[finding.segment]} and is still there; the next compaction removes it"
        yield replace(finding, problem=problem)
    for segment, link in sealed.items():
        if segment in away and not number[segment]:
            yield VerifyRow(segment, away[segment], link.events)
        elif not number[segment]:
            yield VerifyRow(segment, "removed", 0, link.events, problem="is missing and was not pruned")
    for problem in problems:
        yield VerifyRow("chain.jsonl", "chain", problem=problem)
    for name in files.foreign(folder):
        yield VerifyRow(name, "foreign", problem="is not a file of the record, and is not read")


def _problem(finding: VerifyRow, link: chain.Link | None) -> str | None:
    if link is None:
        return "is not in the chain" if finding.state == "compacted" else None
    if finding.events < link.events:
        return f"lacks {link.events - finding.events} of the {link.events} events it was sealed with"
    return None if finding.sha256 == link.sha256 else "was altered since it was sealed"


def _found(con: duckdb.DuckDBPyConnection, folder: Path) -> Iterator[VerifyRow]:
    """Return what each file holds."""
    import duckdb

    parquet = files.named(folder, "parquet")
    done = {file.stem for file in parquet}
    for file in (*parquet, *(file for file in files.named(folder, "jsonl") if file.stem not in done)):
        text = file.suffix == ".jsonl"
        state = "compacted" if not text else "complete" if files.sealed(file) else "writing"
        try:
            contents = chain.contents(con, file)
            bad = _lines(con, file) - sum(content.events for content in contents) if text else 0
        except duckdb.Error as error:
            yield VerifyRow(file.stem, state, problem=f"{file.name} cannot be read: {str(error).splitlines()[0]}")
            continue
        for content in contents or [chain.Content(file.stem, 0, 0, 0, "", 0, 0)]:
            elsewhere = "holds events that were written elsewhere" if text and content.segment != file.stem else None
            yield VerifyRow(
                file.stem if elsewhere else content.segment,
                state,
                content.events,
                content.missing,
                bad,
                content.lost,
                elsewhere,
                content.sha256,
            )


def _lines(con: duckdb.DuckDBPyConnection, segment: Path) -> int:
    row = con.execute(f"SELECT count(*) FROM {schema.read_lines([segment])}").fetchone()
    return int(row[0]) if row else 0

# ruff: noqa: S608  # the SQL is made of our own constants and paths
"""Verification: compares every segment with the chain, and checks the chain itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mentra_nb import paths
from mentra_nb.errors import ConfigurationError
from mentra_nb.record import schema
from mentra_nb.record.keep import lake, lake_tables
from mentra_nb.record.parquet import connect
from mentra_nb.record.write import chain, files
from mentra_nb.record.write.known import Known
from mentra_nb.record.write.known import read as known_segments
from mentra_nb.words import counted

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


@dataclass(frozen=True)
class RecordHead:
    """The newest link of the chain: its digest stands for every event that was sealed until `time`.

    Example:
        >>> journal = mn.Journal("sealed")
        >>> journal.record_audit_event("me", "note", {"reason": "checked"})
        >>> journal.close()
        >>> head = mn.record_head("sealed")
        >>> len(head.digest), head.links, head.events
        (64, 1, 1)
    """

    digest: str
    time: datetime
    links: int
    """How many links there are up to it."""
    events: int
    """How many events they seal."""


def record_head(folder: str | Path | None = None) -> RecordHead | None:
    """Return the newest link of the chain, or `None` if nothing is sealed yet: a kernel seals hourly and at its end.

    Keep its digest in another place, as in a ticket or a mail, and hand it to `verify` later: it tells whether anything
    that was sealed by then was altered, removed or put in, also if every file of the record was replaced.

    Example:
        >>> journal = mn.Journal("my-record")
        >>> journal.record_audit_event("me", "note", {"reason": "checked"})
        >>> journal.close()
        >>> head = mn.record_head("my-record")
        >>> head.events
        1
        >>> mn.verify("my-record", head=head.digest).problem.dropna().tolist()
        []
    """
    links, _ = chain.read(paths.record_folder(folder).resolve())
    if not links:
        return None
    events = sum(link.events for link in links if link.kind == "sealed")
    return RecordHead(links[-1].digest, datetime.fromtimestamp(links[-1].at, UTC), len(links), events)


def verify(folder: str | Path | None = None, *, head: str | RecordHead | None = None) -> pd.DataFrame:
    """Check the record. Returns a row per segment, per broken place of the chain and per foreign file.

    `head`, an earlier `record_head()` or its digest, must be in the chain.

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
    import pandas as pd

    from mentra_nb.record.empty import or_why

    named, folder = folder, paths.record_folder(folder).resolve()
    if named is not None and not (folder / "events").is_dir():
        raise ConfigurationError(f"there is no record in {folder}: name the folder that holds `events`")
    with connect() as con, files.commit_lock(folder):
        findings = [*_findings(con, folder, head.digest if isinstance(head, RecordHead) else head)]
    if (shared := lake_tables.configured(folder)) is not None:
        for content, state, problem in lake.check(shared):
            findings = [found for found in findings if (found.segment, found.state) != (content.segment, "shipped")]
            findings.append(VerifyRow(content.segment, state, content.events, content.missing, problem=problem))
    columns = ["segment", "state", "events", "missing", "bad_lines", "lost", "problem"]
    frame = pd.DataFrame([[getattr(finding, name) for name in columns] for finding in findings], columns=columns)
    found = frame.astype({"segment": "string", "state": "string", "problem": "string"})
    return or_why(found, f"There is nothing to verify: no event is recorded in {folder}.")


def _findings(con: duckdb.DuckDBPyConnection, folder: Path, head: str | None) -> Iterator[VerifyRow]:
    before = known_segments(folder)
    links, problems = chain.read(folder)
    if head is not None and all(link.digest != head for link in links):
        problems.append(f"does not hold the link {head}: what that link sealed was altered or removed")
    sealed = {link.segment: link for link in links if link.kind == "sealed"}
    away = {link.segment: link.kind for link in links if link.kind != "sealed"}
    found = [*_found(con, folder)]
    begun = known_segments(folder)._replace(links=before.links)  # a segment is known before its file is there
    number = Counter(finding.segment for finding in found)
    for finding in sorted(found, key=lambda each: each.segment):
        problem = finding.problem or _problem(finding, sealed.get(finding.segment), begun)
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


def _problem(finding: VerifyRow, link: chain.Link | None, begun: Known) -> str | None:
    if link is None:
        never = finding.state == "compacted" and finding.segment not in begun.sealed
        return "is not in the chain" if never else begun.stranger(finding.segment)
    if finding.events < link.events:
        return f"lacks {link.events - finding.events} of the {counted(link.events, 'event')} it was sealed with"
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

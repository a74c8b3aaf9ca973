# ruff: noqa: S608  # the SQL is made of our own constants and paths
"""The chain: a line for every segment that was sealed, and each line holds the digest of the one before.

The digest of a segment is the SHA-256 of its lines as its writer wrote them, each ended by a newline, torn ones left
out. It is of the events and not of the file: `contents` takes the same from text and from Parquet, so a segment can be
checked whatever it was turned into or merged with. Who keeps the digest of the last link elsewhere can prove that
nothing before it was altered, removed, reordered or put in; without that, someone who may write all these files could
write all of them anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from mentra_nb.record import schema
from mentra_nb.record.write import files

if TYPE_CHECKING:
    import duckdb

_TAIL = 64 << 10
_END_OF_TORN_LINE = b"~\n"
_BYTES_AT_A_TIME = 16 << 20  # of payloads; to put the lines in order takes several times that


@dataclass(frozen=True)
class Link:
    """A line of the chain. The writer of a segment adds it when it seals it, or whoever finds it after its death."""

    kind: Literal["sealed", "pruned", "shipped"]
    """A segment that was removed on purpose, or shipped elsewhere, has a second link that says so."""
    segment: str
    events: int
    first: float
    last: float
    """Unix seconds of the first and the last event."""
    sha256: str
    """The digest of the segment's lines."""
    at: float = 0.0
    """Unix seconds of this link."""
    previous: str | None = None
    """The digest of the link before; `None` for the first."""
    digest: str = ""
    """The SHA-256 of this line up to here, and a brace."""

    def after(self, previous: str | None) -> Link:
        """This link as it follows another in the chain."""
        link = replace(self, at=round(time.time(), 6), previous=previous)
        return replace(link, digest=link.true_digest())

    def true_digest(self) -> str:
        return hashlib.sha256(self._body()).hexdigest()

    def line(self) -> bytes:
        return self._body()[:-1] + f',"digest":"{self.digest}"}}\n'.encode()

    def _body(self) -> bytes:
        fields = asdict(self)
        del fields["digest"]
        return json.dumps(fields, separators=(",", ":")).encode()


def append(folder: Path, links: Iterable[Link]) -> None:
    """Add links. When it returns they outlive a power cut; killed at any moment, each is there whole or not at all."""
    lock = files.required(folder / "events" / ".chain")
    with lock, open(folder / "chain.jsonl", "ab+", opener=files.private) as file:
        last, torn = _end(file)
        lines = [_END_OF_TORN_LINE] if torn else []
        previous = last.digest if last else None
        for link in links:
            linked = link.after(previous)
            lines.append(linked.line())
            previous = linked.digest
        file.write(b"".join(lines))
        file.flush()
        os.fsync(file.fileno())


def read(folder: Path) -> tuple[list[Link], list[str]]:
    """The links in their order, and a sentence for each place where the chain does not hold together."""
    try:
        lines = (folder / "chain.jsonl").read_bytes().split(b"\n")[:-1]
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    links: list[Link] = []
    problems = []
    previous: str | None = None
    for number, line in enumerate(lines, 1):
        if line.endswith(b"~"):  # a write that was cut short
            continue
        link = _parsed(line)
        if link is None or link.line()[:-1] != line or link.true_digest() != link.digest:
            problems.append(f"line {number} of chain.jsonl was altered")
        elif link.previous != previous:
            problems.append(f"before line {number} of chain.jsonl a line was altered, removed, moved or put in")
        if link is not None:
            previous = link.digest
            links.append(link)
    return links, problems


def head(folder: Path) -> str | None:
    """The digest of the last link: what to keep elsewhere. Cheap."""
    try:
        with (folder / "chain.jsonl").open("rb") as file:
            last, _ = _end(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return last.digest if last else None


def chain_rows(folder: Path) -> list[dict[str, Any]]:
    """The chain for an auditor's export: `kind, segment, events, first, last, sha256, at, previous, digest`."""
    return [asdict(link) for link in read(folder)[0]]


def _end(file: IO[bytes]) -> tuple[Link | None, bool]:
    """The last link, and whether half a line follows it."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
    *lines, rest = file.read().split(b"\n")
    return next((link for line in reversed(lines) if (link := _parsed(line))), None), rest != b""


def _parsed(line: bytes) -> Link | None:
    try:
        return Link(**json.loads(line))
    except (ValueError, TypeError):
        return None


# ---- what a segment holds ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Content:
    """What was found of one segment."""

    segment: str
    events: int
    first: float
    last: float
    sha256: str
    missing: int
    """Events whose `seq` was not found."""
    lost: int
    """Events a `journal_gap` tells of."""

    def link(self) -> Link:
        return Link("sealed", self.segment, self.events, self.first, self.last, self.sha256)


_LINE = """concat('{"id":"', id,
    '","ts":', epoch_us(ts) // 1000000, '.', lpad((epoch_us(ts) % 1000000)::VARCHAR, 6, '0'),
    ',"seq":', seq, ',"source":"', source, '","v":', v, ',"scope":', to_json(scope), ',"event_type":', to_json(kind),
    ',"payload":', payload, '}', chr(10))"""
"""A row of `events` as its writer wrote it."""


def contents(con: duckdb.DuckDBPyConnection, file: Path) -> list[Content]:
    """What each segment holds that is in a file, text or Parquet. Raises DuckDB's errors if it cannot be read."""
    import duckdb

    try:
        if file.suffix == ".jsonl":
            con.execute(f"CREATE OR REPLACE TEMP TABLE written AS {lines(file)}")
            return contents_of(con, "written", "rowid")
        return contents_of(con, f"read_parquet({schema.quoted(file)}, file_row_number = true)", "file_row_number")
    except UnicodeDecodeError as error:  # in DuckDB's own words about a damaged file
        raise duckdb.InvalidInputException(f"{file.name} holds text that is not UTF-8: {error}") from None


def contents_of(con: duckdb.DuckDBPyConnection, source: str, position: str) -> list[Content]:
    """What each segment holds that is in a table with the columns of `events`; its lines are in order of `position`."""
    sizes = con.execute(f"SELECT source::VARCHAR, sum(strlen(payload)) FROM {source} GROUP BY source ORDER BY source")
    batches: list[list[str]] = [[]]
    room = _BYTES_AT_A_TIME
    for segment, size in sizes.fetchall():
        if batches[-1] and size > room:
            batches.append([])
            room = _BYTES_AT_A_TIME
        batches[-1].append(str(segment))
        room -= size or 0
    return [content for batch in batches if batch for content in _contents(con, source, position, batch)]


def _contents(con: duckdb.DuckDBPyConnection, source: str, position: str, batch: list[str]) -> list[Content]:
    rows = con.execute(f"""SELECT source::VARCHAR, count(*), coalesce(epoch_us(min(ts)), 0) / 1e6,
            coalesce(epoch_us(max(ts)), 0) / 1e6, sha256(string_agg({_LINE}, '' ORDER BY {position})),
            coalesce(max(seq), -1) + 1 - count(DISTINCT seq),
            coalesce(sum(lost) FILTER (kind = 'journal_gap'), 0)::BIGINT
        FROM {source} WHERE source IN ({", ".join(map(schema.text, batch))}) GROUP BY source ORDER BY source""")
    return [Content(*row) for row in rows.fetchall()]


def lines(segment: Path) -> str:
    """The rows of `events` in a segment's text, payloads letter by letter: DuckDB writes numbers its own way."""
    fields = {name: type_ for name, type_ in schema.ENVELOPE.items() if name != "payload"}
    begin = '"payload":'
    text = (
        f"substring(json, strpos(json, '{begin}') + {len(begin)}, len(json) - strpos(json, '{begin}') - {len(begin)})"
    )
    longest = min(64 << 20, max(1 << 20, files.size(segment)))  # twice that is taken from memory
    whole = f"read_ndjson_objects({schema.quoted(segment)}, ignore_errors = true, maximum_object_size = {longest})"
    return f"""{schema.TYPED} FROM (
        SELECT unnest(from_json(json, '{json.dumps(fields)}')), TRY_CAST({text} AS JSON) AS payload FROM {whole}
    ) WHERE id IS NOT NULL"""

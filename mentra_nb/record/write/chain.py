# ruff: noqa: S608  # the SQL is made of our own constants and paths
"""The chain: a line (link) per sealed segment. Each link holds the digest of the link before it.

The digest of a segment is the SHA-256 of its lines as they were written, each with its newline, without torn ones. It
is computed from the events and not from the file: `contents` computes the same from text and from Parquet, so a segment
can still be checked after it was compacted or merged.

`known` keeps a second list of the links, so that a chain that was cut or removed is found. A copy of the last link's
digest, kept in another place, proves that nothing before it was altered, removed, reordered or inserted. Without such a
copy, a person who can write all these files can replace all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple

from mentra_nb.record import schema
from mentra_nb.record.write import files, known

if TYPE_CHECKING:
    import duckdb

_TAIL = 64 << 10
_END_OF_TORN_LINE = b"~\n"
_LATEST = 1e11  # Unix seconds; the year 5138
_BATCH_BYTES = 16 << 20  # of payloads; sorting the lines takes several times as much memory


class Link(NamedTuple):
    """A line of the chain. The writer of a segment adds it on sealing; if it died, compaction adds it."""

    kind: Literal["sealed", "pruned", "shipped"]
    """A segment that was pruned or shipped has a second link that says so."""
    segment: str
    events: int
    first: float
    last: float
    """Unix seconds of the first and the last event."""
    sha256: str
    """The digest of the segment's lines."""
    at: float = 0.0
    """When the link was added, in Unix seconds."""
    previous: str | None = None
    """The digest of the link before; `None` for the first."""
    digest: str = ""
    """The SHA-256 of the line without this field."""

    def after(self, previous: str | None) -> Link:
        """Return the link with its time, its predecessor's digest and its own digest."""
        link = self._replace(at=round(time.time(), 6), previous=previous)
        return link._replace(digest=link.true_digest())

    def true_digest(self) -> str:
        """Compute the digest that the link must have."""
        return hashlib.sha256(self._body()).hexdigest()

    def noted(self) -> known.Noted:
        """Return what `known` keeps of it."""
        return self.digest, self.kind, self.segment

    def line(self) -> bytes:
        """Return the canonical line, with its newline."""
        return self._body()[:-1] + f',"digest":"{self.digest}"}}\n'.encode()

    def _body(self) -> bytes:
        fields = self._asdict()
        del fields["digest"]
        return json.dumps(fields, separators=(",", ":")).encode()


def append(folder: Path, links: Iterable[Link]) -> None:
    """Add links to the chain and wait until they are on the disk. If it is killed, each link is whole or missing."""
    lock = files.required(folder / "events" / ".chain")
    with lock, open(folder / "chain.jsonl", "ab+", opener=files.private) as file:
        last, torn = _end(file)
        lines = [_END_OF_TORN_LINE] if torn else []
        if not known.is_there(folder):
            known.make(folder, [link.noted() for link in read(folder)[0]])
        previous, newest = last.digest if last else None, known.head(folder)
        if newest not in (None, previous) and not _holds(file, newest):
            previous = newest  # of a link that is missing: the chain stays broken here
        added = []
        for link in links:
            added.append(link.after(previous))
            previous = added[-1].digest
        file.write(b"".join([*lines, *(link.line() for link in added)]))
        file.flush()
        files.sync(file.fileno())
        known.add(folder, [link.noted() for link in added])


def begin(folder: Path, segment: str) -> None:
    """Make a segment known that is about to be written; one that is put in later is not."""
    if not known.is_there(folder):
        with files.required(folder / "events" / ".chain"):
            if not known.is_there(folder):
                known.make(folder, [link.noted() for link in read(folder)[0]])
    known.begin(folder, segment)


def read(folder: Path) -> tuple[list[Link], list[str]]:
    """Return the links in order, and a message for each place where the chain is broken."""
    noted = known.read(folder)  # first, since a link is added to the chain first
    had = noted.links
    links, problems = _read(folder)
    if noted.problem is not None:
        problems.insert(0, noted.problem)
    if lost := [had[digest] for digest in had.keys() - {link.digest for link in links}]:
        number = f"{len(lost)} of the links that it had" if len(lost) > 1 else "a link that it had"
        problems.insert(0, f"chain.jsonl lacks {number}, for the segment {max(segment for _, segment in lost)}")
    return links, problems


def _read(folder: Path) -> tuple[list[Link], list[str]]:
    try:
        lines = (folder / "chain.jsonl").read_bytes().split(b"\n")[:-1]
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except OSError as error:
        return [], [f"chain.jsonl cannot be read: {error.strerror}"]
    links: list[Link] = []
    problems = []
    previous: str | None = None
    for number, line in enumerate(lines, 1):
        if line.endswith(b"~"):  # the end of an interrupted write
            continue
        link = _parsed(line)
        if link is None or link.line()[:-1] != line or link.true_digest() != link.digest:
            problems.append(f"line {number} of chain.jsonl was altered")
        elif link.previous != previous:
            problems.append(f"before line {number} of chain.jsonl a line was altered, removed, moved or inserted")
        if link is not None:
            previous = link.digest
            links.append(link)
    return links, problems


def head(folder: Path) -> str | None:
    """Return the digest of the last link, reading only the end of the file."""
    try:
        with (folder / "chain.jsonl").open("rb") as file:
            last, _ = _end(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return last.digest if last else None


def chain_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the links as rows: `kind, segment, events, first, last, sha256, at, previous, digest`."""
    return [link._asdict() for link in read(folder)[0]]


def _end(file: IO[bytes]) -> tuple[Link | None, bool]:
    """Return the last link, and whether a torn line follows it."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
    *lines, rest = file.read().split(b"\n")
    return next((link for line in reversed(lines) if (link := _parsed(line))), None), rest != b""


def _holds(file: IO[bytes], digest: str) -> bool:
    """Return whether a line of the chain, written to its end, has this digest."""
    file.seek(0)
    return f'"digest":"{digest}"}}\n'.encode() in file.read()


def _parsed(line: bytes) -> Link | None:
    """Return the link of a line, or `None` if it cannot be one, whatever its digest is."""
    try:
        link = Link(**json.loads(line))
        texts = link.kind, link.segment, link.sha256, link.digest, "" if link.previous is None else link.previous
        times = link.first, link.last, link.at
        if type(link.events) is int and "".join(texts).isascii() and all(0 <= each < _LATEST for each in times):
            return link
    except (ValueError, TypeError, RecursionError):
        pass
    return None


# ---- the contents of segments ------------------------------------------------------------------------------------


class Content(NamedTuple):
    """What a file or table holds of one segment."""

    segment: str
    events: int
    first: float
    last: float
    sha256: str
    missing: int
    """Holes in `seq`."""
    lost: int
    """Events that could not be stored, as counted by `journal_gap` events."""

    def link(self) -> Link:
        """Return the link that seals this content."""
        return Link("sealed", self.segment, self.events, self.first, self.last, self.sha256)


_LINE = """concat('{"id":"', id,
    '","ts":', epoch_us(ts) // 1000000, '.', lpad((epoch_us(ts) % 1000000)::VARCHAR, 6, '0'),
    ',"seq":', seq, ',"source":"', source, '","v":', v, ',"scope":', to_json(scope), ',"event_type":', to_json(kind),
    ',"payload":', payload, '}', chr(10))"""
"""SQL for the line of a row of `events`, as it was written."""


def contents(con: duckdb.DuckDBPyConnection, file: Path) -> list[Content]:
    """Return what a file, text or Parquet, holds of each segment.

    Raises:
        duckdb.Error: the file cannot be read.
    """
    import duckdb

    try:
        if file.suffix == ".jsonl":
            con.execute(f"CREATE OR REPLACE TEMP TABLE written AS {lines(file)}")
            return contents_of(con, "written", "rowid")
        return contents_of(con, f"read_parquet({schema.quoted(file)}, file_row_number = true)", "file_row_number")
    except UnicodeDecodeError as error:  # raised by DuckDB for some damaged files
        raise duckdb.InvalidInputException(f"{file.name} holds text that is not UTF-8: {error}") from None


def contents_of(con: duckdb.DuckDBPyConnection, source: str, position: str) -> list[Content]:
    """Return what a table with the columns of `events` holds of each segment. `position` orders the lines."""
    sizes = con.execute(f"SELECT source::VARCHAR, sum(strlen(payload)) FROM {source} GROUP BY source ORDER BY source")
    batches: list[list[str]] = [[]]
    room = _BATCH_BYTES
    for segment, size in sizes.fetchall():
        if batches[-1] and size > room:
            batches.append([])
            room = _BATCH_BYTES
        batches[-1].append(str(segment))
        room -= size or 0
    return [content for batch in batches if batch for content in _contents(con, source, position, batch)]


def _contents(con: duckdb.DuckDBPyConnection, source: str, position: str, batch: list[str]) -> list[Content]:
    rows = con.execute(f"""SELECT source::VARCHAR, count(*), coalesce(epoch_us(min(ts)), 0) / 1e6,
            coalesce(epoch_us(max(ts)), 0) / 1e6, sha256(string_agg({_LINE}, '' ORDER BY {position})),
            coalesce(max(seq), -1) + 1 - count(DISTINCT seq),
            coalesce(TRY_CAST(sum(lost) FILTER (kind = 'journal_gap') AS BIGINT), 0)
        FROM {source} WHERE source IN ({", ".join(map(schema.text, batch))}) GROUP BY source ORDER BY source""")
    return [Content(*row) for row in rows.fetchall()]


def lines(segment: Path) -> str:
    """Return the SELECT of a segment's text as rows of `events`, with payloads unchanged, which JSON types are not."""
    fields = {name: type_ for name, type_ in schema.ENVELOPE.items() if name != "payload"}
    begin = '"payload":'
    text = (
        f"substring(json, strpos(json, '{begin}') + {len(begin)}, len(json) - strpos(json, '{begin}') - {len(begin)})"
    )
    longest = min(64 << 20, max(1 << 20, files.size(segment)))  # DuckDB allocates twice that
    whole = f"read_ndjson_objects({schema.quoted(segment)}, ignore_errors = true, maximum_object_size = {longest})"
    return f"""{schema.TYPED} FROM (
        SELECT unnest(from_json(json, '{json.dumps(fields)}')), TRY_CAST({text} AS JSON) AS payload FROM {whole}
    ) WHERE id IS NOT NULL"""

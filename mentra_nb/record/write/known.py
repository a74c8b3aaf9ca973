"""`events/.known`: a line for each segment that was begun, and for each link that was added to the chain.

It tells what the chain alone cannot: that its end was cut off, that it was removed, and that a segment was put in that
no writer of this record has begun. Like the chain it is only appended to. A person who can write all these files can
also replace all of them; a digest that is kept in another place (`mn.record_head`) tells that too.

    begun <segment>
    <digest of the link> <kind of the link> <segment>

Records of earlier versions have no such file until something is written to them; what they hold by then is known.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from mentra_nb.record.write import files

Noted = tuple[str, str, str]
"""Of a link: its digest, its kind and its segment."""
_BEGUN = "begun"
_PARTS = 3  # of the line of a link
_TAIL = 64 << 10


class Known(NamedTuple):
    """What `.known` says."""

    is_there: bool = False
    """Whether the record has the file; without it nothing can be said."""
    begun: frozenset[str] = frozenset()
    links: Mapping[str, tuple[str, str]] = MappingProxyType({})
    """By digest of the link, in order: its kind and segment."""
    problem: str | None = None
    """Why the file cannot be read, if it is there and cannot."""

    @property
    def sealed(self) -> set[str]:
        """The segments that have had a link."""
        return {segment for kind, segment in self.links.values() if kind == "sealed"}

    def stranger(self, segment: str) -> str | None:
        """Return why a segment without a link is not to be trusted, or `None` if it is one that was only begun."""
        if segment in self.sealed:
            return "was sealed, but its link is not in the chain any more"
        if self.is_there and segment not in self.begun:
            return "has no link, and no writer of this record has begun it: it was put in, or is of an earlier version"
        return None


def read(folder: Path) -> Known:
    """Return what is known. A line that was not written whole is skipped."""
    try:
        lines = _file(folder).read_text(encoding="utf-8", errors="replace").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return Known()
    except OSError as error:
        return Known(problem=f"events/.known cannot be read: {error.strerror}")
    begun, links = set[str](), dict[str, tuple[str, str]]()
    for line in lines:
        match line.split(" "):
            case ["begun", segment]:
                begun.add(segment)
            case [digest, kind, segment]:
                links[digest] = kind, segment
    return Known(True, frozenset(begun), links)


def head(folder: Path) -> str | None:
    """Return the digest of the newest known link, reading only the end of the file."""
    try:
        with _file(folder).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().decode(errors="replace").split("\n")[1:-1]
    except (FileNotFoundError, NotADirectoryError):
        return None
    return next((parts[0] for line in reversed(lines) if len(parts := line.split(" ")) == _PARTS), None)


def is_there(folder: Path) -> bool:
    """Return whether the record has the file."""
    return _file(folder).exists()


def make(folder: Path, links: Iterable[Noted]) -> None:
    """Make the file of a record that has none: it knows the segments that are there, and the links of the chain."""
    lines = [*(f"{_BEGUN} {file.stem}" for file in files.named(folder, "jsonl")), *map(" ".join, links)]
    new = _file(folder).with_name(".known.tmp")
    with open(new, "wb", opener=files.private) as file:
        file.write(_joined(lines))
    new.replace(_file(folder))


def begin(folder: Path, segment: str) -> None:
    """Note that a segment is begun. After `sync` this survives a power cut."""
    _append(folder, [f"{_BEGUN} {segment}"])


def add(folder: Path, links: Iterable[Noted]) -> None:
    """Note the links that were just added to the chain. Those that a power cut takes back are only not known."""
    _append(folder, map(" ".join, links))


def sync(folder: Path) -> None:
    """Wait until the segments that were begun are known on the disk."""
    with contextlib.suppress(FileNotFoundError), _file(folder).open("rb+") as file:
        files.sync(file.fileno())


def _append(folder: Path, lines: Iterable[str]) -> None:
    """Append lines in one write, so that those of several processes do not mix."""
    with open(_file(folder), "ab", buffering=0, opener=files.private) as file:
        file.write(_joined(lines))


def _joined(lines: Iterable[str]) -> bytes:
    """Return the lines so that they are whole also after one that was not written to its end."""
    return "".join(f"\n{line}\n" for line in lines).encode()


def _file(folder: Path) -> Path:
    return folder / "events" / ".known"

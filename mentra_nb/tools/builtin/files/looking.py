"""Reading, listing and searching files: no link is followed below the path that was named."""

from __future__ import annotations

import io
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from mentra_nb.effect.types import FileType
from mentra_nb.permission.protected import guard
from mentra_nb.tools.builtin.files.overlay import Overlay
from mentra_nb.tools.builtin.files.text import LOOKED_AT, decoded, is_binary, mark_of
from mentra_nb.tools.schema import ToolError
from mentra_nb.words import counted

MAX_READ = 1 << 20
"""Characters of a file that are read at once."""
MAX_LINE = 500
"""Characters of a line that was found."""
MAX_SEARCHED = 16 << 20
"""Bytes of the largest file that is searched."""
SEARCH_TIME = 20.0
"""Seconds a search may take."""


def lines_of(file: BinaryIO, shown: str, offset: int, limit: int) -> str:
    """Return numbered lines, at most `MAX_READ` characters of them.

    Memory use does not depend on the file, unless it is not UTF-8: then up to `MAX_SEARCHED` bytes are read.
    """
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(io.BytesIO(file.read()))
    mark, encoding = mark_of(buffered.peek(4)[:4])
    buffered.read(len(mark))
    text = io.TextIOWrapper(buffered, encoding=encoding, newline=None)
    try:
        lines = _numbered(text, offset, limit)
    except UnicodeDecodeError:
        buffered.seek(0)
        raw = buffered.read(MAX_SEARCHED + 1)
        if len(raw) > MAX_SEARCHED:
            raise ToolError(f"'{shown}' is not UTF-8 text, and over {MAX_SEARCHED >> 20} MiB") from None
        found, form = decoded(raw, shown)
        lines = [*_numbered(io.StringIO(found, newline=None), offset, limit), f"[its encoding is {form.encoding}]"]
    finally:
        text.detach()
    return "\n".join(lines) or "(no lines)"


def _numbered(text: TextIO, offset: int, limit: int) -> list[str]:
    """Return the lines of a text with their numbers. Raises `UnicodeDecodeError`."""
    lines, size, number = [], 0, 1
    while number < offset + limit and (piece := text.readline(MAX_READ)):
        is_whole = piece.endswith("\n")
        if number >= offset:
            size += len(piece)
            if size > MAX_READ or (not is_whole and len(piece) == MAX_READ):
                lines.append(f"L{number}: {piece[: max(0, MAX_READ - size + len(piece))]}")
                lines.append(f"[cut: only {MAX_READ} characters are shown; read on with offset]")
                break
            lines.append(f"L{number}: {piece.removesuffix(chr(10))}")
        number += is_whole
    return lines


def listed(overlay: Overlay, path: str, depth: int, limit: int) -> str:
    """Return what is in a folder, names sorted, each folder before what is in it; a file lists itself."""
    if overlay.type(path) != "folder":
        return f"[{overlay.type(path)}] {os.path.basename(path)}"  # noqa: PTH119
    lines: list[str] = []
    for below, kind in _below(overlay, path, "", depth) if limit else ():
        if len(lines) == limit:
            lines.append(f"[there is more than these {limit}; list a folder in it, or raise the limit]")
            break
        lines.append(f"[{'dir' if kind == 'folder' else kind}] {below}")
    return "\n".join(lines) or "(no entries)"


def _below(overlay: Overlay, path: str, prefix: str, depth: int) -> Iterator[tuple[str, FileType]]:
    if depth < 1:
        return
    for name, kind in overlay.names(path).items():
        yield prefix + name, kind
        if kind == "folder" and guard(Path(path, name), "read") is None:
            try:
                yield from _below(overlay, os.path.join(path, name), f"{prefix}{name}/", depth - 1)  # noqa: PTH118
            except OSError as error:
                yield f"{prefix}{name}/ ({error.strerror})", "other"


@dataclass
class Searching:
    """One search. `skipped` counts what was not searched, by reason."""

    overlay: Overlay
    top: str
    """The folder to which found paths are relative."""
    pattern: Any
    limit: int
    deadline: float
    found: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    over: str = ""

    def everything(self, path: str, ignored: Ignored) -> None:
        """Search a folder and what is in it, names sorted."""
        ignored = ignored.with_those_in(self.overlay, path)
        for name, kind in self.overlay.names(path).items():
            if self.over:
                return
            inner = os.path.join(path, name)  # noqa: PTH118
            if ignored.covers(inner, folder=kind == "folder"):
                self.skipped["ignored"] += 1
            elif guard(Path(inner), "read") is not None:
                self.skipped["protected"] += 1
            elif kind == "folder":
                try:
                    self.everything(inner, ignored)
                except OSError:
                    self.skipped["unreadable"] += 1
            elif kind != "file":
                self.skipped["no regular file"] += 1
            else:
                self.file(inner)

    def file(self, path: str) -> None:
        """Search one file."""
        try:
            with self.overlay.open(path) as file:
                raw = file.read(LOOKED_AT)
                if is_binary(raw):
                    self.skipped["binary"] += 1
                    return
                raw += file.read(MAX_SEARCHED)
            if len(raw) > MAX_SEARCHED:
                self.skipped[f"over {MAX_SEARCHED >> 20} MiB"] += 1
                return
            text, _ = decoded(raw, path)
        except (OSError, ToolError) as error:
            self.skipped["not text" if isinstance(error, ToolError) else "unreadable"] += 1
            return
        shown = os.path.relpath(path, self.top).replace(os.sep, "/")
        shown = path if shown.startswith("../") else shown
        for number, line in enumerate(text.split("\n"), 1):
            try:
                hit = self.pattern.search(line, timeout=max(0.001, self.deadline - time.monotonic()))
            except TimeoutError:
                self.over = f"stopped after {SEARCH_TIME:g} seconds"
                return
            if hit is not None:
                if len(self.found) == self.limit:
                    self.over = f"more than {counted(self.limit, 'line')}"
                    return
                self.found.append(f"{shown}:{number}: {line if len(line) <= MAX_LINE else line[:MAX_LINE] + '…'}")

    def text(self) -> str:
        """Return what was found, and what was not searched."""
        notes = [self.over] if self.over else []
        if self.skipped:
            notes.append("not searched: " + ", ".join(f"{n} {why}" for why, n in sorted(self.skipped.items())))
        return "\n".join([*(self.found or ["(no matches)"]), *(f"[{note}]" for note in notes)])


@dataclass(frozen=True)
class Ignored:
    """The ignore files in force in a folder: for each, its folder and its patterns."""

    rules: tuple[tuple[str, Any], ...] = ()

    def with_those_in(self, overlay: Overlay, path: str) -> Ignored:
        """Return these with the ignore files of a folder, whose patterns come after those of the folders above."""
        import pathspec

        lines: list[str] = []
        for name in (".gitignore", ".ignore"):
            try:
                with overlay.open(os.path.join(path, name)) as file:  # noqa: PTH118
                    lines += file.read(MAX_READ).decode("utf-8", "replace").splitlines()
            except OSError:
                continue
        return Ignored((*self.rules, (path, pathspec.GitIgnoreSpec.from_lines(lines)))) if lines else self

    def covers(self, path: str, *, folder: bool) -> bool:
        """Return whether a path is ignored: the last pattern that says anything about it decides."""
        if os.path.basename(path) in (".git", ".hg", ".svn"):  # noqa: PTH119
            return True
        for above, spec in reversed(self.rules):
            inner = os.path.relpath(path, above).replace(os.sep, "/") + ("/" if folder else "")
            said = spec.check_file(inner).include
            if said is not None:
                return bool(said)
        return False


def searched(overlay: Overlay, path: str, top: str, pattern: str, limit: int) -> str:
    """Return the lines below a path, or in one file, that a regular expression matches, as `path:line: text`.

    Ignore files from `top` on are honoured for what is below the path, which is searched itself in any case.
    """
    import regex  # it takes a while to load

    try:
        expression = regex.compile(pattern)
    except (regex.error, RecursionError) as error:
        raise ToolError(f"'{pattern}' is not a regular expression: {error}") from None
    search = Searching(overlay, top, expression, limit, time.monotonic() + SEARCH_TIME)
    if overlay.type(path) != "folder":
        search.file(path)
        return search.text()
    ignored, above = Ignored(), []
    here = path
    while here.startswith(os.path.join(top, "")):  # noqa: PTH118
        here = os.path.dirname(here)  # noqa: PTH120
        above.append(here)
    for one in reversed(above):
        ignored = ignored.with_those_in(overlay, one)
    if ignored.covers(path, folder=True):  # it was named, so what is in it is looked at
        ignored = Ignored()
    search.everything(path, ignored)
    return search.text()

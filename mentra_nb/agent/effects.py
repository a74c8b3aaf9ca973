"""What a command did in the sandbox, in words and diffs for a person to judge."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from mentra_nb.authorization import CallEffect, FileEffect
from mentra_nb.effect.handles import parent
from mentra_nb.effect.lines import Changes, changes
from mentra_nb.effect.types import FileChange, FileState, Want
from mentra_nb.permission.protected import guard
from mentra_nb.sandbox.waiting import FencedRun
from mentra_nb.tools.builtin.files.text import both_decoded
from mentra_nb.tools.schema import ToolError
from mentra_nb.words import counted

MAX_TEXT = 256 << 10
"""Bytes of a file that is compared line by line."""
MAX_DIFFS = 50
"""Files of an effect whose diffs are shown; a person sees the names of all."""
MAX_DIFF_LINES = 2_000
"""Lines of all diffs of an effect."""
_WANTED = {
    "network": "a connection to {}",
    "opening": "to open {}",
    "writing": "to write {}",
    "renaming": "to rename {}",
    "space": "{}",
    "special file": "a pipe or socket, {}",
}


def in_words(want: Want) -> str:
    """Return what a command wanted and did not get, as words that follow *it wanted*."""
    return _WANTED.get(want.kind, "{}").format(want.name)


def shown_effect(run: FencedRun) -> CallEffect:
    """Return the effect of a command for a person to judge. Reads the files that it changed."""
    files, lines_left = [], MAX_DIFF_LINES
    for number, change in enumerate(run.effect.changes):
        found = compared(change, run.content) if number < MAX_DIFFS and lines_left > 0 else None
        diff = tuple(found.lines[:lines_left]) if found is not None else ()
        lines_left -= len(diff)
        protected = guard(Path(change.path), "write")
        files.append(
            FileEffect(
                path=change.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
                kind=change.kind,
                about=_about(run, change),
                diff=diff,
                added=found.added if found is not None else 0,
                removed=found.removed if found is not None else 0,
                is_folder=change.state.type == "folder",
                protected=protected.why if protected is not None else None,
            )
        )
    return CallEffect(
        digest=run.effect.digest, files=tuple(files), wanted=tuple(in_words(want) for want in run.effect.wanted)
    )


def compared(change: FileChange, content: Callable[[str], BinaryIO]) -> Changes | None:
    """Return how the text of a file changes; `None` if it is none, or too long.

    `content` opens the new content of a digest.
    """
    texts = texts_of(change, content)
    return changes(*texts) if texts is not None else None


def texts_of(change: FileChange, content: Callable[[str], BinaryIO]) -> tuple[str, str] | None:
    """Return the text of a file before a change and after it; `None` as `compared`, whose arguments these are."""
    states = [state for state in (change.before, change.after) if state is not None]
    if any(state.type != "file" or state.size > MAX_TEXT for state in states):
        return None
    if change.before is not None and change.after is not None and change.before.digest == change.after.digest:
        return None
    old, new = b"", b""
    with suppress(OSError):  # it is gone meanwhile: then it is a conflict, and nothing is kept
        if change.before is not None:
            with parent(change.path) as (folder, name), folder.open(name) as file:
                old = file.read(MAX_TEXT)
    if change.after is not None:
        with content(change.after.digest) as file:
            new = file.read(MAX_TEXT)
    try:
        return both_decoded(old, new)
    except ToolError:
        return None


def _about(run: FencedRun, change: FileChange) -> str:
    """Return what is there, and what was there if that differs."""
    before, after = change.before, change.after
    if before is None or after is None:
        return _state(run, change.state, new=after is not None)
    if before.type != after.type:
        return f"{_state(run, before, new=False)} → {_state(run, after, new=True)}"
    parts = [_state(run, after, new=True)]
    if before.size != after.size and after.type == "file":
        parts = [f"{after.type}, {before.size} → {counted(after.size, 'byte')}"]
    if before.mode != after.mode:
        parts.append(f"mode {before.mode:o} → {after.mode:o}")
    return ", ".join(parts)


def _state(run: FencedRun, state: FileState, *, new: bool) -> str:
    if state.type == "file":
        special = f", mode {state.mode:o}" if state.mode & 0o7111 else ""
        return f"file, {counted(state.size, 'byte')}{special}"
    if state.type == "link" and new:
        with run.content(state.digest) as file:
            return f"link to {file.read(4096).decode(errors='replace')}"
    return state.type

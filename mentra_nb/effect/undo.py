"""Taking back what the calls of a turn did to files, without touching what somebody changed since then."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO

from mentra_nb.effect.handles import folder, state
from mentra_nb.effect.journal import Journal, JournalEntry
from mentra_nb.effect.types import Conflict, FileChange

TRIES = 5
"""How often a plan is made anew because somebody changed a file meanwhile."""


@dataclass(frozen=True)
class UndoPlan:
    """What undoing a turn would do now."""

    changes: tuple[FileChange, ...]
    """What would be changed."""
    conflicts: tuple[str, ...]
    """Files that stay as they are, since somebody changed them, or what is in them, after the turn."""
    sources: dict[str, JournalEntry]
    """The entries that have what was there before, by path."""


@dataclass(frozen=True)
class Undone:
    """What undoing a turn did. `entry` is what takes it back again; `None` if there was nothing to do."""

    entry: JournalEntry | None
    conflicts: tuple[str, ...]

    @property
    def changes(self) -> tuple[FileChange, ...]:
        """What was changed."""
        return self.entry.changes if self.entry else ()


def plan_undo(journal: Journal, turn: str) -> UndoPlan:
    """Return what undoing a turn would do now, without doing it."""
    wanted: dict[str, FileChange] = {}
    sources: dict[str, JournalEntry] = {}
    conflicts: set[str] = set()
    for entry in reversed(journal.entries(turn)):
        for change in entry.changes:
            later = wanted.get(change.path)
            if later is not None and later.after != change.after:
                conflicts.add(change.path)  # somebody changed it between two calls: only the later one is taken back
            elif change.path not in conflicts:
                before = later.before if later is not None else change.after
                wanted[change.path] = FileChange(change.path, before, change.before)
                sources[change.path] = entry
    changes = [change for change in wanted.values() if change.before != change.after]
    possible, more = _possible([change for change in changes if state(change.path) != change.after])
    return UndoPlan(tuple(possible), tuple(sorted(conflicts | more)), sources)


def undo(journal: Journal, turn: str, *, by: str) -> Undone:
    """Restore the files of a turn as they were before it, all that can be and that nobody changed since.

    Args:
        by: The `run_id` under which this undo is entered, so that it can be undone itself.

    Raises:
        OSError: The system refused; then nothing was written.
        Conflict: Somebody goes on changing the files.
    """

    def content(path: str) -> BinaryIO:
        return journal.image(plan.sources[path], path)

    for left in reversed(range(TRIES)):
        plan = plan_undo(journal, turn)
        if not plan.changes:
            return Undone(None, plan.conflicts)
        try:
            entry = journal.apply(plan.changes, content, turn=by, call="undo", undoes=turn)
            return Undone(entry, plan.conflicts)
        except Conflict:
            if not left:
                raise
    raise AssertionError


def _possible(changes: list[FileChange]) -> tuple[list[FileChange], set[str]]:
    """Return the changes that can be made now, and the paths of the others."""
    conflicts: set[str] = set()
    while True:
        by_path = {change.path: change for change in changes}
        wrong = {change.path for change in changes if not _can_be_made(change, by_path)}
        if not wrong:
            return changes, conflicts
        conflicts |= wrong
        changes = [change for change in changes if change.path not in wrong]


def _can_be_made(change: FileChange, others: dict[str, FileChange]) -> bool:
    if state(change.path) != change.before:
        return False
    if change.before is not None and change.before.type == "folder" and not _is_folder(change.after):
        inside = _paths_in(change.path)
        return all(path in others and others[path].after is None for path in inside)
    if change.after is None:
        return True
    above = os.path.dirname(change.path)  # noqa: PTH120
    return _is_folder(others[above].after if above in others else state(above))


def _is_folder(found: object) -> bool:
    return getattr(found, "type", None) == "folder"


def _paths_in(path: str) -> Iterable[str]:
    with folder(path) as found:
        return [os.path.join(path, name) for name in found.names()]  # noqa: PTH118

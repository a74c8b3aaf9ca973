"""The event of what a call did to files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from mentra_nb.content import Data
from mentra_nb.event.facts import OfCall

if TYPE_CHECKING:
    from mentra_nb.effect.journal import JournalEntry
    from mentra_nb.effect.types import FileChange

MAX_FILES = 200
"""Files in one event; of an effect on more files there are several."""

EffectOutcome = Literal["made", "discarded", "undone", "finished", "taken_back", "conflict"]
"""`discarded`: it was done in the sandbox and not kept. `undone`: it took back what a turn had done. The last three:
what became of it after its process was killed."""


class ChangedFile(Data):
    """What happened to one file. Sizes are bytes; digests are SHA-256 in hex."""

    path: str
    change: Literal["created", "changed", "deleted"]
    type: str
    bytes_before: int | None = None
    bytes: int | None = None
    mode_before: str | None = None
    mode: str | None = None
    digest_before: str | None = None
    digest: str | None = None


class EffectMade(OfCall):
    """Files were changed by a call. `entry` is the entry of the undo journal, `undoes` the turn that was undone.

    `entry` is empty where the changes were discarded.
    `names` are those of the kernel that an undo restored.
    """

    kind: Literal["effect_made"] = "effect_made"
    outcome: EffectOutcome
    agent_name: str | None = None
    entry: str
    undoes: str | None = None
    session_id: str | None = None
    """The session in which it was undone."""
    files: tuple[ChangedFile, ...] = ()
    names: tuple[str, ...] | None = None

    def scope(self) -> str:
        return self.agent_id or "effects"


def effects_made(entry: JournalEntry, outcome: EffectOutcome | None = None, **about: Any) -> Iterator[EffectMade]:
    """Yield the events of what a call did to files. `about` has the fields that name the call."""
    made: EffectOutcome = outcome or ("undone" if entry.undoes else "made")
    return _events(entry.changes, outcome=made, entry=entry.id, undoes=entry.undoes, **about)


def effects_discarded(changes: Sequence[FileChange], **about: Any) -> Iterator[EffectMade]:
    """Yield the events of what a call did in the sandbox and what was not kept. `about` as in `effects_made`."""
    return _events(changes, outcome="discarded", entry="", **about)


def _events(changes: Sequence[FileChange], **about: Any) -> Iterator[EffectMade]:
    for first in range(0, len(changes), MAX_FILES):
        yield EffectMade(files=tuple(map(_changed, changes[first : first + MAX_FILES])), **about)


def _changed(change: FileChange) -> ChangedFile:
    before, after = change.before, change.after
    return ChangedFile(
        path=change.path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"),
        change=change.kind,
        type=change.state.type,
        bytes_before=before.size if before and before.has_content else None,
        bytes=after.size if after and after.has_content else None,
        mode_before=f"{before.mode:o}" if before else None,
        mode=f"{after.mode:o}" if after else None,
        digest_before=before.digest or None if before else None,
        digest=after.digest or None if after else None,
    )

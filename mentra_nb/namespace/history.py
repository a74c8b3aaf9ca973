"""What the calls of turns did to the names of a kernel, and taking it back. Bounded: the oldest is dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mentra_nb.namespace.snapshot import Changes, Snapshot
from mentra_nb.namespace.walk import Beyond

MAX_HELD = 2**30
"""Bytes that all snapshots together may keep beside the values as they are now."""
Beside = Callable[[], list[str]]


@dataclass
class Watched:
    """One call: the names before it and after it, those it changed, and what could not be kept of them."""

    turn: str
    call: str
    before: Snapshot
    undoes: str | None = None
    """The turn that this undid, if it was an undo."""
    changes: Changes = field(default_factory=Changes)
    after: Snapshot | None = None
    beyond: list[Beyond] = field(default_factory=list)
    dropped: int = 0
    """Earlier calls that were dropped to make room for this one."""
    too_large: bool = False
    """Whether there is no room for this one either, so that it cannot be undone."""

    def held(self) -> int:
        return self.before.held() + (self.after.held() if self.after is not None else 0)


@dataclass(frozen=True)
class Restored:
    """What undoing did: names restored, names left alone as somebody changed them since, and what could not be done."""

    names: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    """Those of the names that were not there before."""
    brought_back: tuple[str, ...] = ()
    """Those of the names that had been deleted."""
    conflicts: tuple[str, ...] = ()
    lost: tuple[Beyond, ...] = ()


class History:
    """The calls that changed names, oldest first. All of it must be used on the thread that runs the user's code."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self.calls: list[Watched] = []
        self._no_room: dict[str, dict[str, Beyond]] = {}
        """Turn → the names of those of its calls that were dropped."""

    def beyond(self) -> list[Beyond]:
        """Return what could not be restored if code changed it now."""
        return Snapshot.take(self.namespace, copies=False).beyond

    @contextmanager
    def watching(self, turn: str, call: str, undoes: str | None = None) -> Iterator[Watched]:
        """Inside, code may change names; afterwards `changes` says which, and they can be restored."""
        watched = Watched(turn, call, Snapshot.take(self.namespace, earlier=self._newest()), undoes)
        try:
            yield watched
        finally:
            watched.changes = watched.before.changes(self.namespace)
            self._add(watched)

    def _newest(self) -> Snapshot | None:
        return self.calls[-1].after if self.calls else None

    def _add(self, watched: Watched) -> None:
        names = watched.changes.names
        watched.before.keep_only(names)
        watched.beyond = watched.before.beyond
        if not names:
            return
        watched.after = Snapshot.take(self.namespace, names, earlier=watched.before)
        self.calls.append(watched)
        while self.calls and sum(each.held() for each in self.calls) > MAX_HELD:
            oldest = self.calls.pop(0)
            watched.too_large = oldest is watched
            watched.dropped += not watched.too_large
            lost = {name: Beyond(name, "no room for what it was") for name in oldest.changes.names}
            self._no_room.setdefault(oldest.turn, {}).update(lost)

    def turns(self) -> list[str]:
        """Return the turns that changed names, oldest first."""
        return list(dict.fromkeys(each.turn for each in self.calls))

    def of(self, turn: str) -> list[Watched]:
        """Return the calls of a turn, newest first."""
        return [each for each in reversed(self.calls) if each.turn == turn]

    def conflicts(self, turn: str) -> list[str]:
        """Return the names of a turn that were changed since it ended."""
        newest = self._newest_of(turn)
        since = {id(each): set(each.after.changes(self.namespace).names) for each in self.of(turn) if each.after}
        return [name for name, each in newest.items() if name in since.get(id(each), ())]

    def _newest_of(self, turn: str) -> dict[str, Watched]:
        newest: dict[str, Watched] = {}
        for each in self.of(turn):
            for name in each.changes.names:
                newest.setdefault(name, each)
        return newest

    def cannot(self, turn: str) -> list[Beyond]:
        """Return what of a turn cannot be restored, for want of a copy."""
        found = {each.name: each for watched in self.of(turn) for each in watched.beyond}
        return list((found | self._no_room.get(turn, {})).values())

    def undo(self, turn: str, undone_as: str) -> Restored:
        """Restore the names of a turn. What it does is a turn itself, `undone_as`, that can be undone the same way."""
        calls, conflicts, lost = self.of(turn), self.conflicts(turn), self.cannot(turn)
        names = [name for name in self._newest_of(turn) if name not in conflicts]
        if not names:
            return Restored(conflicts=tuple(conflicts), lost=tuple(lost))
        with self.watching(undone_as, undone_as, undoes=turn) as did:
            for each in calls:
                failed = each.before.restore(self.namespace, [name for name in each.changes.names if name in names])
                lost += [Beyond(name, why) for name, why in failed.items()]
        return Restored(tuple(names), did.changes.deleted, did.changes.created, tuple(conflicts), tuple(lost))

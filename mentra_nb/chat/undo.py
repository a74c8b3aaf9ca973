"""Taking back what a turn did to files and to the names of the kernel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mentra_nb.arguments import check_text
from mentra_nb.chat.api import conversation
from mentra_nb.chat.engine import engine
from mentra_nb.chat.turn import presenter
from mentra_nb.errors import OperationDenied
from mentra_nb.event.bus import EventBus
from mentra_nb.ids import new_id, short_id
from mentra_nb.words import counted

if TYPE_CHECKING:
    from mentra_nb.effect.journal import Journal, JournalEntry
    from mentra_nb.effect.types import FileChange
    from mentra_nb.namespace.history import History

put_in: dict[str, int] = {}
"""Turn → how many new cells this kernel has put in with code of it. Only the front end can take them out again."""
_UNDO = "undo"
"""The prefix of what an undo is undone by."""
_DONE = {"created": "brought back", "changed": "restored", "deleted": "deleted"}
"""What an undo does to a file, in words."""


@dataclass(frozen=True)
class UndoResult:
    """What `mn.undo` did. `mn.undo(undone)` takes it back.

    Example:
        >>> mn.undo()
        Traceback (most recent call last):
        ...
        mentra_nb.errors.OperationDenied: there is nothing to undo: no turn here has changed files or variables
    """

    id: str
    """What the undo itself is undone by."""
    turn: str
    """The turn, or undo, that was taken back."""
    names: tuple[str, ...] = ()
    """Variables, and settings of the process such as `os.environ`, that are as they were before it."""
    removed: tuple[str, ...] = ()
    """Those of `names` that are gone, as they were not there before it."""
    brought_back: tuple[str, ...] = ()
    """Those of `names` that it had deleted."""
    files: tuple[str, ...] = ()
    """Files that are as they were before it, each with what was done to it."""
    conflicts: tuple[str, ...] = ()
    """Variables and files that somebody has changed since: they are as they were."""
    lost: tuple[str, ...] = ()
    """What could not be restored, or not all of it, with the reason."""
    cells: int = 0
    """New cells with code of the turn that were put into the notebook: they stay."""
    said: tuple[str, ...] = field(default=(), compare=False)
    """What was said of these before the undo. The `repr` does not say it again."""

    def __repr__(self) -> str:
        restored = [name for name in self.names if name not in (*self.removed, *self.brought_back)]
        done = (("restored", restored), ("brought back", self.brought_back), ("removed", self.removed))
        lines = [*self.files, *(f"{verb} {', '.join(names)}" for verb, names in done if names)]
        lines += [text for text in not_done(self.conflicts, self.lost, self.cells) if text not in self.said]
        if not self.names and not self.files:
            lines.append("Nothing was changed.")
        else:
            lines.append(f"To take this back: %mentra undo {short_id(self.id)}")
        return "\n".join(lines)


def not_done(conflicts: Iterable[str], lost: Iterable[str], cells: int) -> list[str]:
    """Return what an undo leaves alone, in lines."""
    lines = [f"left as it is, since it was changed after the turn: {each}" for each in conflicts]
    lines += [f"cannot be restored in full: {each}" for each in lost]
    if cells:
        lines.append(f"left in the notebook, where only you can delete it: {counted(cells, 'new cell')}")
    return lines


def undo(turn: str | UndoResult | None = None) -> UndoResult:
    """Take back what a turn did to files and variables, and say first what of it cannot be.

    What somebody has changed since is left as it is. What code did elsewhere, such as over the network, stays done.

    Args:
        turn: The id of a turn or of an undo, its short form, or what `undo` returned; by default the last turn of this
            notebook that changed something and is not undone.

    Raises:
        OperationDenied: there is nothing like it to undo, or a turn is running; nothing was changed.

    Example:
        >>> mn.undo()
        Traceback (most recent call last):
        ...
        mentra_nb.errors.OperationDenied: there is nothing to undo: no turn here has changed files or variables
    """
    said = turn.id if isinstance(turn, UndoResult) else turn
    check_text("mn.undo('run-3f2a9c')", {"turn": said})
    if engine().turns:
        raise OperationDenied("a turn is running: wait for it, or stop it, before you undo")
    known = Known()
    return known.undo(known.named(said) if said is not None else known.last())


class Known:
    """What can be undone here: by the journal of files and by the history of names."""

    def __init__(self) -> None:
        from mentra_nb.effect.journal import Journal

        screen = presenter()
        self.journal: Journal = Journal()
        self.history: History | None = screen.history() if screen is not None else None
        of_names = {each.turn: each.undoes for each in self.history.calls} if self.history is not None else {}
        own = {*of_names, *_turns_here()}
        self.undoes: dict[str, str | None] = {**dict.fromkeys(name for name in put_in if name in own), **of_names}
        """Turn, or undo, → what it undid if it is an undo, oldest first."""
        for name in reversed(self.journal.turns()):
            if name not in own and not name.startswith(_UNDO):
                continue
            undone = next((entry.undoes for entry in self.journal.entries(name)), None)
            if name in own or undone in own or undone in self.undoes:
                self.undoes[name] = undone
        self.undoes = dict(sorted(self.undoes.items(), key=lambda item: item[0].partition("-")[2]))

    def last(self) -> str:
        """Return the last turn that is not undone. Raises `OperationDenied`."""
        taken_back: set[str] = set()
        for name, undone in reversed(self.undoes.items()):
            if undone is not None and name not in taken_back:
                taken_back.add(undone)
        left = [name for name, undone in self.undoes.items() if undone is None and name not in taken_back]
        if not left:
            raise OperationDenied("there is nothing to undo: no turn here has changed files or variables")
        return left[-1]

    def named(self, said: str) -> str:
        """Return the turn or undo of that id or short id. Raises `OperationDenied`."""
        found = [name for name in self.undoes if said in (name, short_id(name))]
        if len(found) != 1:
            raise OperationDenied(f"there is no {said!r} to undo: {self._choices()}")
        return found[0]

    def _choices(self) -> str:
        return f"there {'are' if self.undoes else 'is'} {', '.join(map(short_id, self.undoes)) or 'nothing'}"

    def undo(self, name: str) -> UndoResult:
        """Take one back. Says before what cannot be."""
        from mentra_nb.effect.undo import plan_undo
        from mentra_nb.effect.undo import undo as undo_files

        planned, history = plan_undo(self.journal, name), self.history
        conflicts = [*map(short_path, planned.conflicts), *(history.conflicts(name) if history is not None else ())]
        lost = list(map(str, history.cannot(name))) if history is not None else []
        cells = put_in.pop(name, 0)
        said = not_done(conflicts, lost, cells)
        for text in said:
            print(text)  # noqa: T201 - said before anything is changed
        by = new_id(_UNDO)
        files = undo_files(self.journal, name, by=by)
        restored = history.undo(name, by) if history is not None else None
        _record(by, name, files.entry, restored.names if restored is not None else ())
        return UndoResult(
            id=by,
            turn=name,
            names=restored.names if restored is not None else (),
            removed=restored.removed if restored is not None else (),
            brought_back=restored.brought_back if restored is not None else (),
            files=tuple(map(_told, planned.changes)) if files.entry is not None else (),
            conflicts=tuple(
                dict.fromkeys([*map(short_path, files.conflicts), *(restored.conflicts if restored else ())])
            ),
            lost=tuple(map(str, restored.lost)) if restored is not None else (),
            cells=cells,
            said=tuple(said),
        )


def _record(by: str, undone: str, entry: JournalEntry | None, names: tuple[str, ...]) -> None:
    """Record what an undo restored."""
    from mentra_nb.event.effects import EffectMade, effects_made

    used = engine()
    about: dict[str, Any] = {"agent_id": "", "run_id": by, "tool_name": "undo", "tool_call_id": "undo"}
    about["session_id"] = conversation().id

    async def emit() -> None:
        bus = EventBus(used.runtime.hooks, used.runtime.audit)
        for event in effects_made(entry, **about) if entry is not None else ():
            bus.emit(event)
        if names:
            bus.emit(EffectMade(outcome="undone", entry=by, undoes=undone, names=names, **about))

    used.call(emit)


def _turns_here() -> list[str]:
    """Return the ids of the turns of the conversations of this notebook."""
    used = engine()
    sessions = dict.fromkeys(chat.id for chat in [conversation(), *used.chats.values()])

    async def read() -> list[str]:
        found: list[str] = []
        store = used.runtime.store
        for session in sessions:
            stored = await store.load_conversation(session)
            found += [run.id for run in await store.list_runs(stored.agent.id)] if stored is not None else []
        return found

    return used.call(read)


def _told(change: FileChange) -> str:
    """Return what an undo does to a file."""
    return f"{_DONE[change.kind]} {short_path(change.path)}"


def short_path(path: str) -> str:
    """Return a path as seen from the working folder."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return path

"""What the last turn changed, line by line, as far as an undo would take it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from mentra_nb.chat.undo import Known, not_done, put_in, short_path
from mentra_nb.page.escaping import visible
from mentra_nb.secrets.mask import mask_secrets

if TYPE_CHECKING:
    from mentra_nb.effect.types import FileChange
    from mentra_nb.effect.undo import UndoPlan


@dataclass(frozen=True)
class TurnDifference:
    """What a turn did to files and variables. Its `str` is a diff."""

    turn: str
    """The turn's id."""
    files: tuple[str, ...]
    """For each file that it changed the lines of a diff, below its name."""
    names: tuple[str, ...]
    """Variables that it changed."""
    left: tuple[str, ...]
    """What an undo would leave as it is, in words."""

    def __str__(self) -> str:
        names = [f"variables: {', '.join(self.names)}"] if self.names else []
        return "\n".join([*self.files, *names, *self.left])

    def __repr__(self) -> str:
        return visible(mask_secrets(str(self)))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        from mentra_nb.page.render import fenced, safe_html

        return {"text/html": safe_html(fenced(repr(self), "diff")), "text/plain": repr(self)}


def difference() -> TurnDifference:
    """Return what the last turn of this notebook did that is not undone. Raises `OperationDenied` if there is none."""
    from mentra_nb.effect.undo import plan_undo

    known = Known()
    turn, history = known.last(), known.history
    plan = plan_undo(known.journal, turn)
    names = dict.fromkeys(name for each in history.of(turn) for name in each.changes.names) if history else {}
    conflicts = [*map(short_path, plan.conflicts), *(history.conflicts(turn) if history else ())]
    lost = list(map(str, history.cannot(turn))) if history else []
    files = [_file(change, partial(_before, known, plan, change.path)) for change in plan.changes]
    return TurnDifference(turn, tuple(files), tuple(names), tuple(not_done(conflicts, lost, put_in.get(turn, 0))))


def _before(known: Known, plan: UndoPlan, path: str, _digest: str) -> BinaryIO:
    return known.journal.image(plan.sources[path], path)


def _file(undoing: FileChange, before: Callable[[str], BinaryIO]) -> str:
    """Return the lines of the diff of a file, below its name. `undoing` is what an undo would do to it."""
    from mentra_nb.agent.effects import texts_of
    from mentra_nb.effect.lines import changes

    kind, path = undoing.inverted().kind, visible(short_path(undoing.path)).replace("\n", "␊")
    texts = texts_of(undoing, before)
    if texts is None:
        return f"{kind} {path}: {_what(undoing)}"
    now, then = texts
    found = changes(then, now)
    return "\n".join([f"{kind} {path}  +{found.added} −{found.removed}", *found.lines])


def _what(undoing: FileChange) -> str:
    """Return why there is no diff."""
    kinds = {state.type for state in (undoing.before, undoing.after) if state is not None}
    if kinds != {"file"}:
        return " → ".join(sorted(kinds))
    if undoing.before and undoing.after and undoing.before.digest == undoing.after.digest:
        return f"mode {undoing.after.mode:o} → {undoing.before.mode:o}"
    return "not text, or too long to compare"

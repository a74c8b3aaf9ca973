"""The user's kernel for the tools `python` and `variables`: code runs, names are watched, both are told in words."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mentra_nb.namespace.describe import describe, kind_of
from mentra_nb.namespace.history import History, Watched
from mentra_nb.notebook.python.hearing import hearing
from mentra_nb.notebook.python.running import CodeRunner
from mentra_nb.notebook.python.tracebacks import trimmed
from mentra_nb.tools.builtin.python import Ran
from mentra_nb.tools.clipping import MAX_RESULT_BYTES, MAX_RESULT_LINES, as_printed, clipped
from mentra_nb.words import counted

if TYPE_CHECKING:
    from mentra_nb.effect.journal import JournalEntry
    from mentra_nb.effect.watching import FileWatch

log: logging.Logger = logging.getLogger(__name__)

MAX_NAMED = 20
"""Names that are listed of those that changed."""
_TEXT_BYTES, _TEXT_LINES = MAX_RESULT_BYTES - 4096, MAX_RESULT_LINES - 50


class ShellKernel:
    """The kernel of an IPython shell."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.history = History(shell.user_ns)
        self._runner = CodeRunner(shell)

    def run(self, code: str, run_id: str, call_id: str, changed: Callable[[JournalEntry], None]) -> Ran:
        """Run code as a cell would, on this thread, which must be the cell's. An interrupt goes on to the turn."""
        from mentra_nb.effect.watching import watching_files

        failure = ""
        name = self._runner.name_of(code)
        with (
            self.history.watching(run_id, call_id) as watched,
            watching_files(Path.cwd()) as files,
            hearing(self.shell) as heard,
        ):
            try:
                self._runner.run(code, name)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - what the code raises is its result
                failure = trimmed(error, self.shell.user_ns, name)
            finally:
                entry = _entered(files, run_id, call_id)
                if entry is not None:
                    changed(entry)
        notice = "[… {left} bytes left out …]"
        text = clipped(as_printed(heard.text()).rstrip("\n"), _TEXT_BYTES, _TEXT_LINES, notice)
        parts = [text, clipped(failure, 3072, 60, notice), *_told(files, entry), *self._notes(watched)]
        text = "\n".join(filter(None, parts)) or "(no output)"
        return Ran(text, tuple(heard.images), bool(failure), _in_words(watched))

    def _notes(self, watched: Watched) -> list[str]:
        """Return in a line what happened to names, and above it what undo can no longer do."""
        notes = []
        if watched.beyond:
            notes.append(f"[undo cannot restore all of {', '.join(map(str, watched.beyond))}]")
        if watched.dropped:
            notes.append(f"[undo no longer reaches back to {counted(watched.dropped, 'earlier call')}: no room]")
        changes = watched.changes
        listed = [
            f"{verb} {', '.join(map(self._named, names[:MAX_NAMED]))}"
            + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")
            for verb, names in (("created", changes.created), ("changed", changes.changed))
            if names
        ]
        if changes.deleted:
            listed.append(f"deleted {', '.join(changes.deleted[:MAX_NAMED])}")
        return [*notes, *([f"[names: {'; '.join(listed)}]"] if listed else [])]

    def _named(self, name: str) -> str:
        value = self.shell.user_ns.get(name)
        return f"{name} ({kind_of(value).rpartition('.')[2]})"

    def variables(self, names: Sequence[str]) -> str:
        """Return what the variables are, without the text of any value."""
        return describe(self.shell.user_ns, names)

    def beyond_undo(self) -> list[str]:
        """Return what could not be restored after code has changed it."""
        return [str(each) for each in self.history.beyond()]


def _in_words(watched: Watched) -> dict[str, Any]:
    """Return what happened to names, for the record."""
    changes = watched.changes
    return {
        "created": list(changes.created),
        "changed": list(changes.changed),
        "deleted": list(changes.deleted),
        "beyond_undo": list(map(str, watched.beyond)),
    }


def _entered(files: FileWatch, run_id: str, call_id: str) -> JournalEntry | None:
    """Enter in the undo journal what code did to files, and return the entry."""
    from mentra_nb.effect.journal import Journal

    try:
        return files.enter(Journal(), run_id, call_id, "python")
    except OSError:
        log.warning("what the code did to files could not be entered in the undo journal", exc_info=True)
        return None


def _told(files: FileWatch, entry: JournalEntry | None) -> list[str]:
    """Return in a line which files code changed, and above it which of them undo cannot restore."""
    notes, changed = [], entry.changes if entry is not None else ()
    if files.beyond:
        beyond = ", ".join(_within(path, files.root) for path in files.beyond[:MAX_NAMED])
        notes.append(f"[undo cannot restore {beyond}: too large to keep]")
    kinds = {kind: [_within(each.path, files.root) for each in changed if each.kind == kind] for kind in _KINDS}
    listed = [
        f"{kind} {', '.join(paths[:MAX_NAMED])}" + (f" and {len(paths) - MAX_NAMED} more" * (len(paths) > MAX_NAMED))
        for kind, paths in kinds.items()
        if paths
    ]
    return [*notes, *([f"[files: {'; '.join(listed)}]"] if listed else [])]


def _within(path: str, root: Path) -> str:
    return str(Path(path).relative_to(root)).replace("\n", "␊")


_KINDS = ("created", "changed", "deleted")

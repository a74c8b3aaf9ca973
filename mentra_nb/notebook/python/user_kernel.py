"""The user's kernel for the tools `python` and `variables`: code runs, names are watched, both are told in words."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mentra_nb.namespace.code import beyond_code
from mentra_nb.namespace.describe import describe, kind_of
from mentra_nb.namespace.history import History, Watched
from mentra_nb.namespace.outside import is_outside
from mentra_nb.namespace.tracebacks import line_of, trimmed
from mentra_nb.notebook.python.hearing import Heard, hearing
from mentra_nb.notebook.python.interrupts import interrupts_held
from mentra_nb.notebook.python.running import CodeRunner
from mentra_nb.tools.builtin.python import Ran
from mentra_nb.tools.clipping import MAX_RESULT_BYTES, MAX_RESULT_LINES, as_printed, clipped
from mentra_nb.tools.tool import ToolContext, ToolOutput
from mentra_nb.words import counted

if TYPE_CHECKING:
    from mentra_nb.effect.journal import JournalEntry
    from mentra_nb.effect.watching import FileWatch

log: logging.Logger = logging.getLogger(__name__)

MAX_NAMED = 20
"""Names that are listed of those that changed."""
_LIKE_A_NOTE = re.compile(r"^\[(?:files|names|undo)\b", re.MULTILINE)
"""What code may print to pretend that it did nothing: moved by a blank, it is not read as a note on what it did."""
_NOTICE = "[… {left} bytes left out …]"
_TEXT_BYTES, _TEXT_LINES = MAX_RESULT_BYTES - 4096, MAX_RESULT_LINES - 50


class ShellKernel:
    """The kernel of an IPython shell."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.history = History(shell.user_ns)
        self._runner = CodeRunner(shell)

    def run(self, code: str, context: ToolContext) -> Ran:
        """Run code as a cell would, on this thread, which must be the cell's. An interrupt goes on to the turn."""
        with interrupts_held() as interrupts_come:
            name = self._runner.name_of(code)
            heard, watched, notes, error = self._do(code, name, context, interrupts_come)
            context.so_far(ToolOutput("\n".join(notes), details=_in_words(watched)))
            if isinstance(error, KeyboardInterrupt):
                raise error
        text = clipped(as_printed(heard.text()).rstrip("\n"), _TEXT_BYTES, _TEXT_LINES, _NOTICE)
        failure = "" if error is None else clipped(trimmed(error, self.shell.user_ns, name), 3072, 60, _NOTICE)
        said = _LIKE_A_NOTE.sub(r" \g<0>", "\n".join(filter(None, [text, failure])))
        text = "\n".join(filter(None, [said, *notes])) or "(no output)"
        details = _in_words(watched) | ({} if error is None else {"failed_line": line_of(error, name)})
        return Ran(text, tuple(heard.images), bool(failure), details)

    def _do(
        self, code: str, name: str, context: ToolContext, interrupts_come: Callable[[], AbstractContextManager[None]]
    ) -> tuple[Heard, Watched, list[str], BaseException | None]:
        """Run code and return what was heard of it, its names, what it did in lines, and what it raised."""
        from mentra_nb.effect.watching import watching_files

        raised = None
        with (
            self.history.watching(context.run_id, context.tool_call_id) as watched,
            watching_files(Path.cwd()) as files,
            hearing(self.shell) as heard,
        ):
            try:
                with interrupts_come():
                    self._runner.run(code, name)
            except BaseException as error:  # noqa: BLE001 - what the code raises is its result
                raised = error
            entry = _entered(files, context.run_id, context.tool_call_id)
            if entry is not None:
                context.changed(entry)
        notes = [" ".join(each.splitlines()) for each in (*_told(files, entry), *self._notes(watched))]
        return heard, watched, notes, raised

    def _notes(self, watched: Watched) -> list[str]:
        """Return in a line what happened to names, and above it what undo can no longer do."""
        notes = []
        if watched.beyond:
            notes.append(f"[undo cannot restore all of {', '.join(map(str, watched.beyond))}]")
        if watched.too_large:
            notes.append("[undo cannot restore the names of this call: no room]")
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
        if is_outside(name):
            return name
        value = self.shell.user_ns.get(name)
        return f"{name} ({kind_of(value).rpartition('.')[2]})"

    def variables(self, names: Sequence[str]) -> str:
        """Return what the variables are, without the text of any value."""
        return describe(self.shell.user_ns, names)

    def beyond_undo(self, code: str) -> list[str]:
        """Return what could not be restored after this code has changed it."""
        return [str(each) for each in (*beyond_code(code), *self.history.beyond())]


def _in_words(watched: Watched) -> dict[str, Any]:
    """Return what happened to names, for the record."""
    changes = watched.changes
    return {
        "created": list(changes.created),
        "changed": list(changes.changed),
        "deleted": list(changes.deleted),
        "beyond_undo": list(map(str, watched.beyond)),
        "dropped": watched.dropped,
        "too_large": watched.too_large,
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

"""What a call that is asked about would change in files, line by line."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from mentra_nb.authorization import PermissionQuestion
from mentra_nb.errors import MentraError

if TYPE_CHECKING:
    from mentra_nb.effect.lines import Changes
    from mentra_nb.tools.builtin.files.plan import Plan


def planned_changes(question: PermissionQuestion) -> Changes | None:
    """Return what the call that a question asks about would change in text files; `None` if it replaces none.

    The file is read here. If it is not the one that the question is about any more, there is nothing to show: the call
    is refused when it runs.
    """
    from mentra_nb.effect.lines import changes
    from mentra_nb.tools.builtin.files.single import replaced
    from mentra_nb.tools.builtin.files.text import decoded

    match question.preview.structured_input:
        case {"kind": "files", "effect": str(digest), "working_directory": str(folder)}:
            return _changes_of_batch(Path(folder), question.arguments, digest)
        case {"operations": [{"op": "set", "resolved_path": str(path), "replaces": {"sha256": str(digest)}}]}:
            found, raw = replaced(Path(path))
            content: Any = question.arguments.get("content")
            if raw is None or found.get("sha256") != digest or not isinstance(content, str):
                return None
            try:
                return changes(decoded(raw, "")[0], content)
            except MentraError:
                return None
    return None


def _content(made: Plan, path: str, digest: str) -> BinaryIO:
    return made.content(path)


def _changes_of_batch(folder: Path, arguments: dict[str, Any], digest: str) -> Changes | None:
    """Return what a batch of operations would change, each file below its name; `None` if that has changed."""
    from mentra_nb.agent.effects import compared
    from mentra_nb.effect.lines import Changes
    from mentra_nb.tools.builtin.files.operations import Files
    from mentra_nb.tools.builtin.files.places import in_folder, place, shown
    from mentra_nb.tools.builtin.files.plan import plan

    try:
        parsed = Files.model_validate(arguments)
        named = [in_folder(parsed.working_directory, path) for each in parsed.operations for path in each.paths]
        made = plan(folder, parsed, [place(folder, path) for path in named])
    except (ValueError, OSError, MentraError):
        return None
    lines: list[str] = []
    added = removed = 0
    for change in made.changes if made.digest == digest else ():
        found = compared(change, partial(_content, made, change.path))
        if found is not None:
            lines += [f"@@ {shown(folder, Path(change.path))}: {change.kind} @@", *found.lines]
            added, removed = added + found.added, removed + found.removed
    return Changes(lines, added, removed) if lines else None

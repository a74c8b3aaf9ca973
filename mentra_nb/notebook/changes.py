"""What a call that is asked about would change in files, line by line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mentra_nb.authorization import PermissionQuestion

if TYPE_CHECKING:
    from mentra_nb.effect.lines import Changes


def planned_changes(question: PermissionQuestion) -> Changes | None:
    """Return what the write that a question asks about would change; `None` if it replaces no text file.

    The file is read here. If it is not the one that the question is about any more, there is nothing to show: the call
    is refused when it runs.
    """
    from mentra_nb.effect.lines import changes
    from mentra_nb.tools.builtin.files.single import replaced

    match question.preview.structured_input:
        case {"operations": [{"op": "set", "resolved_path": str(path), "replaces": {"sha256": str(digest)}}]}:
            found, raw = replaced(Path(path))
            content: Any = question.arguments.get("content")
            if raw is None or found.get("sha256") != digest or not isinstance(content, str):
                return None
            try:
                return changes(raw.decode("utf-8"), content)
            except UnicodeDecodeError:
                return None
    return None

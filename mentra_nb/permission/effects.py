"""Rules on what a call did in the sandbox, and why a person is asked about it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mentra_nb.authorization import CallEffect, PermissionRule, Subject, ToolAuthorizationRequest
from mentra_nb.permission.rules import find_rule
from mentra_nb.words import counted

WRITERS = ("write", "files")
"""The tools whose denials of a path hold for commands as well."""


def denial_of(
    request: ToolAuthorizationRequest, effect: CallEffect, rules: Sequence[PermissionRule]
) -> PermissionRule | None:
    """Return the denial that covers the call itself, or one of the files that it changed; `None` if there is none."""
    denials = [rule for rule in rules if not rule.allow]
    if (found := find_rule(denials, request.tool_name, request.subject)) is not None:
        return found
    base = request.preview.working_directory
    for file in effect.files if denials else ():
        shown = os.path.relpath(file.path, base).replace(os.sep, "/")
        path = Subject.path(shown, absolute=(file.path,))
        for tool in WRITERS:
            if (found := find_rule(denials, tool, path)) is not None:
                return found
    return None


def why_asked(effect: CallEffect) -> str:
    """Return why a person is asked about what a call did, in one line."""
    if effect.outside:
        return f"it could not do in the sandbox what it should: {'; '.join(effect.wanted)}"
    protected = [file for file in effect.files if file.protected]
    if protected:
        return f"{os.path.basename(protected[0].path)} is protected: {protected[0].protected}"  # noqa: PTH119
    return f"it ran in the sandbox and changed {counted(len(effect.files), 'file')} there: keep that?"

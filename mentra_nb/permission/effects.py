"""Rules on what a call did in the sandbox, and why a person is asked about it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from mentra_nb.authorization import (
    CallEffect,
    PermissionDecision,
    PermissionQuestion,
    PermissionRule,
    Subject,
    ToolAuthorizationRequest,
)
from mentra_nb.errors import OperationDenied
from mentra_nb.permission.rules import find_rule
from mentra_nb.words import counted

READERS = ("read", "files")
"""The tools whose denials of a path keep a command in the sandbox from reading it as well."""
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


def unreadable(rules: Sequence[PermissionRule], base: str) -> Callable[[str], bool] | None:
    """Return what says of an absolute path whether a denial keeps it from being read; `None` without such a denial."""
    denials = [rule for rule in rules if not rule.allow and rule.tool in READERS]
    if not denials:
        return None

    def covers(path: str) -> bool:
        shown = os.path.relpath(path, base).replace(os.sep, "/")
        subject = Subject.path(shown, absolute=(path,))
        return any(find_rule(denials, tool, subject) is not None for tool in READERS)

    return covers


def why_asked(effect: CallEffect) -> str:
    """Return why a person is asked about what a call did, in one line."""
    if effect.outside:
        return f"it could not do in the sandbox what it should: {'; '.join(effect.wanted)}"
    protected = [file for file in effect.files if file.protected]
    if protected:
        return f"{os.path.basename(protected[0].path)} is protected: {protected[0].protected}"  # noqa: PTH119
    return f"it ran in the sandbox and changed {counted(len(effect.files), 'file')} there: keep that?"


def covers_command(request: ToolAuthorizationRequest, rules: Iterable[PermissionRule]) -> bool:
    """Return whether a rule on effects is for this call, so that it is worth trying."""
    return _covering(request, [rule for rule in rules if rule.folders is not None], rules) is not None


def keeping_rule(
    request: ToolAuthorizationRequest, effect: CallEffect, rules: Iterable[PermissionRule]
) -> PermissionRule | None:
    """Return the rule by which all that a call changed is kept unasked; `None` if there is none.

    Protected files are always asked about.
    """
    if effect.outside or any(file.protected for file in effect.files):
        return None
    fitting = [rule for rule in rules if rule.folders is not None and _all_inside(effect, rule.folders)]
    return _covering(request, fitting, rules)


def _covering(
    request: ToolAuthorizationRequest, fitting: Iterable[PermissionRule], rules: Iterable[PermissionRule]
) -> PermissionRule | None:
    own = [rule for rule in fitting if rule.allow]
    denials = [rule for rule in rules if not rule.allow]
    found = find_rule([*own, *denials], request.tool_name, request.subject, on_effects=True)
    return found if found is not None and found.allow else None


def _all_inside(effect: CallEffect, folders: Iterable[str]) -> bool:
    return all(any(f"{file.path}/".startswith(f"{folder.rstrip('/')}/") for folder in folders) for file in effect.files)


def folders_of(effect: CallEffect) -> tuple[str, ...]:
    """Return the folders that all changed files are in, without those that are inside another."""
    above = sorted({file.path if file.is_folder else os.path.dirname(file.path) for file in effect.files})  # noqa: PTH120
    found: list[str] = []
    for path in above:
        if not found or not f"{path}/".startswith(f"{found[-1]}/"):
            found.append(path)
    return tuple(found)


def named_folders(question: PermissionQuestion, decision: PermissionDecision) -> tuple[str, ...] | None:
    """Return the folders of a rule that is to be made with an answer, absolute; `None` for a rule on the call itself.

    Raises:
        OperationDenied: The answer cannot be remembered so.
    """
    effect = question.effect
    if effect is None or decision.remember is None:
        return None
    if effect.outside or not decision.allow:
        raise OperationDenied(
            "this answer holds once: what runs outside the sandbox, or is discarded, is not remembered"
        )
    if (first := next((file for file in effect.files if file.protected), None)) is not None:
        raise OperationDenied(f"{first.path} is always asked about: {first.protected}")
    base = os.path.realpath(question.preview.working_directory)
    given = folders_of(effect) if decision.folders is None else decision.folders
    folders = tuple(os.path.realpath(os.path.join(base, folder)) for folder in given)  # noqa: PTH118
    wrong = [path for path in folders if not f"{path}/".startswith(f"{base.rstrip('/')}/")]
    if wrong or not folders:
        raise OperationDenied(
            f"name folders in the working folder {base}" + (f"; {wrong[0]} is elsewhere" if wrong else "")
        )
    if not _all_inside(effect, folders):
        raise OperationDenied(f"not all that it changed is inside {', '.join(folders)}")
    return folders

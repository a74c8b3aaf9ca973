"""Why a call is asked about, and how it can be allowed beforehand, in words."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mentra_nb.authorization import PermissionRule, ToolAuthorizationRequest
from mentra_nb.permission.effects import folders_of
from mentra_nb.permission.rules import denial_within, exactly, why_not_split

MAX_QUOTED = 1_000
"""Characters of a subject that are quoted in advice."""


def how_to_allow(request: ToolAuthorizationRequest, rules: Sequence[PermissionRule], other: str) -> str:
    """Return the advice that lets this very call, and no other, run unasked, or `other`. It quotes no long subject."""
    if (size := len(str(request.subject))) > MAX_QUOTED:
        advice = f"what it acts on has {size} characters, too many to quote in a rule: {other}"
    else:
        advice = f"allow it beforehand with {calls_to_allow(request)}, or {other}"
    return "; ".join(filter(None, (near_miss(request, rules), advice)))


def calls_to_allow(request: ToolAuthorizationRequest) -> str:
    """Return the calls of `mn.allow` that let this very call, and no other, run unasked."""
    parts, inside = request.subject.parts or ("",), ""
    if request.effect is not None and request.effect.files:
        base = request.preview.working_directory
        inside = f", inside={[os.path.relpath(folder, base) for folder in folders_of(request.effect)]!r}"
    return " and ".join(f"mn.allow({request.tool_name!r}, pattern={exactly(part)!r}{inside})" for part in parts)


def why(request: ToolAuthorizationRequest, ask: str, rules: Sequence[PermissionRule]) -> str:
    """Return why a call is asked about, in one line."""
    if ask == "always":
        return "ask is 'always' and no rule covers this call"
    if request.subject.protected and request.subject.kind == "shell":
        seems = request.preview.structured_input["validation"]["reason"]
        return f"{seems}: only the exact line in a rule covers it"
    if request.subject.protected:
        return f"{', '.join(request.subject.protected)} is protected: only its exact name in a rule covers it"
    return near_miss(request, rules) or f"'{request.tool_name}' may change things and no rule covers this call"


def near_miss(request: ToolAuthorizationRequest, rules: Sequence[PermissionRule]) -> str | None:
    """Return why no pattern covers a shell line although the tool has allowances; `None` if there is no such reason."""
    if request.subject.kind != "shell" or not any(rule.allow and rule.tool == request.tool_name for rule in rules):
        return None
    for line in request.subject.parts:
        if (why := why_not_split(line)) is not None:
            return f"{why}, so no pattern covers this line, only its exact text"
        if (denial := denial_within(rules, request.tool_name, line)) is not None:
            return f"it holds the words of '{denial.pattern}', which is denied, so only its exact text is covered"
    return None

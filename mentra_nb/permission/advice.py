"""Why a call is asked about, and how it can be allowed beforehand, in words."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mentra_nb.authorization import PermissionRule, ToolAuthorizationRequest
from mentra_nb.permission.effects import folders_of, why_asked
from mentra_nb.permission.patterns import exactly, matches
from mentra_nb.permission.rules import CODE, IN_CMD, find_rule, verdict_on
from mentra_nb.permission.splitting import why_not_split

MAX_QUOTED = 1_000
"""Characters of a subject that are quoted in advice."""

UNREAD = "what this line would run cannot be told"
"""Said of a shell line that the grammar of bash does not fit."""


def how_to_allow(request: ToolAuthorizationRequest, rules: Sequence[PermissionRule], other: str) -> str:
    """Return the advice that lets this very call, and no other, run unasked, or `other`. It quotes no long subject."""
    if (size := len(str(request.subject))) > MAX_QUOTED:
        advice = f"what it acts on has {size} characters, too many to quote in a rule: {other}"
    elif not _coverable(request, rules):
        advice = other
    elif (calls := calls_to_allow(request)) is None:
        advice = f"{why_asked(request.effect)}, so no rule keeps it: {other}" if request.effect else other
    else:
        advice = f"allow it beforehand with {calls}, or {other}"
    return "; ".join(filter(None, (near_miss(request, rules), advice)))


def _coverable(request: ToolAuthorizationRequest, rules: Sequence[PermissionRule]) -> bool:
    """Return whether there is any pattern that covers the call beside these rules."""
    subject, tool = request.subject, request.tool_name
    exact = [PermissionRule(id="", tool=tool, pattern=exactly(part), allow=True) for part in (subject.parts or ("",))]
    denials = [rule for rule in rules if not rule.allow]
    return not subject.parts or find_rule([*exact, *denials], tool, subject) is not None


def calls_to_allow(request: ToolAuthorizationRequest) -> str | None:
    """Return the calls of `mn.allow` that let this very call, and no other, run unasked.

    `None` if a protected file was changed: no rule keeps that.
    """
    parts, inside = request.subject.parts or ("",), ""
    if request.effect is not None and request.effect.files:
        if any(file.protected for file in request.effect.files):
            return None
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
    """Return why no allowance covers a shell line, or code, although one looks right; `None` for others."""
    own = [rule for rule in rules if rule.tool == request.tool_name]
    denying, allowing = [rule for rule in own if not rule.allow], [rule for rule in own if rule.allow]
    if request.tool_name in CODE and allowing and denying:
        return f"no pattern can tell what code runs, so only its exact text is covered beside '{denying[0].pattern}'"
    if request.subject.kind != "shell" or not (allowing or denying):
        return None
    for line in request.subject.parts:
        verdict = verdict_on(denying, line)
        if verdict is not None and verdict.unread:
            return f"{UNREAD}, so no rule covers it while there is a denial for '{request.tool_name}'"
        if not allowing:
            continue
        right = next((rule.pattern for rule in allowing if matches(rule.pattern, line)), None)
        even = f", not even '{right}'" if right else ""
        looks = f", so no pattern covers this line{even}, only its exact text"
        if (why := why_not_split(line)) is not None:
            return why + looks
        if IN_CMD:
            return "lines of cmd cannot be split into commands" + looks
        if verdict is not None and verdict.possible is not None:
            return f"it may run what '{verdict.possible.pattern}' denies, so only its exact text is covered"
    return None

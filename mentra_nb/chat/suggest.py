"""Rules from a person's own answers: what the record says they allowed, as patterns to accept or not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import pandas as pd

from mentra_nb import paths
from mentra_nb.authorization import PermissionRule, Subject
from mentra_nb.chat.api import conversation
from mentra_nb.chat.backtest import backtest
from mentra_nb.permission.breadth import breadth
from mentra_nb.permission.remembering import KINDS
from mentra_nb.permission.suggesting import LEAST, Decided, Suggestion, also_covers, suggest
from mentra_nb.record.empty import or_why
from mentra_nb.record.read import frames
from mentra_nb.record.read.columns import described, documented
from mentra_nb.record.read.filters import ToolFilters, filtered
from mentra_nb.record.read.reports import decided_calls
from mentra_nb.words import counted

PEOPLE = ("user", "host")
"""Who decides as a person: in the notebook, or through the program that holds the runtime."""
_DENIED_BY = (*PEOPLE, "rule", "policy", "authorizer")
_SHOWN = 5
"""Typical lines that are listed of what a pattern also covers."""
_WHY = (
    f"Nothing to suggest: what you allowed {LEAST} times or more is covered by a rule already, or was denied as well."
)


@dataclass(frozen=True)
class _Call:
    """A call on record, as the suggestions judge it."""

    decided: Decided
    row: Any


@described
@filtered
def suggest_rules(**filters: Unpack[ToolFilters]) -> pd.DataFrame:
    """Return rules that would have saved answers of yours: a row each, the most useful first. Nothing is stored.

    They are the narrowest that cover what you allowed at least twice and nothing that was denied. Wildcards stand for
    numbers, and for names of files in one folder with one ending, and only for programs that read or check. Without
    `session`, all conversations of this project count. `mn.allow(tool, pattern, scope=…)` accepts one, and so does
    `%mentra rules accept N` after `%mentra rules suggest`.

    Example:
        >>> mn.suggest_rules(session="sales").pattern.tolist()
        []
    """
    calls = _calls(filters)
    found = suggest([call.decided for call in calls], conversation().rules())
    judged = backtest([each.rule() for each in found], **filters)
    kinds = {name: dtype for name, dtype, *_ in documented()["suggest_rules"]}
    frame = pd.DataFrame([_row(each, calls, judged) for each in found], columns=list(kinds)).astype(kinds)
    return or_why(frame, _WHY)


def _calls(filters: Any) -> list[_Call]:
    """Return the calls that a person decided, and those that were refused, oldest first."""
    seen = decided_calls(**filters)
    if not filters.get("session"):
        here = frames.sessions(project=str(paths.project_root()), folder=filters.get("folder"))
        seen = seen[seen.session_id.isin(here.session_id)]
    changed = _changed(filters)
    found = []
    for row in seen.itertuples():
        by_person = row.decided_by in PEOPLE
        allowed = bool(row.decision == "allow" and by_person and row.whole)
        denied = bool(row.decision == "deny" and row.decided_by in _DENIED_BY and isinstance(row.subject, str))
        if allowed or denied:
            kind = _kind(row)
            folders = changed.get((str(row.run_id), str(row.call_id))) if allowed and kind == "shell" else None
            found.append(_Call(Decided(str(row.tool), _subject(row, kind), allowed, folders), row))
    return found


def _changed(filters: Any) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the folders of the files that commands changed in the sandbox and that were kept, by turn and call."""
    made = frames.effects(tool=["shell"], folder=filters.get("folder"))
    made = made[made.outcome.isin(["made", "finished"])]
    return {
        (str(run), str(call)): _outermost({os.path.dirname(path) for path in made_there})  # noqa: PTH120
        for (run, call), made_there in made.groupby(["run_id", "call_id"], observed=True).path
    }


def _outermost(folders: set[str]) -> tuple[str, ...]:
    """Return the folders without those that are inside another."""
    inner = {each for each in folders for other in folders if each.startswith(f"{other.rstrip('/')}/")}
    return tuple(sorted(folders - inner))


def _kind(row: Any) -> str:
    return "shell" if row.shell else KINDS.get(str(row.tool), "path" if row.tool == "files" else "text")


def _subject(row: Any, kind: str) -> Subject:
    if kind == "path":
        return Subject.path(*row.subject.split("\n"))
    return Subject.shell(row.subject) if kind == "shell" else Subject.text(row.subject)


def _row(each: Suggestion, calls: Sequence[_Call], judged: pd.DataFrame) -> dict[str, Any]:
    saved = [calls[n].row for n in each.saved]
    dates = [call.row.ts for call in calls]
    weeks = max((max(dates) - min(dates)) / pd.Timedelta(days=7), 1.0)
    own = {row.session_id for row in saved} == {conversation().id}
    covered = [
        call
        for call in judged[(judged.verdict == "allow") & (judged.tool == each.tool) & judged.rule.notna()].itertuples()
        if each.covers(_subject(call, _kind(saved[-1])))
    ]
    subjects = [str(row.subject) for row in saved]
    also = also_covers(each.pattern, subjects) if _kind(saved[-1]) == "shell" else []
    broad = breadth(each.pattern, _kind(saved[-1]))
    more = [f"… and {len(also) - _SHOWN} more"] if len(also) > _SHOWN else []
    return {
        "tool": each.tool,
        "pattern": each.pattern,
        "scope": "session" if own else "project",
        "inside": None if each.folders is None else "\n".join(each.folders),
        "saves_per_week": round(len(saved) / weeks, 1),
        "allowed": len(saved),
        "also_covers": "\n".join([*filter(None, [broad]), *also[:_SHOWN], *more]) or None,
        "backtest": _told(covered),
        "example": subjects[-1],
    }


def _told(calls: Sequence[Any]) -> str:
    """Return in words what was decided about the calls that a suggestion covers."""
    yours = sum(call.decision == "allow" and call.decided_by in PEOPLE for call in calls)
    denied = sum(call.decision == "deny" and call.decided_by in _DENIED_BY for call in calls)
    counts = counted(len(calls), "call")
    if yours == len(calls):
        return f"{counts}, all allowed by you"
    return f"{counts}: {yours} allowed by you, {denied} denied, {len(calls) - yours - denied} decided otherwise"


def accept(row: Any) -> PermissionRule:
    """Make the rule of a row of `suggest_rules`, and return it."""
    inside = None if row.inside is None or pd.isna(row.inside) else row.inside.split("\n")
    return conversation().allow(row.tool, row.pattern, scope=row.scope, inside=inside)

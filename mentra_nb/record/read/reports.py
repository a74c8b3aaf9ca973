# ruff: noqa: S608  # the SQL is made of our own constants; what a user gives is a parameter
"""Reports on the record: each call returns a documented frame. `mn.backtest` is in `chat/backtest.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Unpack

import pandas as pd

from mentra_nb.authorization import ToolCapability
from mentra_nb.errors import ConfigurationError
from mentra_nb.record.advice import PEOPLE
from mentra_nb.record.read import frames, query
from mentra_nb.record.read.columns import described
from mentra_nb.record.read.filters import AdviceFilters, PeopleFilters, ToolFilters, filtered
from mentra_nb.secrets.mask import REDACTED

_OF_TURNS = {
    "session": "session_id",
    "day": "(ts AT TIME ZONE 'UTC')::DATE AS day",
    "model": "model",
    "notebook": "notebook",
    "cell": "notebook, cell_id",
    "project": "project",
    "os_user": "os_user",
    "host": "host",
}


@described
@filtered
def slowest_tools(**filters: Unpack[ToolFilters]) -> pd.DataFrame:
    """Return a row per tool that ran, the slowest first: how long its calls took, and which one took longest.

    Example:
        >>> mn.slowest_tools(session="sales")[["tool", "calls", "errors"]]
            tool  calls  errors
        0  shell      1       0
    """
    return query.view(
        "tool_calls",
        filters,
        costs=False,
        select="""tool, count(seconds) AS calls, count(*) FILTER (outcome = 'error') AS errors,
            quantile_cont(seconds, 0.5) AS median_s, quantile_cont(seconds, 0.95) AS p95_s, max(seconds) AS max_s,
            round(sum(seconds), 3) AS seconds,
            arg_min(subject, {'seconds': -seconds, 'subject': subject}) FILTER (seconds IS NOT NULL) AS slowest""",
        tail="GROUP BY tool HAVING count(seconds) > 0 ORDER BY p95_s DESC, tool",
    )


@described
@filtered
def denial_reasons(**filters: Unpack[ToolFilters]) -> pd.DataFrame:
    """Return a row per tool, decider and reason of denied calls, the most frequent first.

    Example:
        >>> mn.denial_reasons(session="sales")[["tool", "calls", "example"]]
            tool  calls   example
        0  shell      1  git push
    """
    return query.view(
        "decisions",
        {**filters, "outcome": ["deny", "prompt"]},
        costs=False,
        select="""tool, decided_by, rule, reason, count(*) AS calls, arg_max(subject, ts) AS example,
            max(ts) AS latest, rule_id""",
        tail="GROUP BY tool, decided_by, rule, rule_id, reason ORDER BY calls DESC, latest DESC",
    )


@described
@filtered
def time_spent(
    by: Literal["session", "day", "model", "notebook", "cell", "project", "os_user", "host"] = "session",
    **filters: Unpack[PeopleFilters],
) -> pd.DataFrame:
    """Return where the time of turns went, a row per group: a person deciding, a model answering, tools running.

    Raises:
        ConfigurationError: `by` is not one of the groups.

    Example:
        >>> mn.time_spent(by="model", session="sales")[["model", "turns", "human_wait_s"]]
                   model  turns  human_wait_s
        0  example/small      3           0.0
    """
    if by not in _OF_TURNS:
        raise ConfigurationError(f"time cannot be grouped by {by!r}; use one of {', '.join(_OF_TURNS)}")
    return query.view(
        "turns",
        filters,
        costs=False,
        select=f"""{_OF_TURNS[by]}, count(*) AS turns, round(sum(seconds), 3) AS seconds,
            sum(human_wait_s) AS human_wait_s, sum(model_s) AS model_s, sum(tool_s) AS tool_s,
            sum(human_wait_s) / nullif(sum(human_wait_s) + sum(model_s) + sum(tool_s), 0) AS human_share""",
        tail="GROUP BY ALL ORDER BY min(ts)",
    )


@described
@filtered
def reviewer_report(**filters: Unpack[AdviceFilters]) -> pd.DataFrame:
    """Return how a reviewer's advice compares with what a person then decided, a row per reviewer and risk it stated.

    A false alarm is a call that it called high and a person allowed; a miss is one that it called low and a person
    denied. Questions that a rule, a deadline or a stopped turn closed are in `advised` only, and so are calls that were
    allowed with other arguments. `mn.advice` has a row per question.

    Example:
        >>> mn.reviewer_report(session="sales").empty  # it has no reviewer
        True
    """
    by_person = f"decided_by IN {PEOPLE}"
    return query.view(
        "advice",
        filters,
        costs=False,
        select=f"""model, risk, count(*) AS advised, count(*) FILTER (outcome = 'allowed' AND {by_person}) AS allowed,
            count(*) FILTER (outcome = 'denied' AND {by_person}) AS denied,
            count(*) FILTER (false_alarm) AS false_alarms, count(*) FILTER (miss) AS misses,
            CASE WHEN risk IN ('low', 'high') THEN count(*) FILTER (false_alarm OR miss)
                / nullif(count(*) FILTER (outcome IN ('allowed', 'denied') AND {by_person}), 0) END AS share,
            quantile_cont(seconds, 0.5) AS median_s""",
        tail="GROUP BY model, risk ORDER BY model, list_position(['low', 'medium', 'high'], risk) NULLS LAST",
    )


_MEASURES = {
    "turns": "turns",
    "tools": "calls",
    "denials": "calls",
    "errors": "calls",
    "total_tokens": "tokens",
    "input_tokens": "tokens",
    "output_tokens": "tokens",
    "cost_usd": "USD",
    "seconds": "s",
    "human_wait_s": "s",
    "model_s": "s",
    "tool_s": "s",
}


@described
def compare(first: str, second: str, *, folder: str | Path | None = None) -> pd.DataFrame:
    """Return a row per measure of two sessions, each given by id or name. Unknown values are null.

    Raises:
        ConfigurationError: there is no such session, or there are several of that name.

    Example:
        >>> mn.compare("sales", "sales")[["measure", "unit", "difference"]].head(2)
           measure   unit  difference
        0    turns  turns         0.0
        1    tools  calls         0.0
    """
    sides = [_measured(name, folder) for name in (first, second)]
    frame = pd.DataFrame({"measure": list(_MEASURES), "unit": list(_MEASURES.values())}, dtype="string")
    frame["first"], frame["second"] = (frame.measure.map(side).astype("float64") for side in sides)
    frame["difference"] = frame["second"] - frame["first"]
    frame["ratio"] = frame["second"] / frame["first"].where(frame["first"] != 0)
    return frame


def _measured(session: str, folder: str | Path | None) -> pd.Series[Any]:
    found = frames.sessions(session=session, folder=folder)
    if len(found) != 1:
        which = f"names {len(found)} sessions; take the session_id of one" if len(found) else "is not a session"
        raise ConfigurationError(f"{session!r} {which}: mn.sessions() lists them")
    turns = frames.turns(session=session, folder=folder)
    failed = frames.tool_calls(session=session, outcome="error", folder=folder)
    sums = turns[["input_tokens", "output_tokens"]].sum(min_count=1)
    own = {"seconds": turns.seconds.sum(min_count=1), "errors": len(failed), **sums}
    return pd.Series({**found.iloc[0], **own}, dtype="object").reindex(list(_MEASURES))


_SEEN = f"""
    SELECT d.ts, d.tool, d.subject, d.outcome AS decision, d.decided_by, d.rule_id, d.session_id, d.run_id, d.call_id,
        coalesce(d.subject, '') <> '' AND NOT coalesce(seen.cut, false) AND NOT contains(d.subject, '{REDACTED}')
            AS whole,
        coalesce(seen.reads_only, false) AS reads_only, coalesce(seen.shell, false) AS shell
    FROM decisions d LEFT JOIN (
        SELECT run_id, call_id, bool_or((payload->>'$.preview.structured_input.kind') = 'shell') AS shell,
            bool_or(json_contains((payload->'$.preview.capabilities'), '"{ToolCapability.READ_ONLY}"')) AS reads_only,
            bool_or(TRY_CAST((payload->>'$.subject_truncated') AS BOOLEAN)) AS cut
        FROM events WHERE call_id IS NOT NULL GROUP BY run_id, call_id
    ) seen ON seen.run_id IS NOT DISTINCT FROM d.run_id AND seen.call_id = d.call_id
"""


@filtered
def decided_calls(**filters: Unpack[ToolFilters]) -> pd.DataFrame:
    """Return the calls of `decisions`, oldest first, with what a rule's matcher needs to know about each.

    `whole` is whether `subject` is kept unchanged; `reads_only` and `shell` are what the tool declared.
    """
    return query.view("decisions", filters, source=f"({_SEEN})", costs=False)

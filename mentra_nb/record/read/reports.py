# ruff: noqa: S608  # the SQL is made of our own constants; what a user gives is a parameter
"""Questions people ask of a record, each answered by one call with a documented frame.

Filters and `folder` are those of `tables.py`. What rules would have decided is `mn.backtest`, in `chat/record.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pandas as pd

from mentra_nb.authorization import ToolCapability
from mentra_nb.errors import ConfigurationError
from mentra_nb.record.read import frames, query
from mentra_nb.record.read.columns import described
from mentra_nb.record.read.query import One, When
from mentra_nb.record.write.redact import REDACTED

_OF_TURNS = {
    "session": "session_id",
    "day": "(ts AT TIME ZONE 'UTC')::DATE AS day",
    "model": "model",
    "notebook": "notebook",
    "cell": "notebook, cell_id",
    "project": "project",
}


@described
def slowest_tools(
    *,
    session: One = None,
    tool: One = None,
    since: When = None,
    until: When = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """A row per tool that ran, the slowest first: how long its calls took, and which took longest."""
    return query.view(
        "tool_calls",
        folder=folder,
        session=session,
        since=since,
        until=until,
        tool=tool,
        costs=False,
        select="""tool, count(ms) AS calls, count(*) FILTER (status = 'error') AS errors,
            quantile_cont(ms, 0.5) AS median_ms, quantile_cont(ms, 0.95) AS p95_ms, max(ms)::BIGINT AS max_ms,
            sum(ms) / 1000.0 AS total_s,
            arg_min(subject, {'ms': -ms, 'subject': subject}) FILTER (ms IS NOT NULL) AS slowest""",
        tail="GROUP BY tool HAVING count(ms) > 0 ORDER BY p95_ms DESC, tool",
    )


@described
def denial_reasons(
    *,
    session: One = None,
    tool: One = None,
    since: When = None,
    until: When = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """A row per tool, decider and reason of calls that were denied, the most frequent first."""
    return query.view(
        "decisions",
        folder=folder,
        session=session,
        since=since,
        until=until,
        tool=tool,
        outcome=["deny", "prompt"],
        costs=False,
        select="tool, decided_by, reason, count(*) AS calls, max(ts) AS latest, arg_max(subject, ts) AS example",
        tail="GROUP BY tool, decided_by, reason ORDER BY calls DESC, latest DESC",
    )


@described
def time_spent(
    by: Literal["session", "day", "model", "notebook", "cell", "project"] = "session",
    *,
    session: One = None,
    since: When = None,
    until: When = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """Where the time of turns went: a person deciding, a model answering, tools running. A row per group.

    Raises:
        ConfigurationError: it cannot be grouped by that.
    """
    if by not in _OF_TURNS:
        raise ConfigurationError(f"time cannot be grouped by {by!r}; use one of {', '.join(_OF_TURNS)}")
    return query.view(
        "turns",
        folder=folder,
        session=session,
        since=since,
        until=until,
        costs=False,
        select=f"""{_OF_TURNS[by]}, count(*) AS turns, sum(ms) / 1000.0 AS elapsed_s, sum(human_wait_s) AS human_wait_s,
            sum(model_s) AS model_s, sum(tool_s) AS tool_s,
            sum(human_wait_s) / nullif(sum(human_wait_s) + sum(model_s) + sum(tool_s), 0) AS human_share""",
        tail="GROUP BY ALL ORDER BY min(ts)",
    )


_MEASURES = {
    "turns": "turns",
    "tools": "calls",
    "denials": "calls",
    "errors": "calls",
    "tokens": "tokens",
    "input_tokens": "tokens",
    "output_tokens": "tokens",
    "cost_usd": "USD",
    "elapsed_s": "s",
    "human_wait_s": "s",
    "model_s": "s",
    "tool_s": "s",
}


@described
def compare(first: str, second: str, *, folder: Path | None = None) -> pd.DataFrame:
    """Two sessions side by side, each by id or name: a row per measure. What is not known is null.

    Raises:
        ConfigurationError: there is no such session, or several of that name.
    """
    sides = [_measured(name, folder) for name in (first, second)]
    frame = pd.DataFrame({"measure": list(_MEASURES), "unit": list(_MEASURES.values())}, dtype="string")
    frame["first"], frame["second"] = (frame.measure.map(side).astype("float64") for side in sides)
    frame["difference"] = frame["second"] - frame["first"]
    frame["ratio"] = frame["second"] / frame["first"].where(frame["first"] != 0)
    return frame


def _measured(session: str, folder: Path | None) -> pd.Series[Any]:
    found = frames.sessions(session=session, folder=folder)
    if len(found) != 1:
        which = f"names {len(found)} sessions; take the session_id of one" if len(found) else "is no session"
        raise ConfigurationError(f"{session!r} {which}: mn.sessions() lists them")
    turns = frames.turns(session=session, folder=folder)
    failed = frames.tool_calls(session=session, status="error", folder=folder)
    sums = turns[["input_tokens", "output_tokens"]].sum(min_count=1)
    own = {"elapsed_s": turns.ms.sum(min_count=1) / 1000, "errors": len(failed), **sums}
    return pd.Series({**found.iloc[0], **own}, dtype="object").reindex(list(_MEASURES))


_SEEN = f"""
    SELECT d.ts, d.session_id, d.run_id, d.call_id, d.tool, d.subject, d.outcome AS decision, d.decided_by,
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


def decided_calls(
    *,
    session: One = None,
    tool: One = None,
    since: When = None,
    until: When = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """The calls of `decisions` with what a rule's matcher needs to know of each.

    `whole` says whether `subject` is what it was then, `reads_only` and `shell` what the tool said of itself.
    """
    with query.connection(folder, costs=False, session=session, since=since, until=until) as con:
        condition, values = query.where(since, until, tool=tool)
        return query.frame(con, f"SELECT * FROM ({_SEEN}) {condition} ORDER BY ts", values, categories=True)

"""The record as DataFrames: `events, sessions, turns, model_calls, tool_calls, decisions, usage`, and `sql` over them.

`RECORD.md` lists every column with its dtype and unit. A filter takes a value or
a list of values; `session` is an id or a name, and `since` and `until` take a date, a time, ISO text, or a time span
before now. `folder` is the record's folder, by default `paths.record_folder()`. Every call reads every process's
events live, on a connection of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import duckdb
import pandas as pd

from mentra_nb.errors import ConfigurationError, OperationDenied
from mentra_nb.record.read import query
from mentra_nb.record.read.columns import described
from mentra_nb.record.read.query import One, When

By = Literal["model", "provider", "day", "session", "run", "notebook", "cell", "project", "agent"]

_EXPLAIN = re.compile(r"\s*explain\b\s*(?:analyze\b|\([^()]*\))?", re.IGNORECASE)
_GROUPS = {
    "model": "provider, model",
    "provider": "provider",
    "day": "day",
    "session": "session_id",
    "run": "run_id",
    "notebook": "notebook",
    "cell": "notebook, cell_id",
    "project": "project",
    "agent": "agent_id",
}
TEXT_IDS = "* REPLACE (id::VARCHAR AS id, source::VARCHAR AS source)"
"""The columns of `events` without DuckDB's own type for UUIDs."""
_SUMS = ("tokens", "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


@described
def events(
    *,
    session: One = None,
    kind: One = None,
    run: One = None,
    tool: One = None,
    since: When = None,
    until: When = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """Every event, oldest first, with its whole payload as JSON text."""
    return query.view(
        "events",
        folder=folder,
        session=session,
        since=since,
        until=until,
        kind=kind,
        run_id=run,
        tool=tool,
        select=TEXT_IDS,
        tail="ORDER BY ts, id",
        costs=False,
    )


@described
def sessions(
    *,
    session: One = None,
    model: One = None,
    notebook: One = None,
    project: One = None,
    since: When = None,
    until: When = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """A row per session: when, model, counts, tokens, `cost_usd`, and where the time went.

    With `since` or `until`, the sessions that have an event in that time, each as a whole.
    """
    return query.view(
        "sessions",
        folder=folder,
        session=session,
        since=since,
        until=until,
        model=model,
        notebook=notebook,
        project=project,
        tail="ORDER BY started",
    )


@described
def turns(
    *,
    session: One = None,
    model: One = None,
    notebook: One = None,
    cell: One = None,
    since: When = None,
    until: When = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """A row per question: prompt, cell, how it ended, tools, tokens, `cost_usd`, and where the time went."""
    return query.view(
        "turns",
        folder=folder,
        session=session,
        since=since,
        until=until,
        model=model,
        notebook=notebook,
        cell_id=cell,
    )


@described
def model_calls(
    *,
    session: One = None,
    model: One = None,
    status: One = None,
    since: When = None,
    until: When = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """A row per attempt to ask a model, failed ones too: `status`, `seconds`, tokens, `cost_usd`."""
    return query.view(
        "model_calls", folder=folder, session=session, since=since, until=until, model=model, status=status
    )


@described
def tool_calls(
    *,
    session: One = None,
    tool: One = None,
    status: One = None,
    since: When = None,
    until: When = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """A row per tool call: input, who decided what after how long, `status`, `ms`, `error`, `output`."""
    return query.view(
        "tool_calls",
        folder=folder,
        session=session,
        since=since,
        until=until,
        tool=tool,
        status=status,
        costs=False,
    )


@described
def decisions(
    *,
    session: One = None,
    tool: One = None,
    outcome: One = None,
    decided_by: One = None,
    since: When = None,
    until: When = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """A row per call that was decided, by a person or a rule, or is being asked about (`outcome` is `pending`)."""
    return query.view(
        "decisions",
        folder=folder,
        session=session,
        since=since,
        until=until,
        tool=tool,
        outcome=outcome,
        decided_by=decided_by,
        costs=False,
    )


@described
def usage(
    by: By | Literal["tool"] | Sequence[By] | None = None,
    *,
    session: One = None,
    model: One = None,
    notebook: One = None,
    since: When = None,
    until: When = None,
    folder: Path | None = None,
) -> pd.DataFrame:
    """Tokens and cost. Without `by`, a row per model response; else per group, and a list groups by several.

    In a group `cost_usd` is the sum of what is known, null if nothing is, and `priced` the fraction that is known.
    By `tool` there are no tokens, which belong to responses, but calls, how they ended, and seconds.

    Raises:
        ConfigurationError: it cannot be grouped by that.
    """
    if by == "tool":
        return query.view(
            "tool_calls",
            folder=folder,
            session=session,
            since=since,
            until=until,
            select="""tool, count(*) AS calls, count(*) FILTER (status = 'ok') AS ok,
                count(*) FILTER (status = 'error') AS errors, count(*) FILTER (status = 'denied') AS denied,
                sum(wait_s) AS wait_s, sum(ms) / 1000.0 AS seconds""",
            tail="GROUP BY tool ORDER BY calls DESC, tool",
            costs=False,
        )
    select, tail = "*", "ORDER BY ts"
    if by is not None:
        groups = ", ".join(map(_group, [by] if isinstance(by, str) else by))
        sums = ", ".join(f"sum({name})::BIGINT AS {name}" for name in _SUMS)
        select = (
            f"{groups}, count(*) AS responses, {sums}, sum(cost_usd) AS cost_usd, count(cost_usd) / count(*) AS priced"
        )
        tail = f"GROUP BY {groups} ORDER BY min(ts)"
    return query.view(
        "usage",
        folder=folder,
        session=session,
        since=since,
        until=until,
        model=model,
        notebook=notebook,
        select=select,
        tail=tail,
    )


def _group(by: str) -> str:
    if by not in _GROUPS:
        raise ConfigurationError(f"usage cannot be grouped by {by!r}; use one of {', '.join([*_GROUPS, 'tool'])}")
    return _GROUPS[by]


def sql(text: str, values: Sequence[Any] | Mapping[str, Any] = (), *, folder: Path | None = None) -> pd.DataFrame:
    """The answer to one SELECT (or EXPLAIN) in DuckDB's SQL over the views; times are UTC.

    `values` fill its marks: a list for `?`, a dict for `$name`.

    Raises:
        OperationDenied: anything else: other statements, several of them, and files outside the record.
        duckdb.Error: what DuckDB itself finds wrong, a name that does not exist, say.
    """
    with query.connection(folder) as con:
        _require_one_select(con, text)
        try:
            return query.frame(con, text, values, categories=False)
        except duckdb.PermissionException as error:
            raise OperationDenied(
                "the record's SQL reads the record and no other file; select from its views"
            ) from error


def _require_one_select(con: duckdb.DuckDBPyConnection, text: str) -> None:
    """Judged by DuckDB's own parser. What EXPLAIN explains is judged too: EXPLAIN ANALYZE runs it."""
    kinds = [statement.type.name for statement in con.extract_statements(text)]
    if kinds == ["EXPLAIN"]:
        explain = _EXPLAIN.match(text)
        kinds = (
            [statement.type.name for statement in con.extract_statements(text[explain.end() :])] if explain else kinds
        )
    if kinds != ["SELECT"]:
        found = "nothing" if not kinds else "several statements" if len(kinds) > 1 else kinds[0]
        raise OperationDenied(
            f"the record's SQL takes one SELECT or EXPLAIN of one, and this is {found}; write it as a SELECT"
        )

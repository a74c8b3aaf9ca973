# ruff: noqa: S608  # the SQL is made of our own constants
"""The record as DataFrames, a function per view, and `sql` over the views.

`RECORD.md` lists every column with its dtype and unit; `filters.py` documents the filters. A filter takes a value or a
list of values. Every call opens a new connection and sees the events of all processes up to now.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

import duckdb
import pandas as pd

from mentra_nb.arguments import check_text
from mentra_nb.errors import ConfigurationError, OperationDenied
from mentra_nb.record.read import query
from mentra_nb.record.read.columns import described, documented
from mentra_nb.record.read.filters import (
    AdviceFilters,
    DecisionFilters,
    EffectFilters,
    EventFilters,
    FeedbackFilters,
    ModelCallFilters,
    RuleFilters,
    SessionFilters,
    ToolCallFilters,
    TurnFilters,
    UsageFilters,
    filtered,
)

By = Literal[
    "model", "provider", "day", "session", "run", "notebook", "cell", "project", "agent", "map", "os_user", "host"
]

_EXPLAIN = re.compile(r"\s*explain\b\s*(?:analyze\b|\([^()]*\))?", re.IGNORECASE)
_GROUPS = {
    "model": "model",
    "provider": "provider",
    "day": "day",
    "session": "session_id",
    "run": "run_id",
    "notebook": "notebook",
    "cell": "notebook, cell_id",
    "project": "project",
    "agent": "agent_id",
    "map": "map_id",
    "os_user": "os_user",
    "host": "host",
}
_FIRST = ", ".join(name for name, *_ in documented()["events"])
EVENTS = (
    f"(SELECT {_FIRST}, * EXCLUDE ({_FIRST}) "
    "FROM (SELECT * REPLACE (id::VARCHAR AS id, source::VARCHAR AS source) FROM events))"
)
"""SQL for `events` with UUIDs as text, in the order of `RECORD.md`, and with columns of later versions at its end."""
_OF_MAPS = "(SELECT *, run_id AS map_id FROM usage WHERE starts_with(run_id, 'map-'))"
"""SQL for the part of `usage` that rows of maps have, with the id of the map."""
_SUMS = ("total_tokens", "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


@described
@filtered
def events(**filters: Unpack[EventFilters]) -> pd.DataFrame:
    """Return a row per event, oldest first, with its whole payload as JSON text.

    Example:
        >>> mn.events(session="sales", kind="turn_finished").kind.tolist()
        ['turn_finished', 'turn_finished', 'turn_finished']
    """
    return query.view("events", filters, source=EVENTS, tail="ORDER BY ts, id", costs=False)


@described
@filtered
def sessions(**filters: Unpack[SessionFilters]) -> pd.DataFrame:
    """Return a row per session: when, model, counts, tokens, `cost_usd`, and where the time went.

    With `since` or `until`, these are the sessions that have an event in that time, each as a whole.

    Example:
        >>> mn.sessions(session="sales")[["title", "model", "turns", "tools", "denials"]]
           title          model  turns  tools  denials
        0  sales  example/small      3      2        1
    """
    return query.view("sessions", filters, tail="ORDER BY started")


@described
@filtered
def turns(**filters: Unpack[TurnFilters]) -> pd.DataFrame:
    """Return a row per turn: prompt, cell, how it ended, tools, tokens, `cost_usd`, and where the time went.

    Example:
        >>> mn.turns(session="sales")[["prompt", "stop_reason", "tools"]]
                                   prompt stop_reason  tools
        0  What was the revenue in March?         end      0
        1                Run `echo clean`         end      1
        2                  Run `git push`         end      1
        >>> mn.turns(session="sales").answer[0]
        'Revenue in March was 2400 dollars.'
    """
    return query.view("turns", filters)


@described
@filtered
def model_calls(**filters: Unpack[ModelCallFilters]) -> pd.DataFrame:
    """Return a row per request to a model, including failed ones: `outcome`, `seconds`, tokens, `cost_usd`.

    Example:
        >>> mn.model_calls(session="sales", outcome="ok")[["model", "attempt", "output_tokens"]].head(2)
                   model  attempt  output_tokens
        0  example/small        1              8
        1  example/small        1              8
    """
    return query.view("model_calls", filters)


@described
@filtered
def tool_calls(**filters: Unpack[ToolCallFilters]) -> pd.DataFrame:
    """Return a row per tool call: input, who or which rule decided what, `outcome`, `seconds`, `error`, `output`.

    Example:
        >>> mn.tool_calls(session="sales")[["tool", "subject", "decision", "decided_by", "rule"]]
            tool     subject decision decided_by       rule
        0  shell  echo clean    allow       rule     echo *
        1  shell    git push     deny       rule  git push*
    """
    return query.view("tool_calls", filters, costs=False)


@described
@filtered
def decisions(**filters: Unpack[DecisionFilters]) -> pd.DataFrame:
    """Return a row per call that was decided or waits for an answer (its `outcome` is then `pending`).

    Example:
        >>> mn.decisions(session="sales", outcome="deny")[["tool", "subject"]]
            tool   subject
        0  shell  git push
    """
    return query.view("decisions", filters, costs=False)


@described
@filtered
def rule_changes(**filters: Unpack[RuleFilters]) -> pd.DataFrame:
    """Return a row per change of a permission rule: made, changed or revoked, by whom, and in which session.

    Example:
        >>> chat = mn.Chat()
        >>> rule = chat.deny("write", "*.csv")
        >>> gone = chat.revoke(rule.id)
        >>> mn.rule_changes(rule_id=rule.id)[["action", "tool", "pattern", "allow"]]
            action   tool pattern  allow
        0     made  write   *.csv  False
        1  revoked  write   *.csv  False
    """
    return query.view("rule_changes", filters, costs=False)


@described
@filtered
def effects(**filters: Unpack[EffectFilters]) -> pd.DataFrame:
    """Return a row per file that a call created, changed or deleted, oldest first.

    Example:
        >>> mn.effects(session="sales", change="deleted").empty
        True
    """
    return query.view("effects", filters, costs=False)


@described
@filtered
def advice(**filters: Unpack[AdviceFilters]) -> pd.DataFrame:
    """Return a row per question that a reviewer advised on, with what was then decided, oldest first.

    Example:
        >>> mn.advice(session="sales").empty  # it has no reviewer
        True
    """
    return query.view("advice", filters, costs=False)


@described
@filtered
def feedback(**filters: Unpack[FeedbackFilters]) -> pd.DataFrame:
    """Return a row for each time a person said what they thought of an answer, oldest first.

    `%mentra good` and `%mentra bad because …` say it.

    Example:
        >>> mn.feedback(session="sales", verdict="bad").empty
        True
    """
    return query.view("feedback", filters, costs=False)


@described
@filtered
def usage(by: By | Literal["tool"] | Sequence[By] | None = None, **filters: Unpack[UsageFilters]) -> pd.DataFrame:
    """Return tokens and cost: a row per model response, or with `by` a row per group.

    In a group `cost_usd` is the sum of the known costs, null if none is known; `unpriced` counts the responses whose
    cost is not in it, and `priced` is the fraction of those that are.
    By `map` there are only the requests of rows (`mn.map`).
    By `tool` there are calls, how they ended and seconds, since tokens belong to responses.

    Raises:
        ConfigurationError: `by` is not one of the groups, or a filter does not apply to it.

    Example:
        >>> mn.usage("model", session="sales")[["model", "responses", "input_tokens", "output_tokens"]]
                   model  responses  input_tokens  output_tokens
        0  example/small          5           600             40
    """
    if by == "tool":
        if others := [key for key in ("model", "notebook") if filters.get(key) is not None]:
            raise ConfigurationError(f"usage by tool cannot be filtered by {others[0]}; filter by session or time")
        return query.view(
            "tool_calls",
            filters,
            select="""tool, count(*) AS calls, count(*) FILTER (outcome = 'ok') AS ok,
                count(*) FILTER (outcome = 'error') AS errors, count(*) FILTER (outcome = 'denied') AS denied,
                sum(wait_s) AS wait_s, round(sum(seconds), 3) AS seconds""",
            tail="GROUP BY tool ORDER BY calls DESC, tool",
            costs=False,
        )
    if by is None:
        return query.view("usage", filters)
    named = [by] if isinstance(by, str) else list(by)
    groups = ", ".join(_group(each) for each in named)
    sums = ", ".join(f"TRY_CAST(sum({name}) AS BIGINT) AS {name}" for name in _SUMS)
    return query.view(
        "usage",
        filters,
        source=_OF_MAPS if "map" in named else None,
        select=f"""{groups}, count(*) AS responses, {sums}, sum(cost_usd) AS cost_usd,
            count(cost_usd) / count(*) AS priced, count(*) - count(cost_usd) AS unpriced""",
        tail=f"GROUP BY {groups} ORDER BY min(ts)",
    )


def _group(by: str) -> str:
    if by not in _GROUPS:
        raise ConfigurationError(f"usage cannot be grouped by {by!r}; use one of {', '.join([*_GROUPS, 'tool'])}")
    return _GROUPS[by]


def sql(text: str, values: Sequence[Any] | Mapping[str, Any] = (), *, folder: str | Path | None = None) -> pd.DataFrame:
    """Run one SELECT (or EXPLAIN) of DuckDB's SQL over the views. Times are UTC.

    `values` are its parameters: a list for `?`, a dict for `$name`.

    Raises:
        OperationDenied: for other statements, several of them, and files outside the record.
        duckdb.Error: DuckDB's own errors, as for a name that does not exist.

    Example:
        >>> mn.sql("SELECT tool, count(*) AS calls FROM decisions WHERE outcome = $o GROUP BY ALL", {"o": "deny"})
            tool  calls
        0  shell      1
    """
    check_text("mn.sql('SELECT tool FROM decisions')", query=text)
    with query.connection(folder=folder) as con:
        _require_one_select(con, text)
        try:
            return query.frame(con, text, values, categories=False)
        except duckdb.PermissionException as error:
            raise OperationDenied(
                "the record's SQL reads the record and no other file; select from its views"
            ) from error


def _require_one_select(con: duckdb.DuckDBPyConnection, text: str) -> None:
    """Check with DuckDB's parser, also what an EXPLAIN explains, since EXPLAIN ANALYZE runs it."""
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

# ruff: noqa: S608  # the SQL is made of our own constants and quoted paths
"""The record as DataFrames: `events, sessions, turns, model_calls, tool_calls, decisions, usage`, and `sql` over all of them.

The columns and their units are the table at the top of `schema.py`; times are `datetime64[us, UTC]`, counts `Int64`,
texts `string`. Each call opens a DuckDB connection of its own in memory and reads every process's events live.
"""  # noqa: E501

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mentra_nb import paths
from mentra_nb.audit import prices, segments
from mentra_nb.audit.schema import quoted
from mentra_nb.errors import ConfigurationError, OperationDenied

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

By = Literal["model", "provider", "day", "session", "run", "tool"]

_EXPLAIN = re.compile(r"\s*explain\b\s*(?:analyze\b|\([^()]*\))?", re.IGNORECASE)
_GROUPS = {"model": "provider, model", "provider": "provider", "day": "day", "session": "session_id", "run": "run_id"}
_PANDAS_TYPES = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT"), "Int64"),
    **dict.fromkeys(("VARCHAR", "JSON"), "string"),
    "BOOLEAN": "boolean",
}
"""Types that hold a missing value, and are the same for an empty, a full and a half-empty column."""


def events(*, folder: Path | None = None) -> pd.DataFrame:
    """Every event, oldest first: `id, ts, seq, source, v, scope, kind, payload` (JSON text) and the typed columns.

    `folder` is the record's folder; by default `paths.record_folder()`, here and below.
    """
    rows = "SELECT * REPLACE (id::VARCHAR AS id, source::VARCHAR AS source) FROM events ORDER BY ts, id"
    return _frame(rows, folder, costs=False)


def sessions(*, folder: Path | None = None) -> pd.DataFrame:
    """A row per session: when, model, counts, tokens, `cost_usd`, and where the time went in seconds
    (`human_wait_s`, `model_s`, `tool_s`).
    """
    return _frame("FROM sessions ORDER BY started", folder)


def turns(*, folder: Path | None = None) -> pd.DataFrame:
    """A row per question: prompt, cell, `stop_reason`, `ms`, tools, denials, tokens, `cost_usd`."""
    return _frame("FROM turns ORDER BY ts", folder)


def model_calls(*, folder: Path | None = None) -> pd.DataFrame:
    """A row per attempt to ask a model, failed ones too: `status`, `seconds`, tokens, `cost_usd`."""
    return _frame("FROM model_calls ORDER BY ts", folder)


def tool_calls(*, folder: Path | None = None) -> pd.DataFrame:
    """A row per tool call: input, who decided what after how long, `status`, `ms`, `error`, `output`."""
    return _frame("FROM tool_calls ORDER BY ts", folder, costs=False)


def decisions(*, folder: Path | None = None) -> pd.DataFrame:
    """A row per call that was decided, by a person or a rule, or is being asked about (`outcome` is `pending`)."""
    return _frame("FROM decisions ORDER BY ts", folder, costs=False)


def usage(by: By | None = None, *, folder: Path | None = None) -> pd.DataFrame:
    """Tokens and cost. Without `by`, a row per model response; else per `model`, `provider`, `day`, `session` or `run`.

    In a group `cost_usd` is the sum of what is known, NULL if nothing is, and `priced` the fraction that is known.
    By `tool` there are no tokens, which belong to responses, but `calls, ok, errors, denied, wait_s, seconds`.
    """
    if by is None:
        return _frame("FROM usage ORDER BY ts", folder)
    if by == "tool":
        return _frame(
            """SELECT tool, count(*) AS calls, count(*) FILTER (status = 'ok') AS ok,
                count(*) FILTER (status = 'error') AS errors, count(*) FILTER (status = 'denied') AS denied,
                sum(wait_s) AS wait_s, sum(ms) / 1000.0 AS seconds
            FROM tool_calls GROUP BY tool ORDER BY calls DESC, tool""",
            folder,
            costs=False,
        )
    if by not in _GROUPS:
        raise ConfigurationError(f"usage cannot be grouped by {by!r}; use one of {', '.join([*_GROUPS, 'tool'])}")
    counts = ", ".join(
        f"sum({name})::BIGINT AS {name}"
        for name in (
            "tokens",
            "input_tokens",
            "output_tokens",
            "cache_read_input_tokens",
            "cache_creation_input_tokens",
        )
    )
    return _frame(
        f"""SELECT {_GROUPS[by]}, count(*) AS responses, {counts}, sum(cost_usd) AS cost_usd,
            count(cost_usd) / count(*) AS priced
        FROM usage GROUP BY {_GROUPS[by]} ORDER BY min(ts)""",
        folder,
    )


def sql(query: str, *, folder: Path | None = None) -> pd.DataFrame:
    """The answer to one SELECT (or EXPLAIN) in DuckDB's SQL over the views; times are UTC.

    Raises `OperationDenied` for anything else: other statements, several of them, and files outside the record.
    DuckDB's own errors (a name that does not exist, say) come as they are.
    """
    return _frame(query, folder, judge=True)


def _frame(query: str, folder: Path | None, *, judge: bool = False, costs: bool = True) -> pd.DataFrame:
    import duckdb

    with _connection(folder, costs) as con:
        if judge:
            _require_one_select(con, query)
        try:
            answer = con.sql(query)
            types = [str(type_) for type_ in answer.types]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of pandas, about how DuckDB calls it
                frame: pd.DataFrame = answer.df()
        except duckdb.PermissionException as error:
            raise OperationDenied(
                "the record's SQL reads the record and no other file; select from its views"
            ) from error
    pandas_types = {
        name: _PANDAS_TYPES[type_]
        for name, type_ in zip(list(frame.columns), types, strict=True)
        if type_ in _PANDAS_TYPES
    }
    return frame.astype(pandas_types)


@contextlib.contextmanager
def _connection(folder: Path | None, costs: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    """A locked-down connection with the views on it. Held with the readers' lock, so that no segment is seen twice."""
    import duckdb

    folder = (folder or paths.record_folder()).resolve()
    settings: dict[str, Any] = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",  # else a table name could name a variable of ours
        "temp_directory": "",  # else a big query would spill into a folder beside the notebook, and that could be read
    }
    segments.compact_later(folder)
    segments.refresh_database_later(folder)
    with duckdb.connect(config=settings) as con, segments.commit_lock(folder):
        con.execute("SET TimeZone = 'UTC'")
        has = {kind: segments.has_any(folder, kind) for kind in ("jsonl", "parquet")}
        segments.create_events(con, folder, jsonl=has["jsonl"], parquet=has["parquet"], temp=True)
        prices.fill(con, folder, look_up=costs)
        segments.create_views(con, temp=True)
        con.execute(f"SET allowed_directories = [{quoted(folder)}]")
        con.execute("SET enable_external_access = false")
        con.execute("SET lock_configuration = true")
        yield con


def _require_one_select(con: duckdb.DuckDBPyConnection, query: str) -> None:
    """Judged by DuckDB's own parser. What EXPLAIN explains is judged too: EXPLAIN ANALYZE runs it."""
    kinds = [statement.type.name for statement in con.extract_statements(query)]
    if kinds == ["EXPLAIN"]:
        explain = _EXPLAIN.match(query)
        kinds = (
            [statement.type.name for statement in con.extract_statements(query[explain.end() :])] if explain else kinds
        )
    if kinds != ["SELECT"]:
        found = "nothing" if not kinds else "several statements" if len(kinds) > 1 else kinds[0]
        raise OperationDenied(
            f"the record's SQL takes one SELECT or EXPLAIN of one, and this is {found}; write it as a SELECT"
        )

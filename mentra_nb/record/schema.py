# ruff: noqa: S608  # the SQL is made of our own constants and quoted paths
"""The record's columns: what a line holds, which parts of it become columns, and the SQL of the view `events`.

Text only. The SQL of the other views is in `read/view_sql.py`.

`RECORD.md` documents each column. All times are UTC (`TIMESTAMPTZ`); names in `_ms` are milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

SCHEMA_VERSION = 13
"""Raise it when a view or a promoted column changes; `record.duckdb` is then rewritten."""

STORAGE_VERSION = "v1.0.0"
"""The storage version of the DuckDB files we write: old enough for every DuckDB client in use."""

ENVELOPE = {
    "id": "UUID",
    "ts": "DOUBLE",
    "seq": "BIGINT",
    "source": "UUID",
    "v": "SMALLINT",
    "scope": "VARCHAR",
    "event_type": "VARCHAR",
    "payload": "JSON",
}
"""The fields of a segment's line. `ts` is Unix seconds; `seq` counts from 0 in the segment, which `source` names."""

USAGE = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "reasoning_tokens",
    "thoughts_tokens",
    "tool_input_tokens",
)


def at(path: str, type_: str = "VARCHAR") -> str:
    # TRY_CAST: one odd value must not fail every query. Brackets: ->> binds weaker than IS NULL in DuckDB 1.5.
    return f"TRY_CAST((payload->>'$.{path}') AS {type_})"


FIRST_WORDS = 200
"""How many characters of a prompt are a column. At least as many as a session's title shows."""

PROMOTED = {
    "agent_id": at("agent_id"),
    "run_id": at("run_id"),
    "session_id": at("session_id"),
    "cell_id": at("cell_id"),
    "execution_count": at("execution_count", "BIGINT"),
    "notebook": at("notebook"),
    "project": at("project"),
    "title": at("title"),
    "resumes": at("resumes"),
    "parent_run_id": at("parent_run_id"),
    "request_id": at("request_id"),
    "call_id": at("tool_call_id"),
    "tool": at("tool_name"),
    "subject": at("subject"),
    "provider": at("provider"),
    "model": at("model"),
    "attempt": at("attempt", "BIGINT"),
    "outcome": at("outcome"),
    "decided_by": at("decided_by"),
    "rule_scope": at("rule_scope"),
    "rule_id": at("rule_id"),
    "pattern": at("pattern"),
    "stop_reason": at("stop_reason"),
    "success": f"coalesce({at('success', 'BOOLEAN')}, NOT {at('is_error', 'BOOLEAN')})",
    "reason": at("reason"),
    "error": at("error"),
    "duration_ms": at("duration_ms", "BIGINT"),
    "wait_ms": f"coalesce({at('wait_ms', 'BIGINT')}, {at('waited_ms', 'BIGINT')})",
    "lost": at("lost", "BIGINT"),
    "os_user": at("os_user"),
    "host": at("host"),
    **{name: at(f"usage.{name}", "BIGINT") for name in USAGE},
    "reported_cost_usd": at("usage.cost_usd", "DOUBLE"),
    "first_words": rf"left(trim(regexp_replace(payload->>'$.prompt', '\s+', ' ', 'g')), {FIRST_WORDS})",
    "invalid": at("invalid", "BOOLEAN"),
}
"""The parts of a payload that are columns. To add one, add a line here and raise `SCHEMA_VERSION`."""

_ADDED = ("reported_cost_usd", "first_words", "invalid")
"""The columns that rows without a `columns_v` lack: they were stored before version 9."""

CATEGORIES = (
    "kind",
    "provider",
    "model",
    "tool",
    "outcome",
    "decision",
    "decided_by",
    "rule_scope",
    "action",
    "change",
    "risk",
    "verdict",
    "os_user",
    "host",
    "stop_reason",
    "notebook",
    "project",
)
"""Columns with few distinct texts: they are categories in a DataFrame."""

PRICES = {
    "provider": "VARCHAR",
    "model": "VARCHAR",
    "from_day": "DATE",
    "until_day": "DATE",
    "from_time": "TIME",
    "until_time": "TIME",
    "above": "BIGINT",
    "up_to": "BIGINT",
    "input_mtok": "DOUBLE",
    "output_mtok": "DOUBLE",
    "cache_read_mtok": "DOUBLE",
    "cache_write_mtok": "DOUBLE",
    "source": "VARCHAR",
}
"""The columns of `prices.parquet`: USD per million tokens, for a range of days, times of day (UTC) and prompt sizes."""

TYPED = (
    f"SELECT id, to_timestamp(ts) AS ts, seq, source, v, {SCHEMA_VERSION}::SMALLINT AS columns_v, scope, "
    "event_type AS kind, payload, " + ", ".join(f"{expression} AS {name}" for name, expression in PROMOTED.items())
)
"""The SELECT that turns lines into rows as they are stored, up to its FROM.

`columns_v` is the version that chose the columns. The view `events` leaves it out.
"""

_LINES = (
    "format='newline_delimited', ignore_errors=true, maximum_object_size=67108864, columns={"
    + ", ".join(f"{name}: '{type_}'" for name, type_ in ENVELOPE.items())
    + "}"
)


def text(value: str) -> str:
    """Quote a text for SQL."""
    return "'" + value.replace("'", "''") + "'"


def quoted(path: Path | str) -> str:
    """Quote a path for SQL."""
    return text(Path(path).as_posix())


def listed(paths: Iterable[Path]) -> str:
    """Quote paths as an SQL list."""
    return f"[{', '.join(map(quoted, paths))}]"


def read_lines(paths: Iterable[Path], *, filename: bool = False) -> str:
    """Return the table function that reads segments. A line that is not valid JSON becomes a row whose `id` is NULL."""
    return f"read_json({listed(paths)}, {'filename=true, ' if filename else ''}{_LINES})"


def empty(columns: dict[str, str]) -> str:
    """Return a SELECT with these columns and no rows."""
    return "SELECT " + ", ".join(f"NULL::{type_} AS {name}" for name, type_ in columns.items()) + " LIMIT 0"


def stored(rows: str) -> str:
    """Return the SELECT of `events` over stored rows of any version, given as a FROM clause, or over none for "".

    Columns that a row was stored without are read from its payload. Apart from the other rows, so that no payload of
    theirs is read for it.
    """
    parts = [f"{TYPED} FROM ({empty(ENVELOPE)})"]  # so that columns missing in older Parquet exist
    if rows:
        parts.append(f"SELECT * REPLACE (TRY_CAST(payload AS JSON) AS payload) {rows}")
    every = " UNION ALL BY NAME ".join(parts)
    added = ", ".join(f"{PROMOTED[name]} AS {name}" for name in _ADDED)
    return f"""SELECT * EXCLUDE (columns_v) FROM ({every}) WHERE columns_v IS NOT NULL UNION ALL BY NAME
        SELECT * EXCLUDE (columns_v) REPLACE ({added}) FROM ({every}) WHERE columns_v IS NULL"""


def events_sql(*, jsonl: Sequence[Path], parquet: Sequence[Path], live: bool = False) -> str:
    """Return the SELECT of `events` over files.

    With `live`, each kind of file is given as one glob, and text that is also there as Parquet is skipped.
    """
    files = f"FROM read_parquet({listed(parquet)}, union_by_name=true)" if parquet else ""
    parts = [stored(files)]
    if jsonl:
        lines = f"{TYPED} FROM {read_lines(jsonl, filename=live)} WHERE id IS NOT NULL"
        if live:
            compacted = f"SELECT parse_filename(file, true) FROM glob({quoted(parquet[0])})"
            lines += f" AND parse_filename(filename, true) NOT IN ({compacted})"
        parts.append(f"SELECT * EXCLUDE (columns_v) FROM ({lines})")
    return " UNION ALL BY NAME ".join(parts)

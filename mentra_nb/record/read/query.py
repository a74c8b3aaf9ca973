# ruff: noqa: S608  # the SQL is made of our own constants and quoted paths; what a user gives is a parameter
"""Queries of the record: a locked-down DuckDB connection in memory with the views on it, and its results as DataFrames.

The functions for users are in `frames.py`, `reports.py`, `plots.py` and `export.py`; their SQL is in `view_sql.py`.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Unpack

import duckdb
import pandas as pd

from mentra_nb import paths
from mentra_nb.errors import ConfigurationError, StoreError
from mentra_nb.record import schema
from mentra_nb.record.empty import or_why
from mentra_nb.record.keep.damage import find_damage, may_be_damage
from mentra_nb.record.parquet import connect
from mentra_nb.record.read import view_sql
from mentra_nb.record.read.filters import Filters, One, When, this_session
from mentra_nb.record.read.price_table import fill as fill_prices
from mentra_nb.record.read.views import create_events, create_views, refresh_database_later
from mentra_nb.record.write import files

_PANDAS_TYPES = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"), "Int64"),
    **dict.fromkeys(("VARCHAR", "JSON"), "string"),
    "BOOLEAN": "boolean",
}
"""Nullable dtypes, so that a column has the same dtype whether or not values are missing."""
_SETTINGS: dict[str, Any] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # else a table name could refer to a Python variable
    "temp_directory": "",  # else a big query would spill to a readable folder beside the notebook
}
_COLUMNS = {"run": "run_id", "cell": "cell_id"}
"""Filters whose column has another name."""
_WITHOUT_PROVIDER = "regexp_replace(model, '^[^/]*/', '')"
"""SQL for the model's name at its provider, with which a filter without a provider is compared."""
_FIRST = {
    "rule_changes": "mn.allow('shell', 'git *') makes a rule.",
    "effects": "Ask for a file: %mentra write a haiku to poem.txt",
    "feedback": "%mentra good, or bad because …, says what you think of the last answer.",
    "advice": "%config Mentra.reviewer = 'model' has a model advise on the questions that follow.",
}
"""What to do when a frame is empty without filters."""
_ASK = "Ask something first: %mentra what can you do here?"


def view(
    name: str,
    filters: Mapping[str, Any],
    *,
    source: str | None = None,
    select: str = "*",
    tail: str = "ORDER BY ts",
    costs: bool = True,
) -> pd.DataFrame:
    """Return the rows of a view that match the filters.

    Args:
        name: the view.
        filters: a `Filters` or a subclass of it; a filter that is not in `Filters` is compared with the column of
            its name. Sessions and times restrict what is read from the files.
        source: what to select from, by default the view itself.
        select: the columns or aggregates to return.
        tail: the rest of the query: grouping and order.
        costs: whether to look up the prices of models that have none yet.
    """
    session, since, until, folder = (filters.get(key) for key in ("session", "since", "until", "folder"))
    equal = {_COLUMNS.get(key, key): value for key, value in filters.items() if key not in Filters.__annotations__}
    has_ts = name != "sessions"
    condition, values = _where(since if has_ts else None, until if has_ts else None, **equal)
    with connection(
        costs=costs,
        whole_sessions=not has_ts,
        views=[name] if name in view_sql.VIEWS else [],  # each takes a while to make
        session=session,
        since=since,
        until=until,
        folder=folder,
    ) as con:
        found = frame(con, f"SELECT {select} FROM {source or name} {condition} {tail}", values, categories=True)
    used = {key: value for key, value in filters.items() if key != "folder" and value}
    return or_why(found, _why_empty(name, folder, used))


def frame(
    con: duckdb.DuckDBPyConnection, query: str, values: Sequence[Any] | Mapping[str, Any] = (), *, categories: bool
) -> pd.DataFrame:
    """Run a query and return its result with the dtypes of `RECORD.md`.

    With `categories`, the text columns in `schema.CATEGORIES` become categories.
    """
    result = con.execute(query, values or None)
    types = {str(column[0]): str(column[1]) for column in result.description or ()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pandas, about how DuckDB calls it
        found: pd.DataFrame = result.df()
    dtypes = {name: _PANDAS_TYPES[type_] for name, type_ in types.items() if type_ in _PANDAS_TYPES}
    if categories:
        dtypes |= {name: "category" for name in schema.CATEGORIES if types.get(name) == "VARCHAR"}
    found = found.astype(dtypes)
    found.attrs["mentra_nb"] = True  # the notebook shows such frames without MathJax: a model wrote some of the text
    return found


@contextlib.contextmanager
def connection(
    *,
    costs: bool = True,
    whole_sessions: bool = False,
    locked: bool = True,
    views: Iterable[str] = tuple(view_sql.VIEWS),
    **filters: Unpack[Filters],
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection on which the views exist, over the turns that match the filters.

    It holds the readers' lock, so that no segment is seen twice.

    Args:
        costs: whether to look up the prices of models that have none yet.
        whole_sessions: with `since` or `until`, take all turns of a session that has an event in that time.
        locked: let the connection read the record's files and no others, and write none.
        views: the views to make.
        filters: the sessions and times to read. A turn is read whole if one of its events matches.

    Raises:
        StoreError: a file of the record is damaged; the next query leaves it out.
    """
    folder = paths.record_folder(filters.get("folder")).resolve()
    since, until = filters.get("since"), filters.get("until")
    refresh_database_later(folder)
    try:
        with connect(**_SETTINGS) as con, files.commit_lock(folder):
            con.execute("SET TimeZone = 'UTC'")
            places = create_events(con, folder)
            every = _narrow(con, _named(filters.get("session")), since, until, whole_sessions)
            fill_prices(con, folder, look_up=costs)
            create_views(con, temp=True, names=views, every=every)
            if locked:
                con.execute(f"SET allowed_directories = [{', '.join(map(schema.text, places))}]")
                con.execute("SET enable_external_access = false")
                con.execute("SET lock_configuration = true")
            yield con
    except (duckdb.Error, UnicodeDecodeError) as error:
        if may_be_damage(error) and (found := find_damage(folder)):
            raise StoreError(f"{found}; ask again for the rest") from error
        raise


def _narrow(con: duckdb.DuckDBPyConnection, sessions: Sequence[str], since: When, until: When, whole: bool) -> str:
    """Restrict the view `events` to the turns that match, and to the events of matching sessions outside turns.

    Returns:
        The name of the view that still has all events.
    """
    during, moments = _where(since, until)
    if not sessions and not moments:
        return "events"
    con.execute("CREATE TEMP TABLE chosen_sessions (session_id VARCHAR)")
    con.execute("CREATE TEMP TABLE chosen_runs (run_id VARCHAR)")
    if sessions:
        marks = ", ".join("?" * len(sessions))
        during, moments = f"WHERE session_id IN ({marks}) OR title IN ({marks})", [*sessions, *sessions]
    if sessions or whole:
        con.execute(f"INSERT INTO chosen_sessions SELECT DISTINCT session_id FROM events {during}", moments)
        during, moments = "WHERE session_id IN (FROM chosen_sessions)", []
    con.execute(f"INSERT INTO chosen_runs SELECT DISTINCT run_id FROM events {during}", moments)
    span = "SELECT min(ts)::VARCHAR, max(ts)::VARCHAR FROM events SEMI JOIN chosen_runs USING (run_id)"
    first, last = con.execute(span).fetchone() or (None, None)
    bounds = f"ts BETWEEN '{first}' AND '{last}'" if first else "false"  # so that DuckDB skips row groups
    outside = "session_id IN (FROM chosen_sessions)" if sessions or whole else "true"
    con.execute("ALTER VIEW events RENAME TO recorded")
    con.execute(
        f"CREATE TEMP VIEW events AS FROM recorded SEMI JOIN chosen_runs USING (run_id) WHERE {bounds} "
        f"UNION ALL FROM recorded WHERE run_id IS NULL AND {outside}"
    )
    return "recorded"


def _where(since: When = None, until: When = None, **equal: One) -> tuple[str, list[Any]]:
    """Return a WHERE clause and the values of its parameters."""
    parts: list[str] = []
    values: list[Any] = []
    for name, wanted in equal.items():
        if several := _several(wanted):
            part = f"{name} IN ({', '.join('?' * len(several))})"
            values += several
            if name == "model" and (bare := [each for each in several if "/" not in each]):
                part = f"({part} OR {_WITHOUT_PROVIDER} IN ({', '.join('?' * len(bare))}))"
                values += bare
            parts.append(part)
    for comparison, moment in ((">=", since), ("<", until)):
        if moment is not None:
            parts.append(f"ts {comparison} ?")
            values.append(_time(moment))
    return f"WHERE {' AND '.join(parts)}" if parts else "", values


def _named(session: One) -> list[str]:
    """Return the ids and names of sessions, with the id of this notebook's conversation for `this`."""
    return [this_session() if each == "this" else each for each in _several(session)]


def _several(value: One) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _time(moment: str | date | datetime | timedelta) -> datetime:
    if isinstance(moment, timedelta):
        return datetime.now(UTC) - moment
    if isinstance(moment, datetime) and moment.tzinfo is None:  # local time, as `datetime.now()` gives it
        plain = moment.to_pydatetime(warn=False) if isinstance(moment, pd.Timestamp) else moment
        return plain.astimezone(UTC)
    try:
        found = pd.Timestamp(moment)
    except ValueError as error:
        raise ConfigurationError(f"{moment!r} is not a time: write it as 2026-03-01 or 2026-03-01T14:30") from error
    return (found.tz_localize(UTC) if found.tz is None else found.tz_convert(UTC)).to_pydatetime(warn=False)


def _why_empty(name: str, folder: str | Path | None, used: Mapping[str, Any]) -> str:
    folder = paths.record_folder(folder)
    words = name.replace("_", " ")
    if used:
        given = ", ".join(f"{key}={value!r}" for key, value in used.items())
        return f"No {words} with {given} in {folder}. Without filters all are shown: mn.{name}()"
    return f"No {words} yet: none are recorded in {folder}. {_FIRST.get(name, _ASK)}"

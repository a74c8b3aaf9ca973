# ruff: noqa: S608  # the SQL is made of our own constants and quoted paths; what a user gives is a parameter
"""One question, one connection: the record's views in a locked-down DuckDB in memory, and its answers as DataFrames.

What may be asked is `tables.py` and its neighbours; what the views are is `schema.py`.
"""

from __future__ import annotations

import contextlib
import html
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pandas as pd

from mentra_nb import paths
from mentra_nb.errors import ConfigurationError, StoreError
from mentra_nb.record import schema
from mentra_nb.record.read.price_table import fill as fill_prices
from mentra_nb.record.read.views import create_events, create_views, find_damage, may_be_damage, refresh_database_later
from mentra_nb.record.write import files

One = str | Sequence[str] | None
"""A filter: a value, or several of which one must fit."""
When = str | date | datetime | timedelta | None
"""A moment: a date or time, as such or as ISO text (UTC unless it says otherwise), or a time span before now."""

_PANDAS_TYPES = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"), "Int64"),
    **dict.fromkeys(("VARCHAR", "JSON"), "string"),
    "BOOLEAN": "boolean",
}
"""Types that hold a missing value, and are the same for an empty, a full and a half-empty column."""
_SETTINGS: dict[str, Any] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # else a table name could name a variable of ours
    "temp_directory": "",  # else a big query would spill into a folder beside the notebook, and that could be read
}


class Empty(pd.DataFrame):
    """A frame without rows that says why when it is shown. What is derived from it is an ordinary frame."""

    _metadata: ClassVar[list[str]] = ["why"]
    why = ""

    def __repr__(self) -> str:
        return f"{self.why}\nColumns: {', '.join(map(str, self.columns))}"

    def _repr_html_(self) -> str:
        columns = ", ".join(map(str, self.columns))
        return f"<p>{html.escape(self.why)}<br><small>Columns: {html.escape(columns)}</small></p>"


def view(
    name: str,
    *,
    folder: Path | None,
    session: One = None,
    since: When = None,
    until: When = None,
    select: str = "*",
    tail: str = "ORDER BY ts",
    costs: bool = True,
    **equal: One,
) -> pd.DataFrame:
    """The rows of a view that fit, or with `select` and `tail` what is made of them.

    Filters reach the files: of other sessions and times nothing is read but the columns that tell so.
    """
    own = [name] if name in schema.VIEWS else []  # each takes a while to make
    with connection(
        folder, costs=costs, session=session, since=since, until=until, whole=name == "sessions", views=own
    ) as con:
        has_ts = name != "sessions"
        condition, values = where(since if has_ts else None, until if has_ts else None, **equal)
        found = frame(con, f"SELECT {select} FROM {name} {condition} {tail}", values, categories=True)
    asked = {"session": session, "since": since, "until": until, **equal}
    return found if len(found) else _empty(found, name, folder, {key: value for key, value in asked.items() if value})


def frame(
    con: duckdb.DuckDBPyConnection, query: str, values: Sequence[Any] | Mapping[str, Any] = (), *, categories: bool
) -> pd.DataFrame:
    """The answer to a query with the dtypes of `RECORD.md`; with `categories`, few-valued texts are categories."""
    answer = con.execute(query, values or None)
    types = {str(column[0]): str(column[1]) for column in answer.description or ()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pandas, about how DuckDB calls it
        found: pd.DataFrame = answer.df()
    dtypes = {name: _PANDAS_TYPES[type_] for name, type_ in types.items() if type_ in _PANDAS_TYPES}
    if categories:
        dtypes |= {name: "category" for name in schema.CATEGORIES if types.get(name) == "VARCHAR"}
    return found.astype(dtypes)


@contextlib.contextmanager
def connection(
    folder: Path | None,
    *,
    costs: bool = True,
    session: One = None,
    since: When = None,
    until: When = None,
    whole: bool = False,
    locked: bool = True,
    views: Iterable[str] = tuple(schema.VIEWS),
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the views on it, which see only turns of these sessions, or with an event in that time.

    With `whole` sessions, all turns of a session that has an event in that time. Held with the readers' lock, so that
    no segment is seen twice. `locked`: it reads the record's files and no other, and writes none.
    """
    folder = (folder or paths.record_folder()).resolve()
    refresh_database_later(folder)
    try:
        with duckdb.connect(config=_SETTINGS) as con, files.commit_lock(folder):
            con.execute("SET TimeZone = 'UTC'")
            places = create_events(con, folder)
            _narrow(con, _several(session), since, until, whole)
            fill_prices(con, folder, look_up=costs)
            create_views(con, temp=True, names=views)
            if locked:
                con.execute(f"SET allowed_directories = [{', '.join(map(schema.text, places))}]")
                con.execute("SET enable_external_access = false")
                con.execute("SET lock_configuration = true")
            yield con
    except (duckdb.Error, UnicodeDecodeError) as error:
        if may_be_damage(error) and (found := find_damage(folder)):
            raise StoreError(f"{found}; ask again for the rest") from error
        raise


def _narrow(con: duckdb.DuckDBPyConnection, sessions: Sequence[str], since: When, until: When, whole: bool) -> None:
    """Let the views see only the events of turns that matter, and of sessions beside their turns."""
    during, moments = where(since, until)
    if not sessions and not moments:
        return
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
    bounds = f"ts BETWEEN '{first}' AND '{last}'" if first else "false"  # keeps whole row groups from being read
    outside = "session_id IN (FROM chosen_sessions)" if sessions or whole else "true"
    con.execute("ALTER VIEW events RENAME TO recorded")
    con.execute(
        f"CREATE TEMP VIEW events AS FROM recorded SEMI JOIN chosen_runs USING (run_id) WHERE {bounds} "
        f"UNION ALL FROM recorded WHERE run_id IS NULL AND {outside}"
    )


def where(since: When = None, until: When = None, **equal: One) -> tuple[str, list[Any]]:
    """A WHERE clause and the values for its marks."""
    parts: list[str] = []
    values: list[Any] = []
    for name, wanted in equal.items():
        if several := _several(wanted):
            parts.append(f"{name} IN ({', '.join('?' * len(several))})")
            values += several
    for comparison, moment in ((">=", since), ("<", until)):
        if moment is not None:
            parts.append(f"ts {comparison} ?")
            values.append(_time(moment))
    return f"WHERE {' AND '.join(parts)}" if parts else "", values


def _several(value: One) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _time(moment: str | date | datetime | timedelta) -> datetime:
    if isinstance(moment, timedelta):
        return datetime.now(UTC) - moment
    try:
        found = pd.Timestamp(moment)
    except ValueError as error:
        raise ConfigurationError(f"{moment!r} is no time: write it as 2026-03-01 or 2026-03-01T14:30") from error
    return (found.tz_localize(UTC) if found.tz is None else found.tz_convert(UTC)).to_pydatetime()


def _empty(found: pd.DataFrame, name: str, folder: Path | None, asked: Mapping[str, Any]) -> Empty:
    folder = folder or paths.record_folder()
    words = name.replace("_", " ")
    empty = Empty(found)
    if asked:
        empty.why = f"No {words} with {', '.join(f'{key}={value!r}' for key, value in asked.items())} in {folder}."
    else:
        empty.why = f"No {words} yet: nothing of the kind is recorded in {folder}."
    return empty

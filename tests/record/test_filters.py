"""The signatures of functions that take the record's filters."""

from __future__ import annotations

import inspect
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints

import pandas as pd
import pytest

import mentra_nb as mn
from mentra_nb.errors import ConfigurationError
from mentra_nb.record.read import query
from mentra_nb.record.read.filters import Filters

FUNCTIONS: dict[str, tuple[str, ...]] = {
    "events": ("kind", "run", "tool"),
    "sessions": ("model", "notebook", "project"),
    "turns": ("model", "notebook", "cell"),
    "model_calls": ("model", "outcome"),
    "tool_calls": ("tool", "outcome"),
    "decisions": ("tool", "outcome", "decided_by", "rule_id"),
    "rule_changes": ("tool", "rule_id"),
    "effects": ("tool", "path", "change", "run"),
    "usage": ("model", "notebook"),
    "slowest_tools": ("tool",),
    "denial_reasons": ("tool",),
    "advice": ("tool", "model"),
    "feedback": ("verdict", "model", "notebook"),
    "reviewer_report": ("tool", "model"),
    "time_spent": (),
    "backtest": ("tool",),
    "export": (),
    "plot.cost": (),
    "plot.approvals": ("tool",),
    "plot.tools": ("tool",),
}


def function(name: str) -> Any:
    found: Any = mn
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_signature_names_each_filter_with_its_type(name: str) -> None:
    parameters = inspect.signature(function(name)).parameters
    types = get_type_hints(Filters)
    for filter_ in ("session", *FUNCTIONS[name], "since", "until", "folder"):
        assert parameters[filter_].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[filter_].default is None
        assert parameters[filter_].annotation == types.get(filter_, types["session"])
    assert not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_type_alias_is_shown(name: str) -> None:
    shown = str(inspect.signature(function(name)))
    assert "session: str | collections.abc.Sequence[str] | None = None" in shown
    assert "since: str | datetime.date | datetime.datetime | datetime.timedelta | None = None" in shown


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_keyword_that_is_not_a_filter_is_refused(name: str, tmp_path: Path) -> None:
    given = {"backtest": ([],), "export": (tmp_path / "x.csv",)}.get(name, ())
    with pytest.raises(TypeError, match=r"\w+\(\) got an unexpected keyword argument 'colour'"):
        function(name)(*given, colour="red", folder=tmp_path)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ({"session": 5}, "session must be text or a list of texts, not int"),
        ({"session": ["sales", 5]}, "session must be text or a list of texts, not int"),
        ({"since": object()}, "since must be a time, not object: write it as '2026-03-01'"),
        ({"until": 5}, "until must be a time, not int: write it as '2026-03-01'"),
        ({"folder": 5}, "the path must be text or a Path, not int: mn.turns"),
    ],
)
def test_a_filter_of_another_type_is_refused_in_one_sentence(
    name: str, filters: dict[str, Any], said: str, tmp_path: Path
) -> None:
    given = {"backtest": ([],), "export": (tmp_path / "x.csv",)}.get(name, ())
    with pytest.raises(ConfigurationError, match=f"^{said}"):
        function(name)(*given, **{"folder": tmp_path} | filters)


@pytest.mark.parametrize("several", [("s1",), {"s1"}, pd.Series(["s1"]), iter(["s1"])])
def test_several_values_come_in_any_collection(several: Any, tmp_path: Path) -> None:
    assert "session=['s1']" in getattr(mn.turns(session=several, folder=tmp_path), "why", "")


def test_a_datetime_without_a_zone_is_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert query._time(datetime(2026, 3, 1, 9)) == datetime(2026, 3, 1, tzinfo=UTC)
        assert query._time(pd.Timestamp("2026-03-01T09:00")) == datetime(2026, 3, 1, tzinfo=UTC)
        assert query._time("2026-03-01T09:00") == datetime(2026, 3, 1, 9, tzinfo=UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_parts_of_microseconds_are_dropped_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert query._time(pd.Timestamp(1_000_000_000_000_000_001, tz="UTC")).year == 2001
        assert query._time(pd.Timestamp(1_000_000_000_000_000_001)).year == 2001

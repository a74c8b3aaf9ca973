"""What goes in comes out: frames of every library, and columns whose dtype is that of the answers' type."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any, Literal

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from kits.row_models import RowModel
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

import mentra_nb as mn

QUIET: dict[str, Any] = {"progress": False}


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Person(BaseModel):
    name: str
    age: int | None = None
    mood: Mood = Mood.GOOD


class Place(TypedDict):
    city: str
    people: int


@dataclasses.dataclass
class Deal:
    day: date
    amounts: list[float]
    where: Place


VALUES = [
    (bool, "true", True, "boolean"),
    (int, "12", 12, "Int64"),
    (float, "1.5", 1.5, "float64"),
    (date, '"2026-03-01"', pd.Timestamp("2026-03-01"), "datetime64[us]"),
    (datetime, '"2026-03-01T10:00:00"', pd.Timestamp("2026-03-01 10:00"), "datetime64[us]"),
    (datetime, '"2026-03-01T10:00:00+02:00"', pd.Timestamp("2026-03-01 08:00", tz="UTC"), "datetime64[us, UTC]"),
    (Literal["good", "bad"], '"bad"', "bad", "category"),
    (Literal[1, 2], "2", 2, "category"),
    (Mood, '"bad"', "bad", "category"),
    (list[str], '["a", "b"]', ["a", "b"], "list<item: string>[pyarrow]"),
    (list[int], "[1, 2]", [1, 2], "list<item: int64>[pyarrow]"),
    (int | None, "null", None, "Int64"),
    (dict[str, int], '{"a": 1}', '{"a": 1}', "string"),
]


@pytest.mark.parametrize(("as_", "given", "value", "dtype"), VALUES, ids=lambda each: str(each)[:30])
def test_a_column_has_the_dtype_of_its_type_also_where_a_row_failed(
    model: RowModel, as_: Any, given: str, value: Any, dtype: str
) -> None:
    model.answer = lambda prompt: f'{{"value": {given}}}' if "good row" in prompt else "{}"
    if as_ == dict[str, int]:
        model.answer = lambda prompt: given if "good row" in prompt else "nothing"
    found = mn.map("{value}", ["good row", "other"], as_=as_, **QUIET)
    assert str(found.answer.dtype) == dtype
    first = found.answer[0]
    assert pd.isna(first) if value is None else (first.tolist() if hasattr(first, "tolist") else first) == value
    assert found.answer.isna()[1]
    assert found.error.notna().tolist() == [False, True]


def test_the_categories_are_those_of_the_type_and_not_of_the_answers(model: RowModel) -> None:
    model.answer = lambda prompt: '{"value": "bad"}'
    assert mn.map("{value}", ["a"], as_=Literal["good", "bad"], **QUIET).answer.cat.categories.tolist() == [
        "good",
        "bad",
    ]


def test_fields_become_columns_and_into_names_what_they_begin_with(model: RowModel) -> None:
    model.answer = lambda prompt: '{"name": "Ada", "age": 36, "mood": "bad"}'
    found = mn.map("{value}", ["a"], as_=Person, **QUIET)
    assert found.dtypes.astype(str).to_dict() == {
        "value": "str" if pd.__version__ >= "3" else "object",
        "name": "string",
        "age": "Int64",
        "mood": "category",
        "error": "string",
    }
    assert mn.map("{value}", ["a"], as_=Person, into="who", **QUIET).columns.tolist()[1:4] == [
        "who_name",
        "who_age",
        "who_mood",
    ]


def test_a_dataclass_with_a_list_and_a_struct(model: RowModel) -> None:
    given = '{"day": "2026-03-01", "amounts": [1, 2.5], "where": {"city": "Oslo", "people": 7}}'
    model.answer = lambda prompt: given if prompt == "a" else "?"
    found = mn.map("{value}", ["a", "b"], as_=Deal, **QUIET)
    assert found["where"][0] == {"city": "Oslo", "people": 7}
    assert list(found.amounts[0]) == [1.0, 2.5]
    assert found[["day", "amounts", "where"]].isna().all(axis=1).tolist() == [False, True]


def test_a_constraint_of_the_type_holds_and_a_number_of_more_than_64_bits_does_not_fit(model: RowModel) -> None:
    class Score(BaseModel):
        score: int = Field(ge=0, le=10)

    model.answer = lambda prompt: '{"score": 11}'
    assert "less than or equal to 10" in mn.map("{value}", ["a"], as_=Score, **QUIET).error[0]
    model.answer = lambda prompt: f'{{"value": {2**70}}}'
    assert "more than 64 bits" in mn.map("{value}", ["a"], as_=int, **QUIET).error[0]


@pytest.mark.parametrize(
    "answer",
    ['{"value": 3}', "3", "```json\n3\n```", 'Here: {"value": 3}', ' {"value": "3"} ', '```\n{"value": 3}\n```'],
)
def test_an_answer_is_found_in_what_models_write_around_it(model: RowModel, answer: str) -> None:
    model.answer = lambda prompt: answer
    assert mn.map("{value}", ["a"], as_=int, **QUIET).answer.tolist() == [3]
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    "answer", ["[" * 5000, '{"value": ' * 3000, "", "NaN", '{"value": {"value": 3}}', "2026-03-01"]
)
def test_what_is_no_answer_fails_its_row_only(model: RowModel, answer: str) -> None:
    model.answer = lambda prompt: answer if prompt != "b" else "4"
    found = mn.map("{value}", ["a", "b"], as_=int, **QUIET)
    assert found.error.notna().tolist() == [True, False]
    assert found.answer[1] == 4


# ---- frames -------------------------------------------------------------------------------------------------------

COLUMNS = {"text": ["b", "a", "b"], "n": [1, 2, 3]}
ROWS = [("b", 1, "b1"), ("a", 2, "a2"), ("b", 3, "b3")]


def test_polars_in_polars_out(model: RowModel) -> None:
    found = mn.map("{text}{n}", pl.DataFrame(COLUMNS), **QUIET)
    assert isinstance(found, pl.DataFrame)
    assert found.select("text", "n", "answer").rows() == ROWS
    assert found.schema["answer"] == pl.String
    assert found["error"].is_null().all()


def test_a_lazy_frame_is_collected(model: RowModel) -> None:
    assert mn.map("{text}{n}", pl.LazyFrame(COLUMNS), **QUIET).select("text", "n", "answer").rows() == ROWS


def test_arrow_in_arrow_out(model: RowModel) -> None:
    found = mn.map("{text}{n}", pa.table(COLUMNS), **QUIET)
    assert isinstance(found, pa.Table)
    assert list(zip(*(found[name].to_pylist() for name in ("text", "n", "answer")), strict=True)) == ROWS
    assert found.schema.field("answer").type in (pa.string(), pa.large_string())


def test_a_relation_in_a_relation_out(model: RowModel) -> None:
    with duckdb.connect() as con:
        found = mn.map("{text}{n}", con.sql("SELECT * FROM (VALUES ('b', 1), ('a', 2), ('b', 3)) t(text, n)"), **QUIET)
    assert isinstance(found, duckdb.DuckDBPyRelation)
    assert found.project("text, n, answer").fetchall() == ROWS


@pytest.mark.parametrize(
    "data",
    [
        ["b1", "a2"],
        pd.Series(["b1", "a2"]),
        pd.Series(["b1", "a2"], name="value"),
        [{"value": "b1"}, {"value": "a2"}],
        pa.chunked_array([["b1", "a2"]]),
        pl.Series("value", ["b1", "a2"]),
    ],
    ids=lambda each: type(each).__module__,
)
def test_a_series_or_a_list_becomes_a_frame(model: RowModel, data: Any) -> None:
    found = mn.map("{value}", data, **QUIET)
    assert list(found["answer"].to_pylist() if isinstance(found, pa.Table) else found["answer"]) == ["b1", "a2"]


@pytest.mark.parametrize("make", [pl.DataFrame, pa.table])
def test_types_of_other_frames(model: RowModel, make: Any) -> None:
    given = '{"day": "2026-03-01", "amounts": [1, 2.5], "where": {"city": "Oslo", "people": 7}}'
    model.answer = lambda prompt: given if prompt == "a" else "?"
    found = mn.map("{value}", make({"value": ["a", "b"]}), as_=Deal, **QUIET)
    rows = found.to_dicts() if isinstance(found, pl.DataFrame) else found.to_pylist()
    assert {key: rows[0][key] for key in ("day", "amounts", "where")} == {
        "day": date(2026, 3, 1),
        "amounts": [1.0, 2.5],
        "where": {"city": "Oslo", "people": 7},
    }
    assert [rows[1][key] for key in ("day", "amounts", "where")] == [None] * 3


def test_a_time_of_another_frame_is_in_utc(model: RowModel) -> None:
    model.answer = lambda prompt: '{"value": "2026-03-01T10:00:00+02:00"}'
    found = mn.map("{value}", pl.DataFrame({"value": ["a"]}), as_=datetime, **QUIET)
    assert found["answer"].to_list() == [datetime(2026, 3, 1, 8, tzinfo=UTC)]


def test_an_index_with_names_and_repeated_labels_stays(model: RowModel) -> None:
    index = pd.MultiIndex.from_tuples([("x", 1), ("x", 1), ("y", 2)], names=["k", "n"])
    found = mn.map("{text}", pd.DataFrame({"text": ["b", "a", "b"]}, index=index), **QUIET)
    assert found.index.equals(index)
    assert found.index.names == ["k", "n"]
    assert found.answer.tolist() == ["b", "a", "b"]


def test_attributes_of_the_frame_stay(model: RowModel) -> None:
    frame = pd.DataFrame({"text": ["a"]})
    frame.attrs["from"] = "march.csv"
    found = mn.map("{text}", frame, **QUIET)
    assert found.attrs["from"] == "march.csv"
    assert set(frame.attrs) == {"from"}

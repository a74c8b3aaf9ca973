"""`mn.agreement`: the share, the kappa, the table of confusion, and the rows that differ."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mentra_nb as mn
from mentra_nb.errors import ConfigurationError

BOTH = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
"""A known example: 35 of 50 agree, by chance 25 would, so kappa is 0.4."""


def test_the_share_kappa_and_confusion_of_a_known_example() -> None:
    frame = pd.DataFrame(BOTH, columns=["model", "person"])
    found = mn.agreement(frame.model, frame.person)
    assert (found.rows, found.left_out) == (50, 0)
    assert found.share == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)
    assert found.confusion.to_dict() == {"no": {"no": 15, "yes": 5}, "yes": {"no": 10, "yes": 20}}
    assert (found.confusion.index.name, found.confusion.columns.name) == ("model", "person")
    assert len(found.differing) == 15
    assert found.differing.columns.tolist() == ["model", "person"]
    assert found.differing.index.tolist() == list(range(20, 35))
    assert repr(found) == "50 rows compared: 70.0 % agree, Cohen's kappa 0.40"


def test_categories_with_a_row_that_failed_against_labels() -> None:
    judged = pd.Series(pd.Categorical(["good", None, "bad"], categories=["good", "bad", "none"]), name="answer")
    found = mn.agreement(judged, ["good", "bad", "good"])
    assert (found.rows, found.left_out, found.share) == (2, 1, 0.5)
    assert found.differing.to_dict("list") == {"answer": ["bad"], "b": ["good"]}


def test_series_of_polars_and_other_types() -> None:
    assert mn.agreement(pl.Series("x", [1, 2, None]), pl.Series("x", [1, 3, 3])).share == 0.5
    found = mn.agreement(pd.array([True, False], dtype="boolean").to_numpy(object).tolist(), [True, False])
    assert found.kappa == 1.0


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        (["x"], ["x", "y"], "the columns have 1 and 2 rows"),
        ([None], ["x"], "no row in which both have a value"),
        ([], [], "no row in which both have a value"),
        ("xy", ["x", "y"], "a column is a series or a list, not str"),
        ([["x"]], [["x"]], "must be single ones"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(a: Any, b: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        mn.agreement(a, b)


def test_kappa_is_not_defined_where_there_is_only_one_value() -> None:
    found = mn.agreement(["x", "x"], ["x", "x"])
    assert math.isnan(found.kappa)
    assert repr(found).endswith("100.0 % agree, Cohen's kappa not defined")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=60))
def test_kappa_is_what_its_definition_says(pairs: list[tuple[str, str]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    found, number = mn.agreement(a, b), len(pairs)
    seen = sum(x == y for x, y in pairs) / number
    chance = sum(a.count(value) * b.count(value) for value in "abc") / number**2
    assert found.share == pytest.approx(seen)
    assert found.confusion.to_numpy().sum() == number
    if chance < 1:
        assert found.kappa == pytest.approx((seen - chance) / (1 - chance))

"""Amounts as people write them, and whether one budget is stricter than another."""

from __future__ import annotations

import pytest

from mentra_nb.amounts import Amount, Unit, amounts, is_stricter, rounded, written
from mentra_nb.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "unit", "parts"),
    [
        ("0.50usd", "usd", 500_000_000),
        ("2 USD", "usd", 2_000_000_000),
        ("$2", "usd", 2_000_000_000),
        ("2$", "usd", 2_000_000_000),
        (".000000001usd", "usd", 1),
        ("20k", "tokens", 20_000),
        ("1.5M tokens", "tokens", 1_500_000),
        ("300", "tokens", 300),
        ("5 tools", "calls", 5),
        ("1 call", "calls", 1),
        ("10min", "minutes", 600_000),
        ("0.5 minutes", "minutes", 30_000),
        ("0usd", "usd", 0),
    ],
)
def test_an_amount_is_read(text: str, unit: Unit, parts: int) -> None:
    assert amounts(text) == [Amount(unit, parts)]


def test_several_amounts_stand_with_commas_between() -> None:
    assert amounts("2usd, 20k tokens") == [Amount("usd", 2 * 10**9), Amount("tokens", 20_000)]
    assert amounts(" ") == []


@pytest.mark.parametrize(
    "text", ["two usd", "-1usd", "1eur", "$2usd", "2kusd", "10m", "5 tools,", "1e99usd", "2000M", "nan", "٣usd"]
)
def test_anything_else_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(ConfigurationError):
        amounts(text)


def test_a_unit_may_be_there_only_once() -> None:
    with pytest.raises(ConfigurationError, match="two amounts of the same unit"):
        amounts("1usd, 2usd")


def test_what_is_left_is_never_written_as_more_and_what_is_needed_never_as_less() -> None:
    assert (written("usd", 123_456_789), written("usd", 123_456_789, up=True)) == ("0.1234 usd", "0.1235 usd")
    assert (rounded("usd", 300_000_000, up=True), rounded("tokens", 7, up=True)) == (0.3, 7)
    assert (written("tokens", 20_000), written("calls", 1)) == ("20,000 tokens", "1 tool call")


@pytest.mark.parametrize(
    ("value", "than", "expected"),
    [
        ("1usd", None, True),
        ("1usd", "2usd", True),
        ("2usd", "2usd", True),
        ("3usd", "2usd", False),
        ("20k", "2usd", False),
        ("1usd, 20k", "2usd", True),
        ("", "2usd", False),
        ("nonsense", None, False),
        (5, None, False),
    ],
)
def test_a_stricter_budget_allows_no_more_of_any_unit(value: object, than: str | None, expected: bool) -> None:
    assert is_stricter(value, than) is expected

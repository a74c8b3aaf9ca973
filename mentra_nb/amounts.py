"""The amounts of a budget: US dollars, tokens, tool calls and active minutes, as whole parts of their unit."""

from __future__ import annotations

import math
import re
from typing import Any, Literal, NamedTuple, get_args

from mentra_nb.errors import ConfigurationError

Unit = Literal["usd", "tokens", "calls", "minutes"]
Period = Literal["turn", "session", "day", "project", "month"]
PERIODS: tuple[Period, ...] = get_args(Period)
UNITS: tuple[Unit, ...] = get_args(Unit)

PARTS: dict[Unit, int] = {"usd": 10**9, "tokens": 1, "calls": 1, "minutes": 60_000}
"""Parts of a unit that are counted: billionths of a dollar, tokens, calls, milliseconds."""
MOST = 10**9
"""The largest amount, in its unit."""

_NAMES: dict[str, Unit] = {
    **dict.fromkeys(("$", "usd"), "usd"),
    **dict.fromkeys(("", "token", "tokens"), "tokens"),
    **dict.fromkeys(("tool", "tools", "call", "calls"), "calls"),
    **dict.fromkeys(("min", "minute", "minutes"), "minutes"),
}
_THOUSANDS = {"": 1, "k": 1_000, "K": 1_000, "M": 1_000_000}
_AMOUNT = re.compile(r"(\$?)\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)([kKM]?)\s*(\$|[A-Za-z]*)")
_WORDS = {"usd": "usd", "tokens": "tokens", "calls": "tool calls", "minutes": "active minutes"}


class Amount(NamedTuple):
    """So many parts (`PARTS`) of a unit."""

    unit: Unit
    parts: int


def amounts(text: str) -> list[Amount]:
    """Return the amounts in a text such as `0.50usd`, `20k`, `5 tools`, `10min`, or several with commas between.

    A number alone counts tokens; `k` stands for thousand and `M` for million. An empty text has none.

    Raises:
        ConfigurationError: a part of it is not an amount, or a unit is there twice.
    """
    found = [_amount(part.strip()) for part in text.split(",")] if text.strip() else []
    if len({amount.unit for amount in found}) < len(found):
        raise ConfigurationError(f"'{text}' has two amounts of the same unit")
    return found


def _amount(text: str) -> Amount:
    match = _AMOUNT.fullmatch(text)
    unit = _NAMES.get((match[1] or match[4]).lower()) if match is not None and not (match[1] and match[4]) else None
    if match is None or unit is None or (match[3] and unit != "tokens"):
        raise ConfigurationError(f"'{text}' is not an amount: write 0.50usd, 20k tokens, 5 tools or 10min")
    from decimal import Decimal

    number = Decimal(match[2]) * _THOUSANDS[match[3]]
    if number > MOST:
        raise ConfigurationError(f"'{text}' is too much for a budget: leave it out for no limit")
    return Amount(unit, int(number * PARTS[unit]))


def in_units(unit: Unit, parts: int) -> float:
    """Return an amount in its unit."""
    return parts / PARTS[unit]


def written(unit: Unit, parts: int, *, up: bool = False) -> str:
    """Return an amount in words, such as `0.5 usd`. With `up` it is rounded up, else down."""
    number = rounded(unit, parts, up=up)
    return f"{number:,.10g} {_WORDS[unit].removesuffix('s') if number == 1 else _WORDS[unit]}"


def rounded(unit: Unit, parts: int, *, up: bool = False) -> float:
    """Return an amount in its unit, with no more than four digits behind the point; with `up` it is not less."""
    number = in_units(unit, parts)
    digits = 10**4 if unit in ("usd", "minutes") else 1
    return (math.ceil if up else math.floor)(round(number * digits, 3)) / digits


def checked(value: Any) -> Any:
    """Return the value of a budget's setting, `None` for an empty one. Raises `ValueError`."""
    if isinstance(value, str):
        try:
            amounts(value)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
    return value or None


def is_stricter(value: Any, than: str | None) -> bool:
    """Return whether a budget allows no more than another one, of which `None` sets no limit."""
    try:
        limits = {amount.unit: amount.parts for amount in amounts(value)} if isinstance(value, str) else {}
    except ConfigurationError:
        return False
    before = {amount.unit: amount.parts for amount in amounts(than or "")}
    return bool(limits) and all(unit in limits and limits[unit] <= parts for unit, parts in before.items())

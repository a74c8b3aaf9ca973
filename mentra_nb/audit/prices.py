# ruff: noqa: S608  # the SQL is made of our own constants and quoted paths
"""What tokens cost: the dated price list of `genai-prices` as rows that the `usage` view joins.

A model that the list does not know has no price, so its cost is NULL; local, replayed and demo models are never listed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mentra_nb.audit import schema, segments
from mentra_nb.content import TokenUsage

if TYPE_CHECKING:
    import duckdb

_LISTED_AS = {"gemini": "google", "xai": "x-ai", "moonshot": "moonshotai", "bedrock": "aws"}
_RATES = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
_FIRST, _LAST = date(1970, 1, 1), date(9999, 12, 31)
_MIDNIGHT, _END_OF_DAY = time(0), "24:00:00"  # Python has no such time, DuckDB has
_NO_LIMIT = 2**62
_TIMES = ("start_time", "end_time")

Row = tuple[Any, ...]
"""The columns of `schema.PRICES`."""

OVERRIDES: dict[tuple[str, str], Mapping[str, float]] = {}
"""Prices of one's own, by (provider, model): `input_mtok` and `output_mtok`, and if they differ from the input's
`cache_read_mtok` and `cache_write_mtok`, in USD per million tokens. They go before the list's."""


def fill(con: duckdb.DuckDBPyConnection, folder: Path, *, look_up: bool = True) -> None:
    """Make the table `prices` on this connection and fill it from `prices.parquet`.

    With `look_up`, every model in `events` is looked up that is not there yet, and the file is written anew.
    """
    file, source = folder / "prices.parquet", _source()
    con.execute(f"CREATE TEMP TABLE prices AS {schema.empty(schema.PRICES)}")
    if file.exists():
        con.execute(
            f"INSERT INTO prices BY NAME SELECT * FROM read_parquet({schema.quoted(file)}) WHERE source = ?", [source]
        )
    if not look_up:
        return
    asked = """SELECT DISTINCT provider, model FROM events WHERE kind = 'model_response_finished'
        AND provider IS NOT NULL AND model IS NOT NULL EXCEPT SELECT provider, model FROM prices"""
    new = con.execute(asked).fetchall()
    if not new:
        return
    rows = [row for provider, model in new for row in price_rows(provider, model)]
    con.executemany(f"INSERT INTO prices VALUES ({', '.join('?' * len(schema.PRICES))})", rows)
    with contextlib.suppress(OSError, _duckdb_error()):  # a record that cannot be written to is priced all the same
        segments.write_parquet(con, "FROM prices", file)


def price_rows(provider: str, model: str) -> list[Row]:
    """The rows of `prices` for a model: one per span of days, times of day and prompt sizes, none overlapping.

    A model without a price has one row whose rates are NULL.
    """
    info = _listed(provider, model)
    if info is None or (provider, model) in OVERRIDES:
        rates = _own(provider, model)
        return [(provider, model, _FIRST, _LAST, _MIDNIGHT, _END_OF_DAY, -1, _NO_LIMIT, *rates, _source())]
    constraints = [each.constraint for each in info.prices if each.constraint] if isinstance(info.prices, list) else []
    days = {each.start_date for each in constraints if hasattr(each, "start_date")}
    times = {getattr(each, at).replace(tzinfo=None) for each in constraints for at in _TIMES if hasattr(each, at)}
    return [
        (provider, model, day, next_day, at, until, above, up_to, *rates, _source())
        for day, next_day in _spans({_FIRST, *days}, _LAST)
        for at, until in _spans({_MIDNIGHT, *times}, _END_OF_DAY)
        for above, up_to, rates in _tiers(info.get_prices(datetime.combine(day, at, UTC)))
    ]


def cost_usd(provider: str, model: str, usage: TokenUsage, at: datetime | None = None) -> float | None:
    """What one response costs in US dollars at a time (now by default), or `None` if its price is not known.

    The same sum as the `usage` view's. Of the usage of several responses together it is an upper bound where a
    model costs more for long prompts.
    """
    if usage.is_empty():
        return None
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    prompt = (usage.input_tokens or 0) + (usage.tool_input_tokens or 0)
    if provider == "anthropic":  # it counts cached tokens apart
        prompt += cached + written
    info = _listed(provider, model)
    if info is None or (provider, model) in OVERRIDES:
        rates = _own(provider, model)
    else:
        tiers = _tiers(info.get_prices(at or datetime.now(UTC)))
        rates = next(rates for above, up_to, rates in tiers if above < prompt <= up_to)
    output = (usage.output_tokens or 0) + (usage.thoughts_tokens or 0)
    counts = (max(prompt - cached - written, 0), output, cached, written)
    known = [rate * count for rate, count in zip(rates, counts, strict=True) if rate is not None]
    return sum(known) / 1e6 if len(known) == len(rates) else None


def _own(provider: str, model: str) -> list[float | None]:
    own = OVERRIDES.get((provider, model), {})
    return [own.get(name, own.get("input_mtok") if name in _RATES[2:] else None) for name in _RATES]


def _listed(provider: str, model: str) -> Any:
    """The model as the price list knows it, or `None`. The provider must be named exactly: a guess may cost money."""
    from genai_prices.data_snapshot import get_snapshot

    providers = get_snapshot().providers
    listed = next((p for p in providers if p.id == _LISTED_AS.get(provider, provider)), None)
    return listed.find_model(model.lower(), all_providers=providers) if listed else None


def _tiers(price: Any) -> Iterator[tuple[int, int, list[float | None]]]:
    """The rates for each range of prompt sizes: more than the first number of tokens, up to the second."""
    starts = {tier.start for name in _RATES for tier in getattr(getattr(price, name), "tiers", ())}
    for above, up_to in _spans({-1, *starts}, _NO_LIMIT):
        rates = {name: _rate(getattr(price, name), above) for name in _RATES}
        cached = [rates[name] if rates[name] is not None else rates["input_mtok"] for name in _RATES[2:]]
        yield above, up_to, [rates["input_mtok"], rates["output_mtok"], *cached]


def _rate(price: Any, above: int) -> float | None:
    if not hasattr(price, "tiers"):
        return None if price is None else float(price)
    return float(next((tier.price for tier in reversed(price.tiers) if above >= tier.start), price.base))


def _spans(starts: Iterable[Any], end: Any) -> list[tuple[Any, Any]]:
    ordered = sorted(starts)
    return list(zip(ordered, [*ordered[1:], end], strict=True))


def _source() -> str:
    """Which list a row is from; rows of another one are looked up again."""
    return f"genai-prices {version('genai-prices')}" + (f" and {OVERRIDES}" if OVERRIDES else "")


def _duckdb_error() -> type[Exception]:
    import duckdb

    return duckdb.Error

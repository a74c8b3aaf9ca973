"""The cost of tokens: the dated price list of `genai-prices`, and custom prices of the user.

A model that is in neither has no price, so its cost is NULL. Models of the `FREE` providers cost 0, and so does every
answer from a tape, which `replay_provider` says in its usage. Custom prices are in `prices.csv` in the record's folder,
in US dollars per million tokens, and come before the list's and before 0:

    provider,model,input_mtok,output_mtok,cache_read_mtok,cache_write_mtok
    lab,qwen3-32b,0.20,0.60,,
    ollama,*,0.02,0.02,,

`*` stands for every model of the provider. An empty cache price means that of input.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mentra_nb import paths
from mentra_nb.content import TokenUsage
from mentra_nb.errors import ConfigurationError
from mentra_nb.providers.registry import EMBEDDED, PRESETS

FREE = frozenset({*EMBEDDED, "scripted", *(preset.id for preset in PRESETS.values() if preset.key_env is None)})
"""The providers whose answers cost nothing: demo, scripts, this process, and the known servers for local models."""
BATCH_SHARE = 0.5
"""What an answer in a batch costs of the listed price. OpenAI, Anthropic and Gemini each document half of it:
https://platform.openai.com/docs/guides/batch, https://docs.claude.com/en/docs/build-with-claude/batch-processing and
https://ai.google.dev/gemini-api/docs/batch-api. The price list has no prices for batches."""
_LISTED_AS = {"gemini": "google", "xai": "x-ai", "moonshot": "moonshotai", "bedrock": "aws"}
_UNKNOWN = (None, None, None, None)
_RATES = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")
_FIRST, _LAST = date(1970, 1, 1), date(9999, 12, 31)
_MIDNIGHT, _END_OF_DAY = time(0), "24:00:00"  # a time that DuckDB has and Python has not
_NO_LIMIT = 2**62
_TIMES = ("start_time", "end_time")

Row = tuple[Any, ...]
"""A price: the columns of `prices` in the record, in their order (`record/schema.py` names them)."""

Own = dict[tuple[str, str], list[float | None]]
"""Custom prices by (provider, model)."""


def own_prices(folder: Path) -> Own:
    """Return the custom prices in `prices.csv` of the record's folder, none if there is no such file.

    Raises:
        ConfigurationError: the file cannot be read, or a column, line or number in it is invalid.
    """
    file, own = folder / "prices.csv", Own()
    if not file.exists():
        return own
    try:
        rows = list(csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines(), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from error
    for number, row in enumerate(rows, 2):
        try:
            rates = [float(row[name]) if name in _RATES[:2] or row.get(name) else None for name in _RATES]
            if not all(rate is None or 0 <= rate < float("inf") for rate in rates):
                raise ValueError("a price must be a finite number, not negative")
            own[row["provider"].strip(), row["model"].strip()] = [rates[0] if rate is None else rate for rate in rates]
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{file}, line {number}: {error}; a line is {','.join(('provider', 'model', *_RATES))}, "
                "in USD per million tokens"
            ) from error
    return own


def price_rows(provider: str, model: str, own: Own | None = None) -> list[Row]:
    """Return the rows of `prices` for a model: one per range of days, times of day and prompt sizes, without overlap.

    A model without a price has one row whose rates are NULL.
    """
    own = own or {}
    source, info = source_of(own), _listed(provider, model)
    rates = _own(own, provider, model)
    if info is None or rates:
        always = (_FIRST, _LAST, _MIDNIGHT, _END_OF_DAY, -1, _NO_LIMIT)
        return [(provider, model, *always, *(rates or _UNKNOWN), source)]
    constraints = [each.constraint for each in info.prices if each.constraint] if isinstance(info.prices, list) else []
    days = {each.start_date for each in constraints if hasattr(each, "start_date")}
    times = {getattr(each, at).replace(tzinfo=None) for each in constraints for at in _TIMES if hasattr(each, at)}
    return [
        (provider, model, day, next_day, at, until, above, up_to, *each, source)
        for day, next_day in _spans({_FIRST, *days}, _LAST)
        for at, until in _spans({_MIDNIGHT, *times}, _END_OF_DAY)
        for above, up_to, each in _tiers(info.get_prices(datetime.combine(day, at, UTC)))
    ]


def cost_usd(
    provider: str, model: str, usage: TokenUsage, at: datetime | None = None, *, folder: Path | None = None
) -> float | None:
    """Return the cost of one response in US dollars, or `None` if its price is not known.

    A cost that the provider reported with the usage comes before any price. The view `usage` of the record in `folder`
    computes the same. For the summed usage of several responses it is an upper bound, if the model costs more for long
    prompts.

    Args:
        provider: the provider's id.
        model: the model's name there.
        usage: the token counts.
        at: the time of the response, now by default.
        folder: the record's folder, which holds the custom prices.
    """
    if usage.cost_usd is not None:
        return usage.cost_usd
    if usage.is_empty():
        return 0.0 if provider in FREE else None
    cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
    prompt = (usage.input_tokens or 0) + (usage.tool_input_tokens or 0)
    if provider == "anthropic":  # its input_tokens exclude cached ones
        prompt += cached + written
    rates = _own(own_prices(folder or paths.record_folder()), provider, model)
    if rates is None and (info := _listed(provider, model)):
        tiers = _tiers(info.get_prices(at or datetime.now(UTC)))
        rates = next(each for above, up_to, each in tiers if above < prompt <= up_to)
    if rates is None:
        return None
    output = (usage.output_tokens or 0) + (usage.thoughts_tokens or 0)
    counts = (max(prompt - cached - written, 0), output, cached, written)
    known = [rate * count for rate, count in zip(rates, counts, strict=True) if rate is not None]
    return sum(known) / 1e6 if len(known) == len(rates) else None


def context_window(model: str) -> int | None:
    """Return the tokens that the context of a model holds, or `None` if that is not known here.

    Args:
        model: `provider/name`, or `local:` and the path of a file.

    Raises:
        InvalidRequest: the file is damaged.
    """
    if model.startswith("local:"):
        from mentra_nb.providers.local.gguf import context_size, file_problem, resolved

        path = resolved(model.partition(":")[2])
        return None if file_problem(str(path)) else context_size(path)
    provider, _, name = model.partition("/")
    listed = _listed(provider, name) if name and provider not in FREE else None
    return listed.context_window or None if listed is not None else None


def _own(own: Own, provider: str, model: str) -> list[float | None] | None:
    free: list[float | None] = [0.0] * len(_RATES)
    return own.get((provider, model), own.get((provider, "*"), free if provider in FREE else None))


def _listed(provider: str, model: str) -> Any:
    """Return the model in the price list, or `None`. The provider must match exactly, since a guess may be wrong."""
    from genai_prices.data_snapshot import get_snapshot

    providers = get_snapshot().providers
    listed = next((p for p in providers if p.id == _LISTED_AS.get(provider, provider)), None)
    return listed.find_model(model.lower(), all_providers=providers) if listed else None


def _tiers(price: Any) -> Iterator[tuple[int, int, list[float | None]]]:
    """Yield the rates for each range of prompt sizes: more than the first number of tokens, up to the second."""
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


def source_of(own: Own) -> str:
    """Return the `source` of rows made from these prices. Rows with another source are looked up again."""
    mine = f" and {hashlib.sha256(repr(sorted(own.items())).encode()).hexdigest()}" if own else ""
    return f"genai-prices {version('genai-prices')}, {len(FREE)} free{mine}"

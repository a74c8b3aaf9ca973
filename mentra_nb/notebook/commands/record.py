"""`usage`, `budgets` and `log`: what was used, what may be, and what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mentra_nb.errors import ConfigurationError
from mentra_nb.notebook.commands.command import Context, Words

if TYPE_CHECKING:
    import pandas as pd


_DECISION = {
    "ts": "when (UTC)",
    "tool": "tool",
    "subject": "what",
    "outcome": "decision",
    "decided_by": "by",
    "reason": "reason",
}
_SPENT = {
    "responses": "answers",
    "input_tokens": "tokens in",
    "cache_read_input_tokens": "of them cached",
    "output_tokens": "tokens out",
    "cost_usd": "US dollars",
    "unpriced": "answers without a price",
}
_TOKENS = ("total_tokens", "cache_creation_input_tokens", "priced")
"""Columns of `usage` that are not shown."""


def usage(_context: Context, words: Words) -> pd.DataFrame:
    """Return tokens and cost, by model unless another group is named."""
    from mentra_nb.notebook.commands.listing import listing
    from mentra_nb.record.read import frames

    found = frames.usage(by=words["by"] or "model")  # type: ignore[arg-type]  # raises for an unknown group
    groups = {name: name.removesuffix("_id") for name in found.columns if name not in (*_SPENT, *_TOKENS)}
    return listing(found, groups | {name: _SPENT[name] for name in _SPENT if name in found}, getattr(found, "why", ""))


def budgets(_context: Context, _words: Words) -> pd.DataFrame:
    """Return the budgets that are set, and what is left of them."""
    from mentra_nb.chat import budgets as chat_budgets
    from mentra_nb.notebook.commands.listing import listing

    found = chat_budgets.budgets()
    return listing(found, {name: name for name in found.columns if name != "key"}, getattr(found, "why", ""))


def log(_context: Context, words: Words) -> pd.DataFrame:
    """Return the decisions, or the result of a query over the record."""
    import duckdb

    from mentra_nb.notebook.commands.listing import listing
    from mentra_nb.record.read import frames

    try:
        if words["sql"]:
            return frames.sql(words["sql"])
        found = frames.decisions()
        return listing(found, _DECISION, getattr(found, "why", ""))
    except duckdb.Error as error:  # a mistake in the user's SQL
        raise ConfigurationError(" ".join(str(error).split())) from None

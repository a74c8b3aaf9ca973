"""`usage` and `log`: tables of the record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mentra_nb.errors import ConfigurationError
from mentra_nb.notebook.commands.command import Context, Words

if TYPE_CHECKING:
    import pandas as pd


FIRST = ("ts", "tool", "subject", "outcome", "decided_by", "reason", "wait_s", "prompt")
"""The columns of `log` that a person reads first; pandas leaves out the middle of a wide table."""


def usage(_context: Context, words: Words) -> pd.DataFrame:
    """Return tokens and cost, by model unless another group is named."""
    from mentra_nb.record.read import frames

    return frames.usage(by=words["by"] or "model")  # type: ignore[arg-type]  # raises for an unknown group


def log(_context: Context, words: Words) -> pd.DataFrame:
    """Return the decisions, or the result of a query over the record."""
    import duckdb

    from mentra_nb.record.read import frames

    try:
        if words["sql"]:
            return frames.sql(words["sql"])
        found = frames.decisions()
        rest = [name for name in found.columns if name not in FIRST]
        return found[[*FIRST, *rest]] if len(found) else found
    except duckdb.Error as error:  # a mistake in the user's SQL
        raise ConfigurationError(" ".join(str(error).split())) from None

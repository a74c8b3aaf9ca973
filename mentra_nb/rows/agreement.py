"""How far two columns of answers agree: two models, or a model and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mentra_nb.errors import ConfigurationError
from mentra_nb.words import counted

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Agreement:
    """How far two columns agree, over the rows in which both have a value.

    Example:
        >>> judged = mn.agreement(["good", "bad", "bad", None], ["good", "bad", "good", "bad"])
        >>> judged
        3 rows compared, 1 left out without a value: 66.7 % agree, Cohen's kappa 0.40
        >>> judged.differing
             a     b
        2  bad  good
    """

    rows: int
    """Rows in which both have a value."""
    left_out: int
    """Rows in which one of them has none."""
    share: float
    """The fraction of the rows in which they are equal."""
    kappa: float
    """Cohen's kappa: 1 for full agreement, 0 for as much as chance would give; NaN where that is not defined."""
    confusion: pd.DataFrame
    """How often each value of the first (rows) met each value of the second (columns)."""
    differing: pd.DataFrame
    """The rows in which they differ, with the labels of the first."""

    def __repr__(self) -> str:
        left_out = f", {self.left_out:,} left out without a value" if self.left_out else ""
        kappa = "not defined" if self.kappa != self.kappa else f"{self.kappa:.2f}"
        return f"{counted(self.rows, 'row')} compared{left_out}: {self.share:.1%} agree, Cohen's kappa {kappa}".replace(
            "%", " %"
        )


def agreement(a: Sequence[Any] | Any, b: Sequence[Any] | Any) -> Agreement:
    """Compare two columns row by row, such as those of two models, or of a model and a person.

    Args:
        a: A series of pandas or Polars, or a list. The places of its rows count, not their labels.
        b: As many values. What is null in one of them is left out.

    Raises:
        ConfigurationError: they have different lengths, or no row in which both have a value.

    Example:
        >>> mn.agreement(["good", "bad", "bad"], ["good", "bad", "good"]).confusion
        b     bad  good
        a
        bad     1     1
        good    0     1
    """
    import pandas as pd

    first, second = _series(a), _series(b)
    if len(first) != len(second):
        raise ConfigurationError(f"the columns have {len(first):,} and {len(second):,} rows: compare equally many")
    names = ("a", "b") if first.name == second.name else (first.name or "a", second.name or "b")
    pairs = pd.DataFrame({"a": first.array.astype(object), "b": second.array.astype(object)}, index=first.index)
    both = pairs.dropna()
    if both.empty:
        raise ConfigurationError("there is no row in which both have a value, so there is nothing to compare")
    try:
        equal = both.a == both.b
        values = sorted({*both.a, *both.b}, key=lambda value: (str(type(value)), value))
        counts = pd.crosstab(both.a, both.b).reindex(index=values, columns=values, fill_value=0)
    except TypeError:
        raise ConfigurationError("values that are compared must be single ones, such as texts or numbers") from None
    differing = both[~equal].set_axis(list(names), axis=1)
    return Agreement(
        rows=len(both),
        left_out=len(pairs) - len(both),
        share=float(equal.mean()),
        kappa=_kappa(counts.to_numpy()),
        confusion=counts.rename_axis(index=str(names[0]), columns=str(names[1])),
        differing=differing,
    )


def _series(column: Any) -> pd.Series[Any]:
    import narwhals as nw
    import pandas as pd

    if isinstance(column, list | tuple):
        return pd.Series(column, dtype=object)
    try:
        series: pd.Series[Any] = nw.from_native(column, series_only=True).to_pandas()
    except TypeError:
        raise ConfigurationError(f"a column is a series or a list, not {type(column).__name__}") from None
    return series


def _kappa(counts: Any) -> float:
    """Return Cohen's kappa of a square table of counts; NaN if both have one value only, which is the same."""
    total = counts.sum()
    seen, chance = counts.trace() / total, float(counts.sum(axis=0) @ counts.sum(axis=1)) / total**2
    return float((seen - chance) / (1 - chance)) if chance < 1 else float("nan")

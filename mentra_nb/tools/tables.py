"""Short views of the tables and arrays that a tool returns: their size, their types, their beginning and their end."""

from __future__ import annotations

import sys
from typing import Any

from mentra_nb.words import counted

MAX_ROWS = 40
"""A longer table is shown as its first and last rows, `MAX_ROWS` / 2 in all."""
MAX_COLUMNS = 30
MAX_CELL = 60
"""Characters."""
MAX_ITEMS = 1000
"""A larger array is shown as its edges."""


def table_in(value: Any) -> str | None:
    """Return a short view of a DataFrame, Series or array, or `None` for anything else."""
    pandas, numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return _frame(value)
    if pandas is not None and isinstance(value, pandas.Series):
        return _series(value)
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _array(value)
    return None


def _frame(frame: Any) -> str:
    rows, columns = frame.shape
    kinds = [f"{str(name)[:MAX_CELL]} {kind}" for name, kind in zip(frame.columns[:MAX_COLUMNS], frame.dtypes)]  # noqa: B905
    if columns > MAX_COLUMNS:
        kinds.append(f"and {counted(columns - MAX_COLUMNS, 'more column')}")
    about = f"DataFrame, {counted(rows, 'row')} × {counted(columns, 'column')}: {', '.join(kinds)}"
    return f"{about}\n{_rows(frame)}" if rows else about


def _series(series: Any) -> str:
    name = f" {series.name!r}" if series.name is not None else ""
    about = f"Series{name}, {counted(len(series), 'value')} of {series.dtype}"
    return f"{about}\n{_rows(series.to_frame(), header=False)}" if len(series) else about


def _rows(frame: Any, *, header: bool = True) -> str:
    names = [str(name) for name in frame.columns]
    if any(len(name) > MAX_CELL for name in names):
        frame = frame.set_axis([name[:MAX_CELL] for name in names], axis=1)
    shown: str = frame.to_string(
        max_rows=MAX_ROWS,
        min_rows=MAX_ROWS // 2,
        max_cols=MAX_COLUMNS,
        max_colwidth=MAX_CELL,
        header=header,
        show_dimensions=False,
    )
    return shown


def _array(array: Any) -> str:
    import numpy

    shown = numpy.array2string(array, threshold=MAX_ITEMS, edgeitems=5, max_line_width=120)
    return f"array of {array.dtype}, shape {array.shape}\n{shown}"

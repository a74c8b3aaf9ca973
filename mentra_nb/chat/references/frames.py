"""Frames and columns of any library: shape, types, missing values, and the first rows."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mentra_nb.chat.references.plain import is_of, library, plain
from mentra_nb.chat.references.reference import Part
from mentra_nb.namespace.describe import MAX_COUNTED
from mentra_nb.secrets.names import is_secret_name
from mentra_nb.words import counted

ROWS = 5
"""Rows of a frame, and values of a column, that are shown."""
MAX_COLUMNS = 40
"""Columns that are shown."""
_LIBRARIES = ("pandas", "polars", "pyarrow", "duckdb", "_duckdb", "modin", "cudf", "dask", "pyspark", "ibis")
_READ_LAZILY = ("polars", "duckdb", "_duckdb")
"""Libraries whose frames have no rows until they are asked for, which is quick for a few."""


@dataclass(frozen=True)
class _Column:
    """A column: its label, its type in words, its missing values (`None`: not counted), and its first values."""

    label: Any
    dtype: str
    nulls: int | None
    first: Sequence[Any]

    @property
    def name(self) -> str:
        """The label; of one with several parts, that which says it is a secret."""
        parts = [each for each in self.label if type(each) is str] if type(self.label) is tuple else [self.label]
        return str(
            next((each for each in parts if type(each) is str and is_secret_name(each)), parts[-1] if parts else "")
        )

    def line(self) -> str:
        missing = f", {self.nulls:,} null" if self.nulls else ""
        return f"  {plain(self.label)}: {self.dtype}{missing}"

    def cells(self, names: Sequence[Any] = ()) -> list[str]:
        """Return the first values as the cells of a table. `names` says of each what it is, in place of the label."""
        if names and self.name == "value":
            return [
                _cell(each, name if type(name) is str else "") for each, name in zip(self.first, names, strict=True)
            ]
        return [_cell(each, self.name) for each in self.first]


def _cell(value: Any, name: str = "") -> str:
    """Return a value as a cell: text without quotes, as far as nothing in it had to be escaped."""
    text = "" if value is None else plain(value, name=name)
    return text[1:-1] if isinstance(value, str) and text[:1] in "'\"" and text[-1:] == text[:1] else text


def frame_part(value: Any) -> Part | None:
    """Return the part of a frame or a column; `None` for another value."""
    if not is_of(value, *_LIBRARIES):
        return None
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return _of_pandas(pandas.DataFrame(value, copy=False), _kind(value))
    if pandas is not None and isinstance(value, pandas.Series | pandas.Index):
        plainly = pandas.Series(value, copy=False) if isinstance(value, pandas.Series) else value
        return _of_column(plainly, len(plainly), _kind(value))
    if is_of(value, "duckdb", "_duckdb"):
        return _of_duckdb(value)
    return _of_another_library(value)


def _kind(value: Any) -> str:
    cls = type(value)
    return f"{library(cls)}.{type.__dict__['__name__'].__get__(cls)}"


def _of_pandas(frame: Any, kind: str) -> Part:
    rows, width = frame.shape
    shown = min(width, MAX_COLUMNS)
    counts = rows * shown <= MAX_COUNTED
    columns = _index_columns(frame.index[:ROWS]) if not _counts_rows(frame.index) else []
    for number in range(shown):
        column = frame.iloc[:, number]
        nulls = int(column.isna().sum()) if counts else None
        columns.append(_Column(frame.columns[number], str(column.dtype), nulls, column.iloc[:ROWS].tolist()))
    return _part(kind, rows, width, columns, counted_nulls=counts)


def _counts_rows(index: Any) -> bool:
    return type(index).__name__ == "RangeIndex" and index.start == 0 and index.step == 1 and index.name is None


def _index_columns(index: Any) -> list[_Column]:
    label = "index" if index.name is None else f"index {plain(index.name)}"
    return [_Column(label, str(index.dtype), None, index.tolist())]


def _of_duckdb(value: Any) -> Part | None:
    names = getattr(value, "columns", None)
    if names is None or not hasattr(value, "limit"):
        return None
    rows = value.limit(ROWS).fetchall()
    columns = [
        _Column(name, str(kind), None, [row[number] for row in rows])
        for number, (name, kind) in enumerate(zip(names, value.types, strict=True))
        if number < MAX_COLUMNS
    ]
    return _part("DuckDB relation", None, len(names), columns, counted_nulls=False)


def _of_another_library(value: Any) -> Part | None:
    import narwhals as nw

    found: Any = nw.from_native(value, pass_through=True, allow_series=True)
    kind = _kind(value)
    if isinstance(found, nw.Series):
        return _of_column(value, len(found), kind)
    if isinstance(found, nw.DataFrame):
        rows, width = found.shape
        found, counts = found[:, : min(width, MAX_COLUMNS)], rows * min(width, MAX_COLUMNS) <= MAX_COUNTED
        return _part(kind, rows, width, _columns(found, counts), counted_nulls=counts)
    if not isinstance(found, nw.LazyFrame):
        return None
    schema = found.collect_schema()
    if is_of(value, *_READ_LAZILY):
        head = found.select(list(schema)[:MAX_COLUMNS]).head(ROWS).collect()
        return _part(kind, None, len(schema), _columns(head, counts=False), counted_nulls=False)
    columns = [_Column(name, str(dtype), None, ()) for name, dtype in list(schema.items())[:MAX_COLUMNS]]
    return _part(f"{kind}, whose rows were not computed", None, len(schema), columns, counted_nulls=False)


def _columns(frame: Any, counts: bool) -> list[_Column]:
    """Return the columns of a frame of narwhals."""
    return [
        _Column(
            column.name,
            _dtype(column.to_native()),
            column.null_count() if counts else None,
            column.head(ROWS).to_list(),
        )
        for column in frame.iter_columns()
    ]


def _dtype(native: Any) -> str:
    return str(native.dtype if hasattr(native, "dtype") else native.type)


def _part(kind: str, rows: int | None, width: int, columns: list[_Column], *, counted_nulls: bool) -> Part:
    length = counted_number(rows, "row") if rows is not None else "rows not counted"
    head = f"{kind}, {length} × {counted_number(width, 'column')}"
    lines = [f"columns{'' if counted_nulls else ', null values not counted'}:", *(each.line() for each in columns)]
    cut = None
    if width > MAX_COLUMNS:
        cut = f"the first {MAX_COLUMNS} of {width:,} columns"
        lines.append(f"  … {width - MAX_COLUMNS:,} more columns")
    taken = max((len(each.first) for each in columns), default=0)
    if taken:
        lines += ["all rows:" if rows == taken else f"the first {counted(taken, 'row')}:", *_table(columns)]
    return Part(head, "\n".join(lines), cut=cut)


def counted_number(number: int, noun: str) -> str:
    """Return a number with its noun, thousands set off."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _table(columns: list[_Column]) -> list[str]:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_cell(each.label) for each in columns])
    names = next((each.first for each in columns if each.label in ("name", "key")), ())
    writer.writerows(zip(*(each.cells(names) for each in columns), strict=True))
    return [f"  {line}" for line in text.getvalue().splitlines()]


def _of_column(native: Any, length: int, kind: str) -> Part:
    """Return the part of a column, of pandas or any library that narwhals knows."""
    import narwhals as nw

    pandas = sys.modules.get("pandas")
    is_index = pandas is not None and isinstance(native, pandas.Index)
    few = length <= MAX_COUNTED
    first = native[:ROWS].tolist() if is_index else nw.from_native(native, series_only=True).head(ROWS).to_list()
    label = getattr(native, "name", None)
    name = label if type(label) is str else ""
    head = f"{kind}{f' {plain(name)}' if name else ''} of {length:,}, {_dtype(native)}"
    lines = []
    if few and not is_index:
        column = nw.from_native(native, series_only=True)
        if nulls := column.null_count():
            head += f", {nulls:,} null"
        if column.dtype.is_numeric() and length > nulls:
            lines.append(f"least {plain(column.min())}, mean {plain(column.mean())}, most {plain(column.max())}")
    lines.append(f"first values: {', '.join(plain(each, name=name) for each in first)}")
    return Part(head, "\n".join(lines))

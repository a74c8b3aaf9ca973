"""What variables are, in words for a model: types, shapes, columns, missing values; never the text of a value."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import FunctionType, ModuleType
from typing import Any

from mentra_nb.namespace.snapshot import own_names
from mentra_nb.namespace.walk import described

MAX_NAMES = 200
MAX_COLUMNS = 60
MAX_COUNTED = 50_000_000
"""Values of a frame in which missing ones are counted."""


def describe(namespace: dict[str, Any], names: Iterable[str] = ()) -> str:
    """Return a line for each variable and, for a frame, one for each column."""
    own, wanted = own_names(namespace), list(names)
    own = {name: value for name, value in own.items() if wanted or not issubclass(type(value), ModuleType)}
    missing = [name for name in wanted if name not in own]
    chosen = wanted or list(own)
    lines = [line for name in chosen[:MAX_NAMES] if name in own for line in _lines(name, own[name])]
    if len(chosen) > MAX_NAMES:
        lines.append(f"… {len(chosen) - MAX_NAMES} more: name those you want")
    lines += [f"there is no variable {name!r}" for name in missing]
    return "\n".join(lines) or "There are no variables yet."


def kind_of(value: Any) -> str:
    """Return the name of a value's class, `class` for a class. Calls none of its code."""
    return "class" if issubclass(type(value), type) else described(type(value))


def _lines(name: str, value: Any) -> list[str]:
    pandas = sys.modules.get("pandas")
    columns = _columns(value) if pandas is not None and type(value) is pandas.DataFrame else []
    return [f"{name}: {outline(value)}", *columns]


def outline(value: Any) -> str:
    """Return what a value is, in a few words. Calls none of its code, but for that of pandas and NumPy."""
    cls = type(value)
    kind = kind_of(value)
    pandas, numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
    if pandas is not None and cls is pandas.DataFrame:
        rows, columns = value.shape
        return f"DataFrame, {rows:,} rows × {columns:,} columns"
    if pandas is not None and cls is pandas.Series:
        return f"Series of {len(value):,}, {value.dtype}{_nulls(value)}"
    if numpy is not None and cls is numpy.ndarray:
        return f"ndarray {value.shape}, {value.dtype}"
    if issubclass(cls, FunctionType):
        code = value.__code__
        return f"function of {', '.join(code.co_varnames[: code.co_argcount]) or 'nothing'}"
    for container in (list, tuple, dict, set, frozenset, str, bytes):
        if issubclass(cls, container):
            return f"{kind} of {container.__len__(value):,}{_kinds(value, container)}"
    return kind


def _columns(frame: Any) -> list[str]:
    lines = []
    for number in range(min(frame.shape[1], MAX_COLUMNS)):
        column = frame.iloc[:, number]
        label = frame.columns[number]
        shown = repr(label) if type(label) in (str, int, float, bool) else f"column {number}"
        lines.append(f"  {shown}: {column.dtype}{_nulls(column) if frame.size <= MAX_COUNTED else ''}")
    if frame.shape[1] > MAX_COLUMNS:
        lines.append(f"  … {frame.shape[1] - MAX_COLUMNS} more columns")
    return lines


def _nulls(column: Any) -> str:
    count = int(column.isna().sum())
    return f", {count:,} null" if count else ""


def _kinds(value: Any, container: type) -> str:
    """Return the types of the first elements of a container."""
    if container in (str, bytes):
        return ""
    first = [each for each, _ in zip(container.__iter__(value), range(100), strict=False)]  # type: ignore[attr-defined]
    kinds = list(dict.fromkeys(described(type(each)) for each in first))
    keys = "keys " if container is dict else ""
    return f", {keys}{', '.join(kinds[:4])}{' …' if len(kinds) > 4 else ''}" if kinds else ""

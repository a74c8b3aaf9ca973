"""The tables of `RECORD.md`: the meaning of each column, for `mn.columns`, docstrings and comments in exports."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from mentra_nb.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])


def columns(name: str | None = None) -> pd.DataFrame:
    """Return the meaning of each column of one frame (`"turns"`) or of all: `frame, column, dtype, unit, meaning`.

    Raises:
        ConfigurationError: there is no frame of that name.

    Example:
        >>> mn.columns("turns")[["column", "dtype", "unit"]].head(2)
           column                dtype unit
        0      ts  datetime64[us, UTC]
        1  prompt               string
    """
    known = documented()
    if name is not None and name not in known:
        raise ConfigurationError(f"there is no frame {name!r}; there are {', '.join(known)}")
    rows = [(each, *row) for each in known if name in (None, each) for row in known[each]]
    return pd.DataFrame(rows, columns=["frame", "column", "dtype", "unit", "meaning"], dtype="string")


def described(function: F) -> F:
    """Append the columns of the frame that a function returns to its docstring."""
    rows = [
        f"    {name} ({unit}): {meaning}" if unit else f"    {name}: {meaning}"
        for name, _, unit, meaning in documented()[function.__name__]
    ]
    function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Columns:", *rows])
    return function


@cache
def documented() -> dict[str, list[tuple[str, ...]]]:
    """Return for each frame its rows of column, dtype, unit and meaning, read from `RECORD.md`."""
    found: dict[str, list[tuple[str, ...]]] = {}
    rows: list[tuple[str, ...]] = []
    for line in Path(__file__).parents[1].joinpath("RECORD.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            found[line[3:]] = rows = []
        elif line.startswith("| ") and not line.startswith("| column |"):
            rows.append(tuple(cell.strip() for cell in line.split("|")[1:-1]))
    return found

"""How a frame of the record is shown: the first columns, as many as there is room for, and the names of the others."""

from __future__ import annotations

import re
import shutil
from typing import Any

from mentra_nb.ids import short_id
from mentra_nb.notebook import kernel
from mentra_nb.page.escaping import NO_MATH, escape, plain

WIDTH = 80
"""Characters of a line of text where the width of the terminal is not known."""
PAGE = 150
"""Characters beside each other that a page has room for."""
PAGE_CELL = 24
"""Characters of a cell of a page that stand in one line; the rest is wrapped."""
SAMPLE = 30
"""Rows at the beginning and at the end whose width is measured."""

_NAMES_OF_IDS = re.compile(r"id|.*_id|scope_key|undoes|resumes|replaces")
_ID = re.compile(r"[a-z_]+-[0-9a-f]{8}-[0-9a-f-]{27}")


def frame_html(frame: Any) -> Any:
    """Return the HTML of a DataFrame as pandas makes it; frames of this package are fitted, and closed to MathJax."""
    if "mentra_nb" not in frame.attrs:
        return frame._repr_html_()
    import pandas as pd

    shown, note = _fitted(frame, PAGE, PAGE_CELL)
    with pd.option_context("display.html.use_mathjax", False, *_whole(note, pd.get_option("display.max_colwidth"))):
        table = shown._repr_html_()
        if type(shown) is pd.DataFrame:  # else it makes its own; the keyboard can scroll what can have the focus
            table = f'<div style="overflow-x:auto" tabindex="0">{table}</div>'
        return table + (f'<p class="{NO_MATH}">{escape(note)}</p>' if note else "")


def frame_text(frame: Any, printer: Any, cycle: bool) -> None:
    """Print a DataFrame as pandas does; frames of this package are fitted, and without control characters."""
    if "mentra_nb" not in frame.attrs:
        printer.text(repr(frame))
        return
    import pandas as pd

    width = shutil.get_terminal_size().columns if kernel.in_terminal() else WIDTH
    cell = max(20, width // 4)
    shown, note = _fitted(frame, width, cell)
    with pd.option_context("display.expand_frame_repr", not note, *_whole(note, cell)):
        printer.text(plain(repr(shown) + (f"\n\n{note}" if note else "")))


def _whole(note: str, cell: int | None) -> tuple[Any, ...]:
    """Return the options with which pandas shows every column of a frame that was cut."""
    options = "display.max_columns", None, "display.max_colwidth", cell, "display.show_dimensions", False
    return options if note else ()


def _fitted(frame: Any, width: int, cell: int) -> tuple[Any, str]:
    """Return the first columns that fit beside each other, at least two, and a note that names the others.

    Pandas would leave out those in the middle. A cell counts as `cell` characters at most. A frame of another kind, or
    one that is to be shown whole by pandas' options, comes back as it is.
    """
    import pandas as pd

    is_plain = type(frame) is pd.DataFrame and all(isinstance(name, str) for name in frame.columns)
    if not is_plain or not frame.columns.is_unique or pd.get_option("display.max_columns") is None:
        return frame, ""
    shown = frame.assign(**{name: _readable(frame[name]) for name in frame.columns})
    ends = pd.concat([shown.head(SAMPLE), shown.tail(SAMPLE)]) if len(shown) > 2 * SAMPLE else shown
    used = max((len(str(label)) for label in ends.index), default=0)
    for n, name in enumerate(shown.columns):
        lines = ends[[name]].to_string(index=False, max_colwidth=cell).splitlines()
        used += 2 + min(max(map(len, lines)), max(cell, len(name)))
        if used > width and n >= 2:
            left_out = ", ".join(shown.columns[n:])
            return shown.iloc[:, :n], f"[{len(frame)} rows, {len(shown.columns)} columns; not shown: {left_out}]"
    return shown, ""


def _readable(column: Any) -> Any:
    """Return a column as a person reads it: times to the second, ids short, and nothing where a value is missing."""
    import pandas as pd

    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_localize(None).dt.floor("s")
    if _NAMES_OF_IDS.fullmatch(column.name):
        column = column.map(lambda value: short_id(value) if _ID.fullmatch(str(value)) else value)
    missing = column.isna()
    return column.astype(object).mask(missing, "") if missing.any() else column

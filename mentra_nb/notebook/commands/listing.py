"""The tables that subcommands return: frames that are shown whole, with wrapped text, in 80 columns and on a page."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime, time
from typing import Any, ClassVar

import pandas as pd

from mentra_nb.ids import short_id
from mentra_nb.notebook import kernel
from mentra_nb.page.escaping import NO_MATH, escape, visible

WIDTH = 80
"""Characters of a line of text where the width of the terminal is not known."""
ROWS = 50
"""Rows that are shown; of a longer table, the last."""
LONGEST = 1_000
"""Characters of a cell that are shown; the frame has them all."""
LEAST = 8
"""Characters that a column keeps, however narrow the table."""
LONG_WORD = 24
"""Characters above which a word may be broken on a page, so that its column can be narrower than the word."""
_CELL = "text-align:{};vertical-align:top;white-space:pre-wrap;word-break:normal"
_BREAK = ";overflow-wrap:anywhere"


class Listing(pd.DataFrame):
    """A frame that shows the columns in `headings`, under these words. Frames derived from it are ordinary ones."""

    _metadata: ClassVar[list[str]] = ["headings", "why"]
    headings: Mapping[str, str] = {}
    why = ""
    """What is shown if there are no rows."""

    def __repr__(self) -> str:
        if self.empty:
            return self.why
        heads, rows, numbers = self._cells()
        widths = _widths([heads, *rows], shutil.get_terminal_size().columns if kernel.in_terminal() else WIDTH)
        lines = [line for row in [heads, *rows] for line in _wrapped(row, widths, numbers)]
        return "\n".join([*self._left_out(), *lines])

    def _repr_html_(self) -> str:
        if self.empty:
            return f'<p class="{NO_MATH}">{escape(visible(self.why))}</p>'
        heads, rows, numbers = self._cells()
        styles = [_CELL.format("right" if is_number else "left") for is_number in numbers]
        made = "".join(_html_row(row, styles, "td") for row in rows)
        head = _html_row(heads, styles, "th")
        notes = "".join(f"<p>{escape(note)}</p>" for note in self._left_out())
        table = f"{notes}<table><thead>{head}</thead><tbody>{made}</tbody></table>"
        return f'<div class="{NO_MATH}" style="overflow-x:auto" tabindex="0">{table}</div>'

    def _cells(self) -> tuple[list[str], list[list[str]], list[bool]]:
        """Return the headings, the text of each row's cells, and which columns hold numbers.

        Columns without any text are left out.
        """
        heads, texts, numbers = list[str](), list[list[str]](), list[bool]()
        for name, heading in self.headings.items():
            column = self[name].tail(ROWS).tolist()
            cells = [_text(value, is_id=name == "id" or name.endswith("_id")) for value in column]
            if any(cells):
                heads.append(heading)
                texts.append(cells)
                numbers.append(all(isinstance(v, int | float) and not isinstance(v, bool) for v in column))
        return heads, [list(row) for row in zip(*texts, strict=True)], numbers

    def _left_out(self) -> list[str]:
        return [f"the last {ROWS} of {len(self)} rows:"] if len(self) > ROWS else []


def listing(frame: pd.DataFrame, headings: Mapping[str, str], why: str) -> Listing:
    """Return a frame that shows the columns in `headings` (name → heading), or `why` if it is empty.

    The columns that are not shown come last.
    """
    rest = [name for name in frame.columns if name not in headings]
    made = Listing(frame[[*headings, *rest]])
    made.attrs = dict(frame.attrs)
    made.headings, made.why = dict(headings), why
    return made


def _text(value: Any, *, is_id: bool) -> str:
    """Return what stands in a cell."""
    if value is None or value is pd.NaT or value is pd.NA or value != value:  # the last is NaN
        return ""
    match value:
        case bool():
            return "yes" if value else "no"
        case datetime():
            is_day = value.tzinfo is None and value.time() == time()
            return f"{value:%Y-%m-%d}" if is_day else f"{value:%Y-%m-%d %H:%M}"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.4g}"
    text = str(value)
    if len(text) > LONGEST:
        text = f"{text[:LONGEST]}… ({len(text):,} characters)"
    return short_id(text) if is_id else visible(text)


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the characters for each column, so that they and the gaps fit. The widest give way first."""
    found = [
        max(len(line) for text in column for line in (text.splitlines() or [""])) for column in zip(*rows, strict=True)
    ]
    while sum(found) + 2 * (len(found) - 1) > width and max(found) > LEAST:
        found[found.index(max(found))] -= 1
    return found


def _wrapped(row: Sequence[str], widths: Sequence[int], numbers: Sequence[bool]) -> list[str]:
    """Return the lines of a row."""
    cells = [
        [part for line in text.splitlines() for part in textwrap.wrap(line, width, break_on_hyphens=False)] or [""]
        for text, width in zip(row, widths, strict=True)
    ]
    lines = []
    for n in range(max(map(len, cells))):
        parts = [cell[n] if n < len(cell) else "" for cell in cells]
        fitted = [f"{p:>{w}}" if right else f"{p:<{w}}" for p, w, right in zip(parts, widths, numbers, strict=True)]
        lines.append("  ".join(fitted).rstrip())
    return lines


def _html_row(row: Sequence[str], styles: Sequence[str], tag: str) -> str:
    cells = (
        f'<{tag} style="{style}{_BREAK if any(len(word) > LONG_WORD for word in text.split()) else ""}">'
        f"{escape(text)}</{tag}>"
        for text, style in zip(row, styles, strict=True)
    )
    return f"<tr>{''.join(cells)}</tr>"

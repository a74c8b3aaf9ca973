"""A frame without rows that says why there are none."""

from __future__ import annotations

from typing import ClassVar

import pandas as pd


class Empty(pd.DataFrame):
    """A frame without rows whose repr says why. Frames derived from it are ordinary ones."""

    _metadata: ClassVar[list[str]] = ["why"]
    why = ""

    def __repr__(self) -> str:
        return f"{self.why}\nColumns: {', '.join(map(str, self.columns))}"

    def _repr_html_(self) -> str:
        from mentra_nb.page.escaping import NO_MATH, escape

        columns = ", ".join(map(str, self.columns))
        return f'<p class="{NO_MATH}">{escape(self.why)}<br><small>Columns: {escape(columns)}</small></p>'


def or_why(frame: pd.DataFrame, why: str) -> pd.DataFrame:
    """Return the frame, marked as one of this package; one without rows as an `Empty` that says `why`.

    The notebook shows marked frames without MathJax, as a model wrote some of their text.
    """
    found = frame
    if not len(frame):
        found = Empty(frame)
        found.why = why
    found.attrs["mentra_nb"] = True
    return found

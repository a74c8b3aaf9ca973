"""What a person sees of a map: a bar with its rate, cost and time left, and a line at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mentra_nb.rows.tally import Tally

REFRESH = 0.2
"""Seconds between two looks at what is done."""
MOST_BATCHES = 3
"""Batches under way that are shown."""


class Progress:
    """A bar of tqdm in a notebook or at a terminal; nothing if it is not wanted."""

    def __init__(self, total: int, *, is_shown: bool) -> None:
        self._bar: Any = None
        if is_shown:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, unit="row", dynamic_ncols=True)

    def show(self, tally: Tally) -> None:
        """Show what is done so far."""
        if self._bar is None:
            return
        parts = [f"{tally.failed:,} failed"] if tally.failed else []
        if tally.usage and (cost := tally.cost_usd()) is not None:
            parts.append(f"{cost:.4f} usd")
        parts += list(tally.batches.values())[:MOST_BATCHES]
        self._bar.total = tally.total
        self._bar.set_postfix_str(", ".join(parts), refresh=False)
        self._bar.update(tally.done + tally.failed - self._bar.n)
        self._bar.refresh()

    def end(self, tally: Tally) -> None:
        """Show what was done, and end the bar."""
        if self._bar is not None:
            self.show(tally)
            self._bar.close()
            print(tally.summary())  # noqa: T201 - the line for the person who waited

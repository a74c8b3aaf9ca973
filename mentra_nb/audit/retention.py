"""How long the record is kept: `prune`, on this machine and in the lake it ships to."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mentra_nb import paths
from mentra_nb.audit import lake, upkeep
from mentra_nb.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas as pd


def prune(
    *,
    before: str | date | datetime | None = None,
    keep_days: float | None = None,
    dry_run: bool = False,
    folder: Path | None = None,
) -> pd.DataFrame:
    """Remove the segments whose last event is from before a time (UTC), or older than so many days.

    Returns what was removed, or with `dry_run` would be: `segment, events, first, last`. The chain keeps a line for
    each, so `verify` goes on to hold. A segment is what one kernel wrote in about an hour; what is being written stays.

    Where the record is shipped to a lake they go there too, whichever machine wrote them, and with them the lake's
    older snapshots. No question finds them from then on. The snapshots are kept for an hour and then the files that
    held them for another, for questions that are being answered; a later `prune` or shipment ends each of the two.

    Raises `ConfigurationError` unless exactly one of the two is given, `StoreError` while others keep the record busy,
    or if the lake cannot be reached.
    """
    import pandas as pd

    folder, cut = (folder or paths.record_folder()).resolve(), _cut(before, keep_days)
    old = upkeep.remove_older(folder, cut, dry_run=dry_run)
    if (shared := lake.configured(folder)) is not None:  # last: until then something may have been shipped there
        old = list({link.segment: link for link in (*old, *lake.prune(shared, cut, dry_run=dry_run))}.values())
    rows = [(link.segment, link.events, link.first, link.last) for link in old]
    frame = pd.DataFrame(rows, columns=["segment", "events", "first", "last"])
    times = {
        name: pd.to_datetime(frame[name].astype("float64"), unit="s", utc=True).dt.as_unit("us")
        for name in ("first", "last")
    }
    return frame.assign(**times).astype({"segment": "string", "events": "Int64"})


def _cut(before: str | date | datetime | None, keep_days: float | None) -> float:
    if (before is None) == (keep_days is None):
        raise ConfigurationError("prune takes a time (before=…) or a number of days (keep_days=…), and not both")
    if keep_days is not None:
        return (datetime.now(UTC) - timedelta(days=keep_days)).timestamp()
    try:
        time_ = datetime.fromisoformat(str(before))
    except ValueError:
        raise ConfigurationError(f"prune: {before!r} is not a time such as 2026-03-01") from None
    return (time_ if time_.tzinfo else time_.replace(tzinfo=UTC)).timestamp()

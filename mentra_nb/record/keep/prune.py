"""How long the record is kept: `prune`, on this machine and in the lake it ships to."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mentra_nb import paths
from mentra_nb.errors import ConfigurationError, StoreError
from mentra_nb.record.keep import lake
from mentra_nb.record.keep.change import alone, drop, links
from mentra_nb.record.parquet import connection
from mentra_nb.record.write import chain, files

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

    Example:
        >>> len(mn.prune(keep_days=90, dry_run=True))
        0
    """
    import pandas as pd

    folder, cut = (folder or paths.record_folder()).resolve(), _cut(before, keep_days)
    old = remove_older(folder, cut, dry_run=dry_run)
    if (shared := lake.configured(folder)) is not None:  # last: until then something may have been shipped there
        old = list({link.segment: link for link in (*old, *lake.prune(shared, cut, dry_run=dry_run))}.values())
    rows = [(link.segment, link.events, link.first, link.last) for link in old]
    frame = pd.DataFrame(rows, columns=["segment", "events", "first", "last"])
    times = {
        name: pd.to_datetime(frame[name].astype("float64"), unit="s", utc=True).dt.as_unit("us")
        for name in ("first", "last")
    }
    return frame.assign(**times).astype({"segment": "string", "events": "Int64"})


def remove_older(folder: Path, cut: float, *, dry_run: bool) -> list[chain.Link]:
    """Remove the complete segments whose last event is from before `cut` (Unix seconds), and return them.

    The chain keeps a line for each. Raises `StoreError` while others keep the record busy.
    """
    import duckdb

    if not (folder / "events").is_dir():
        return []
    with alone(folder, wait=files.PATIENCE) as free, connection() as con:
        if not free:
            raise StoreError(f"another process is compacting the record in {folder}; try again")
        known, pruned = links(folder)
        unlinked = []
        for segment in files.named(folder, "jsonl"):
            if segment.stem not in known and files.sealed(segment):
                with contextlib.suppress(duckdb.Error):
                    unlinked += [content.link() for content in chain.contents(con, segment)]
        old = [link for link in (*known.values(), *unlinked) if link.segment not in pruned and link.last < cut]
        if old and not dry_run:
            gone = {link.segment for link in old}
            added = [link for link in unlinked if link.segment in gone]
            (folder / "events" / ".pruning").touch(mode=0o600)
            chain.append(folder, [*added, *(replace(link, kind="pruned") for link in old)])
            drop(folder, known, gone)
        return old


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

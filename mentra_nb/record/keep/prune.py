"""Pruning: removing old segments from this machine and from the lake it ships to."""

from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mentra_nb import paths
from mentra_nb.errors import ConfigurationError, StoreError
from mentra_nb.record.keep import lake, lake_tables
from mentra_nb.record.keep.change import alone, drop, links
from mentra_nb.record.parquet import connection
from mentra_nb.record.write import chain, files
from mentra_nb.record.write.known import read as known_segments

if TYPE_CHECKING:
    import pandas as pd


def prune(
    *,
    before: str | date | datetime | None = None,
    keep_days: float | None = None,
    dry_run: bool = False,
    folder: str | Path | None = None,
) -> pd.DataFrame:
    """Remove the complete segments whose last event is before a time, or older than a number of days.

    A segment holds what one kernel wrote in about an hour. The chain keeps a line for each, so `verify` still finds
    the record complete.

    If the record is shipped to a lake, they are removed there too, whichever machine wrote them. Queries do not find
    them any more. The lake's older snapshots are removed an hour later, and the files of those another hour later, so
    that running queries can finish; the next `prune` or shipment after that time does it.

    Args:
        before: a time, UTC unless it names another zone.
        keep_days: an age in days, in place of `before`.
        dry_run: remove nothing.
        folder: the record's folder.

    Returns:
        A row per segment that was removed, or with `dry_run` would be: `segment, events, first, last`.

    Raises:
        ConfigurationError: not exactly one of `before` and `keep_days` was given.
        StoreError: another process keeps the record locked, or the lake cannot be reached.

    Example:
        >>> len(mn.prune(keep_days=90, dry_run=True))
        0
    """
    import pandas as pd

    from mentra_nb.record.empty import or_why

    folder, cut = paths.record_folder(folder).resolve(), _cut(before, keep_days)
    old = remove_older(folder, cut, dry_run=dry_run)
    if (shared := lake_tables.configured(folder)) is not None:  # last, since a segment may have been shipped meanwhile
        old = list({link.segment: link for link in (*old, *lake.prune(shared, cut, dry_run=dry_run))}.values())
    rows = [(link.segment, link.events, link.first, link.last) for link in old]
    frame = pd.DataFrame(rows, columns=["segment", "events", "first", "last"])
    times = {
        name: pd.to_datetime(frame[name].astype("float64"), unit="s", utc=True).dt.as_unit("us")
        for name in ("first", "last")
    }
    found = frame.assign(**times).astype({"segment": "string", "events": "Int64"})
    return or_why(found, f"Nothing in {folder} is that old.")


def remove_older(folder: Path, cut: float, *, dry_run: bool) -> list[chain.Link]:
    """Remove the complete segments of this machine whose last event is before `cut` (Unix seconds), and return them.

    The chain keeps a line for each.

    Raises:
        StoreError: another process keeps the record locked.
    """
    import duckdb

    if not (folder / "events").is_dir():
        return []
    with alone(folder, wait=files.LOCK_TIMEOUT) as free, connection() as con:
        if not free:
            raise StoreError(f"another process is compacting the record in {folder}; try again")
        known, pruned = links(folder)
        begun = known_segments(folder)
        unlinked = []
        for segment in files.named(folder, "jsonl"):
            if segment.stem not in known and not begun.stranger(segment.stem) and files.sealed(segment):
                with contextlib.suppress(duckdb.Error):
                    unlinked += [content.link() for content in chain.contents(con, segment)]
        old = [link for link in (*known.values(), *unlinked) if link.segment not in pruned and link.last < cut]
        if old and not dry_run:
            gone = {link.segment for link in old}
            added = [link for link in unlinked if link.segment in gone]
            (folder / "events" / ".pruning").touch(mode=0o600)
            chain.append(folder, [*added, *(link._replace(kind="pruned") for link in old)])
            drop(folder, known, gone)
        return old


def _cut(before: str | date | datetime | None, keep_days: float | None) -> float:
    if (before is None) == (keep_days is None):
        raise ConfigurationError("prune takes a time (before=…) or a number of days (keep_days=…), but not both")
    if keep_days is not None:
        return (datetime.now(UTC) - timedelta(days=keep_days)).timestamp()
    try:
        time_ = datetime.fromisoformat(str(before))
    except ValueError:
        raise ConfigurationError(f"prune: {before!r} is not a time such as 2026-03-01") from None
    return (time_ if time_.tzinfo else time_.replace(tzinfo=UTC)).timestamp()

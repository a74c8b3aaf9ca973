"""Opening the journal according to the settings and the environment."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mentra_nb import paths
from mentra_nb.record.write.journal import Journal
from mentra_nb.record.write.redact import LogText


def open_journal(*, log_text: LogText = "preview", redact: Iterable[str] = ()) -> Journal:
    """Open a journal on the record's folder. If `MENTRA_RECORD` names a lake, segments are shipped there."""
    return Journal(log_text=log_text, redact=redact, ship=_ship if paths.record_lake() is not None else None)


def _ship(folder: Path) -> None:
    from mentra_nb.record.keep.lake import ship
    from mentra_nb.record.keep.lake_tables import configured

    if shared := configured(folder):
        ship(folder, shared)

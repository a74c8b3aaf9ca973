# ruff: noqa: S608  # the SQL is made of our own constants and quoted paths
"""Changes of the set of segment files: by one process at a time, and safe if that process is killed."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mentra_nb.browser import started
from mentra_nb.ids import uuid7
from mentra_nb.record import schema
from mentra_nb.record.parquet import connection, copy
from mentra_nb.record.write import chain, files

if TYPE_CHECKING:
    import duckdb

log: logging.Logger = logging.getLogger(__name__)

Links = dict[str, chain.Link]


@contextlib.contextmanager
def alone(folder: Path, *, wait: float = 0) -> Iterator[bool]:
    """Hold the lock for upkeep, after finishing or clearing up what a killed process left.

    Yields False if another process has not released it within `wait` seconds.
    """
    events = folder / "events"
    with files.held(events / ".compact", wait=wait) as free:
        if free:
            files.finish_change(folder)
            for leftover in events.glob(f"{files.NAME}.tmp"):
                leftover.unlink(missing_ok=True)
            if (events / ".pruning").exists():
                drop(folder, *links(folder))
        yield free


def links(folder: Path) -> tuple[Links, set[str]]:
    """Return the links of the sealed segments by name, and the names of those that were pruned or shipped."""
    every, _ = chain.read(folder)
    known = {link.segment: link for link in every if link.kind == "sealed"}
    return known, {link.segment for link in every if link.kind != "sealed"}


def remove(folder: Path, *segments: Path, put: Mapping[Path, Path] | None = None) -> None:
    """Remove segment files with their locks and rename others (new: target), in one step."""
    files.change(folder, put=put, remove=segments)
    for segment in segments:
        with contextlib.suppress(OSError):
            segment.with_suffix(".lock").unlink(missing_ok=True)


def rewrite(con: duckdb.DuckDBPyConnection, of: Sequence[Path], new: Path, *, without: Collection[str] = ()) -> bool:
    """Merge Parquet files into a new one with the current columns, without the rows of some segments.

    Returns:
        Whether the new file has any rows.
    """
    rows = f"read_parquet({schema.listed(of)}, union_by_name = true)"
    if without:
        rows += f" WHERE source::VARCHAR NOT IN ({', '.join(map(schema.quoted, without))})"
    lines = f"SELECT * REPLACE (epoch_us(ts) / 1e6 AS ts), kind AS event_type FROM {rows}"
    copy(con, f"{schema.TYPED} FROM ({lines})", new)
    return con.execute(f"SELECT 1 FROM read_parquet({schema.quoted(new)}) LIMIT 1").fetchone() is not None


def drop(folder: Path, known: Links, gone: Collection[str]) -> None:
    """Remove the segments `gone` from the folder. Files that also hold other segments are rewritten without them."""
    import duckdb

    put: dict[Path, Path] = {}
    going = [file for kind in ("jsonl", "parquet") for file in files.named(folder, kind) if file.stem in gone]
    for file in files.named(folder, "parquet"):
        if file.stem in known:
            continue
        try:
            with connection() as con:
                rows = con.execute(f"SELECT DISTINCT source::VARCHAR FROM read_parquet({schema.quoted(file)})")
                if old := {str(source) for (source,) in rows.fetchall()} & set(gone):
                    going.append(file)
                    new = folder / "events" / f"{uuid7()}.tmp"
                    if rewrite(con, [file], new, without=old):
                        put[new] = new.with_suffix(".parquet")
        except duckdb.Error as error:
            log.warning("Cannot read %s; nothing is removed from it: %s", file.name, error)
    remove(folder, *going, put=put)
    (folder / "events" / ".pruning").unlink(missing_ok=True)


_upkeep: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def in_thread(name: str, work: Callable[[], object]) -> threading.Thread:
    """Start `work` in a thread and return it; where there are no threads, do it now. Errors are logged.

    It is not a daemon thread, since DuckDB must not run while the interpreter shuts down.
    """

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  # the next process or query tries again
            log.warning("Upkeep of the record failed: %s", error)

    thread = threading.Thread(target=run, name=name, daemon=False)
    if started(thread) is None:
        run()
    else:
        _upkeep.add(thread)
    return thread


def wait_for_upkeep() -> None:
    """Wait for every thread that `in_thread` started."""
    for thread in list(_upkeep):
        thread.join()

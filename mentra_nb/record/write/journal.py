"""The journal: the writer of the record. It appends each event of this process as a JSON line to a segment file.

The fields of a line are `schema.ENVELOPE`. Each process has its own segments. Nothing here imports DuckDB or pandas.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mentra_nb import paths
from mentra_nb.browser import IN_BROWSER, started
from mentra_nb.ids import uuid7
from mentra_nb.record.write import chain, files, known
from mentra_nb.record.write.own import OwnExpressions
from mentra_nb.record.write.redact import (
    FULL_LIMIT,
    PREVIEW_LIMIT,
    LogText,
    capped,
    jsonable,
    redact,
    without_bodies,
)
from mentra_nb.secrets.mask import may_hold_secret
from mentra_nb.who import person

if TYPE_CHECKING:
    from mentra_nb.record.write.health import JournalHealth

log: logging.Logger = logging.getLogger(__name__)

_LINE_VERSION = 1
_END_OF_TORN_LINE = b"~\n"  # makes the line invalid JSON, also one that lacks only its newline


class Journal:
    """The writer of the record. Safe to use from any thread and after a fork.

    No file is created before the first event. When `record_audit_event` returns, the event survives the death of the
    process; after `sync_every` seconds, or when `sync` returns, also a power cut. A failed write raises nothing: it is
    counted, logged once, and a `journal_gap` event before the next stored one says how many were lost.

    A segment is sealed at `max_bytes`, at `max_age`, and by `close`.

    Args:
        folder: the record's folder, by default `paths.record_folder()`.
        max_bytes: the size at which a segment is sealed.
        max_age: seconds from a segment's first event until it is sealed; by default an hour, or a minute with `ship`.
        sync_every: seconds between syncs.
        log_text: how much of prompts, arguments and outputs is kept.
        redact: regular expressions whose matches are not written, besides secrets, which are never written.
        ship: called with the folder by `close`.

    Example:
        >>> from pathlib import Path
        >>> journal = mn.Journal(Path("my-record"), log_text="full")
        >>> runtime = mn.Runtime(audit=journal)
        >>> journal.close()
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        max_bytes: int = 16 << 20,
        max_age: float | None = None,
        sync_every: float = 0.2,
        log_text: LogText = "preview",
        redact: Iterable[str] = (),
        ship: Callable[[Path], object] | None = None,
    ) -> None:
        self._folder = Path(folder) if folder is not None else paths.record_folder()
        self._ship = ship
        self._max_age = max_age if max_age is not None else 3600.0 if ship is None else 60.0
        self._max_bytes, self._sync_every = max_bytes, sync_every
        self.log_text = log_text
        self.redact = redact
        self._written = self._synced = self._lost = self._unreported = 0
        self._last_error: str | None = None
        self._thread: threading.Thread | None
        self._segment: _Segment | None
        self._full: list[_Segment]
        self._reset()
        _JOURNALS.add(self)

    @property
    def log_text(self) -> LogText:
        """How much of prompts, arguments and outputs is kept. Can be set at any time for later events."""
        return self._log_text

    @log_text.setter
    def log_text(self, value: LogText) -> None:
        self._log_text: LogText = value
        self._limit = FULL_LIMIT if value == "full" else PREVIEW_LIMIT

    @property
    def redact(self) -> tuple[str, ...]:
        """Regular expressions whose matches are not written. Can be set at any time for later events.

        Raises:
            ConfigurationError: an expression is invalid.
        """
        return self._own.patterns

    @redact.setter
    def redact(self, patterns: Iterable[str]) -> None:
        self._own = OwnExpressions(patterns)

    def record_audit_event(self, scope: str, event_type: str, payload: dict[str, Any]) -> None:
        """Store one event. Secrets in its payload are redacted, and long texts cut.

        Example:
            >>> from pathlib import Path
            >>> journal = mn.Journal(Path("events-of-a-program"))
            >>> journal.record_audit_event("nightly", "report_written", {"rows": 12})
            >>> journal.sync()
            >>> journal.health().lost
            0
            >>> journal.close()
        """
        with self._lock:
            try:
                segment = self._segment or self._open()
                if self._unreported:
                    from mentra_nb.event.rare import JournalGap

                    gap = JournalGap(lost=self._unreported, reason=self._last_error or "unknown")
                    self._append(segment, gap.scope(), gap.kind, gap.model_dump())
                    self._unreported = 0
                self._append(segment, scope, event_type, {"kind": event_type, **payload})
            except Exception as error:  # noqa: BLE001  # the record must never fail a turn
                self._failed(error)
        if not self._dirty.is_set():
            self._dirty.set()

    def sync(self) -> None:
        """Wait until all events stored so far are on the disk. A failure is reported by `health` and not raised.

        Those that wait at the same time share one sync.
        """
        wanted = self._written
        with self._syncing:
            if self._synced < wanted:
                self._sync()

    def _sync(self) -> None:
        with self._lock:
            written, segments = self._written, [*self._full, *([self._segment] if self._segment else [])]
            fds = [os.dup(segment.fd) for segment in segments]
        try:
            if not all(segment.named for segment in segments):
                known.sync(self._folder)
                files.sync_folder(self._folder / "events")
            for segment, fd in zip(segments, fds, strict=True):
                segment.named = True
                files.sync(fd)
            self._synced = written
        except OSError as error:
            self._note(error, "may lose its latest events in a power cut")
        finally:
            for fd in fds:
                os.close(fd)

    def close(self) -> None:
        """Seal the segment and ship it. A later event begins a new one."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._roll()
            self._stop.set()
            self._dirty.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._seal_full()
        if self._ship is not None and self._written:
            try:
                self._ship(self._folder)
            except Exception as error:  # noqa: BLE001  # the next process ships the segments
                self._note(error, "could not be shipped and stays on this machine")

    @property
    def folder(self) -> Path:
        """The record's folder."""
        return self._folder

    def health(self) -> JournalHealth:
        """Return the state of the journal and of the record's folder."""
        from mentra_nb.record.write.health import JournalHealth, record_health

        of_record = vars(record_health(self._folder))
        with self._lock:
            segment, thread = self._segment, self._thread
            return JournalHealth(
                **of_record,
                alive=self._unreported == 0
                and (segment is None or IN_BROWSER or (thread is not None and thread.is_alive())),
                written=self._written,
                lost=self._lost,
                last_error=self._last_error,
                segment=segment.name if segment else None,
            )

    # ---- writing, with the lock held ------------------------------------------------------------------------------

    def _open(self) -> _Segment:
        files.make_folder(self._folder)
        self._segment = _Segment(self._folder, uuid7(), time.monotonic() + self._max_age)
        if self._thread is None:
            self._dirty, self._stop = threading.Event(), threading.Event()
            upkeep = (self, self._dirty, self._stop)
            self._thread = started(threading.Thread(target=_upkeep, args=upkeep, daemon=True, name="mentra-journal"))
        return self._segment

    def _append(self, segment: _Segment, scope: str, kind: str, payload: dict[str, Any]) -> None:
        at = time.time()
        line = self._encode(segment, at, scope, kind, payload)
        given = _END_OF_TORN_LINE + line if segment.torn else line
        written = os.write(segment.fd, given)
        segment.size += written
        if written != len(given):
            segment.torn = segment.torn or written > 0
            raise OSError(f"short write: {written} of {len(given)} bytes; free some disk space")
        segment.add(line, at)
        self._written += 1
        if segment.size >= self._max_bytes:
            self._roll()

    def _encode(self, segment: _Segment, at: float, scope: str, kind: str, payload: dict[str, Any]) -> bytes:
        if self._log_text == "none":
            payload = without_bodies(payload)
        if not scope.isprintable():
            scope = repr(scope)[1:-1]
        # `chain.contents` rebuilds the line from its columns, so the order and form of these fields must not change.
        begin = f'{{"id":"{uuid7()}","ts":{at:.6f},"seq":{segment.events},"source":"{segment.name}","v":{_LINE_VERSION}'
        begin = f'{begin},"scope":{_dumps(scope)},"event_type":{_dumps(kind)},"payload":'
        end = f",{_writer()}}}}}\n"
        text = _dumps(payload)
        # Replace lone surrogates, which are not valid UTF-8: DuckDB would skip the line.
        line = f"{begin}{text[:-1]}{end}".encode("utf-8", "replace")
        if len(line) <= self._limit and not self._own and not may_hold_secret(text):
            return line
        # Cut before redacting to limit its cost, to twice the limit so that a secret at the edge is still whole.
        payload = redact(capped(jsonable(payload), 2 * self._limit), self._own)
        return f"{begin}{_dumps(capped(payload, self._limit))[:-1]}{end}".encode("utf-8", "replace")

    def _roll(self) -> None:
        """End the segment. It is sealed by the thread or by `close`, since that waits for the disk."""
        if self._segment is not None:
            self._full.append(self._segment)
            self._segment = None

    def _failed(self, error: Exception) -> None:
        self._lost += 1
        self._unreported += 1
        self._note(error, "cannot be written; events are lost until this is fixed")

    def _note(self, error: Exception, consequence: str) -> None:
        if self._last_error is None:
            log.warning("The record in %s %s: %s", self._folder, consequence, error)
        self._last_error = str(error)

    # ---- the journal's thread, and `close` ------------------------------------------------------------------------

    def _until_old(self) -> float | None:
        """Return the seconds until the segment must be sealed, or `None` without a segment."""
        with self._lock:
            return max(0.0, self._segment.until - time.monotonic()) if self._segment else None

    def _roll_if_old(self) -> None:
        with self._lock:
            if self._segment and self._segment.until <= time.monotonic():
                self._roll()

    def _seal_full(self) -> None:
        with self._sealing:
            while self._full:
                try:
                    self._full[0].seal(self._folder)
                except Exception as error:  # noqa: BLE001  # compaction adds the link
                    self._note(error, "has a segment that could not be sealed; compaction seals it later")
                with self._lock:
                    self._full.pop(0).release()

    def _reset(self) -> None:
        self._lock, self._sealing, self._syncing = threading.Lock(), threading.Lock(), threading.Lock()
        self._dirty, self._stop = threading.Event(), threading.Event()
        self._thread = self._segment = None
        self._full = []

    def _forked(self) -> None:
        """Start afresh in the child of a fork: segments, locks and thread belong to the parent.

        Closing the child's copies of the files does not release the parent's locks.
        """
        segments = [*self._full, *([self._segment] if self._segment else [])]
        self._written = self._synced = self._lost = self._unreported = 0
        self._reset()
        for segment in segments:
            segment.release()


class _Segment:
    """A segment being written, and the values of its link in the chain."""

    def __init__(self, folder: Path, name: str, until: float) -> None:
        self.name, self.until = name, until
        self.owner: IO[bytes]
        self.fd: int
        chain.begin(folder, name)
        self.owner, self.fd = files.open_segment(folder, name)
        self.events = self.size = 0
        self.first = self.last = 0.0
        self.digest = hashlib.sha256()
        self.torn = False
        self.named = False
        """Whether its entry in the folder was synced."""

    def add(self, line: bytes, at: float) -> None:
        self.torn = False
        self.digest.update(line)
        self.first = self.first or at
        self.last = at
        self.events += 1

    def seal(self, folder: Path) -> None:
        """Sync the segment and add its link to the chain."""
        if self.torn and os.write(self.fd, _END_OF_TORN_LINE) == len(_END_OF_TORN_LINE):
            self.torn = False
        files.sync(self.fd)
        if self.events and not self.torn:
            first, last = round(self.first, 6), round(self.last, 6)
            chain.append(folder, [chain.Link("sealed", self.name, self.events, first, last, self.digest.hexdigest())])

    def release(self) -> None:
        """Close the files. The free lock marks the segment as complete."""
        os.close(self.fd)
        self.owner.close()


@functools.cache
def _writer() -> str:
    """Return the fields, as JSON, that say who writes: the user of the operating system, and the host."""
    return f'"os_user":{_dumps(person().os_user)},"host":{_dumps(person().host)}'


def _dumps(value: Any) -> str:
    try:
        return _encoder.encode(value)
    except (ValueError, TypeError, RecursionError):  # NaN or such a key, which DuckDB would skip; or too deep
        return _encoder.encode(jsonable(value))


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str)


def _upkeep(journal: Journal, dirty: threading.Event, stop: threading.Event) -> None:
    while not stop.is_set():
        dirty.wait(journal._until_old())
        dirty.clear()
        journal._roll_if_old()
        journal.sync()
        journal._seal_full()
        stop.wait(journal._sync_every)


_JOURNALS: weakref.WeakSet[Journal] = weakref.WeakSet()


def _forked() -> None:
    for journal in list(_JOURNALS):
        journal._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

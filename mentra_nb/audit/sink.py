"""The journal: every event of this process, appended as one JSON line to a segment file that is its own.

What a line holds is `schema.ENVELOPE`; who reads it is `tables.py`. Nothing here imports DuckDB or pandas.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mentra_nb import paths
from mentra_nb.audit import segments
from mentra_nb.audit.redact import (
    FULL_LIMIT,
    PREVIEW_LIMIT,
    LogText,
    capped,
    jsonable,
    may_hold_secret,
    redact,
    without_bodies,
)
from mentra_nb.event_types import JournalGap
from mentra_nb.identity import uuid7

log = logging.getLogger(__name__)

_LINE_VERSION = 1
_END_OF_TORN_LINE = b"~\n"  # not JSON, so a line that was cut never parses, not even one that lacks only its newline
_fdatasync = getattr(os, "fdatasync", os.fsync)  # macOS and Windows have no fdatasync


@dataclass(frozen=True)
class JournalHealth:
    """How the journal is doing."""

    written: int
    """Events stored by this process."""
    lost: int
    """Events that could not be stored."""
    last_error: str | None
    folder: Path
    segment: str | None
    """The name (a UUIDv7) of the segment being written, if any."""


class Journal:
    """Where the audit hook puts events. Creating one touches no file; the first event does.

    When `record_audit_event` returns, the event survives the death of the process; within `sync_every` seconds,
    or when `sync` returns, also a power cut. A failed write raises nothing: it is counted, logged once, and told by
    a `journal_gap` event before the next good one. Safe to use from any thread, and after a fork.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        max_bytes: int = 64 << 20,
        sync_every: float = 0.2,
        log_text: LogText = "preview",
    ) -> None:
        self._folder = Path(folder) if folder is not None else paths.record_folder()
        self._max_bytes, self._sync_every = max_bytes, sync_every
        self.log_text = log_text
        self._written = self._lost = self._untold = 0
        self._last_error: str | None = None
        self._thread: threading.Thread | None
        self._fd: int | None
        self._owner: IO[bytes] | None
        self._source: str | None
        self._reset()
        _JOURNALS.add(self)

    @property
    def log_text(self) -> LogText:
        """How much of prompts, arguments and outputs is kept. May be set at any time, for what comes after."""
        return self._log_text

    @log_text.setter
    def log_text(self, value: LogText) -> None:
        self._log_text, self._limit = value, FULL_LIMIT if value == "full" else PREVIEW_LIMIT

    def record_audit_event(self, scope: str, event_type: str, payload: dict[str, Any]) -> None:
        """Store one event. `payload` is the `kind`-tagged object; secrets and long texts in it are not stored."""
        payload = {"kind": event_type, **payload}
        with self._lock:
            try:
                self._open()
                if self._untold:
                    gap = JournalGap(lost=self._untold, reason=self._last_error or "unknown")
                    self._append(gap.scope(), gap.kind, gap.model_dump())
                    self._untold = 0
                self._append(scope, event_type, payload)
            except Exception as error:  # noqa: BLE001  # the record must never fail a run
                self._failed(error)
        self._dirty.set()

    def sync(self) -> None:
        """Wait until everything stored so far would survive a power cut. A failure is noted in `health`, not raised."""
        with self._lock:
            if self._fd is None:
                return
            fd = os.dup(self._fd)
        try:
            _fdatasync(fd)
        except OSError as error:
            self._note(error)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Seal the segment. A later event would begin a new one."""
        with self._lock:
            thread = self._thread
            self._seal()
            self._stop.set()
            self._dirty.set()
            self._thread = None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    @property
    def folder(self) -> Path:
        return self._folder

    def health(self) -> JournalHealth:
        return JournalHealth(self._written, self._lost, self._last_error, self._folder, self._source)

    # ---- all below is called with the lock held, except the thread's loop -----------------------------------------

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._dirty, self._stop = threading.Event(), threading.Event()
        self._thread = self._fd = self._owner = self._source = None
        self._seq = self._size = 0
        self._torn = False

    def _open(self) -> None:
        if self._fd is not None:
            return
        segments.make_folder(self._folder)
        source = uuid7()
        owner, fd = segments.open_segment(self._folder, source)
        self._source, self._owner, self._fd = source, owner, fd
        self._seq = self._size = 0
        self._torn = False
        if self._thread is None:
            self._dirty, self._stop = threading.Event(), threading.Event()
            self._thread = threading.Thread(
                target=_sync_loop, args=(self, self._dirty, self._stop), daemon=True, name="mentra-journal-sync"
            )
            self._thread.start()

    def _append(self, scope: str, kind: str, payload: dict[str, Any]) -> None:
        assert self._fd is not None
        event: dict[str, Any] = {"id": uuid7(), "ts": time.time(), "seq": self._seq, "source": self._source}
        event |= {"v": _LINE_VERSION, "scope": scope, "event_type": kind, "payload": payload}
        line = self._encode(event)
        if self._torn:
            line = _END_OF_TORN_LINE + line
        written = os.write(self._fd, line)
        self._size += written
        if written != len(line):
            self._torn = self._torn or written > 0
            raise OSError(f"the disk took {written} of {len(line)} bytes; free some space")
        self._torn = False
        self._seq += 1
        self._written += 1
        if self._size >= self._max_bytes:
            self._seal()

    def _encode(self, event: dict[str, Any]) -> bytes:
        if self._log_text == "none":
            event["payload"] = without_bodies(event["payload"])
        text = _dumps(event)
        line = text.encode("utf-8", "replace")  # a lone surrogate would make DuckDB skip the line
        if len(line) <= self._limit and not may_hold_secret(text):
            return line + b"\n"
        # Cut first so that redaction stays cheap, with room to spare so that a secret at the edge is still whole.
        event["payload"] = capped(jsonable(event["payload"]), 2 * self._limit)
        event = redact(event)
        event["payload"] = capped(event["payload"], self._limit)
        return _dumps(event).encode("utf-8", "replace") + b"\n"

    def _seal(self) -> None:
        if self._fd is None or self._owner is None:
            return
        with contextlib.suppress(OSError):
            _fdatasync(self._fd)
        os.close(self._fd)
        self._owner.close()  # the free lock tells that the segment is complete
        self._fd = self._owner = self._source = None

    def _failed(self, error: Exception) -> None:
        self._lost += 1
        self._untold += 1
        self._note(error)

    def _note(self, error: Exception) -> None:
        if self._last_error is None:
            log.warning(
                "The record in %s cannot be written (%s); events are being lost until this is mended.",
                self._folder,
                error,
            )
        self._last_error = str(error)

    def _forked(self) -> None:
        """In the child of a fork: segment, lock and thread are the parent's, and closing our copies frees nothing."""
        fd, owner = self._fd, self._owner
        self._written = self._lost = self._untold = 0
        self._reset()
        if fd is not None:
            os.close(fd)
        if owner is not None:
            owner.close()


def _dumps(event: dict[str, Any]) -> str:
    try:
        return _encoder.encode(event)
    except (ValueError, TypeError):  # NaN, a key that is no text: DuckDB would skip such a line
        return _encoder.encode(jsonable(event))


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str)


def _sync_loop(journal: Journal, dirty: threading.Event, stop: threading.Event) -> None:
    while not stop.is_set():
        dirty.wait()
        dirty.clear()
        journal.sync()
        stop.wait(journal._sync_every)


_JOURNALS: weakref.WeakSet[Journal] = weakref.WeakSet()


def _forked() -> None:
    for journal in list(_JOURNALS):
        journal._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

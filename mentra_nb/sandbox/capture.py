"""What is kept of a command's output while it runs, and which lines of it are shown."""

from __future__ import annotations

import codecs
import logging
import os
import time
from collections.abc import AsyncIterable, Callable
from pathlib import Path
from typing import NamedTuple

log: logging.Logger = logging.getLogger(__name__)

LEFT_OUT = "[… the middle is left out …]"
"""The line between the beginning and the end of a stream that was over its limit."""
SHOW_EVERY = 0.1
"""The least seconds between two lines that are shown of a stream over its limit, or of a line that is redrawn."""


class Transcript:
    """A file with all that both streams of a command write, in the order it arrives, up to a limit in bytes.

    When the disk is full, what comes later is left out.
    """

    def __init__(self, path: Path, limit: int) -> None:
        """Create the file, readable by this user only. Raises `OSError`."""
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._left = limit

    def write(self, chunk: bytes) -> None:
        """Add what was written, as far as there is room."""
        try:
            self._left -= os.write(self._file, chunk[: self._left])
        except OSError as error:
            self._left = 0
            log.warning("the output of a command is not kept to its end: %s", error)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class Captured(NamedTuple):
    """What was kept of a stream, and how much was written in all."""

    text: str
    truncated: bool
    bytes: int
    lines: int


class Capture:
    """The first and last bytes of a stream, and its size. Shows its lines as they arrive.

    Of a stream over its limit, and of a line that is redrawn, only the last state is shown, every `SHOW_EVERY`; a state
    that may be redrawn ends in a carriage return.
    """

    def __init__(
        self, name: str, limit: int, show: Callable[[str], None] | None = None, copy: Transcript | None = None
    ) -> None:
        self.name = name
        self.limit = limit
        self._show, self._copy = show, copy
        self._kept, self._line = bytearray(), bytearray()
        self._total = self._newlines = 0
        self._ends_line, self._shown_at = True, 0.0

    async def read(self, pieces: AsyncIterable[bytes]) -> None:
        """Keep what arrives until the stream ends."""
        async for chunk in pieces:
            room = max(self.limit - self._total, 0)
            self._keep(chunk)
            if self._copy is not None:
                self._copy.write(chunk)
            if self._show is not None:
                self._show_lines(chunk, room)
        if self._line:
            self._report(self._line)

    def _keep(self, chunk: bytes) -> None:
        self._total += len(chunk)
        self._newlines += chunk.count(b"\n")
        self._ends_line = chunk.endswith(b"\n")
        self._kept += chunk
        if len(self._kept) > 2 * self.limit:
            del self._kept[self._head : len(self._kept) - self._tail]

    @property
    def _tail(self) -> int:
        return self.limit // 3

    @property
    def _head(self) -> int:
        return self.limit - self._tail

    def _show_lines(self, chunk: bytes, room: int) -> None:
        """Show the lines that a chunk ends, if there was `room` for it, else its last whole line."""
        self._line += chunk
        *lines, rest = bytes(self._line).split(b"\n")
        self._line = bytearray(rest[-self.limit :])
        is_late = time.monotonic() - self._shown_at >= SHOW_EVERY
        if room >= len(chunk):
            for line in lines:
                self._report(line)
        elif lines and is_late:
            self._report(lines[-1])
        if is_late and not lines and b"\r" in rest:
            self._report(rest.rstrip(b"\r").rpartition(b"\r")[2] + b"\r")

    def _report(self, line: bytes | bytearray) -> None:
        if self._show is not None:
            self._shown_at = time.monotonic()
            self._show(f"{self.name}: {line[-self.limit :].decode('utf-8', 'replace')}")

    def captured(self) -> Captured:
        """Return what was kept."""
        truncated = self._total > self.limit
        return Captured(self._text(truncated), truncated, self._total, self._newlines + (not self._ends_line))

    def _text(self, truncated: bool) -> str:
        if not truncated:
            return self._kept.decode("utf-8", "replace")
        head = codecs.getincrementaldecoder("utf-8")("replace").decode(self._kept[: self._head])
        tail = bytes(self._kept[len(self._kept) - self._tail :])
        while tail and tail[0] & 0xC0 == 0x80:  # the rest of a character
            tail = tail[1:]
        return f"{head}\n{LEFT_OUT}\n{tail.decode('utf-8', 'replace')}"

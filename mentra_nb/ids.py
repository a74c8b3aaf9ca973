"""Identifiers: UUIDv7 (sorted by time) behind a readable prefix, strictly rising within a process."""

from __future__ import annotations

import os
import threading
import time

_lock = threading.Lock()
_last = 0
_noise = bytearray()


def _forked() -> None:
    global _lock, _noise
    _lock, _noise = threading.Lock(), bytearray()  # another thread of the parent may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def uuid7() -> str:
    """A UUIDv7 as text: later calls in this process sort after earlier ones, even if the clock steps back."""
    global _last
    with _lock:
        if not _noise:  # in stock: asking the system each time costs more than all the rest
            _noise.extend(os.urandom(4000))
        noise = int.from_bytes(_noise[-10:], "big")
        del _noise[-10:]
        ms = time.time_ns() // 1_000_000
        n = ms << 80 | 7 << 76 | (noise >> 68) << 64 | 2 << 62 | noise & (1 << 62) - 1
        _last = n = n if n > _last else _last + 1
    h = f"{n:032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def new_id(prefix: str) -> str:
    """`prefix-<uuid7>`, for example `session-0199…`."""
    return f"{prefix}-{uuid7()}"


class UniqueIds:
    """Ids somebody else chose, such as those of tool calls: a repeated one gets a suffix."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def take(self, id: str) -> str:
        unique, number = id, 2
        while unique in self._seen:
            unique, number = f"{id}-{number}", number + 1
        self._seen.add(unique)
        return unique

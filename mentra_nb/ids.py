"""Identifiers: a readable prefix and a UUIDv7, which sorts by time and always rises within a process."""

from __future__ import annotations

import os
import threading
import time

_lock = threading.Lock()
_last = 0
_noise = bytearray()


def _forked() -> None:
    global _lock, _noise
    _lock, _noise = threading.Lock(), bytearray()  # a thread of the parent may hold the lock


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def uuid7() -> str:
    """Return a UUIDv7 as text. It sorts after all earlier ones of this process, even if the clock was set back."""
    global _last
    with _lock:
        if not _noise:  # fetched in bulk: one system call per id would dominate its cost
            _noise.extend(os.urandom(4000))
        noise = int.from_bytes(_noise[-10:], "big")
        del _noise[-10:]
        ms = time.time_ns() // 1_000_000
        n = ms << 80 | 7 << 76 | (noise >> 68) << 64 | 2 << 62 | noise & (1 << 62) - 1
        _last = n = n if n > _last else _last + 1
    h = f"{n:032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def new_id(prefix: str) -> str:
    """Return `prefix-<uuid7>`, for example `session-0199…`."""
    return f"{prefix}-{uuid7()}"


class UniqueIds:
    """Makes ids from elsewhere, such as those of tool calls, unique by a suffix."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def take(self, id: str) -> str:
        """Return `id`, or `id-2`, `id-3`, … if it was taken before."""
        unique, number = id, 2
        while unique in self._seen:
            unique, number = f"{id}-{number}", number + 1
        self._seen.add(unique)
        return unique

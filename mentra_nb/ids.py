"""Identifiers: a readable prefix and a UUIDv7, which sorts by time and always rises within a process."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterable

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


def short_id(id: str) -> str:
    """Return the prefix of an id and the end of its random part, such as `rule-3f2a9c`, for a person to read."""
    prefix, dash, rest = id.partition("-")
    return f"{prefix}-{rest[-6:]}" if dash else id


MAX_LENGTH = 64
"""Characters of an id or a name that every provider accepts."""
_SUFFIX = 12
"""Characters kept free for the suffix of an id that is taken more than once."""


def clean_id(id: str) -> str:
    """Return the id with the characters every provider accepts, `[a-zA-Z0-9_-]`, and at most 64 of them."""
    return _cut(_clean(id), MAX_LENGTH) or "call"


def clean_name(name: str) -> str:
    """Return the name of a tool with the characters every provider accepts, `[a-zA-Z0-9_-]`, and at most 64 of them."""
    return _cut(_clean(name), MAX_LENGTH) or "unnamed"


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", lambda match: f"_{ord(match[0]):x}", text)


def _cut(text: str, limit: int) -> str:
    """Return the text, or its beginning and a digest of all of it if it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{text[: limit - 17]}-{digest}"


class UniqueIds:
    """Makes ids from elsewhere, such as those of tool calls, unique by a suffix. `taken` are in use already."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._seen: set[str] = set(taken)
        self._next: dict[str, int] = {}

    def take(self, id: str) -> str:
        """Return `id`, or `id-2`, `id-3`, … if it was taken before; at most 64 characters if `id` has no more."""
        if id not in self._seen:
            self._seen.add(id)
            return id
        stem, number = _cut(id, MAX_LENGTH - _SUFFIX), self._next.get(id, 2)
        while (unique := f"{stem}-{number}") in self._seen:
            number += 1
        self._next[id] = number + 1
        self._seen.add(unique)
        return unique

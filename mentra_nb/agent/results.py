"""Limits of a tool's result, and the results of calls that did not run to their end."""

from __future__ import annotations

import json
from typing import Any

MAX_RESULT_LINES = 2_000
MAX_RESULT_BYTES = 50 * 1024
NOTICE_BYTES = 200
"""Room for the notice of what was left out."""
SKIPPED = "interrupted while it ran: it may have taken effect, and was not run again"
STOPPED = "stopped before it finished; it may have taken effect"
NOT_RUN = "not executed: the turn was stopped"


def limited(content: Any) -> Any:
    """Return a result within 2,000 lines and 50 KiB of text: its head and tail with a notice in between.

    What is kept ends at line ends where there are any, else at characters. JSON is replaced, not cut.
    """
    if not isinstance(content, str):
        size = len(json.dumps(content, ensure_ascii=False, default=str).encode())
        if size <= MAX_RESULT_BYTES:
            return content
        return f"[the result is JSON of {size} bytes, over the limit of {MAX_RESULT_BYTES}: ask for less of it]"
    raw = content.encode("utf-8", "replace")
    lines = content.count("\n") + 1
    if len(raw) <= MAX_RESULT_BYTES and lines <= MAX_RESULT_LINES:
        return content
    room = MAX_RESULT_BYTES - NOTICE_BYTES
    head = _kept(raw[: room * 2 // 3], MAX_RESULT_LINES * 2 // 3, from_end=False)
    tail = _kept(raw[len(raw) - room // 3 :], MAX_RESULT_LINES // 3, from_end=True)
    left = len(raw) - len(head.encode()) - len(tail.encode())
    notice = f"[… {left} of {len(raw)} bytes left out; {lines} lines in all …]"
    return "\n".join([head.removesuffix("\n"), notice, tail.removeprefix("\n")])


def _kept(raw: bytes, lines: int, *, from_end: bool) -> str:
    """Return at most so many whole lines of the beginning or end of a text; part of a line if it has only one."""
    if from_end:
        at = raw.find(b"\n")
        raw = raw[at + 1 :] if 0 <= at < len(raw) - 1 else raw
        while raw and raw[0] & 0xC0 == 0x80:  # the rest of a character
            raw = raw[1:]
        return "\n".join(raw.decode("utf-8", "ignore").split("\n")[-lines:])
    at = raw.rfind(b"\n")
    raw = raw[:at] if at > 0 else raw
    return "\n".join(raw.decode("utf-8", "ignore").split("\n")[:lines])


def in_words(error: BaseException) -> str:
    """Return an error as `Type: message`, also when its `str` raises."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - foreign code
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

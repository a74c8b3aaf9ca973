"""Limits of a tool's result, and the results of calls that did not run to their end."""

from __future__ import annotations

import json
from typing import Any

from mentra_nb.errors import MentraError
from mentra_nb.tools.clipping import MAX_RESULT_BYTES, MAX_RESULT_LINES, clipped
from mentra_nb.tools.waiting_thread import STOPPED
from mentra_nb.words import counted

__all__ = ["MAX_RESULT_BYTES", "MAX_RESULT_LINES", "NOT_RUN", "SKIPPED", "STOPPED", "bounded", "in_words", "limited"]

MAX_REFUSAL_BYTES, MAX_REFUSAL_LINES = 4_000, 60
SKIPPED = "interrupted while it ran: it may have taken effect, and was not run again"
NOT_RUN = "not executed: the turn was stopped"


def limited(content: Any) -> Any:
    """Return a result within 2,000 lines and 50 KiB of text: its head and tail with a notice in between.

    JSON is replaced, not cut.
    """
    if not isinstance(content, str):
        size = len(json.dumps(content, ensure_ascii=False, default=str).encode())
        if size <= MAX_RESULT_BYTES:
            return content
        return f"[the result is JSON of {size} bytes, over the limit of {MAX_RESULT_BYTES}: ask for less of it]"
    notice = (
        f"[… {{left}} of {len(content.encode('utf-8', 'replace'))} bytes left out; "
        f"{counted(content.count(chr(10)) + 1, 'line')} in all …]"
    )
    return clipped(content, MAX_RESULT_BYTES, MAX_RESULT_LINES, notice)


def bounded(text: str) -> str:
    """Return the text of a refusal within 4,000 bytes: it may quote what the model sent."""
    return clipped(text, MAX_REFUSAL_BYTES, MAX_REFUSAL_LINES, "[… {left} bytes left out …]")


def in_words(error: BaseException) -> str:
    """Return an error as `Type: message`, one of ours as its message, a use of the wrong thread with what to do.

    Its `str` may raise.
    """
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - foreign code
        text = ""
    if isinstance(error, MentraError) and text:
        return text
    if "same thread" in text and type(error).__module__ == "sqlite3":
        text += (
            ". A tool runs on a thread of its own: connect inside the tool, "
            "or with sqlite3.connect(..., check_same_thread=False)"
        )
    return f"{type(error).__name__}: {text}" if text else type(error).__name__

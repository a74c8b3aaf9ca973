"""Limits of a tool's result, and the results of calls that did not run to their end."""

from __future__ import annotations

import json
from typing import Any

from mentra_nb.errors import MentraError
from mentra_nb.tools.clipping import MAX_RESULT_BYTES, MAX_RESULT_LINES, clipped
from mentra_nb.tools.needed import read_on
from mentra_nb.tools.waiting_thread import STOPPED
from mentra_nb.words import counted

__all__ = [
    "APPROVED",
    "MAX_RESULT_BYTES",
    "MAX_RESULT_LINES",
    "NOT_RUN",
    "SKIPPED",
    "STOPPED",
    "STOPPED_TRIAL",
    "bounded",
    "in_words",
    "limited",
    "shortened",
]

MAX_KEPT_BYTES = 16 * 1024 * 1024
MAX_REFUSAL_BYTES, MAX_REFUSAL_LINES = 4_000, 60
SKIPPED = "interrupted while it ran: it may have taken effect, and was not run again"
NOT_RUN = "not executed: the turn was stopped"
APPROVED = "[The user approved this plan"
"""How the message begins after which a turn that planned does more than read."""
STOPPED_TRIAL = "stopped in the sandbox: it changed nothing"


def limited(content: Any) -> Any:
    """Return a result within 2,000 lines and 50 KiB of text: its head and tail with a notice in between.

    JSON is replaced, not cut.
    """
    return shortened(content, None)[0]


def shortened(content: Any, call_id: str | None) -> tuple[Any, str | None]:
    """Return what a model reads of a result, as `limited` does, and the whole as text where that is not all of it.

    The notice says how to read on in the result of that call; without an id nobody can, and nothing is kept.
    """
    if not isinstance(content, str):
        size = _bytes(json.dumps(content, ensure_ascii=False, default=str))
        if size <= MAX_RESULT_BYTES:
            return content, None
        about = f"[the result is JSON of {size} bytes, over the limit of {MAX_RESULT_BYTES}"
        if call_id is None:
            return f"{about}: ask for less of it]", None
        whole = json.dumps(content, ensure_ascii=False, indent=1, default=str)
        return f"{about}: read its {_lines(whole)} with {read_on(call_id, 1)}]", kept(whole)
    notice = f"[… {{left}} of {_bytes(content)} bytes left out; {_lines(content)} in all"
    if call_id is not None:
        id = call_id.replace("{", "{{").replace("}", "}}")
        notice += f"; go on with {read_on(id, '{line}')}"
    shown = clipped(content, MAX_RESULT_BYTES, MAX_RESULT_LINES, f"{notice} …]")
    return shown, None if shown == content or call_id is None else kept(content)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _lines(text: str) -> str:
    return counted(text.count("\n") + 1, "line")


def kept(whole: str) -> str:
    """Return the text of a result that is stored: all of it up to 16 MiB, else its beginning and end."""
    return clipped(whole, MAX_KEPT_BYTES, whole.count("\n") + 1, "[… {left} bytes left out …]")


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

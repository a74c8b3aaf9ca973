"""Limits of the text that a model reads: what is over them keeps its beginning and its end."""

from __future__ import annotations

from mentra_nb.secrets.late import late
from mentra_nb.secrets.mask import without_first_part, without_last_part

MAX_RESULT_LINES = 2_000
MAX_RESULT_BYTES = 50 * 1024

_CONTROL = late(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # titles and links
    r"|[PX^_][^\x1b\n]*(?:\x1b\\)?"  # strings for the terminal
    r"|[ -/]*[0-~])"
)
_OVERSTRUCK = late(r"[^\n\x08]\x08")


def clipped(text: str, max_bytes: int, max_lines: int, notice: str) -> str:
    """Return a text within the limits: two thirds from its beginning, one from its end, the notice in between.

    What is kept ends at line ends where that costs less than half of it, else at the ends of words, so that no half of
    a key is left. `notice` may have `{left}` for the bytes left out and `{line}` for the number of the first line that
    is not whole; `max_bytes` must have room for it.
    """
    raw = text.encode("utf-8", "replace")
    if len(raw) <= max_bytes and text.count("\n") < max_lines:
        return text
    room = max_bytes - len(notice.encode()) - 32  # for the number and two line ends
    head = _kept(raw[: room * 2 // 3], max_lines * 2 // 3, from_end=False)
    tail = _kept(raw[len(raw) - room // 3 :], max_lines // 3, from_end=True)
    left = len(raw) - len(head.encode()) - len(tail.encode())
    head, tail = head.removesuffix("\n"), tail.removeprefix("\n")
    line = head.count("\n") + (2 if text.startswith("\n", len(head)) else 1)
    return "\n".join([head, notice.format(left=left, line=line), tail])


def _kept(raw: bytes, lines: int, *, from_end: bool) -> str:
    """Return at most so many lines of the beginning or end of a text, whole but for one that is half of it."""
    if from_end:
        at = raw.find(b"\n")
        at = at if at < len(raw) // 2 else -1
        raw = raw[at + 1 :]
        while raw and raw[0] & 0xC0 == 0x80:  # the rest of a character
            raw = raw[1:]
        text = raw.decode("utf-8", "ignore")
        return "\n".join((text if at >= 0 else without_first_part(text)).split("\n")[-lines:])
    at = raw.rfind(b"\n")
    whole = at >= len(raw) // 2 > 0
    text = (raw[:at] if whole else raw).decode("utf-8", "ignore")
    return "\n".join((text if whole else without_last_part(text)).split("\n")[:lines])


def as_printed(text: str) -> str:
    """Return what a terminal would show in the end: without control codes, of each redrawn line the last state."""
    if "\x1b" in text:
        text = _CONTROL.sub("", text)
    if "\x08" in text:
        text = _OVERSTRUCK.sub("", text).replace("\x08", "")
    if "\r" in text:
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return text

"""The traceback of code as a model needs it: the user's own frames, and where in a library it ended."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

MAX_CHAIN = 3
"""Exceptions of a chain that are shown."""
MAX_FRAMES = 20
"""Frames of one exception that are shown."""


def trimmed(error: BaseException, namespace: dict[str, Any], code_name: str) -> str:
    """Return the traceback of an error, with the frames of code in `namespace` and of files in the working folder.

    `code_name` is the file name of the code that ran, whose frames are named by their lines only.
    """
    parts = [_one(each, namespace, code_name) for each in _chain(error)]
    return "\n\n".join(parts)


def trimmed_of(error: BaseException) -> str:
    """Return the traceback of an error that a cell raised, with the frames of the cells and of the working folder."""
    frame = next((step for step in _steps(error) if step.f_globals.get("__name__") == "__main__"), None)
    return trimmed(error, frame.f_globals if frame else {}, frame.f_code.co_filename if frame else "")


def _steps(error: BaseException) -> Iterator[FrameType]:
    step = error.__traceback__
    while step is not None:
        yield step.tb_frame
        step = step.tb_next


def line_of(error: BaseException, code_name: str) -> int | None:
    """Return the line of the code compiled under this name in which an error was raised; `None` if none of it ran."""
    lines = (line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == code_name)
    return next(lines, None)


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error with what caused it, the cause first."""
    found: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and len(found) < MAX_CHAIN and each not in found:
        found.insert(0, each)
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return found


def _one(error: BaseException, namespace: dict[str, Any], code_name: str) -> str:
    lines, last = [], ""
    step: TracebackType | None = error.__traceback__
    while step is not None:
        frame, number = step.tb_frame, step.tb_lineno
        if frame.f_globals is namespace or _is_in_working_folder(frame):
            lines.append(_frame(frame, number, code_name))
            last = ""
        elif lines:
            last = f"  … in {_short(frame.f_code.co_filename)}, line {number}, in {frame.f_code.co_name}"
        step = step.tb_next
    if len(lines) > MAX_FRAMES:
        half = MAX_FRAMES // 2
        lines = [*lines[:half], f"  … {len(lines) - 2 * half} more frames", *lines[-half:]]
    head = ["Traceback (most recent call last):", *lines] if lines else []
    return "\n".join([*head, *([last] if last else []), _said(error, code_name)])


def _frame(frame: FrameType, number: int, code_name: str) -> str:
    code = frame.f_code
    where = "" if code.co_filename == code_name else "an earlier cell, "
    if frame.f_globals.get("__name__") != "__main__":
        where = f"{code.co_filename}, "
    named = f", in {code.co_name}" if code.co_name not in ("<module>", "<cell line: 1>") else ""
    named = "" if named.startswith(", in <cell line") else named
    source = linecache.getline(code.co_filename, number).strip()
    return f"  {where}line {number}{named}" + (f": {source}" if source else "")


def _said(error: BaseException, code_name: str) -> str:
    """Return the type and text of an error. Its `str` may raise."""
    try:
        text = "".join(traceback.format_exception_only(error)).rstrip("\n")
    except BaseException as raised:  # noqa: BLE001 - the text of an error is the user's code as well
        text = f"{type(error).__name__} (its text raised {type(raised).__name__})"
    return text.replace(f'File "{code_name}", ', "")


def _is_in_working_folder(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    if name.startswith("<") or "site-packages" in name:
        return False
    try:
        return Path(name).is_relative_to(Path.cwd())
    except OSError:  # the working folder is gone
        return False


def _short(name: str) -> str:
    return name.rpartition("site-packages/")[2] or name

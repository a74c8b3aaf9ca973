"""Files that a question refers to: those of the working folder, without the protected ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mentra_nb.chat.references.objects import text_part
from mentra_nb.chat.references.pictures import bytes_part, media_type
from mentra_nb.chat.references.reference import Part
from mentra_nb.effect.handles import parent
from mentra_nb.errors import ConfigurationError, OperationDenied
from mentra_nb.permission.policy import RuntimePolicy, as_given
from mentra_nb.permission.protected import guard_of
from mentra_nb.tools.builtin.files.text import LOOKED_AT, decoded, is_binary
from mentra_nb.tools.schema import ToolError

MAX_PICTURE = 16 << 20
"""Bytes of the largest file of a picture that is read."""


def file_part(path: str, room: int, policy: RuntimePolicy) -> Part:
    """Return the part of a file: its text, cut at `room` characters, or its picture. Raises as `opened`."""
    with opened(path, policy) as file:
        size = file.seek(0, 2)
        file.seek(0)
        return _part(file, path, size, room)


@contextmanager
def opened(path: str, policy: RuntimePolicy) -> Iterator[BinaryIO]:
    """Open a file that may be handed over, for reading.

    Raises:
        OperationDenied: the file is outside of what may be read, or protected.
        ConfigurationError: it cannot be read.
    """
    folder = Path.cwd()
    target = policy.readable(folder, path)
    found = guard_of((as_given(folder, path), target), "read")
    if found is not None:
        raise OperationDenied(
            f"{path} is not handed over, because {found.why}: name a variable with what is needed of it"
        )
    try:
        with parent(str(target)) as (above, name), above.open(name) as file:
            yield file
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _part(file: BinaryIO, path: str, size: int, room: int) -> Part:
    raw = file.read(max(4 * room, LOOKED_AT))
    if media_type(raw) is not None:
        if size > MAX_PICTURE:
            return Part(f"file of {size:,} bytes, a picture too large to be read")
        return bytes_part("file with a picture", raw + file.read(MAX_PICTURE))
    head = f"file of {size:,} bytes"
    if is_binary(raw[:LOOKED_AT]):
        return Part(f"{head}, not text: name a variable with what is needed of it")
    text = _text(raw, path, is_whole=len(raw) == size)
    if text is None:
        return Part(f"{head}, in an encoding that is not known")
    part = text_part(head, text, room)
    if len(raw) < size:
        return Part(part.head, part.body, cut=f"the first {len(part.body):,} characters of a file of {size:,} bytes")
    return part


def _text(raw: bytes, path: str, *, is_whole: bool) -> str | None:
    for shorter in range(1 if is_whole else 4):  # the cut may be within a character
        try:
            return decoded(raw[: len(raw) - shorter], path)[0]
        except ToolError:
            continue
    return None

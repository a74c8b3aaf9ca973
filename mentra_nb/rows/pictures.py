"""What a row holds that is no text: pictures, and the content of files by their paths, as a prompt takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mentra_nb.chat.references.files import file_part, opened
from mentra_nb.chat.references.pictures import bytes_part, picture_part
from mentra_nb.chat.references.reference import File, Part
from mentra_nb.content import Image, Text
from mentra_nb.errors import ConfigurationError, MentraError
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.rows.template import Template, as_text

MOST_CHARACTERS = 200_000
"""Of a text file."""
_PIECE = 1 << 20
"""Bytes that are read at once."""
_PLAIN = (str, int, float, bool, type(None))


def held(template: Template, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row that stand in the prompt as pictures or files, by the names in its braces.

    Those are bytes, pictures of Pillow, figures of matplotlib, `mn.Image`, each `Path`, and what is named with `@`.
    """
    if not template.files and all(isinstance(value, _PLAIN) for value in values.values()):
        return {}
    found = {name: _held(values[column], name in template.files) for name, column in template.names.items()}
    return {name: value for name, value in found.items() if value is not None}


def _held(value: Any, is_path: bool) -> Any:
    if is_path or isinstance(value, Path):
        path = as_text(value)
        return File(path) if path else None
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    is_drawn = type(value).__module__.partition(".")[0] in ("PIL", "matplotlib")
    return value if is_drawn or isinstance(value, Image) else None


def block(value: Any, policy: RuntimePolicy) -> Image | Text:
    """Return a value that `held` returned as the model reads it.

    Raises:
        OperationDenied: the file is outside of what may be read, or protected.
        ConfigurationError: it cannot be read, is neither a picture nor a text, or is too large.
    """
    if isinstance(value, File):
        part, what = file_part(value.path, MOST_CHARACTERS, policy), value.path
    elif isinstance(value, bytes):
        part, what = bytes_part("bytes", value), "a value"
    else:
        part, what = picture_part(value) or Part(f"{type(value).__name__} is no picture"), "a value"
    if part.image is not None:
        return part.image
    if part.cut is not None:
        raise ConfigurationError(f"{what} cannot be sent whole: it has more than {MOST_CHARACTERS:,} characters")
    if not part.body:
        raise ConfigurationError(f"{what} cannot be sent: {part.head}")
    return Text(text=part.body)


def digest(value: Any, policy: RuntimePolicy) -> str:
    """Return the digest of what a value that `held` returned contains; if it cannot be read, of what it is."""
    try:
        if isinstance(value, File):
            with opened(value.path, policy) as file:
                made = hashlib.sha256()
                for piece in iter(lambda: file.read(_PIECE), b""):
                    made.update(piece)
                return made.hexdigest()
        raw = value if isinstance(value, bytes) else block(value, policy).model_dump_json().encode()
    except MentraError:
        raw = f"not read: {value!r}".encode()
    return hashlib.sha256(raw).hexdigest()

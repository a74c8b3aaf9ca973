"""The text of a file and its bytes: encoding, byte order mark and line ends are kept when the text is changed."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from mentra_nb.tools.builtin.files.encodings import guessed
from mentra_nb.tools.schema import ToolError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
LOOKED_AT = 8_192
"""Bytes at the beginning of a file by which it is taken for text or not."""


@dataclass(frozen=True)
class TextForm:
    """How a text is written as bytes."""

    encoding: str = "utf-8"
    mark: bytes = b""
    """The byte order mark."""
    carriage_returns: bool = False
    """Whether every line ends in `\\r\\n`."""

    def encoded(self, text: str, shown: str) -> bytes:
        """Return the bytes of a text. Raises `ToolError` when it has characters that cannot be written."""
        if self.carriage_returns:
            text = text.replace("\r\n", "\n").replace("\n", "\r\n")
        try:
            return self.mark + text.encode(self.encoding)
        except UnicodeEncodeError as error:
            wrong, line = text[error.start], text.count("\n", 0, error.start) + 1
            raise ToolError(
                f"{wrong!a} in line {line} of the new text of '{shown}' cannot be written in its encoding, "
                f"{self.encoding}"
            ) from None


def mark_of(raw: bytes) -> tuple[bytes, str]:
    """Return the byte order mark that bytes begin with, and the encoding it stands for; without one, UTF-8."""
    return next(((mark, name) for mark, name in _MARKS if raw.startswith(mark)), (b"", "utf-8"))


def encoding_of(raw: bytes, shown: str) -> tuple[bytes, str]:
    """Return the byte order mark of a text, which may be empty, and its encoding, guessed if it is not UTF-8.

    Raises `ToolError` for bytes that are not text.
    """
    mark, encoding = mark_of(raw)
    try:
        raw[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        found = None if mark else guessed(raw, error.start)
        if found is None:
            raise ToolError(f"'{shown}' is not text") from None
        encoding = found
    return mark, encoding


def decoded(raw: bytes, shown: str) -> tuple[str, TextForm]:
    """Return the text of a file, with `\\n` at the ends of its lines if they all end alike, and its form.

    Raises `ToolError` for bytes that are not text.
    """
    mark, encoding = encoding_of(raw, shown)
    text = raw[len(mark) :].decode(encoding)
    lines = text.count("\n")
    carriage_returns = lines > 0 and text.count("\r\n") == lines == text.count("\r")
    if carriage_returns:
        text = text.replace("\r\n", "\n")
    return text, TextForm(encoding, mark, carriage_returns)


def editable(raw: bytes, shown: str) -> tuple[str, TextForm]:
    """Return what `decoded` does. Raises `ToolError` also for a text that would not be the same bytes when written."""
    text, form = decoded(raw, shown)
    if form.encoded(text, shown) != raw:
        raise ToolError(f"'{shown}' cannot be edited: in its encoding, {form.encoding}, unchanged text is not kept")
    return text, form


def both_decoded(old: bytes, new: bytes) -> tuple[str, str]:
    """Return the texts of a file before and after a change, in one encoding. Raises `ToolError` if one is not text."""
    for raw in (old, new):
        _, encoding = encoding_of(raw, "")
        try:
            texts = old.decode(encoding), new.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in "".join(texts):
            return texts
    raise ToolError("this is not text, or not in one encoding")


def form_of(raw: bytes | None) -> TextForm:
    """Return the form of a file that gets a whole new text: its own, or the usual one if it has none."""
    try:
        return decoded(raw or b"", "")[1]
    except ToolError:
        return TextForm()


def is_binary(begin: bytes) -> bool:
    """Return whether the beginning of a file, `LOOKED_AT` bytes, is not that of a text."""
    return not mark_of(begin)[0] and b"\0" in begin[:LOOKED_AT]

"""What a tool returned, as a model reads it: text or JSON, short views of tables, and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_json

from mentra_nb.content import Image, is_too_deep
from mentra_nb.tools.pictures import MAX_IMAGE_BYTES, picture_in, size_of
from mentra_nb.tools.tables import table_in
from mentra_nb.tools.tool import ToolOutput
from mentra_nb.words import counted

MAX_IMAGES = 20
MAX_ALL_BYTES = 10_000_000
"""Of all pictures in a result: they are sent again with each request."""


def as_output(value: Any) -> ToolOutput:
    """Return what a tool returned as an output whose content is text or JSON.

    `None` is empty. Models, dataclasses and the like are dumped; of a table or array a short view is shown; pictures
    are sent as pictures, each with a line of text in its place. Anything else becomes its `str`, as does JSON that is
    nested too deep to be stored.
    """
    output = value if isinstance(value, ToolOutput) else ToolOutput(value)
    pictures = _Pictures()
    content = pictures.worded(output.content)
    for image in output.images:
        pictures.shown(image)
    details = None if output.details is None else as_content(output.details)
    return ToolOutput(content, output.terminate, tuple(pictures.kept), details)


def as_content(value: Any) -> Any:
    """Return what `as_output` makes of a value, without its pictures."""
    return as_output(value).content


class _Pictures:
    """The pictures in one result, in order."""

    def __init__(self) -> None:
        self.kept: list[Image] = []

    def worded(self, value: Any) -> Any:
        """Return a value as text or JSON, and keep its pictures."""
        if value is None:
            return ""
        if isinstance(value, BaseModel) and not isinstance(value, Image):
            value = value.model_dump(mode="json")
        if not isinstance(value, str):
            value = self._of_other(value)
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value

    def _of_other(self, value: Any) -> Any:
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            text.encode()
            return text if is_too_deep(value) else value
        except (TypeError, ValueError, RecursionError):
            pass
        if (told := self._part(value)) is not None:
            return told
        if isinstance(value, float | Iterator):
            return str(value)
        try:
            text = to_json(self._without_pictures(value), inf_nan_mode="strings", fallback=self._inside).decode()
            made = json.loads(text)
        except (TypeError, ValueError, RecursionError):
            return str(value)
        return text if is_too_deep(made) else made

    def _part(self, value: Any) -> str | None:
        """Return the text in place of a picture, table or the like, or `None` for anything else."""
        if (picture := picture_in(value)) is not None:
            return self.shown(picture)
        if (table := table_in(value)) is not None:
            return table
        if isinstance(value, bytes | bytearray | memoryview):
            raw = bytes(value)
            try:
                return raw.decode()
            except UnicodeDecodeError:
                return f"[{counted(len(raw), 'byte')} of an unknown kind]"
        return None

    def _without_pictures(self, value: Any) -> Any:
        """Return lists and dicts with text in place of pictures and bytes, which have a form in JSON already."""
        if isinstance(value, bytes | bytearray | Image):
            return self._part(value)
        if isinstance(value, list | tuple):
            return [self._without_pictures(each) for each in value]
        if isinstance(value, dict):
            return {key: self._without_pictures(each) for key, each in value.items()}
        return value

    def _inside(self, value: Any) -> Any:
        """Return the JSON in place of an object inside a list, dict or dataclass."""
        if (told := self._part(value)) is not None:
            return told
        number = getattr(value, "item", None)  # of a numpy scalar
        if callable(number) and type(value).__module__ == "numpy":
            return number()
        return str(value)

    def shown(self, picture: Any) -> str:
        """Keep a picture, and return the text in its place."""
        found = picture_in(picture)
        if found is None:
            raise TypeError(f"{type(picture).__name__} is not a picture")
        if found in self.kept:
            return f"[picture {self.kept.index(found) + 1}]"
        size = size_of(found)
        if size > MAX_IMAGE_BYTES:
            return f"[a picture of {counted(size, 'byte')} is left out: the limit is {MAX_IMAGE_BYTES}]"
        if len(self.kept) == MAX_IMAGES:
            return f"[a picture is left out: a result has at most {MAX_IMAGES}]"
        if sum(map(size_of, self.kept)) + size > MAX_ALL_BYTES:
            return f"[a picture is left out: all of a result may have {MAX_ALL_BYTES} bytes]"
        self.kept.append(found)
        about = f"{found.media_type}, {counted(size, 'byte')}" if found.url is None else found.url
        return f"[picture {len(self.kept)}: {about}]"

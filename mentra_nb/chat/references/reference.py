"""What a question refers to, and its part of the message."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mentra_nb.content import Image


@dataclass(frozen=True)
class File:
    """A file of the working folder whose content is handed over, by its path as it was written."""

    path: str


@dataclass(frozen=True)
class Reference:
    """A value under the name that the model reads for it, such as `@sales`."""

    label: str
    value: Any


@dataclass(frozen=True)
class Part:
    """A value as the model reads it."""

    head: str
    """What it is, in one line."""
    body: str = ""
    """More about it: any lines."""
    image: Image | None = None
    cut: str | None = None
    """What of it is left out because of a bound."""


def references_to(objects: Iterable[Any]) -> tuple[Reference, ...]:
    """Return references to objects that code gave, named by their place. A `Path` stands for the file's content."""
    return tuple(
        each if isinstance(each, Reference) else Reference(f"object {number}", _as_file(each))
        for number, each in enumerate(objects, 1)
    )


def _as_file(value: Any) -> Any:
    return File(str(value)) if isinstance(value, Path) else value

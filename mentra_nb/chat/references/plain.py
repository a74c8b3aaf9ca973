"""Values as short text, without secrets. No code of a value's class runs unless the class is of a known library."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

from mentra_nb.namespace.describe import kind_of, outline
from mentra_nb.namespace.kept import instance_dict, mro
from mentra_nb.secrets.mask import REDACTED, mask_secrets, without_last_part
from mentra_nb.secrets.names import is_secret_flag
from mentra_nb.secrets.tree import mask_values

MAX_ITEMS = 10
"""Elements of a container that are written out."""
MAX_NESTED = 3
"""Levels of containers in containers."""
_PRINTED = frozenset(
    {"datetime", "decimal", "fractions", "ipaddress", "numpy", "pandas", "pathlib", "uuid", "zoneinfo"}
)
"""Libraries whose values are safe to print, if they hold no others."""
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]")
"""Characters that control a terminal, reorder others, are invisible letters, or cannot be sent."""


def beginning(text: str, most: int) -> tuple[str, bool]:
    """Return at most `most` characters of a text, without secrets and hidden characters, and whether it was cut."""
    masked, is_cut = _masked(text, most)
    visible = _HIDDEN.sub(lambda found: repr(found[0])[1:-1], masked)
    return visible[:most], is_cut or len(visible) > most


def _masked(text: str, most: int) -> tuple[str, bool]:
    """Return at most `most` characters without secrets, also one that the cut would halve, and whether it was cut."""
    begin = text[:most]
    if len(text) > most:
        begin = without_last_part(begin) or begin
    masked = mask_secrets(begin)
    return masked[:most], len(text) > most or len(masked) > most


def plain(value: Any, most: int = 60, *, name: str = "", nested: int = MAX_NESTED) -> str:
    """Return a value in one line of about `most` characters at most; an object only by its kind.

    `name` is that of the field or column it is in: one that stands for a secret hides the value.
    """
    text = _text(value, most, name, nested)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _text(value: Any, most: int, name: str, nested: int) -> str:
    cls = type(value)
    if cls in (bool, type(None)):
        return str(value)
    if issubclass(cls, Enum):
        member = (instance_dict(value) or {}).get("_name_")
        return f"{kind_of(value)}.{member}" if type(member) is str else kind_of(value)
    if issubclass(cls, int):
        return int.__repr__(value) if int.bit_length(value) < 1_000 else f"int of {int.bit_length(value):,} bits"
    if issubclass(cls, float | complex):
        return (float if issubclass(cls, float) else complex).__repr__(value)
    if issubclass(cls, str):
        return _quoted(str.__str__(value), most, name)
    for container in (dict, list, tuple, set, frozenset):
        if issubclass(cls, container):
            return _container(value, container, most, name, nested)
    if library(cls) in _PRINTED and not hasattr(cls, "__len__"):
        return mask_secrets(str(value)[: 2 * most])
    return f"<{outline(value)}>"


def _quoted(text: str, most: int, name: str) -> str:
    masked = mask_values({name: text[: 4 * most]}).get(name)
    if masked == REDACTED:
        return REDACTED
    short, is_cut = _masked(text, most)
    return f"{short!r}{'…' if is_cut else ''}"


def _container(value: Any, container: Any, most: int, name: str, nested: int) -> str:
    length = container.__len__(value)
    if length and mask_values({name: ["x"]}).get(name) == REDACTED:
        return REDACTED
    if not nested:
        return f"<{kind_of(value)} of {length:,}>"
    brackets = {list: "[]", tuple: "()"}.get(container, "{}")
    inner = (
        f"{plain(key, most)}: {plain(each, most, name=of, nested=nested - 1)}"
        if container is dict
        else plain(each, most, name=of, nested=nested - 1)
        for key, each, of in entries(value, container, MAX_ITEMS)
    )
    more = f", … {length - MAX_ITEMS:,} more" if length > MAX_ITEMS else ""
    return f"{brackets[0]}{', '.join(inner)}{more}{brackets[1]}"


def entries(value: Any, container: Any, most: int) -> Iterator[tuple[Any, Any, str]]:
    """Yield the first elements of a container: its key in a dictionary, itself, and the name that says what it is."""
    if container is dict:
        of_pair = dict.get(value, "name", dict.get(value, "key"))
        for key, each in itertools.islice(dict.items(value), most):
            yield key, each, of_pair if key == "value" and type(of_pair) is str else key if type(key) is str else ""
        return
    before: Any = None
    is_pair = container.__len__(value) == 2
    for each in itertools.islice(container.__iter__(value), most):
        names = container in (list, tuple) and type(before) is str and (is_pair or is_secret_flag(before))
        yield None, each, before.lstrip("-") if names else ""
        before = each


def library(cls: type) -> str:
    """Return the first part of the name of a class's module. Calls no code of its metaclass."""
    found = type.__dict__["__module__"].__get__(cls)
    return found.partition(".")[0] if isinstance(found, str) else ""


def is_of(value: Any, *libraries: str) -> bool:
    """Return whether the class of a value, or one that it inherits from, is of one of these libraries."""
    return any(library(cls) in libraries for cls in mro(type(value)))

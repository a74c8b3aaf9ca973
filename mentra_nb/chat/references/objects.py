"""Values that are no frames, files or pictures: text, containers, arrays, code, errors, and objects by their fields."""

from __future__ import annotations

import inspect
import itertools
import sys
from types import FunctionType, MemberDescriptorType, ModuleType
from typing import Any

from mentra_nb.chat.references.plain import beginning, entries, is_of, plain
from mentra_nb.chat.references.reference import Part
from mentra_nb.chat.reply import Reply
from mentra_nb.namespace.describe import MAX_COUNTED, kind_of, outline
from mentra_nb.namespace.kept import instance_dict, members, mro
from mentra_nb.namespace.tracebacks import trimmed_of
from mentra_nb.words import counted

MAX_ITEMS = 20
"""Elements of a container, and fields of an object, that are shown."""
MAX_ITEM = 200
"""Characters of each of them."""


def object_part(value: Any, room: int) -> Part:
    """Return the part of any value, in about `room` characters at most."""
    cls = type(value)
    if issubclass(cls, str):
        return text_part(f"text of {str.__len__(value):,} characters", str.__str__(value), room)
    if issubclass(cls, Reply):
        return text_part("an earlier answer of a model", value.text, room)
    if issubclass(cls, BaseException):
        return text_part("an error", trimmed_of(value), room)
    if (code := source(value)) is not None:
        return text_part(outline(value), code, room)
    if issubclass(cls, ModuleType):
        return Part(f"module {plain(fields_of(value).get('__name__'))}")
    if (array := _array(value)) is not None:
        return array
    for container in (dict, list, tuple, set, frozenset):
        if issubclass(cls, container):
            return _container(value, container)
    return _object(value)


def text_part(head: str, text: str, room: int) -> Part:
    """Return the part of a text, without secrets, cut at `room` characters."""
    body, is_cut = beginning(text, room)
    return Part(head, body, cut=f"the first {len(body):,} of {len(text):,} characters" if is_cut else None)


def source(value: Any) -> str | None:
    """Return the source of a function or class of the user, if it can be found."""
    if not issubclass(type(value), FunctionType) and type(value) is not type:
        return None
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        return None


def _array(value: Any) -> Part | None:
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(type(value), numpy.ndarray):
        array = numpy.ndarray.view(value, numpy.ndarray)
        head, lines = f"{kind_of(value)} {array.shape}, {array.dtype}", []
        if array.dtype.kind in "biuf" and 0 < array.size <= MAX_COUNTED:
            lines.append(f"least {plain(array.min())}, mean {plain(array.mean())}, most {plain(array.max())}")
        if array.dtype.names is None:
            lines.append(f"first values: {', '.join(map(plain, array.flat[:MAX_ITEMS].tolist()))}")
        return Part(head, "\n".join(lines))
    if is_of(value, "torch", "jax", "jaxlib", "tensorflow", "cupy") and hasattr(value, "shape"):
        return Part(f"{kind_of(value)} {tuple(value.shape)}, {getattr(value, 'dtype', 'no type')}")
    return None


def _container(value: Any, container: Any) -> Part:
    length = container.__len__(value)
    lines = [
        f"{plain(key)}: {plain(each, MAX_ITEM, name=of)}" if container is dict else plain(each, MAX_ITEM, name=of)
        for key, each, of in entries(value, container, MAX_ITEMS)
    ]
    return _listed(outline(value), lines, length, "element")


def _object(value: Any) -> Part:
    """Return the part of an object: its public fields, read without running any code of its class."""
    hidden = _hidden(type(value))
    fields = {name: each for name, each in fields_of(value).items() if not name.startswith("_") and name not in hidden}
    lines = [
        f"{name}: {plain(each, MAX_ITEM, name=name)}" for name, each in itertools.islice(fields.items(), MAX_ITEMS)
    ]
    shown = plain(value, MAX_ITEM)
    head = f"an object of {kind_of(value)}" if shown.startswith("<") else shown
    return _listed(head, lines, len(fields), "field")


def _listed(head: str, lines: list[str], length: int, noun: str) -> Part:
    if length <= len(lines):
        return Part(head, "\n".join(lines))
    lines.append(f"… {length - len(lines):,} more")
    return Part(head, "\n".join(lines), cut=f"the first {counted(len(lines) - 1, noun)} of {length:,}")


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of an object by name, those in slots included. Calls no code of its class."""
    found: dict[str, Any] = {}
    for cls in mro(type(value)):
        for name, member in members(cls).items():
            if type(member) is MemberDescriptorType:
                try:
                    found.setdefault(name, member.__get__(value))
                except AttributeError:  # it is not set
                    continue
    own = instance_dict(value) or found.pop("__dict__", {})
    return found | {name: own[name] for name in list(own) if type(name) is str}


def _hidden(cls: type) -> set[str]:
    """Return the fields that a dataclass or a pydantic model keeps out of its own representation."""
    names: set[str] = set()
    for each in mro(cls):
        for table in ("__dataclass_fields__", "__pydantic_fields__"):
            fields = members(each).get(table)
            if type(fields) is dict:
                names |= {name for name, field in fields.items() if getattr(field, "repr", True) is False}
    return names

"""Type hints of a tool's parameters: what they say about them, and in the form that pydantic understands."""

from __future__ import annotations

import inspect
import sys
from enum import Enum
from functools import reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import typing_extensions
from pydantic import AfterValidator
from pydantic.fields import FieldInfo

_UNIONS = (Union, UnionType)
_MARKS = (typing_extensions.Required, typing_extensions.NotRequired)


def description_in(hint: Any) -> str | None:
    """Return what an `Annotated` hint says about a parameter: a `Field`'s description, a `Doc`, or plain text.

    That of `Annotated[int, "how many"] | None` counts too.
    """
    hint = _of_field(hint)
    for extra in getattr(hint, "__metadata__", ()):
        text = extra.description if isinstance(extra, FieldInfo) else getattr(extra, "documentation", extra)
        if isinstance(text, str) and text.strip():
            return inspect.cleandoc(text)
    inner = getattr(hint, "__origin__", None) if hasattr(hint, "__metadata__") else hint
    choices = [each for each in get_args(inner) if each is not type(None)] if get_origin(inner) in _UNIONS else []
    return description_in(choices[0]) if len(choices) == 1 else None


def descriptions_in(documented: Any, hints: dict[str, Any]) -> dict[str, str]:
    """Return what hints say about the parameters or fields of a function or class, else what its docstring says."""
    from docstring_parser import parse

    said = {each.arg_name: each.description for each in parse(inspect.getdoc(documented) or "").params}
    found = {name: description_in(hint) or said.get(name) for name, hint in hints.items()}
    return {name: text for name, text in found.items() if text}


def readable(hint: Any) -> Any:
    """Return a hint that pydantic reads as it is meant.

    Pydantic reads no `TypedDict` of `typing` before Python 3.12, and takes a choice that is a member of an `Enum` for
    the member itself, while a model sends its value.
    """
    return _readable(hint, {})


def _readable(hint: Any, known: dict[Any, Any]) -> Any:
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return _by_value(hint) if any(isinstance(each, Enum) for each in inner) else hint
    if is_typeddict(hint):
        return _typed_dict(hint, known) if sys.version_info < (3, 12) else hint
    if get_origin(hint) is Annotated:
        return Annotated[_readable(hint.__origin__, known), *hint.__metadata__]
    made = tuple(_readable(each, known) for each in inner)
    if all(one is other for one, other in zip(inner, made, strict=True)):
        return hint
    if isinstance(hint, UnionType):
        return reduce(or_, made)
    return hint.copy_with(made) if hasattr(hint, "copy_with") else get_origin(hint)[made]


def _by_value(hint: Any) -> Any:
    """Return a `Literal` of values for one of members of an `Enum`; what is read is the member."""
    members = {each.value if isinstance(each, Enum) else each: each for each in get_args(hint)}
    return Annotated[Literal[tuple(members)], AfterValidator(members.__getitem__)]


def _typed_dict(kind: Any, known: dict[Any, Any]) -> Any:
    """Return the `typing_extensions.TypedDict` with the same fields; one that contains itself stays as it is."""
    if kind not in known:
        known[kind] = kind
        needed, fields = kind.__required_keys__, {}
        for name, hint in get_type_hints(kind, include_extras=True).items():
            unmarked = typing_extensions.Required if name in needed else typing_extensions.NotRequired
            mark: Any = get_origin(hint) if get_origin(hint) in _MARKS else unmarked
            fields[name] = mark[_readable(_of_field(hint), known)]
        known[kind] = typing_extensions.TypedDict(kind.__name__, fields)  # type: ignore[operator]
        known[kind].__doc__ = kind.__doc__
    return known[kind]


def _of_field(hint: Any) -> Any:
    """Return the hint of a field of a `TypedDict` without the mark that it is required or not."""
    return get_args(hint)[0] if get_origin(hint) in _MARKS else hint

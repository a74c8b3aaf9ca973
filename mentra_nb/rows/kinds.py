"""What a column of answers holds, by its type: the dtype in pandas, and in any other frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, date, datetime
from enum import Enum
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, RootModel
from typing_extensions import is_typeddict

if TYPE_CHECKING:
    import narwhals as nw

Word = Literal["text", "bool", "int", "float", "date", "datetime", "category", "list", "struct"]
_PLAIN: dict[Any, Word] = {
    str: "text",
    bool: "bool",
    int: "int",
    float: "float",
    date: "date",
    datetime: "datetime",
}


class Kind(NamedTuple):
    """The kind of value in a column."""

    word: Word
    choices: tuple[Any, ...] = ()
    """The categories."""
    parts: tuple[tuple[str, Kind], ...] = ()
    """The fields of a struct, or the one kind of a list's items under the empty name."""


def kind_of(hint: Any) -> Kind:
    """Return the kind of a type hint. What has no kind of its own is text: its JSON."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return kind_of(inner[0])
    if origin in (Union, UnionType):
        some = [each for each in inner if each is not type(None)]
        return kind_of(some[0]) if len(some) == 1 else Kind("text")
    if origin is Literal:
        return Kind("category", tuple(each.value if isinstance(each, Enum) else each for each in inner))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return Kind("category", tuple(each.value for each in hint))
    if hint in _PLAIN:
        return Kind(_PLAIN[hint])
    if origin in (list, set, frozenset, Sequence) or (origin is tuple and inner[1:] == (...,)):
        return Kind("list", parts=(("", kind_of(inner[0])),))
    if (fields := fields_of(hint)) is not None:
        return Kind("struct", parts=tuple((name, kind_of(each)) for name, each in fields.items()))
    return Kind("text")


def fields_of(hint: Any) -> dict[str, Any] | None:
    """Return the fields of a dataclass, a `TypedDict` or a pydantic model, with their types; else `None`."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        if issubclass(hint, RootModel):
            return None
        return {name: each.annotation for name, each in hint.model_fields.items()}
    if is_typeddict(hint):
        return get_type_hints(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint)
        return {each.name: hints[each.name] for each in dataclasses.fields(hint)}
    return None


def pandas_column(kind: Kind, values: list[Any], *, in_utc: bool = False) -> Any:
    """Return the values as an array of pandas, missing ones null. With `in_utc`, datetimes are in UTC in any case."""
    import pandas as pd

    array: Any = pd.array  # its types name every dtype apart
    match kind.word:
        case "category":
            return pd.Categorical(values, categories=list(dict.fromkeys(kind.choices)))
        case "date" | "datetime":
            in_utc = kind.word == "datetime" and (in_utc or _is_zoned(values))
            times = pd.to_datetime(_in_utc(values) if in_utc else values, utc=in_utc)
            return array(times.astype("datetime64[us, UTC]" if in_utc else "datetime64[us]"))
        case "list" | "struct":
            try:
                dtype = pd.ArrowDtype(arrow_type(kind))
            except ImportError:
                return array(pd.Series(values, dtype=object))
            return array(values, dtype=dtype)
    dtypes = {"bool": "boolean", "int": "Int64", "float": "float64", "text": "string"}
    return array(values, dtype=dtypes[kind.word])


def _is_zoned(values: list[Any]) -> bool:
    return any(isinstance(each, datetime) and each.tzinfo is not None for each in values)


def _in_utc(values: list[Any]) -> list[Any]:
    return [each and (each if each.tzinfo else each.replace(tzinfo=UTC)).astimezone(UTC) for each in values]


def arrow_type(kind: Kind) -> Any:
    """Return the type in Arrow. Raises `ImportError` without pyarrow."""
    import pyarrow as pa

    match kind.word:
        case "list":
            return pa.list_(arrow_type(kind.parts[0][1]))
        case "struct":
            return pa.struct([(name, arrow_type(part)) for name, part in kind.parts])
        case "category":
            return arrow_type(_of_choices(kind))
    types = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "text": pa.string(), "date": pa.date32()}
    return types.get(kind.word) or pa.timestamp("us", "UTC")


def _of_choices(kind: Kind) -> Kind:
    """Return the kind of the categories themselves."""
    types = {type(each) for each in kind.choices}
    return Kind(_PLAIN.get(types.pop(), "text") if len(types) == 1 else "text")


def other_column(kind: Kind, name: str, values: list[Any], backend: Any) -> nw.Series[Any]:
    """Return the values as a column of another frame than one of pandas, missing ones null."""
    import narwhals as nw

    if kind.word == "datetime":
        values = _in_utc(values)
    return nw.new_series(name, values, _narwhals_type(kind), backend=backend)


def _narwhals_type(kind: Kind) -> Any:
    import narwhals as nw

    match kind.word:
        case "list":
            return nw.List(_narwhals_type(kind.parts[0][1]))
        case "struct":
            return nw.Struct({name: _narwhals_type(part) for name, part in kind.parts})
        case "datetime":
            return nw.Datetime("us", "UTC")
        case "category":
            of = _of_choices(kind)
            return nw.Categorical() if of.word == "text" else _narwhals_type(of)
    types: dict[str, Any] = {"bool": nw.Boolean, "int": nw.Int64, "float": nw.Float64, "text": nw.String}
    return types.get(kind.word, nw.Date)()

"""What the answer to a row is: text, or values of a type that become columns."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from mentra_nb.agent.output import OutputType
from mentra_nb.content import is_too_deep
from mentra_nb.errors import ConfigurationError, InvalidOutput
from mentra_nb.providers.base import ResponseFormat
from mentra_nb.rows.kinds import Kind, fields_of, kind_of
from mentra_nb.tools.hints import readable

_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)\n?\s*```", re.DOTALL)
_LARGEST = 2**63 - 1

Cells = tuple[Any, ...]
"""The values of one row, a value for each column."""


class Shape:
    """How a model is asked for a value of a type, and which columns that value fills."""

    def __init__(self, as_: Any) -> None:
        """Take a type as pydantic understands it. Raises `ConfigurationError` if no JSON Schema can describe it."""
        self.is_text: bool = as_ is str
        self._type = None if self.is_text else OutputType(as_)
        self._plain = TypeAdapter[Any](readable(as_))
        self._fields = fields_of(as_)
        fields = self._fields if self._fields is not None else {"": as_}
        self.columns: dict[str, Kind] = {name: kind_of(hint) for name, hint in fields.items()}
        """The kind of each column, by the name of the field; a type without fields has one under the empty name."""
        self.schema: dict[str, Any] | None = None if self._type is None else _closed(copy.deepcopy(self._type.schema))
        """The JSON Schema of the object that is asked for."""

    def format(self) -> ResponseFormat | None:
        """Return how the wire is asked for the answer; `None` for text."""
        if self.schema is None:
            return None
        return ResponseFormat("answer", self.schema, strict=_can_be_strict(self.schema))

    def instruction(self) -> str:
        """Return what a prompt says where the wire cannot hold answers to a schema."""
        return f"Answer with one JSON object and nothing else. It must fit this JSON Schema:\n{json.dumps(self.schema)}"

    def written(self, value: Any) -> str:
        """Return a value as an answer is written. Raises `ConfigurationError` if it does not fit the type."""
        if self._type is None:
            return str(value)
        plain = to_jsonable_python(value)
        given = {"value": plain} if self._type.is_wrapped else plain
        try:
            self._type.value(given)
        except InvalidOutput as error:
            raise ConfigurationError(f"the answer of an example does not fit: {error.problem}") from None
        return json.dumps(given, ensure_ascii=False)

    def read(self, text: str) -> Cells:
        """Return the values in an answer. Raises `InvalidOutput` if it does not fit the type."""
        if self._type is None:
            return (text.strip(),)
        value = self._type.value(self._object(text))
        plain = self._plain.dump_python(value)
        parts = [plain] if self._fields is None else [plain.get(name) for name in self._fields]
        return tuple(self._cell(part, kind) for part, kind in zip(parts, self.columns.values(), strict=True))

    def _object(self, text: str) -> dict[str, Any]:
        """Return the JSON object of an answer; a value alone is put into one where the type is not an object."""
        assert self._type is not None
        text = text.strip()
        fenced, brace = _FENCED.search(text), text.find("{")
        for candidate in (text, fenced[1] if fenced else "", text[brace:] if brace >= 0 else ""):
            try:
                found, end = json.JSONDecoder().raw_decode(candidate)
            except (ValueError, RecursionError):
                continue
            if not isinstance(found, dict) and end < len(candidate):  # such as the year of a date
                continue
            if is_too_deep(found):
                break
            if isinstance(found, dict) and not (self._type.is_wrapped and "value" not in found):
                return found
            if self._type.is_wrapped:
                return {"value": found}
        if self._type.is_wrapped and len(text) < 1_000:
            return {"value": text}
        raise InvalidOutput(self._type.name, "the answer is not a JSON object")

    def _cell(self, value: Any, kind: Kind) -> Any:
        assert self._type is not None
        if value is None:
            return None
        if kind.word == "text":
            return value if isinstance(value, str) else json.dumps(to_jsonable_python(value), ensure_ascii=False)
        plain = _plain(value)
        if any(isinstance(each, int) and not -_LARGEST <= each <= _LARGEST for each in _leaves(plain)):
            raise InvalidOutput(self._type.name, "a number has more than 64 bits")
        return plain


def _plain(value: Any) -> Any:
    """Return a value with lists for other sequences, and with the values of enumerations."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each)
    else:
        yield value


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield the parts of a schema that describe objects."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for each in schema.values():
            yield from _objects(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from _objects(each)


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Require all properties of every object and allow no others, as strict wires want it."""
    for part in _objects(schema):
        if "properties" in part:
            part["required"] = list(part["properties"])
            part["additionalProperties"] = False
            for each in part["properties"].values():
                each.pop("default", None)
    return schema


def _can_be_strict(schema: dict[str, Any]) -> bool:
    return all("properties" in part for part in _objects(schema))

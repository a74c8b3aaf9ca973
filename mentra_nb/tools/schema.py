"""Schemas of arguments: the JSON Schema that a model is shown, and how what it sends is parsed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError, to_jsonable_python

from mentra_nb.content import is_too_deep
from mentra_nb.errors import InvalidTool, MentraError
from mentra_nb.tools.hints import descriptions_in, readable

T = TypeVar("T")

MAX_MESSAGE = 500
"""Characters of what is said of arguments that do not fit."""


class ToolError(MentraError):
    """Raise it in a tool to fail with a text for the model.

    Example:
        >>> @mn.tool
        ... def temperature(city: str) -> float:
        ...     "Return the temperature of a city, in degrees Celsius."
        ...     raise mn.ToolError(f"there is no station in {city}")
    """

    details: Any = None
    """Any JSON value for the record, as `ToolOutput.details`."""


class Untitled(GenerateJsonSchema):
    """JSON Schema that every provider accepts, without what tells a model nothing.

    Generated titles, null defaults and defaults that are not JSON are left out. Every array has `items`. What the hints
    or the docstring of a class say about a field is the field's description.
    """

    def emit_warning(self, kind: Any, detail: str) -> None:
        """Emit nothing: a default or choice without a schema is left out, which needs no warning."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: Any) -> dict[str, Any]:
        made = super().default_schema(schema)
        return {key: value for key, value in made.items() if not (key == "default" and value is None)}

    def encode_default(self, dft: Any) -> Any:
        try:
            json.dumps(
                dft, allow_nan=False, default=partial(to_jsonable_python, inf_nan_mode="constants", fallback=str)
            )
        except (TypeError, ValueError, RecursionError) as error:  # a default with NaN would become one with null
            raise PydanticSerializationError(str(error)) from error
        return super().encode_default(dft)

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        return _described(super().dataclass_schema(schema), schema["cls"])

    def model_schema(self, schema: Any) -> dict[str, Any]:
        return _described(super().model_schema(schema), schema["cls"])

    def typed_dict_schema(self, schema: Any) -> dict[str, Any]:
        return _described(super().typed_dict_schema(schema), schema.get("cls"))

    def generate(self, schema: Any, mode: Any = "validation") -> dict[str, Any]:
        made = super().generate(schema, mode)
        _add_items(made)
        return made


def _described(schema: dict[str, Any], kind: Any) -> dict[str, Any]:
    """Give the properties of a class the descriptions that its hints or its docstring have, unless they have one."""
    if all("description" in part for part in schema.get("properties", {}).values()):
        return schema
    try:
        said = descriptions_in(kind, get_type_hints(kind, include_extras=True)) if kind is not None else {}
    except Exception:  # noqa: BLE001 - foreign hints, which pydantic has understood already
        said = {}
    for name, part in schema.get("properties", {}).items():
        if name in said and "description" not in part:
            part["description"] = said[name]
    return schema


def _add_items(schema: Any) -> None:
    """Give every array in a schema `items`: any of the kinds that its places have."""
    for name, part in schema.items() if isinstance(schema, dict) else enumerate(schema):
        if isinstance(part, dict | list) and name not in ("default", "const", "enum", "examples"):
            _add_items(part)
    if isinstance(schema, dict) and schema.get("type") == "array" and not isinstance(schema.get("items"), dict):
        kinds: list[Any] = []
        for place in schema.get("prefixItems", ()) if "maxItems" in schema else ():
            kind = {name: value for name, value in place.items() if name != "default"}
            kinds += [kind] if kind not in kinds else []
        schema["items"] = {"anyOf": kinds} if len(kinds) > 1 else dict(*kinds)


def schema_of(arguments: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema that a model is shown for these arguments. Raises `ValueError` if it is not JSON."""
    schema = arguments.model_json_schema(schema_generator=Untitled)
    schema.pop("title", None)
    schema.pop("description", None)
    json.dumps(schema, allow_nan=False)
    return schema


def check_describable(function: str, hints: dict[str, Any]) -> None:
    """Raise `InvalidTool` naming the first parameter whose type cannot be sent as JSON."""
    for name, hint in hints.items():
        try:
            TypeAdapter(readable(hint)).json_schema(schema_generator=Untitled)
        except Exception as error:
            shown = get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
            kind = getattr(shown, "__name__", None) or str(shown)
            raise InvalidTool(
                f"{function}() has a parameter no JSON Schema can describe: a model cannot send '{name}: {kind}'; "
                "take a name, a path or plain values such as list[dict] instead"
            ) from error


# ---- parsing ----------------------------------------------------------------------------------------------------


def validated(arguments: type[BaseModel], given: dict[str, Any]) -> BaseModel:
    """Parse the given arguments as `fitted` does."""
    return fitted(arguments, given)[0]


def fitted(arguments: type[BaseModel], given: dict[str, Any]) -> tuple[BaseModel, dict[str, Any]]:
    """Return the parsed arguments, and the arguments as they were read, as `fit` does.

    Raises:
        ToolError: naming the first that does not fit, in one sentence.
    """

    try:
        return fit(arguments.model_validate, given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "arguments"
        text = f"invalid arguments: {where[:MAX_MESSAGE]}: {first['msg'][:MAX_MESSAGE]}"
        raise ToolError(text) from error


def fit(parse: Callable[[dict[str, Any]], T], given: dict[str, Any]) -> tuple[T, dict[str, Any]]:
    """Return what `parse` makes of a JSON object, and the object as it was read.

    Where it does not fit, JSON text inside JSON is decoded once, and `null` means the default.

    Raises:
        ValidationError: it does not fit then either; the error is about the object as given.
    """
    try:
        return parse(given), given
    except ValidationError as error:
        amended = _amended(given, [each["loc"] for each in error.errors(include_url=False, include_input=False)])
        try:
            if amended != given and not is_too_deep(amended):
                return parse(amended), amended
        except ValidationError:
            pass
        raise


def _amended(given: dict[str, Any], places: Sequence[tuple[int | str, ...]]) -> dict[str, Any]:
    """Return the arguments with what stands at these places decoded if it is JSON text, left out if it is null."""
    made = copy.deepcopy(given)
    for place in places:
        holder: Any = None
        key: Any = None
        value: Any = made
        for part in place:  # parts that name a choice of a union are not in the data
            if isinstance(value, list) and isinstance(part, int) and part < len(value):  # noqa: SIM114
                holder, key, value = value, part, value[part]
            elif isinstance(value, dict) and part in value:
                holder, key, value = value, part, value[part]
        if isinstance(holder, dict) and value is None:
            del holder[key]
        elif isinstance(holder, dict | list) and isinstance(value, str):
            holder[key] = _decoded(value)
    return made


def _decoded(text: str) -> Any:
    """Return the value of a JSON text, or the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text

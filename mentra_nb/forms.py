"""A question with fields for a person to fill in, made from the flat JSON Schema of an MCP server."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from mentra_nb.content import Data
from mentra_nb.errors import OperationDenied

MAX_FIELDS = 50
MAX_CHOICES = 200
MAX_TEXT = 10_000
"""Characters of a value."""

_YES, _NO = ("true", "yes", "y", "on"), ("false", "no", "n", "off", "")

Kind = Literal["text", "number", "integer", "boolean", "choice", "choices"]


class FormField(Data):
    """One value that is asked for. `choices` are pairs of value and title.

    Example:
        >>> mn.FormField(name="days", title="Days", kind="integer", required=True).kind
        'integer'
    """

    name: str
    title: str
    kind: Kind
    description: str = ""
    required: bool = False
    choices: tuple[tuple[str, str], ...] = ()
    default: Any = None
    least: float | None = None
    most: float | None = None
    """Bounds of a number, or of the length of a text."""


class Form(Data):
    """What a person is asked, by whom, and the values that are wanted; without fields only a yes or no.

    Example:
        >>> form = mn.Form.from_schema("the server", "Where to?", {"properties": {"days": {"type": "integer"}}})
        >>> form.filled({"days": "3"})
        {'days': 3}
    """

    who: str
    message: str
    fields: tuple[FormField, ...] = ()
    yes: str = "Send"
    no: str = "Decline"
    """What is written on the buttons."""
    title: str = ""
    """What is asked, in a few words that no model and no server has written."""
    say: str = "Reason if you decline"
    """What is written before what a person may say with it."""
    is_live: bool = False
    """Whether it is asked in the middle of a call or turn, so that nobody gets the answer once its process has died."""

    @classmethod
    def from_schema(cls, who: str, message: str, schema: Mapping[str, Any]) -> Form:
        """Return the form for an object schema whose properties are text, numbers, booleans or choices.

        Raises:
            ValueError: the schema is of another kind, or too large.
        """
        properties, required = schema.get("properties") or {}, set(schema.get("required") or ())
        if not isinstance(properties, dict) or len(properties) > MAX_FIELDS:
            raise ValueError("it asks for too many values")
        fields = tuple(_field(name, each, name in required) for name, each in properties.items())
        return cls(who=who, message=message, fields=fields)

    def filled(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the fields, as texts or already of their kind, in the types that the schema has.

        Raises:
            OperationDenied: one is missing or does not fit; the message names it.
        """
        known = [field.name for field in self.fields]
        if unknown := sorted(set(values) - set(known)):
            raise OperationDenied(f"there is no field '{unknown[0]}'{_instead(unknown[0], known)}")
        made = {}
        for field in self.fields:
            value = values.get(field.name, field.default)
            if value is None or (value in ("", []) and field.kind != "boolean"):
                if field.required:
                    raise OperationDenied(f"'{field.title}' is needed: fill it in on the card, or type {field.name}=…")
                continue
            made[field.name] = _value(field, value)
        return made

    def checked(self, name: str, text: str) -> Any:
        """Return what was typed for one field in the type that the schema has. Raises `OperationDenied` as `filled`.

        Example:
            >>> form = mn.Form.from_schema("the server", "Where to?", {"properties": {"days": {"type": "integer"}}})
            >>> form.checked("days", "3")
            3
        """
        [field] = [field for field in self.fields if field.name == name]
        if not text and field.required:
            raise OperationDenied(f"'{field.title}' is needed")
        return _value(field, text)


def _field(name: str, schema: Any, required: bool) -> FormField:
    if not isinstance(schema, dict):
        raise ValueError(f"the value '{name}' has no schema")
    about: dict[str, Any] = {
        "name": name,
        "title": str(schema.get("title") or name),
        "description": str(schema.get("description") or ""),
        "required": required,
        "default": schema.get("default"),
    }
    kind = schema.get("type")
    items = schema.get("items") if kind == "array" else schema
    choices = _choices(items if isinstance(items, dict) else {}, schema)
    if choices:
        return FormField(kind="choices" if kind == "array" else "choice", choices=choices, **about)
    if kind == "boolean":
        return FormField(kind="boolean", **about)
    if kind in ("number", "integer"):
        return FormField(kind=kind, least=schema.get("minimum"), most=schema.get("maximum"), **about)
    if kind == "string":
        return FormField(kind="text", least=schema.get("minLength"), most=schema.get("maxLength"), **about)
    raise ValueError(f"the value '{name}' is of a kind that nobody can fill in")


def _choices(schema: Mapping[str, Any], named: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the choices of an `enum`, with titles from `enumNames`, or of `oneOf` and `anyOf` with constants."""
    for key in ("oneOf", "anyOf"):
        options = schema.get(key)
        if isinstance(options, list) and options:
            pairs = [(str(each["const"]), str(each.get("title", each["const"]))) for each in options if "const" in each]
            return tuple(pairs[:MAX_CHOICES])
    values = schema.get("enum")
    if not isinstance(values, list):
        return ()
    titles = named.get("enumNames")
    titles = titles if isinstance(titles, list) and len(titles) == len(values) else values
    return tuple((str(value), str(title)) for value, title in zip(values, titles, strict=True))[:MAX_CHOICES]


def _instead(name: str, known: list[str]) -> str:
    """Return which field is meant by one that there is not, and which there are."""
    if not known:
        return ": nothing is to be filled in"
    return f"{_nearest(name, known) or ';'} there {'is' if len(known) == 1 else 'are'} {', '.join(known)}"


def _nearest(text: Any, known: list[str]) -> str:
    """Return `: did you mean 'blue'?` where one is near, else nothing."""
    from difflib import get_close_matches

    near = get_close_matches(str(text).lower(), {each.lower(): each for each in known}, 1, 0.6)
    return f": did you mean '{next(each for each in known if each.lower() == near[0])}'?" if near else ""


def _value(field: FormField, value: Any) -> Any:
    """Return a value in the type of its field. Raises `OperationDenied`."""
    match field.kind:
        case "boolean":
            word = value.strip().lower() if isinstance(value, str) else value
            if word in (True, False, *_YES, *_NO):
                return word in (True, *_YES)
        case "number" | "integer":
            return _number(field, value)
        case "choice":
            if isinstance(value, str) and value in dict(field.choices):
                return value
            values = list(dict(field.choices))
            near = _nearest(value, values)
            raise OperationDenied(f"'{field.title}' must be one of {', '.join(values)}{near}")
        case "choices":
            chosen = value
            if isinstance(value, str):
                chosen = [value] if value in dict(field.choices) else [each.strip() for each in value.split(",")]
            if isinstance(chosen, list) and all(each in dict(field.choices) for each in chosen):
                return chosen
            raise OperationDenied(f"'{field.title}' must be some of {', '.join(dict(field.choices))}")
        case "text":
            text = str(value)
            _check_bounds(field, min(len(text), MAX_TEXT + 1), "characters")
            if len(text) <= MAX_TEXT:
                return text
    raise OperationDenied(f"'{field.title}' does not fit")


def _number(field: FormField, value: Any) -> int | float:
    try:
        number = float(value)
        if not math.isfinite(number) or isinstance(value, bool) or (field.kind == "integer" and number % 1):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        article = "a whole number" if field.kind == "integer" else "a number"
        raise OperationDenied(f"'{field.title}' must be {article}") from None
    _check_bounds(field, number, "")
    return int(number) if field.kind == "integer" else number


def _check_bounds(field: FormField, size: float, unit: str) -> None:
    if field.least is not None and size < field.least:
        raise OperationDenied(f"'{field.title}' must be at least {field.least:g} {unit}".rstrip())
    if field.most is not None and size > field.most:
        raise OperationDenied(f"'{field.title}' must be at most {field.most:g} {unit}".rstrip())

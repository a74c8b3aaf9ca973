"""Forms: which schemas they are made from, and which values fit."""

from __future__ import annotations

from typing import Any

import pytest

from mentra_nb.errors import OperationDenied
from mentra_nb.forms import MAX_FIELDS, MAX_TEXT, Form

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "title": "Name", "minLength": 2, "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "size": {"type": "number"},
        "ok": {"type": "boolean", "default": True},
        "one": {"type": "string", "enum": ["a", "b"], "enumNames": ["First", "Second"]},
        "titled": {"type": "string", "oneOf": [{"const": "x", "title": "The x"}, {"const": "y"}]},
        "some": {"type": "array", "items": {"type": "string", "enum": ["p", "q"]}},
    },
    "required": ["name"],
}


def form() -> Form:
    return Form.from_schema("the server", "Who?", SCHEMA)


def test_fields_are_read_from_a_flat_schema() -> None:
    found = {field.name: (field.kind, field.choices, field.required) for field in form().fields}
    assert found == {
        "name": ("text", (), True),
        "age": ("integer", (), False),
        "size": ("number", (), False),
        "ok": ("boolean", (), False),
        "one": ("choice", (("a", "First"), ("b", "Second")), False),
        "titled": ("choice", (("x", "The x"), ("y", "y")), False),
        "some": ("choices", (("p", "p"), ("q", "q")), False),
    }


def test_values_are_given_in_the_types_of_the_schema_and_empty_ones_left_out() -> None:
    assert form().filled({"name": "Ada", "age": "36", "size": "1.5", "one": "a", "some": ["p"], "titled": ""}) == {
        "name": "Ada",
        "age": 36,
        "size": 1.5,
        "ok": True,
        "one": "a",
        "some": ["p"],
    }
    assert form().filled({"name": "Ada", "ok": False}) == {"name": "Ada", "ok": False}
    assert form().filled({"name": "Ada", "ok": "true", "some": "q"})["some"] == ["q"]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({}, "'Name' is needed"),
        ({"name": "A"}, "at least 2 characters"),
        ({"name": "Adaaaa"}, "at most 5 characters"),
        ({"name": "Ada", "age": "1.5"}, "'age' must be a whole number"),
        ({"name": "Ada", "age": -1}, "at least 0"),
        ({"name": "Ada", "age": 151}, "at most 150"),
        ({"name": "Ada", "size": "nan"}, "must be a number"),
        ({"name": "Ada", "size": "1e999"}, "must be a number"),
        ({"name": "Ada", "size": True}, "must be a number"),
        ({"name": "Ada", "one": "c"}, "must be one of a, b"),
        ({"name": "Ada", "some": ["p", "z"]}, "must be some of p, q"),
        ({"name": "Ada", "ok": "maybe"}, "does not fit"),
        ({"name": "Ada", "other": 1}, "there is no field 'other'"),
    ],
)
def test_a_value_that_does_not_fit_is_named(values: dict[str, Any], why: str) -> None:
    with pytest.raises(OperationDenied, match=why):
        form().filled(values)


@pytest.mark.parametrize(
    "properties",
    [
        {"a": {"type": "object"}},
        {"a": {"type": "array", "items": {"type": "object"}}},
        {"a": "text"},
        {"a": {}},
        {f"a{number}": {"type": "string"} for number in range(MAX_FIELDS + 1)},
        ["a"],
    ],
)
def test_what_nobody_can_fill_in_is_refused(properties: Any) -> None:
    with pytest.raises(ValueError, match=r"value"):
        Form.from_schema("the server", "Who?", {"properties": properties})


def test_a_text_has_a_greatest_length_and_a_question_may_have_no_fields() -> None:
    free = Form.from_schema("the server", "Who?", {"properties": {"a": {"type": "string"}}})
    assert free.filled({"a": "x" * MAX_TEXT})["a"] == "x" * MAX_TEXT
    with pytest.raises(OperationDenied, match="does not fit"):
        free.filled({"a": "x" * (MAX_TEXT + 1)})
    assert Form.from_schema("the server", "Go on?", {}).filled({}) == {}

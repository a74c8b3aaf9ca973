"""Grammars made of JSON Schema, as llama.cpp reads them: a sample under one fits its schema."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kits.tiny_model import tiny_model

from mentra_nb.providers.local.gbnf import MAX_LENGTH, Shape, grammar
from mentra_nb.providers.local.provider import load_model

TERSE = {'"': 2.0, "}": 2.0, "]": 2.0}
"""Prefers closing characters, so that most values come to an end."""
with_a_model = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_model(tiny_model(tmp_path_factory.mktemp("model") / "terse.gguf", fond=TERSE))


def sampled(server: Any, schema: Any, seed: int = 1) -> tuple[str, str]:
    """Return what the model generates under the schema's grammar, and why it stopped."""
    body = {"grammar": grammar(schema), "max_tokens": 400, "temperature": 1.0, "seed": seed}
    answers: list[dict[str, Any]] = []
    asked = json.dumps(body | {"messages": [{"role": "user", "content": "?"}]})
    server.handle_chat_completions(asked, lambda answer: bool(answers.append(json.loads(answer))))
    ((choice,),) = (answer["choices"] for answer in answers)
    return choice["message"]["content"], choice["finish_reason"]


def checked(server: Any, schema: Any, seed: int = 1) -> Any:
    """Return a value that fits the schema, or `None` if the model did not come to an end."""
    text, why = sampled(server, schema, seed)
    if why != "stop":
        return None
    assert "\n" not in text, "a line break ends a call"
    value = json.loads(text)
    jsonschema.validate(value, schema)
    return value


NODE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "left": {"$ref": "#/$defs/node"},
                "a/b": {"$ref": "#/$defs/~0~1"},
            },
            "required": ["name", "a/b"],
            "additionalProperties": False,
        },
        "~/": {"enum": ["north", 'a "quoted" {name}', "sü\nd"]},
    },
}


@pytest.mark.parametrize(
    "schema",
    [
        {"const": {"a": [1, None, "x"]}},
        {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"], "additionalProperties": False},
        {"type": "object", "properties": {key: {"type": "boolean"} for key in "abc"}, "additionalProperties": False},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "additionalProperties": False},
        {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 3},
        {"type": "array", "maxItems": 0},
        {"type": "array", "prefixItems": [{"type": "null"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
        {"type": "string", "minLength": 2, "maxLength": 4},
        {"type": "integer", "minimum": -2, "maximum": 3},
        {"type": "integer", "minimum": 0},
        {"type": ["string", "null"]},
        {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None, "description": "optional"},
        {"allOf": [{"$ref": "#/$defs/a"}, {"properties": {"y": {"type": "null"}}, "required": ["y"]}],
         "$defs": {"a": {"type": "object", "properties": {"x": {"type": "null"}}, "required": ["x"]}}},
        {"type": "number"},
        NODE,
        {},
    ],
    ids=lambda schema: json.dumps(schema)[:40],
)  # fmt: skip
def test_a_sample_fits_its_schema(server: Any, schema: Any) -> None:
    assert any(checked(server, schema, seed) is not None for seed in range(6))


SCALARS = st.one_of(
    st.sampled_from([{"type": name} for name in ("string", "integer", "number", "boolean", "null")]),
    st.lists(st.one_of(st.text(max_size=4), st.integers(-9, 9), st.none()), min_size=1, max_size=3).map(
        lambda values: {"enum": values}
    ),
    st.tuples(st.integers(0, 3), st.integers(0, 3)).map(
        lambda sizes: {"type": "string", "minLength": min(sizes), "maxLength": max(sizes)}
    ),
    st.tuples(st.integers(-20, 20), st.integers(0, 30)).map(
        lambda bounds: {"type": "integer", "minimum": bounds[0], "maximum": sum(bounds)}
    ),
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    objects = st.dictionaries(st.text(max_size=4), inner, max_size=4).flatmap(
        lambda properties: st.sets(st.sampled_from(sorted(properties) or [""])).map(
            lambda required: {
                "type": "object",
                "properties": properties,
                "required": sorted(required & set(properties)),
                "additionalProperties": False,
            }
        )
    )
    arrays = st.tuples(inner, st.integers(0, 2), st.integers(0, 2)).map(
        lambda made: {"type": "array", "items": made[0], "minItems": min(made[1:]), "maxItems": max(made[1:])}
    )
    return st.one_of(objects, arrays, st.lists(inner, min_size=1, max_size=3).map(lambda options: {"anyOf": options}))


@pytest.mark.slow
def test_a_sample_fits_any_schema(server: Any) -> None:
    ends = Counter[bool]()

    @with_a_model
    @given(st.recursive(SCALARS, containers, max_leaves=8), st.integers(1, 1000))
    def fits(schema: Any, seed: int) -> None:
        ends[checked(server, schema, seed) is not None or schema in ({"enum": [None]}, {"type": "null"})] += 1

    fits()
    assert ends[True] > 5 * ends[False]


KEYS = (
    *("type", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems"),
    *(
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
        "$defs",
        "not",
    ),
)
WORDS = ("object", "array", "string", "integer", "#", "#/", "#/$defs", "#/properties", "http://x/y", "", '\x00\n"\\')
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 10**9), st.just(0.5), st.sampled_from(WORDS)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)),
    max_leaves=12,
)


@pytest.mark.slow
def test_a_schema_of_any_kind_is_a_grammar(server: Any) -> None:
    @with_a_model
    @given(JUNK)
    def is_taken(schema: Any) -> None:
        assert sampled(server, schema)[1] in ("stop", "length")

    is_taken()


def test_what_cannot_be_kept_is_left_open() -> None:
    for schema in ({"type": "string", "pattern": "^a$"}, {"type": "string", "maxLength": MAX_LENGTH + 1}):
        assert Shape(schema, "of").expression == "string"
    for schema in ({"$ref": "http://x/y"}, {"$ref": "#/no"}, {"$ref": "#"}, {"type": "new"}, True, None):
        shape = Shape(schema, "of")
        assert shape.rules.get(shape.expression, shape.expression) == "value"


def test_a_deep_schema_with_nothing_required_stays_small() -> None:
    schema: Any = {"type": "string"}
    for _ in range(4):
        schema = {"type": "object", "properties": {f"key{number}": schema for number in range(8)}}
    shape = Shape(schema, "of")
    assert len(shape.expression) + sum(map(len, shape.rules.values())) < len(json.dumps(schema))

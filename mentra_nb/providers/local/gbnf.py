"""JSON Schema to GBNF, llama.cpp's language of grammars. An answer sampled under one is compact JSON of that shape.

What a grammar cannot express well is left open, for the receiver of the value to check: patterns, formats, most bounds
of numbers, `not`, `if`, uniqueness. A schema that is not supported becomes any value. Pure.

llama.cpp's second language, llguidance, is not used: its tokenizer is cached by the address of a model, so that another
model in the same process can crash it, and it has no support for vocabularies that put a space before a word.
llama.cpp's own converter is not used because xllamacpp's `json_schema_to_grammar` only writes that second language, and
the grammar that the server makes of a chat's `response_format` cannot be combined with prose.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

RULES = r"""
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" (string ":" value ("," string ":" value)*)? "}"
array ::= "[" (value ("," value)*)? "]"
string ::= "\"" char* "\""
char ::= [^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" ([0-9a-cefA-CEF] hex hex hex | [dD] [0-7] hex hex))
hex ::= [0-9a-fA-F]
natural ::= "0" | [1-9] [0-9]{0,15}
integer ::= "-"? natural
number ::= integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?
""".strip()
"""The rules that expressions of a `Shape` refer to. No value spans lines."""
MAX_LENGTH = 500
"""Longer bounds on length are left open, because llama.cpp writes repetitions out."""
MAX_LISTED = 100
"""A range of integers is listed value by value if it is not wider than this."""

TYPES = {
    "string": "string",
    "integer": "integer",
    "number": "number",
    "boolean": '("true" | "false")',
    "null": '"null"',
}


def grammar(schema: Any) -> str:
    """Return a grammar for one value that fits a schema."""
    shape = Shape(schema, "of")
    return rules({"root": shape.expression, **shape.rules})


def rules(named: Mapping[str, str]) -> str:
    """Return a grammar of these rules, one of them `root`, and of `RULES`."""
    return "\n".join([*(f"{name} ::= {expression}" for name, expression in named.items()), RULES])


class Shape:
    """The expression for values that fit a schema, and the rules it refers to besides `RULES`.

    `name` begins the names of the rules: letters, digits and dashes.
    """

    def __init__(self, schema: Any, name: str) -> None:
        self.rules: dict[str, str] = {}
        self._root, self._name = schema, name
        self._names: dict[str, str] = {}
        """The names of the rules, by the reference or expression they stand for."""
        try:
            self.expression: str = self._of(schema)
        except RecursionError:  # it contains itself directly
            self.rules = {}
            self.expression = "value"

    def _of(self, schema: Any, within: frozenset[str] = frozenset()) -> str:
        """Return the expression of a schema. `within` holds the references being followed, to stop at a circle."""
        match schema:
            case {"$ref": str(path)}:
                return self._referred(path, within)
            case {"const": only}:
                return _literal(only)
            case {"enum": [*values]} if values:
                return _either(map(_literal, values))
            case {"anyOf": [*options]} | {"oneOf": [*options]} if options:
                rest = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
                return _either(self._of(_merged([rest, option]), within) for option in options)
            case {"allOf": [*parts]} if parts:
                rest = {key: value for key, value in schema.items() if key != "allOf"}
                return self._of(_merged([rest, *map(self._resolved, parts)]), within)
            case {"type": [*types]} if types:
                return _either(self._of({**schema, "type": type}, within) for type in types)
            case {"type": "string"}:
                least, most = _bounds(schema, "minLength", "maxLength")
                return f'"\\"" char{_times(least, most)} "\\""' if least or most is not None else "string"
            case {"type": "integer", "minimum": int(least), "maximum": int(most)} if 0 <= most - least <= MAX_LISTED:
                return _either(map(_literal, range(least, most + 1)))
            case {"type": "integer", "minimum": int(least)} if least >= 0:
                return "natural"
            case {"type": "array"}:
                return self._array(schema)
            case {"type": "object"} | {"properties": {}}:
                return self._object(schema)
            case {"type": str(type)}:
                return TYPES.get(type, "value")
        return "value"

    def _object(self, schema: Mapping[str, Any]) -> str:
        """Return an object of exactly the named keys, required ones first; without named keys, a map."""
        properties, required = schema.get("properties"), schema.get("required")
        if not isinstance(properties, dict) or not properties:
            if schema.get("additionalProperties") is False:
                return '"{}"'
            entry = self._rule(f'string ":" {self._of(schema.get("additionalProperties"))}')
            return f'"{{" ({entry} ("," {entry})*)? "}}"'
        must, may = list[str](), list[str]()
        for key, value in properties.items():
            pair = self._rule(f"{quoted(_json(key) + ':')} {self._of(value)}")
            (must if isinstance(required, list) and key in required else may).append(pair)
        after = [f'("," {pair})?' for pair in may]
        if must:
            inside = " ".join([' "," '.join(must), *after])
        else:
            inside = "(" + " | ".join(" ".join([pair, *after[at + 1 :]]) for at, pair in enumerate(may)) + ")?"
        return f'"{{" {inside} "}}"'

    def _array(self, schema: Mapping[str, Any]) -> str:
        first = schema.get("prefixItems")
        if isinstance(first, list) and first:
            items = ' "," '.join(map(self._of, first))
            return f'"[" {items} "]"'
        least, most = _bounds(schema, "minItems", "maxItems")
        if most == 0:
            return '"[]"'
        item = self._rule(self._of(schema.get("items")))
        inside = f'{item} ("," {item}){_times(max(least - 1, 0), None if most is None else most - 1)}'
        return f'"[" {inside} "]"' if least else f'"[" ({inside})? "]"'

    def _referred(self, path: str, within: frozenset[str]) -> str:
        """Return the name of a rule for a reference, so that a schema may contain itself."""
        if path in within:
            return "value"
        if path not in self._names:
            self._names[path] = name = f"{self._name}-{len(self._names)}"
            self.rules[name] = self._of(self._resolved({"$ref": path}), within | {path})
        return self._names[path]

    def _rule(self, expression: str) -> str:
        """Return the name of a rule for an expression that is used more than once."""
        if expression not in self._names:
            self._names[expression] = name = f"{self._name}-{len(self._names)}"
            self.rules[name] = expression
        return self._names[expression]

    def _resolved(self, schema: Any) -> Any:
        """Return what a reference within the schema points to; anything else unchanged."""
        match schema:
            case {"$ref": str(path)} if path == "#" or path.startswith("#/"):
                found = self._root
                for key in path.split("/")[1:]:
                    key = key.replace("~1", "/").replace("~0", "~")
                    found = found.get(key) if isinstance(found, dict) else None
                return found
            case {"$ref": _}:
                return None
        return schema


def quoted(text: str) -> str:
    """Return the expression for exactly this text."""
    return json.dumps(text, ensure_ascii=False)


def _literal(value: Any) -> str:
    return quoted(_json(value))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _either(expressions: Iterable[str]) -> str:
    return f"({' | '.join(dict.fromkeys(expressions))})"


def _times(least: int, most: int | None) -> str:
    return f"{{{least},{'' if most is None else most}}}"


def _bounds(schema: Mapping[str, Any], least: str, most: str) -> tuple[int, int | None]:
    """Return both bounds on a length; one that is not supported is left open."""
    low, high = schema.get(least), schema.get(most)
    low = low if isinstance(low, int) and 0 <= low <= MAX_LENGTH else 0
    return low, high if isinstance(high, int) and low <= high <= MAX_LENGTH else None


def _merged(schemas: Iterable[Any]) -> dict[str, Any]:
    """Return a schema with the demands of all, as far as their keys can be combined."""
    merged: dict[str, Any] = {}
    for schema in schemas:
        if not isinstance(schema, dict):
            continue
        for key, value in schema.items():
            old = merged.get(key)
            if isinstance(old, dict) and isinstance(value, dict):
                value = old | value
            elif key == "required" and isinstance(old, list) and isinstance(value, list):
                value = old + value
            merged[key] = value
    return merged

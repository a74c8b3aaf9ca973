"""How much a server may send: bytes of a message, entries of a list, schemas that every provider takes."""

from __future__ import annotations

import codecs
import json
from functools import cache, lru_cache
from typing import Any

from mentra_nb.content import is_too_deep

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of one message of a server; a longer one ends the connection."""
MAX_ENTRIES = 1000
"""Entries of each list of a server; one that has more is refused."""
ALL_DESCRIBED = 50
"""Tools of a server that are described to the model with each request; where there are more, it searches them."""
MAX_SCHEMA = 32 * 1024
"""Characters of the schema of a tool's arguments."""
MAX_PICTURES = 20
"""Pictures of one result that a model is shown."""
ANY_ARGUMENTS: dict[str, Any] = {"type": "object"}
"""The schema of a tool whose own cannot be used: the server checks the arguments."""
CODEC = "mentra-mcp-utf-8"
_TOO_LONG = "a message is too long"


class _Decoder(codecs.IncrementalDecoder):
    """Decode UTF-8. Of a line that is too long nothing is kept, and a line that is no message takes its place."""

    def __init__(self, errors: str = "strict") -> None:
        super().__init__(errors)
        self._inner = codecs.getincrementaldecoder("utf-8")(errors)
        self._length = 0

    def decode(self, input: Any, final: bool = False) -> str:
        shown: list[str] = []
        for line in bytes(input).split(b"\n"):
            if shown:
                shown.append("\n")
                self._length = 0
            before, self._length = self._length, self._length + len(line)
            if self._length <= MAX_MESSAGE:
                shown.append(self._inner.decode(line))
            else:
                self._inner.reset()
                shown.append(f"\n{json.dumps(_TOO_LONG)}\n" if before <= MAX_MESSAGE else "")
        return "".join(shown)


@cache
def bounded_utf_8() -> str:
    """Return the name of an encoding: UTF-8 without lines of more than `MAX_MESSAGE` bytes.

    The SDK keeps a line of a program's output in memory until it ends, and only lets its encoding be chosen.
    """
    utf_8 = codecs.lookup("utf-8")
    bounded = codecs.CodecInfo(utf_8.encode, utf_8.decode, incrementaldecoder=_Decoder, name=CODEC)
    codecs.register(lambda name: bounded if name.replace("_", "-") == CODEC else None)
    return CODEC


def is_too_long(message: Any) -> bool:
    """Return whether this is the SDK's error for the line that takes the place of one that was too long."""
    return isinstance(message, ValueError) and _TOO_LONG in str(message)


def usable_schema(schema: Any) -> dict[str, Any]:
    """Return the schema of a tool's arguments, or `ANY_ARGUMENTS` if a provider could refuse the request for it."""
    if not isinstance(schema, dict) or schema.get("type", "object") != "object" or is_too_deep(schema):
        return ANY_ARGUMENTS
    text = json.dumps(schema)
    if len(text) > MAX_SCHEMA or not _is_valid(text):
        return ANY_ARGUMENTS
    return {"type": "object", "properties": {}, **schema}


@lru_cache(maxsize=MAX_ENTRIES)
def _is_valid(text: str) -> bool:
    """Return whether a JSON Schema is one, and all that it refers to is in it and has an end."""
    from jsonschema import Draft202012Validator, SchemaError

    schema = json.loads(text)
    try:
        Draft202012Validator.check_schema(schema)
    except (SchemaError, RecursionError):
        return False
    return all(_leads_somewhere(schema, reference) for reference in _references(schema))


def _references(schema: Any) -> list[Any]:
    found, waiting = [], [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            found += [value for key, value in each.items() if key == "$ref"]
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
    return found


def _leads_somewhere(schema: Any, reference: Any) -> bool:
    followed: set[str] = set()
    while isinstance(reference, str) and reference not in followed:
        followed.add(reference)
        target = schema
        for key in reference.removeprefix("#").split("/")[1:]:
            key = key.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, dict) else None
        if not reference.startswith("#") or not isinstance(target, dict | bool):
            return False
        if isinstance(target, bool) or "$ref" not in target:
            return True
        reference = target["$ref"]
    return False

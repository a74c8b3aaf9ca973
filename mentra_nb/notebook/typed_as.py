"""The type that a user names after `--as`: a name of the notebook, `df`, `json`, or a type such as `list[City]`."""

from __future__ import annotations

import ast
import builtins
import typing
from collections import ChainMap
from types import GenericAlias
from typing import Any, get_origin

from mentra_nb.errors import ConfigurationError

WORDS = ("df", "json", "str", "int", "float", "bool")
"""What completion offers."""
_TYPES = {name: getattr(builtins, name) for name in ("str", "int", "float", "bool", "list", "dict", "tuple", "set")}
_HINTS = {name: getattr(typing, name) for name in ("Literal", "Optional", "Union", "Any", "Annotated")}
_ALLOWED = (
    *(ast.Expression, ast.Name, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.Constant),
    *(ast.BinOp, ast.BitOr, ast.Load),
)
"""What a type is written with. Calls are not: naming a type runs nothing."""


def named_type(text: str, names: dict[str, Any]) -> Any:
    """Return the type of that name, among the user's variables `names`. Raises `ConfigurationError`."""
    if text in ("df", "json"):
        return text
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError:
        tree = None
    if tree is None or not all(isinstance(node, _ALLOWED) for node in ast.walk(tree)):
        raise ConfigurationError(f"'{text}' is not a type; one with blanks goes in quotes: --as \"dict[str, int]\"")
    try:
        found = eval(  # noqa: S307 - names, attributes and subscripts only
            compile(tree, "--as", "eval"), {"__builtins__": {}}, ChainMap(names, _TYPES, _HINTS)
        )
    except NameError as error:
        raise ConfigurationError(
            f"there is no '{error.name}' in this notebook: define the class first, or use {', '.join(WORDS)}"
        ) from None
    except Exception as error:  # noqa: BLE001 - attributes of the user's objects may raise anything
        raise ConfigurationError(f"'{text}' is not a type: {error}") from None
    if not isinstance(found, type | GenericAlias) and get_origin(found) is None:
        raise ConfigurationError(f"'{text}' is a {type(found).__name__}, not a type")
    return found

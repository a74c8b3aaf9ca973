"""What code may change that no snapshot of the names can take back."""

from __future__ import annotations

import ast

from mentra_nb.namespace.walk import Beyond

_COLUMN = "writing to the array of a column passes copy-on-write"
_BEHIND = {
    "array": _COLUMN,
    "_mgr": _COLUMN,
    "_values": _COLUMN,
    "_ndarray": _COLUMN,
    "_pa_array": _COLUMN,
    "allows_duplicate_labels": "a flag of a frame is not kept",
    "__annotations__": "annotations are not kept",
    "__qualname__": "the full name of a class is not kept",
}
"""Attributes through which an object can be changed without its snapshot, and why."""


def beyond_code(code: str) -> list[Beyond]:
    """Return the attributes in code by which it may change what is not kept; none if the code cannot be parsed.

    Reading such an attribute counts as well, as what is done with its value cannot be seen.
    """
    try:
        tree = compile(code, "<cell>", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}  # as in np.array(...)
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and id(node) not in called}
    return [Beyond(f".{name}", why) for name, why in _BEHIND.items() if name in used]

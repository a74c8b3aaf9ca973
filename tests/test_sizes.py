"""Limits that keep a module readable: its length, the length of a function, and no block of lines written twice."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import mentra_nb

PACKAGE = Path(mentra_nb.__file__).parent
MODULES = {str(file.relative_to(PACKAGE)): file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py")}
LONGEST_MODULE = 450
LONGEST_FUNCTION = 50
LONGEST_COPY = 5
"""Lines without blank ones and comments."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(source: str) -> list[Function]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, Function)]


def long_functions(source: str) -> list[str]:
    """Return the names of functions with more lines than allowed, from `def` to the last one."""
    return [each.name for each in functions(source) if (each.end_lineno or 0) - each.lineno >= LONGEST_FUNCTION]


def declarations(source: str) -> set[int]:
    """Return the lines that may be equal in two places: imports, signatures, and docstrings."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        ):
            lines.update(range(node.lineno, (node.end_lineno or 0) + 1))
        elif isinstance(node, Function):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            lines.update(range(first, max(node.body[0].lineno, node.lineno + 1)))
    return lines


def copies(sources: dict[str, str]) -> list[str]:
    """Return the places where a block of more than `LONGEST_COPY` equal lines begins that are not all declarations."""
    places: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, source in sources.items():
        free = declarations(source)
        numbered = enumerate((line.strip() for line in source.splitlines()), 1)
        lines = [(number, line) for number, line in numbered if line and not line.startswith("#")]
        for start in range(len(lines) - LONGEST_COPY):
            block = lines[start : start + LONGEST_COPY + 1]
            if any(number not in free for number, _ in block):
                places[tuple(line for _, line in block)].append(f"{name}:{block[0][0]}")
    return sorted(" = ".join(found) for found in places.values() if len(found) > 1)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_and_its_functions_are_short(name: str) -> None:
    assert len(MODULES[name].splitlines()) <= LONGEST_MODULE
    assert long_functions(MODULES[name]) == []


def test_no_block_of_code_is_written_twice() -> None:
    assert copies(MODULES) == []


def test_the_checks_can_fail() -> None:
    body = "\n".join(f"    x{number} = {number}" for number in range(LONGEST_FUNCTION))
    assert long_functions(f"def f():\n{body}\n") == ["f"]
    assert long_functions(f"def f():\n{body.rpartition(chr(10))[0]}\n") == []
    block = "\n".join(f"x{number} = {number}" for number in range(LONGEST_COPY + 1))
    assert copies({"a": block, "b": f"import os\n\n{block}"}) == ["a:1 = b:3"]
    imports = "\n".join(f"import m{number}" for number in range(LONGEST_COPY + 1))
    assert copies({"a": imports, "b": imports}) == []
    assert copies({"a": block.rpartition("\n")[0], "b": block.rpartition("\n")[0]}) == []

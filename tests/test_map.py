"""The map in `mentra_nb/README.md` fits the tree, the import contract and the functions it names."""

from __future__ import annotations

import pkgutil
import re
import tomllib
from pathlib import Path

import mentra_nb

PACKAGE = Path(mentra_nb.__file__).parent
MAP = (PACKAGE / "README.md").read_text(encoding="utf-8")
ROWS = [line.split("|")[1:3] for line in MAP.splitlines() if line.startswith("| `")]


def test_the_map_fits_a_screen() -> None:
    assert len(MAP.splitlines()) <= 60


def test_the_map_names_every_room_and_only_rooms_that_exist() -> None:
    named = [name for first, _ in ROWS for name in re.findall(r"`([^`]+)`", first)]
    folders = {str(file.parent.relative_to(PACKAGE)) for file in PACKAGE.rglob("__init__.py") if file.parent != PACKAGE}
    modules = {file.stem for file in PACKAGE.glob("*.py") if file.stem != "__init__"}
    assert sorted(named) == sorted(folders | modules)


def test_the_layers_of_the_map_are_those_of_the_import_contract() -> None:
    project = PACKAGE.parent / "pyproject.toml"
    contracts = tomllib.loads(project.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    of_package = next(contract for contract in contracts if contract.get("containers") == ["mentra_nb"])
    assert MAP.split("```")[1].split("\n")[1:-1] == of_package["layers"]


def test_every_file_and_function_that_the_map_names_exists() -> None:
    files = re.findall(r"`(\w+\.md)`", MAP)
    assert files
    for name in files:
        assert list(PACKAGE.rglob(name)), name
    paths = re.findall(r"`((?:\w+\.)+\w+)`", MAP.split("## The way of a turn")[1])
    assert len(paths) > 10
    for path in paths:
        assert callable(pkgutil.resolve_name(f"mentra_nb.{path}")), path

"""The documents for users hold: settings, prices, links, pictures, and the tests they name."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
from kits.documents import DOCUMENTS, ROOT, Link, anchors, links, snippets, table
from pydantic_core import PydanticUndefined

from mentra_nb.content import TokenUsage
from mentra_nb.notebook.magics import SETTABLE
from mentra_nb.pricing import cost_usd
from mentra_nb.setting_files import load
from mentra_nb.settings import Endpoint, McpServer, Settings

SETTINGS = "docs/settings.md"
LARGEST_PICTURE = 150_000
"""Bytes."""


def code(cell: str) -> str:
    return cell.strip("`")


def defaults(model: type[Settings | Endpoint | McpServer]) -> dict[str, str]:
    """Return the default of each field as Python writes it; empty where one must be given."""
    fields = {name: field.get_default(call_default_factory=True) for name, field in model.model_fields.items()}
    return {name: "" if value is PydanticUndefined else repr(value).replace("'", '"') for name, value in fields.items()}


def test_every_setting_is_described_with_its_default() -> None:
    assert {code(name): code(default) for name, default, _ in table(SETTINGS, "setting")} == defaults(Settings)


def test_every_key_of_a_server_is_described_with_its_default() -> None:
    rows = table(SETTINGS, "key of `[providers.NAME]`")
    assert {code(name): code(default) for name, default, _ in rows} == defaults(Endpoint)
    (wire,) = (text for name, _, text in rows if code(name) == "wire")
    wires = set(re.findall(r'`"(\w+)"`', wire))
    assert wires == set(Endpoint.model_fields["wire"].annotation.__args__)  # type: ignore[union-attr]


def test_every_key_of_an_mcp_server_is_described_with_its_default() -> None:
    rows = table(SETTINGS, "key of `[mcp.NAME]`")
    assert {code(name): code(default) for name, default, _ in rows} == defaults(McpServer)


def test_what_may_stand_where(tmp_path: Path) -> None:
    places = {place.partition(",")[0]: which for place, _, which in table(SETTINGS, "place")}
    assert "all" in places["your `config.toml`"]
    assert set(Settings.model_fields) - set(SETTABLE) == {"providers", "aliases", "mcp"}
    (project,) = (which for place, which in places.items() if place.startswith("`mentra.toml`"))
    (tmp_path / "mentra.toml").write_text(
        'ask = "always"\nask_timeout = 5\nwake = false\nstream_hz = 5\nmodel = "a/b"\n'
    )
    held = load({}, tmp_path, tmp_path / "none.toml")
    changed = {name for name in Settings.model_fields if held.source(name) != "default"}
    assert changed == {name for name in Settings.model_fields if f"`{name}" in project}
    assert len(held.ignored()) == 1


def test_the_settings_file_of_the_documents_is_read(tmp_path: Path) -> None:
    example = "\n".join(snippet.body for snippet in snippets() if snippet.mark == "config")
    (tmp_path / "config.toml").write_text(example)
    settings = load({}, tmp_path, tmp_path / "config.toml")
    assert settings.model == f"{next(iter(settings.providers))}/qwen3-32b"
    assert settings.model_dump(exclude_unset=True).keys() == tomllib.loads(example).keys()


def test_the_prices_of_the_documents_are_read(tmp_path: Path) -> None:
    (example,) = (snippet.body for snippet in snippets() if snippet.mark == "prices")
    (tmp_path / "prices.csv").write_text(example)
    usage = TokenUsage(input_tokens=1_000_000, output_tokens=1_000_000)
    assert cost_usd("lab", "qwen3-32b", usage, folder=tmp_path) == pytest.approx(0.80)
    assert cost_usd("ollama", "qwen3", usage, folder=tmp_path) == pytest.approx(0.04)
    assert cost_usd("lab", "another", usage, folder=tmp_path) is None


@pytest.mark.parametrize("link", links(), ids=lambda link: f"{link.document}:{link.target}")
def test_a_link_leads_somewhere(link: Link) -> None:
    path, _, anchor = link.target.partition("#")
    if path.startswith("https:"):
        return
    file = (ROOT / link.document).parent / path if path else ROOT / link.document
    assert file.exists()
    if anchor:
        assert anchor in anchors(file.read_text(encoding="utf-8"))
    if link.is_picture:
        assert file.read_bytes().startswith(b"\x89PNG")
        assert file.stat().st_size < LARGEST_PICTURE
        assert len(link.text) > 40  # what is on it, for whoever cannot see it


def test_the_tests_that_cover_a_front_end_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = [name for *_, cell in table("docs/where-it-works.md", "where") for name in re.findall(r"`([^`]+)`", cell)]
    assert len(named) > 5
    for name in named:
        path, _, function = name.partition("::")
        if path.startswith("make "):
            assert path.removeprefix("make ") in targets
        elif path.startswith("tests/"):
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            assert not function or function in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}


def test_binder_installs_an_extra_that_there_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = (ROOT / "binder" / "requirements.txt").read_text().splitlines()
    (own,) = (line for line in requirements if line.startswith("."))
    extras = set(own.removeprefix(".").strip("[]").split(","))
    assert extras <= set(project["optional-dependencies"])
    named = set(re.findall(r"`\[(\w+)\]`", DOCUMENTS["README.md"].split("## Install it")[1].split("\n## ")[0])) | {
        "dev"
    }
    assert named == set(project["optional-dependencies"])
    assert (ROOT / "binder" / "runtime.txt").read_text().strip().removeprefix("python-") in project["requires-python"]


def test_the_outputs_of_notebooks_name_no_folder_of_the_machine_that_made_them() -> None:
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        folders = set(re.findall(r"/tmp/[\w.-]+/[\w.-]+/", notebook.read_text(encoding="utf-8")))
        assert folders == set(), notebook.name

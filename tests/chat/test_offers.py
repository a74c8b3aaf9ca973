"""What the settings name is offered: skills of the user's folder and of others, and tools of installed packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mentra_nb.chat.offers import offer_named
from mentra_nb.event.bus import NullAudit
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.setting_files import load
from mentra_nb.settings import Settings
from mentra_nb.store.volatile import VolatileStore


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(store=VolatileStore(), audit=NullAudit(), builtin_tools=False)


def skill(root: Path, name: str) -> None:
    (root / name).mkdir(parents=True)
    (root / name / "SKILL.md").write_text(f"---\nname: {name}\ndescription: Does {name}.\n---\nDo it.")


def test_skills_beside_the_settings_and_in_named_folders_are_offered(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MENTRA_CONFIG", str(tmp_path / "config.toml"))
    skill(tmp_path / "skills", "own")
    skill(tmp_path / "team", "shared")
    (tmp_path / "bad" / "Broken").mkdir(parents=True)
    (tmp_path / "bad" / "Broken" / "SKILL.md").write_text("body")
    settings = Settings(skills=(tmp_path / "bad", tmp_path / "missing", tmp_path / "team"))
    problems = offer_named(runtime, settings)
    assert [each.name for each in runtime.skills()] == ["own", "shared"]
    assert len(problems) == 2
    assert "lower-case" in problems[0]
    assert "No such file" in problems[1]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package with three entry points, one of which cannot be loaded."""
    (tmp_path / "weather_kit.py").write_text(
        "def rain(city: str) -> float:\n    'Return the rain.'\n    return 1.0\n"
        "def wind(city: str) -> float:\n    'Return the wind.'\n    return 2.0\n"
        "both = [rain, wind]\n"
    )
    info = tmp_path / "weather_kit-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: weather-kit\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[mentra_nb.tools]\nweather = weather_kit:both\nrain = weather_kit:rain\nbroken = weather_kit:nothing\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("weather_kit", None)


@pytest.mark.usefixtures("package")
def test_tools_of_a_package_are_off_until_they_are_named(runtime: Runtime) -> None:
    assert offer_named(runtime, Settings()) == []
    assert "weather_kit" not in sys.modules
    assert runtime.tools() == []
    assert offer_named(runtime, Settings(tools=("weather",))) == []
    assert [spec.name for spec in runtime.tools()] == ["rain", "wind"]


@pytest.mark.usefixtures("package")
def test_tools_that_are_not_there_or_cannot_be_loaded_are_said_and_the_others_offered(runtime: Runtime) -> None:
    problems = offer_named(runtime, Settings(tools=("snow", "broken", "rain")))
    assert problems[0] == "no installed package has tools named 'snow'; there are: broken, rain, weather"
    assert problems[1].startswith("the tools 'broken' cannot be loaded: AttributeError")
    assert [spec.name for spec in runtime.tools()] == ["rain"]


@pytest.mark.usefixtures("package")
def test_a_folder_on_the_path_that_came_with_the_project_is_not_an_installed_package(
    runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (problem,) = offer_named(runtime, Settings(tools=("weather",)))
    assert f"those in {tmp_path} came with this project and are not loaded" in problem
    assert "weather_kit" not in sys.modules
    monkeypatch.setattr("mentra_nb.chat.offers.site.getsitepackages", lambda: [str(tmp_path)])
    assert offer_named(runtime, Settings(tools=("weather",))) == []


def test_lists_come_from_variables_too(tmp_path: Path) -> None:
    found = load(
        {"MENTRA_SKILLS": "/a:~/b", "MENTRA_TOOLS": "rain, snow", "MENTRA_INSTRUCTIONS": "CLAUDE.md"}, tmp_path
    )
    assert found.skills == (Path("/a"), Path("~/b").expanduser())
    assert (found.tools, found.instructions) == (("rain", "snow"), "CLAUDE.md")

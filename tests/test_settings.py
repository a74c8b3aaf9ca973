"""Settings: the source of each value, and the messages about invalid ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from mentra_nb import paths
from mentra_nb.errors import ConfigurationError
from mentra_nb.settings import Endpoint, Settings, load


def test_without_settings_the_defaults_hold(tmp_path: Path) -> None:
    settings = load({}, tmp_path)
    assert (settings.model, settings.ask, settings.ask_timeout, settings.nested_asyncio) == (
        None,
        "changes",
        600,
        False,
    )
    assert settings.source("model") == "default"


def test_the_environment_goes_before_mentra_toml_before_pyproject(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.mentra_nb]\nmodel = "a/1"\nask = "always"\nstream_hz = 5\n')
    (tmp_path / "mentra.toml").write_text('model = "b/2"\nask = "rules"\n')
    settings = load({"MENTRA_MODEL": "c/3"}, tmp_path)
    assert (settings.model, settings.ask, settings.stream_hz) == ("c/3", "rules", 5)
    assert settings.source("model") == "MENTRA_MODEL"
    assert settings.source("ask") == str(tmp_path / "mentra.toml")
    assert settings.source("stream_hz") == str(tmp_path / "pyproject.toml")


def test_a_custom_server_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "mentra.toml").write_text('[providers.lab]\nbase_url = "http://lab:1"\nkey_env = "LAB_KEY"\n')
    assert load({}, tmp_path).providers == {"lab": Endpoint(base_url="http://lab:1", key_env="LAB_KEY")}


def test_short_names_are_a_table_in_either_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.mentra_nb.aliases]\nfast = "ollama/qwen3"\n')
    settings = load({"MENTRA_ALIASES": "no table"}, tmp_path)
    assert (settings.aliases, settings.source("aliases")) == (
        {"fast": "ollama/qwen3"},
        str(tmp_path / "pyproject.toml"),
    )
    (tmp_path / "mentra.toml").write_text('[aliases]\nfast = "demo"\n')
    assert load({}, tmp_path).aliases == {"fast": "demo"}


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("modle = 'x'", "there is no setting 'modle'; known are model, ask"),
        ("ask = 'sometimes'", "ask = 'sometimes'"),
        ("stream_hz = 1000", "less than or equal to 20"),
        ("ask_timeout = 0", "greater than 0"),
        ("not toml", "cannot be read"),
        ("[providers.lab]\nurl = 'x'", "providers = "),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, toml: str, words: str) -> None:
    file = tmp_path / "mentra.toml"
    file.write_text(toml)
    with pytest.raises(ConfigurationError) as error:
        load({}, tmp_path)
    assert str(file) in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value).removeprefix(str(file)).split("(at", maxsplit=1)[0]


def test_a_bad_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^MENTRA_ASK_TIMEOUT: ask_timeout = 'soon'"):
        load({"MENTRA_ASK_TIMEOUT": "soon"}, tmp_path)


def test_errors_in_pyproject_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("not toml")
    assert load({}, tmp_path).model is None
    (tmp_path / "pyproject.toml").write_text("[tool]\nmentra_nb = 3\n")
    assert load({}, tmp_path).model is None


def test_a_change_is_checked_and_a_refused_one_changes_nothing() -> None:
    settings = Settings()
    settings.change("ask", "rules", "%config")
    with pytest.raises(ConfigurationError):
        settings.change("ask", "sometimes", "elsewhere")
    assert (settings.ask, settings.source("ask")) == ("rules", "%config")


def test_the_project_is_the_nearest_marked_folder(tmp_path: Path) -> None:
    deep = tmp_path / "project" / "a" / "b"
    deep.mkdir(parents=True)
    assert paths.project_root(deep) == deep
    (tmp_path / "project" / ".git").mkdir()
    assert paths.project_root(deep) == tmp_path / "project"
    (tmp_path / "project" / "a" / "mentra.toml").touch()
    assert paths.project_root(deep) == tmp_path / "project" / "a"


def test_expressions_for_text_that_is_not_recorded(tmp_path: Path) -> None:
    (tmp_path / "mentra.toml").write_text("redact = ['PAT-\\d{4}', 'Dr\\. \\w+']\n")
    assert load({}, tmp_path).redact == ("PAT-\\d{4}", "Dr\\. \\w+")
    assert load({"MENTRA_REDACT": "a+\n\nb,c\n"}, tmp_path).redact == ("a+", "b,c")
    with pytest.raises(ConfigurationError, match=r"MENTRA_REDACT: .*'\(' is not a regular expression"):
        load({"MENTRA_REDACT": "("}, tmp_path)

"""`%config Mentra` and the settings of the library are the same settings."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from traitlets import List

from mentra_nb.chat import engine
from mentra_nb.notebook.magics import SETTABLE, Mentra
from mentra_nb.settings import TABLES, Settings
from mentra_nb.teams.config import TeamConfig


def test_every_setting_but_the_tables_is_a_trait_with_its_default_and_description() -> None:
    traits = {name: trait for name, trait in Mentra.class_own_traits().items() if trait.metadata.get("config")}
    assert set(traits) == set(SETTABLE) == set(Settings.model_fields) - set(TABLES)
    for name, trait in traits.items():
        default = trait.default() if isinstance(trait, List) else trait.default_value
        expected = Settings.model_fields[name].default
        assert default == (list(expected) if isinstance(expected, tuple) else expected), name
        assert trait.help == Settings.model_fields[name].description


def test_the_choices_of_a_trait_are_those_of_the_setting() -> None:
    assert Mentra.ask.values == ["always", "changes", "rules"]
    assert Mentra.log_text.values == ["none", "preview", "full"]


def test_a_default_can_be_set_where_a_variable_says_another_value(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MENTRA_ASK", "rules")
    monkeypatch.setenv("MENTRA_REDACT", "a\nb")
    engine.reset()
    try:
        shell.run_line_magic("config", "Mentra.ask = 'changes'")
        settings = engine.engine().settings
        assert (settings.ask, settings.source("ask")) == ("changes", "%config Mentra")
        assert (settings.redact, settings.source("redact")) == (("a", "b"), "MENTRA_REDACT")
        shell.run_line_magic("config", "Mentra.redact = []")
        assert settings.redact == ()
    finally:
        engine.reset()


def test_the_table_of_tools_says_which_ones_the_profile_offers(shell: Any) -> None:
    mentra = partial(shell.run_line_magic, "mentra")
    assert "offered" not in mentra("tools").headings
    shell.run_line_magic("config", "Mentra.tool_profile = ['read', '-write']")
    try:
        found = mentra("tools")
        assert found[found.offered].tool.tolist() == ["read"]
        assert "shell" in found[~found.offered].tool.tolist()
        shell.run_line_magic("config", "Mentra.tool_profile = ['a b']")  # says what is wrong, and raises nothing
        assert engine.engine().settings.tool_profile == ("read", "-write")
    finally:
        shell.run_line_magic("config", "Mentra.tool_profile = []")


def test_how_teams_work_is_set_for_those_that_there_are_and_those_to_come(shell: Any) -> None:
    set_to = partial(shell.run_line_magic, "config")
    try:
        set_to("Mentra.team_claims = True")
        set_to("Mentra.team_idle_timeout = 2.5")
        set_to("Mentra.team_members = 3")
        expected = TeamConfig(claims=True, idle_timeout=2.5, max_members=3)
        assert engine.engine().runtime.app_context(TeamConfig) == expected
        set_to("Mentra.team_idle_timeout = None")
        assert engine.engine().runtime.app_context(TeamConfig).idle_timeout is None
    finally:
        engine.reset()

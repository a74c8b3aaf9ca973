"""`%config Mentra` and the settings of the library are the same settings."""

from __future__ import annotations

from traitlets import List

from mentra_nb.notebook.magics import SETTABLE, Mentra
from mentra_nb.settings import TABLES, Settings


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

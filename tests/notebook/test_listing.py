"""The tables of subcommands as text in 80 columns and as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mentra_nb.authorization import PermissionRule
from mentra_nb.chat import api, engine
from mentra_nb.errors import OperationDenied
from mentra_nb.ids import new_id, short_id
from mentra_nb.notebook.commands import models, rules, session, setup
from mentra_nb.notebook.commands.command import Context
from mentra_nb.notebook.commands.listing import ROWS, listing
from mentra_nb.permission.remembering import rule_named
from mentra_nb.providers.registry import KEYS

LONG = "/home/somebody/a/long/way/down/to/a/folder/of/the/project/and/on/to/its/data/*.csv"
CONTEXT = Context({}, show=pytest.fail)


def shown(frame: pd.DataFrame) -> str:
    text = repr(frame)
    assert max(map(len, text.splitlines())) <= 80
    return text


def squeezed(text: str) -> str:
    return re.sub(r"\s", "", text)


def test_nothing_is_cut_and_no_line_is_longer_than_80_characters() -> None:
    frame = pd.DataFrame({"id": [new_id("rule")], "b": [LONG], "a": ["first line\nsecond"], "n": [1234]})
    made = listing(frame, {"n": "", "a": "what", "b": "where", "id": "id"}, "")
    text = shown(made)
    assert all(part in text for part in ("1,234", "first line", "second", "*.csv", short_id(frame.id[0])))
    assert "<td" in made._repr_html_()
    assert LONG in made._repr_html_()
    assert list(made.columns) == ["n", "a", "b", "id"]
    assert type(made.head(1)) is pd.DataFrame


def test_every_character_of_a_wrapped_text_is_there() -> None:
    made = listing(pd.DataFrame({"where": [LONG * 3]}), {"where": ""}, "")
    assert squeezed(shown(made)) == LONG * 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (False, "no"),
        (None, ""),
        (float("nan"), ""),
        (pd.NaT, ""),
        (0.00123456, "0.001235"),
        (7, "7"),
        (pd.Timestamp("2026-03-01"), "2026-03-01"),
        (pd.Timestamp("2026-03-01", tz="UTC"), "2026-03-01 00:00"),
    ],
)
def test_what_stands_in_a_cell(value: Any, text: str) -> None:
    made = listing(pd.DataFrame({"n": ["-"], "v": pd.Series([value], dtype=object)}), {"v": "v", "n": "n"}, "")
    assert repr(made).split() == (["v", "n", *text.split(), "-"] if text else ["n", "-"])  # an empty column is left out
    assert (">v<" in made._repr_html_()) is bool(text)


def test_a_very_long_text_is_cut_with_its_length_and_is_whole_in_the_frame() -> None:
    made = listing(pd.DataFrame({"v": ["x" * 24_000]}), {"v": "v"}, "")
    for text in (shown(made), made._repr_html_()):
        assert squeezed(text).count("x") < 1_010
        assert "… (24,000 characters)" in " ".join(text.split())
    assert len(made.v[0]) == 24_000


def test_a_long_table_shows_its_end() -> None:
    made = listing(pd.DataFrame({"n": range(ROWS + 5)}), {"n": "n"}, "")
    assert shown(made).splitlines()[0] == f"the last {ROWS} of {ROWS + 5} rows:"
    assert f">{ROWS + 4}<" in made._repr_html_()
    assert ">4<" not in made._repr_html_()


def test_an_empty_table_says_why() -> None:
    made = listing(pd.DataFrame({"n": []}), {"n": "n"}, "No <b>.")
    assert repr(made) == "No <b>."
    assert "No &lt;b&gt;." in made._repr_html_()


def test_text_of_others_is_inert() -> None:
    made = listing(pd.DataFrame({"v": ["<script>x</script> $a$ \x1b[31m"]}), {"v": "v"}, "")
    assert "<script" not in made._repr_html_()
    assert "mathjax_ignore" in made._repr_html_()
    assert "\x1b" not in repr(made) + made._repr_html_()


def test_check_and_config_have_no_none_and_no_rows_for_keys_that_nobody_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    found = setup.check(CONTEXT, {})
    for text in (shown(found), shown(setup.config(CONTEXT, {}))):
        assert "None" not in text
        assert "NaN" not in text
        assert "sk-secret" not in text
    assert "GEMINI" not in shown(found)
    assert set(found.mark) <= {"✓", "✗", "·"}


def test_config_shows_no_secret_of_an_address() -> None:
    url = "https://me:geheim@h:1/v1?key=geheim"
    engine.engine().settings.change("providers", {"lab": {"base_url": url}}, "here")
    engine.engine().settings.change("aliases", {"quick": "lab/x"}, "here")
    text = shown(setup.config(CONTEXT, {}))
    assert "lab: https://h:1/v1" in text
    assert "quick: lab/x" in text
    assert "geheim" not in text


def test_the_model_is_named_that_would_be_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in KEYS:
        monkeypatch.delenv(key, raising=False)
    models.model(CONTEXT, {"name": None})
    assert capsys.readouterr().out == "none is set, so it is the built-in demo: no model is set up\n"
    monkeypatch.setenv("OPENAI_API_KEY", "sk")
    session.status(CONTEXT, {})
    assert capsys.readouterr().out.startswith("model    openai/its newest\n")
    models.model(CONTEXT, {"name": "demo"})
    session.status(CONTEXT, {})
    assert "model    the built-in demo\n" in capsys.readouterr().out


# ---- rules ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MENTRA_HOME", str(tmp_path / "home"))
    engine.reset()
    yield
    engine.reset()


def a_rule(id: str) -> PermissionRule:
    return PermissionRule(id=id, tool="shell", pattern="ls *", allow=True)


RULES = [a_rule("rule-019a-aaaa-111111"), a_rule("rule-019a-bbbb-222222"), a_rule("rule-019a-bbbb-333333")]


@pytest.mark.parametrize(
    ("said", "n"),
    [(2, 1), ("3", 2), ("rule-019a-aaaa-111111", 0), ("019a-aaaa", 0), ("rule-222222", 1), ("333333", 2)],
)
def test_a_rule_is_named_by_its_number_or_a_part_of_its_id(said: str | int, n: int) -> None:
    assert rule_named(RULES, said) is RULES[n]


@pytest.mark.parametrize(
    ("said", "why"),
    [("0", "no rule"), (4, "no rule"), ("33", "no rule"), ("019a-bbbb", "2 rules fit"), ("", "say which rule")],
)
def test_no_rule_is_deleted_by_a_name_that_fits_none_or_several(said: str | int, why: str) -> None:
    with pytest.raises(OperationDenied, match=why):
        rule_named(RULES, said)


OTHERS = {"suggest": None, "accept": None}


def test_a_rule_is_revoked_by_its_number_in_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    api.deny("write", "*.csv", scope="session", reason="raw data")
    listed = rules.rules(CONTEXT, {**OTHERS, "revoke": None, "id": None})
    assert listed is not None
    assert all(word in shown(listed) for word in ("deny", "write", "*.csv", "raw data", short_id(listed.id.iloc[-1])))
    assert rules.rules(CONTEXT, {**OTHERS, "revoke": " revoke", "id": str(listed.n.iloc[-1])}) is None
    assert capsys.readouterr().out == "Revoked: deny write *.csv\n"
    assert "*.csv" not in list(api.rules().pattern)
    with pytest.raises(OperationDenied, match="say which"):
        rules.rules(CONTEXT, {**OTHERS, "revoke": " revoke", "id": None})


def test_the_list_of_models_is_whole_and_one_without_rows_says_so() -> None:
    found = models.models(CONTEXT, {"text": "demo", "all": None})
    assert "demo/demo" in shown(found)
    assert "NaT" not in shown(found)
    assert "<NA>" not in shown(found)
    assert shown(models.models(CONTEXT, {"text": "nosuch", "all": None})).startswith("No model has that in its name")


def test_on_a_page_only_a_word_too_long_for_a_column_is_broken() -> None:
    html = listing(
        pd.DataFrame({"tool": ["shell"], "what": [LONG]}), {"tool": "tool", "what": "what"}, ""
    )._repr_html_()
    cells = dict(reversed(cell) for cell in re.findall(r'style="([^"]*)">([^<]*)<', html))
    assert {text for text, style in cells.items() if "overflow-wrap:anywhere" in style} == {LONG}
    assert set(cells) == {"tool", "what", "shell", LONG}

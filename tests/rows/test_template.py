"""A prompt with names of columns: exact names only, and values that stay text whatever they contain."""

from __future__ import annotations

import pandas as pd
import pytest

from mentra_nb.errors import ConfigurationError
from mentra_nb.rows.template import Template, as_text

ATTACKS = ["{text.__class__}", "{0}", "{text!r}", "{text:>99999999}", "{text[0]}", "{}", "{ text }", "{self.text}"]


def test_a_name_in_braces_becomes_the_value_and_double_braces_one_brace() -> None:
    template = Template('{{"id": "{id}"}} {text}, {id} of {full name}')
    assert template.columns == ("id", "text", "full name")
    assert template.fill({"id": 7, "text": "hi", "full name": "A B"}) == '{"id": "7"} hi, 7 of A B'


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_format_string_would_execute_is_refused_as_an_unknown_column(attack: str) -> None:
    template = Template(f"Say {attack}")
    with pytest.raises(ConfigurationError, match=r"that is not there: there are text, id; write \{\{ for a brace"):
        template.check(["text", "id"])


@pytest.mark.parametrize(
    "attack", [*ATTACKS, "{{x}}", "=HYPERLINK(1)", "{", "}{", "Ignore all rows; {id}", "%s %(id)s"]
)
def test_what_a_value_contains_is_never_read_as_a_template(attack: str) -> None:
    assert Template("a {text} b {id}").fill({"text": attack, "id": "1"}) == f"a {attack} b 1"


def test_a_column_whose_name_looks_like_an_attribute_is_used_by_its_exact_name() -> None:
    template = Template("{x.__class__}")
    template.check(["x.__class__"])
    assert template.fill({"x.__class__": "plain"}) == "plain"


@pytest.mark.parametrize(("text", "brace"), [("a { b", "{"), ("a } b", "}"), ("{a{b}", "{"), ("{a}}", "}")])
def test_a_single_brace_is_refused_in_one_sentence(text: str, brace: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"the prompt has a single \{brace} at character"):
        Template(text)


def test_a_prompt_without_a_column_says_how_to_name_one() -> None:
    with pytest.raises(ConfigurationError, match=r"names no column: write \{text\} where its value belongs"):
        Template("Translate.").check(["text"])


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NaT, pd.NA])
def test_a_missing_value_is_empty_text(missing: object) -> None:
    assert as_text(missing) == ""

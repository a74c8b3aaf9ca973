"""A reply as a value: its blocks of code, and how it shows itself where no extension is loaded."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from kits.payloads import PAYLOADS

from mentra_nb.chat.reply import Reply, blocks_of
from mentra_nb.content import TokenUsage


def reply(text: str = "", **given: Any) -> Reply:
    return Reply(text, "m", "s", "run-1", "end", 0.0, TokenUsage(), **given)


def test_blocks_are_numbered_through_all_rounds_as_on_the_page() -> None:
    rounds = ["```PYTHON x\none\n```\n\n> ~~~\n> two\n> ~~~", "    three\n\n```sh\nfour"]
    made = reply(rounds[-1], rounds=rounds)
    assert blocks_of(made) == [("python", "one\n"), ("", "two\n"), ("", "three\n"), ("sh", "four")]
    assert made.blocks == ["one\n", "two\n", "three\n", "four"]
    assert "<span>[3]</span>" in made._repr_mimebundle_()["text/html"]
    assert reply("```\nx\n```").blocks == ["x\n"]


def test_it_shows_itself_as_static_html() -> None:
    shown = reply("**Hello** `x`")._repr_mimebundle_()
    assert "<strong>Hello</strong>" in shown["text/html"]
    assert shown["text/plain"] == "**Hello** `x`"


@pytest.mark.parametrize("name", PAYLOADS)
def test_hostile_text_and_values_are_inert(name: str) -> None:
    text = PAYLOADS[name]
    for made in (reply(text), reply(value=text), reply(value=[{"a": text}]), reply(value=pd.DataFrame({text: [text]}))):
        html = made._repr_mimebundle_()["text/html"].lower()
        assert "<script" not in html
        assert "<img" not in html
        assert "<svg" not in html
        assert "<iframe" not in html

"""The whole hostile corpus in every place of a page, as HTML: only elements of ours, and no formula is looked for."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from kits.hostile_places import PLACES
from kits.payloads import CORPUS

from mentra_nb.page.escaping import NO_MATH

OURS = re.compile(
    r"a|bdi|blockquote|br|code|del|details|div|em|h[1-6]|hr|li|ol|p|pre|small|span|strong|style|summary|table|tbody|td"
    r"|th|thead|tr|ul|annotation|semantics"
)
MATHS = re.compile(r"m(ath|i|n|o|s|row|frac|text|sup|sub|subsup|over|under|underover|space|style|padded|table|td|tr)")
ATTRIBUTES = re.compile(r"class|style|dir|href|rel|target|open|tabindex|start|align|border|scope|scoped|encoding")
STYLE = re.compile(r"url|expression|position|behavior|@import|\\", re.IGNORECASE)
LINK = re.compile(r"https?://|mailto:")
MARK = "MATH" + "HERE"


class Page(HTMLParser):
    """Collects what is not ours, and the text in which formulas are looked for."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self.open: list[tuple[str, bool]] = []
        self.math = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        in_math = MATHS.fullmatch(tag) is not None
        if not in_math and not OURS.fullmatch(tag):
            self.found.append(f"<{tag} {attrs}>")
        for name, value in attrs:
            if name.startswith("on") or (not in_math and not ATTRIBUTES.fullmatch(name)):
                self.found.append(f"<{tag} {name}={value}>")
        if STYLE.search(named.get("style") or "") or not LINK.match(named.get("href") or "https://"):
            self.found.append(f"<{tag} {attrs}>")
        if tag not in ("br", "hr"):
            self.open.append((tag, NO_MATH in (named.get("class") or "")))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1][0] == "style" and "dataframe" not in data:
            self.found.append(data)
        if not any(closed for _, closed in self.open):
            self.math += data

    def handle_comment(self, data: str) -> None:
        self.found.append(f"<!--{data}-->")

    handle_decl = unknown_decl = handle_pi = handle_comment


@pytest.mark.parametrize("place", PLACES)
def test_hostile_text_adds_no_element_and_no_attribute(place: str) -> None:
    for bad in CORPUS.values():
        page = Page()
        page.feed(PLACES[place](bad))
        page.close()
        assert page.found == [], bad
        assert page.open == [], bad


@pytest.mark.parametrize("place", PLACES)
def test_no_formula_is_looked_for_in_the_text_of_others(place: str) -> None:
    page = Page()
    page.feed(PLACES[place](f"${MARK}$"))
    assert MARK not in page.math

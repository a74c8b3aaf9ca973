"""Text of a model stays text, on any page."""

from __future__ import annotations

import json
import time
from html.parser import HTMLParser

import pytest
from kits.payloads import PAYLOADS

from mentra_nb.notebook.render import bundle, line, plain, safe_html, visible

TAGS = {"a", "bdi", "blockquote", "br", "code", "del", "details", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6"}
TAGS |= {"hr", "li", "ol", "p", "pre", "s", "span", "strong", "summary", "ul"}
TAGS |= {"table", "tbody", "td", "th", "thead", "tr"}
ATTRIBUTES = {"class", "dir", "href", "rel", "start", "style", "target"}


class Page(HTMLParser):
    """The tags, attributes and text a browser would read."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_inert(html: str) -> None:
    for tag, attributes in Page(html).tags:
        assert tag in TAGS, tag
        assert set(attributes) <= ATTRIBUTES, attributes
        assert "url(" not in (attributes.get("style") or "")
        assert (attributes.get("class") or "").startswith("mentra-") or "class" not in attributes
        if tag == "a":
            assert (attributes["href"] or "").lower().startswith(("http://", "https://", "mailto:"))
            assert attributes["rel"] == "noopener noreferrer nofollow"


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_payload_becomes_a_live_tag_or_attribute(name: str) -> None:
    html = safe_html(PAYLOADS[name])
    assert_inert(html)
    assert "$" not in html


@pytest.mark.parametrize("name", PAYLOADS)
def test_no_payload_is_live_in_a_tool_line(name: str) -> None:
    data = line(PAYLOADS[name], PAYLOADS[name], note=PAYLOADS[name], detail=PAYLOADS[name])
    assert_inert(data["text/html"])
    assert set(data) == {"text/html", "text/plain"}


def test_the_check_of_payloads_can_fail() -> None:
    with pytest.raises(AssertionError):
        assert_inert(PAYLOADS["img-onerror"])


@pytest.mark.parametrize(
    ("markdown", "host"),
    [
        ("[your bank](https://evil.example/login)", "(evil.example)"),
        ("[https://bank.example](https://evil.example)", "(evil.example)"),
        ("[mail](mailto:a@evil.example)", "(a@evil.example)"),
        ("![chart](https://evil.example/p.png)", "(evil.example)"),
    ],
)
def test_a_link_shows_its_host(markdown: str, host: str) -> None:
    assert host in Page(safe_html(markdown)).text


@pytest.mark.parametrize("url", ["https://xn--pple-43d.com", "https://\u0430pple.com"])
def test_an_address_with_letters_that_may_deceive_shows_its_real_host(url: str) -> None:
    assert "(xn--pple-43d.com)" in Page(safe_html(f"<{url}>")).text


def test_an_ordinary_address_is_not_repeated() -> None:
    assert Page(safe_html("<https://a.example/b>")).text.strip() == "https://a.example/b"


@pytest.mark.parametrize(
    "url",
    [
        "https://bank.example@evil.example/",
        "https://evil.example\\@bank.example",
        "https://evil.example\\\\.bank.example/",
        "https://evil.example\\x.bank.example/",
        "https://evil.example%5C.bank.example/",
        "https://evil.example%2F.bank.example/",
        "//evil.example",
        "file:///etc",
    ],
)
def test_an_address_whose_host_is_in_doubt_is_not_a_link(url: str) -> None:
    assert "a" not in [tag for tag, _ in Page(safe_html(f"[x]({url})")).tags]


@pytest.mark.parametrize("url", ["https://evil.example/a%20b\\c", "https://bücher.example/ü", "https://[::1]:80/"])
def test_an_address_with_a_plain_host_is_a_link(url: str) -> None:
    assert "a" in [tag for tag, _ in Page(safe_html(f"[x]({url})")).tags]


@pytest.mark.parametrize("data", [bundle("$x$"), line("$x$", note="$y$", detail="$z$")])
def test_mathjax_leaves_all_of_it_alone(data: dict[str, str]) -> None:
    _, attributes = Page(data["text/html"]).tags[0]
    classes = (attributes["class"] or "").split()
    assert {"tex2jax_ignore", "mathjax_ignore"} <= set(classes)  # MathJax 2, MathJax 3 and later
    assert data["text/html"].startswith("<div")
    assert data["text/html"].count("<div") == 1


def test_ordinary_markdown_looks_like_itself() -> None:
    text = "# Title\n\n- *one*\n- **two**\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
    text += "```python\ndef f(): return 1\n```\n\nIt costs $5."
    tags = [tag for tag, _ in Page(safe_html(text)).tags]
    assert {"h1", "ul", "em", "strong", "table", "pre", "code", "span"} <= set(tags)
    assert "def f(): return 1" in Page(safe_html(text)).text
    assert Page(safe_html(text)).text.rstrip().endswith("It costs $5.")
    assert bundle(text)["text/plain"] == text


def test_code_that_goes_on_from_another_block_is_still_code() -> None:
    assert Page(bundle("<b>1</b>\n", opener="```html\n")["text/html"]).text.strip() == "<b>1</b>"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rm \x1b[2K\x07", "rm ␛[2K␇"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u200bb\u2066\ufeff", "a\\u200bb\\u2066\\ufeff"),
        ("x\u00a0y\u2028z", "x\\u00a0y\\u2028z"),
        ("\U000e0041", "\\U000e0041"),
        ("\x85\x7f\r", "\\u0085␡␍"),
        ("a\u115fb\u1160c", "a\\u115fb\\u1160c"),
        ("a\u2800b\u3164c\uffa0", "a\\u2800b\\u3164c\\uffa0"),
        ("a\u034fb\U000e0100", "a\\u034fb\\U000e0100"),
        ("a\ufe0fb\ufe00", "a\\ufe0fb\\ufe00"),
        ("a\u180bb\u180f\u17b4c\u17b5", "a\\u180bb\\u180f\\u17b4c\\u17b5"),
        ("naïve Ω 漢字 🙂\n\t.", "naïve Ω 漢字 🙂\n\t."),
    ],
)
def test_hidden_characters_are_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_prose_keeps_its_scripts_but_no_terminal_codes() -> None:
    assert plain("👩\u200d💻 \x1b]0;x\x07 שלום\u200f") == "👩\u200d💻 ␛]0;x␇ שלום\u200f"
    assert "\x1b" not in json.dumps(bundle("\x1b[31mred"), ensure_ascii=False)


def test_a_line_is_one_line() -> None:
    assert line("a\nb", "✓", note="c\nd")["text/plain"] == "✓ a␊b  c␊d"


@pytest.mark.parametrize("language", ["cpp", "java", "c", "apacheconf", "html+ng2", "devicetree", "css+genshitext"])
@pytest.mark.parametrize("unit", ["\n", " ", "<", "(", "0", "a"])
def test_colouring_takes_bounded_time_whatever_the_code(language: str, unit: str) -> None:
    for size in (1_900, 8_000, 60_000):
        began = time.thread_time()
        html = safe_html(f"```{language}\n{unit * size}\n```\n")
        assert time.thread_time() - began < 1.0, size
        assert Page(html).text.count(unit) >= size


def test_code_is_coloured_once_it_is_complete() -> None:
    text = "```python\ndef f(): return 1\n```\n"
    assert "<span" in bundle(text)["text/html"]
    assert "<span" not in bundle(text, coloured=False)["text/html"]
    assert Page(bundle(text)["text/html"]).text == Page(bundle(text, coloured=False)["text/html"]).text


def test_each_block_runs_in_the_direction_of_its_text_and_code_is_not_broken_inside_words() -> None:
    tags = Page(safe_html("# Title\n\nשלום\n\n- one\n\n> q\n\n```\ncode\n```\n")).tags
    assert {tag for tag, attributes in tags if attributes.get("dir") == "auto"} == {"h1", "p", "li", "blockquote"}
    (style,) = (attributes["style"] or "" for tag, attributes in tags if tag == "pre")
    assert "white-space:pre;word-break:normal;overflow-x:auto" in style
    assert "overflow-wrap:anywhere" in line("x" * 500)["text/html"]

"""Text of a model stays text, on any page."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser

import pytest
from kits.payloads import PAYLOADS

from mentra_nb.page import code_blocks
from mentra_nb.page.escaping import plain, visible
from mentra_nb.page.render import bundle, count_code, growing, line, safe_html

TAGS = {"a", "bdi", "blockquote", "br", "code", "del", "details", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6"}
TAGS |= {"hr", "li", "ol", "p", "pre", "s", "span", "strong", "summary", "ul"}
TAGS |= {"table", "tbody", "td", "th", "thead", "tr"}
TAGS |= {
    "b",
    "math",
    "mfrac",
    "mi",
    "mn",
    "mo",
    "mover",
    "mrow",
    "mspace",
    "msub",
    "msup",
    "mtable",
    "mtd",
    "mtext",
    "mtr",
}
TAGS |= {"semantics", "annotation"}
ATTRIBUTES = {"class", "dir", "href", "rel", "start", "style", "tabindex", "target"}
ATTRIBUTES |= {"accent", "display", "displaystyle", "lspace", "rspace", "scriptlevel", "stretchy"}


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
        assert "position" not in (attributes.get("style") or "")
        assert (attributes.get("class") or "mentra-").startswith(("mentra-", "jp-toc-ignore"))
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
    assert "$" not in data["text/html"]


def test_ordinary_markdown_looks_like_itself() -> None:
    text = "# Title\n\n- *one*\n- **two**\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
    text += "```python\ndef f(): return 1\n```\n\nIt costs $5."
    tags = [tag for tag, _ in Page(safe_html(text)).tags]
    assert {"h1", "ul", "em", "strong", "table", "pre", "code", "span"} <= set(tags)
    assert "def f(): return 1" in Page(safe_html(text)).text
    assert Page(safe_html(text)).text.rstrip().endswith("It costs $5.")
    assert bundle(text)["text/plain"] == text


def test_code_that_goes_on_from_another_block_is_still_code() -> None:
    assert Page(bundle("<b>1</b>\n", opener="```html\n")["text/html"]).text.strip() == "html[1]<b>1</b>"


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


@pytest.mark.slow
@pytest.mark.parametrize("language", ["cpp", "java", "c", "apacheconf", "html+ng2", "devicetree", "css+genshitext"])
@pytest.mark.parametrize("unit", ["\n", " ", "<", "(", "0", "a"])
def test_colouring_takes_bounded_time_whatever_the_code(language: str, unit: str) -> None:
    for size in (1_900, 8_000, 60_000):
        began = time.thread_time()
        html = safe_html(f"```{language}\n{unit * size}\n```\n")
        assert time.thread_time() - began < 1.0, size
        assert Page(html).text.count(unit) >= size


def test_code_that_takes_too_long_to_colour_is_shown_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_blocks, "COLOUR_SECONDS", -1.0)
    html = safe_html("```python\ndef f(): return 1\n```\n")
    assert "color:var(--jp-mirror-editor" not in html
    assert "def f(): return 1" in Page(html).text


def test_code_is_coloured_once_it_is_complete() -> None:
    text = "```python\ndef f(): return 1\n```\n"
    assert "<span style" in bundle(text)["text/html"]
    assert "<span style" not in growing(text)["text/html"]
    assert Page(bundle(text)["text/html"]).text == Page(growing(text)["text/html"]).text


def test_text_that_grows_is_sent_once_and_not_as_its_source_too() -> None:
    assert list(growing("# Title")) == ["text/html"]
    assert list(bundle("# Title")) == ["text/html", "text/plain"]


def test_headings_stay_out_of_the_table_of_contents_of_jupyterlab() -> None:
    tags = Page(safe_html("# One\n\ntext\n\nTwo\n---\n\n- # Three\n")).tags
    classes = [attributes.get("class") for tag, attributes in tags if tag in ("h1", "h2")]
    assert classes == ["jp-toc-ignore"] * 3


def test_each_block_runs_in_the_direction_of_its_text_and_code_is_not_broken_inside_words() -> None:
    tags = Page(safe_html("# Title\n\nשלום\n\n- one\n\n> q\n\n```\ncode\n```\n")).tags
    assert {tag for tag, attributes in tags if attributes.get("dir") == "auto"} == {"h1", "p", "li", "blockquote"}
    (style,) = (attributes["style"] or "" for tag, attributes in tags if tag == "pre")
    assert "white-space:pre;word-break:normal;overflow-wrap:normal;overflow-x:auto" in style
    assert "overflow-wrap:anywhere" in line("x" * 500)["text/html"]


def without_sources(html: str) -> str:
    """Return HTML without the sources of formulas, which a browser does not show."""
    return re.sub("<annotation>.*?</annotation>", "", html, flags=re.DOTALL)


def texts(tag: str, html: str) -> list[str]:
    return re.findall(f"<{tag}[^>]*>([^<]*)</{tag}>", html)


@pytest.mark.parametrize(
    ("markdown", "block"),
    [
        (r"It is \(a^2\).", False),
        ("It is $a^2$.", False),
        ("$a^2$-times", False),
        ("# About $a^2$", False),
        ("| $a^2$ |\n|---|", False),
        ("It is $$a^2$$", True),
        ("$$a^2$$", True),
        ("$$\na^2\n$$\n", True),
        ("Then\n\\[\na^2\n\\]\nfollows.", True),
        ("- one\n  \\[a^2\\]\n- two", True),
        ("> $$a^2\n> $$", True),
    ],
)
def test_a_formula_becomes_static_mathml(markdown: str, block: bool) -> None:
    html = safe_html(markdown)
    assert "<msup><mi>a</mi><mn>2</mn></msup>" in html
    assert ('<math display="block"' in html) is block
    assert_inert(html)
    shown = Page(without_sources(html)).text
    assert "$" not in shown
    assert "\\" not in shown
    assert Page(html).text.count("a^2") == 1
    assert bundle(markdown)["text/plain"] == markdown


@pytest.mark.parametrize(
    "prose",
    [
        "It costs $5 and $6.",
        "from $5 to 6$, then",
        "$HOME/bin:$PATH",
        "US$5, CA$6",
        "$5/kg or $6/kg",
        "$ a $",
        "one \\$a\\$ two",
        "`$a$`",
        "$a",
        "\\\\(a\\\\)",
        "```\n$a$ \\(b\\)\n```",
        "    $$a$$",
    ],
)
def test_prices_and_names_of_the_shell_are_not_formulas(prose: str) -> None:
    assert "<math" not in safe_html(prose)


@pytest.mark.parametrize(
    "formula",
    [
        r"\(\foo{a}\)",
        r"$\frac{a$",
        r"\[a &= b\]",
        r"$$\begin{x}a$$",
        "$" + r"\begin{matrix}" * 60 + r"\end{matrix}" * 60 + "$",
        "$" + "a" * 2001 + "$",
    ],
)
def test_a_formula_that_cannot_be_converted_stays_as_it_was_written(formula: str) -> None:
    assert Page(safe_html(f"It is {formula} then")).text.strip() == f"It is {formula} then"


@pytest.mark.parametrize("text", [r"\int x^2\,dx\;dy\:dz", r"begun \(a^2 and", r"begun \[a^2 and"])
def test_the_signs_of_tex_outside_a_formula_are_kept(text: str) -> None:
    assert Page(safe_html(text)).text.strip() == text


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["$", "$a", "$a ", r"\(", r"\[", "$$", "\\", "$$\n", "\\[\n", "$a$ ", "${$"])
def test_formulas_take_linear_time_whatever_the_text(unit: str) -> None:
    began = time.thread_time()
    safe_html(unit * (100_000 // len(unit)))
    assert time.thread_time() - began < 5.0


def test_macros_do_not_multiply_what_is_written() -> None:
    bomb = r"\newcommand{\a}{" + "x" * 1500 + "}" + r"\a" * 100
    assert "<math" not in safe_html(f"${bomb}$")


def test_a_block_of_code_has_its_language_and_number() -> None:
    text = "```python\n1\n```\n\n    2\n\n~~~\n3\n~~~\n"
    html = safe_html(text, first_code=4)
    assert texts("span", html)[:2] == ["python", "[4]"]
    assert [found for found in texts("span", html) if found.startswith("[")] == ["[4]", "[5]", "[6]"]
    assert count_code(text) == 3


def test_a_wide_block_of_code_can_be_scrolled_by_keyboard() -> None:
    assert "tabindex" in safe_html("```\n" + "x" * 100 + "\n```")
    assert "tabindex" not in safe_html("```\nx\n```")


def test_tokens_of_one_colour_are_one_span() -> None:
    html = safe_html('```python\nx = "a b c"\n# one two\n```')
    assert html.count("<span style") == 2


def test_cells_begin_at_their_side_unless_the_author_aligned_them() -> None:
    tags = Page(safe_html("| a | b |\n|---|--:|\n| 1 | 2 |")).tags
    assert [attributes["style"] for tag, attributes in tags if tag == "td"] == ["text-align:start", "text-align:right"]


def test_tasks_show_a_box() -> None:
    shown = Page(safe_html("- [ ] open\n- [x] done\n- [y] other\n\n[ ] prose")).text.split("\n")
    assert [row for row in shown if row] == ["☐ open", "☑ done", "[y] other", "[ ] prose"]


@pytest.mark.parametrize(
    "formula", [r"\color{white}{y}", r"\textcolor{red}{y}", r"\begin{array}{|c|c|} y & z \end{array}"]
)
def test_a_formula_cannot_hide_text_or_lay_it_over_the_page(formula: str) -> None:
    html = safe_html(f"${formula}$")
    assert "<mi>y</mi>" in html
    assert "color" not in without_sources(html)
    assert_inert(html.replace(" columnlines", ""))


def test_half_of_a_surrogate_pair_is_shown_in_a_form_that_can_be_sent() -> None:
    for text in bundle("a\ud800b").values():
        assert "a\\ud800b" in str(text).encode().decode()

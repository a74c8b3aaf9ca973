"""Rendering of untrusted text (of a model or a tool) for a trusted notebook page.

All output of a turn is a raw mimebundle made here, with the parts of `code_blocks.py` and `formulas.py`. No other
module builds HTML from untrusted text.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from mentra_nb.page.code_blocks import coloured_html, framed, language_of
from mentra_nb.page.escaping import NO_MATH, escape, plain, visible
from mentra_nb.page.formulas import add_formulas, formula_html
from mentra_nb.secrets.mask import mask_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it import MarkdownIt
    from markdown_it.token import Token

Bundle = dict[str, Any]
"""MIME type → data, for `display(bundle, raw=True)`."""


class Folded(NamedTuple):
    """A text that is folded behind a line, in a box of its own."""

    text: str
    language: str = ""
    """Of code, whose parts are then coloured."""
    from_end: bool = False
    """Whether a long text is shown scrolled to its end."""


# No user name and no `%` before the path: with them, browsers and urlsplit disagree about the host. markdown-it has
# written a backslash as %5C by then.
_LINK = re.compile(r"https?://[^\s/?#@%]+(?:[/?#]|$)|mailto:[^\s?]+$", re.IGNORECASE)
_REL = "noopener noreferrer nofollow"
_MUTED = "color:var(--jp-ui-font-color2,#666)"
_MONO = "font-family:var(--jp-code-font-family,monospace);font-size:var(--jp-code-font-size,13px)"
_WRAP = "white-space:pre-wrap;overflow-wrap:anywhere"
_BOX = "max-height:24em;overflow:auto;margin:2px 0 6px 1.5em;padding:6px 8px;" + (
    "border-left:2px solid var(--jp-border-color2,#ccc)"
)
_FROM_END = "display:flex;flex-direction:column-reverse"
"""Lets a box that scrolls begin at its end, without a script."""
# JupyterLab builds its table of contents anew for each change of a heading without this class.
_NOT_LISTED = "jp-toc-ignore"


def safe_html(markdown: str, *, coloured: bool = True, first_code: int = 1) -> str:
    """Render Markdown as static HTML without raw HTML, images or scripts; links show their host."""
    body: str = _parser().render(plain(markdown), {"coloured": coloured, "code": first_code}).replace("$", "&#36;")
    return f'<div class="mentra-text jp-RenderedMarkdown {NO_MATH}">{body}</div>'


def bundle(markdown: str, *, opener: str = "", first_code: int = 1) -> Bundle:
    """Return the text as a mimebundle: HTML, and the Markdown source as plain text.

    Args:
        markdown: The text.
        opener: Goes before the text in the HTML only: the opening fence, where it begins inside a block of code.
        first_code: The number of the first block of code.
    """
    return {
        "text/html": safe_html(opener + markdown, first_code=first_code),
        "text/plain": plain(markdown),
    }


def growing(markdown: str, *, opener: str = "", first_code: int = 1) -> Bundle:
    """Return text that is still growing: as HTML only, without the colours of code, since it is sent again and again.

    `opener` and `first_code` are those of `bundle`.
    """
    return {"text/html": safe_html(opener + markdown, coloured=False, first_code=first_code)}


def count_code(markdown: str) -> int:
    """Return the number of blocks of code in a text."""
    return len(code_in(markdown))


def code_in(markdown: str) -> list[tuple[str, str]]:
    """Return the language and the text of each block of code in a text, in the order of their numbers on the page."""
    tokens = _parser().parse(markdown)
    return [(language_of(t.info), t.content) for t in tokens if t.type in ("fence", "code_block")]


def fenced(text: str, language: str = "") -> str:
    """Return a text as a block of code in Markdown, with a fence that nothing in it can close."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"


def value_html(value: Any) -> str:
    """Return a value as static HTML: a DataFrame as its table, anything else as its `repr`."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        with pandas.option_context("display.html.use_mathjax", False):
            return f'<div class="{NO_MATH}">{value._repr_html_()}</div>'
    return f'<pre class="{NO_MATH}" style="{_WRAP}">{escape(visible(repr(value)))}</pre>'


def line(
    text: str,
    mark: str = "",
    *,
    code: str = "",
    note: str = "",
    detail: str | Sequence[Folded] = "",
    is_open: bool = False,
) -> Bundle:
    """Return one static line (a tool call, a decision, a footer) as a mimebundle. It is saved, so secrets are left out.

    Args:
        text: The line itself.
        mark: A sign before it, such as ✓; it carries the meaning without colour.
        code: What follows the text as code, such as a command.
        note: Text after it, in grey.
        detail: Text folded behind the line, or several of them.
        is_open: Whether the fold is open.
    """
    text, code, note = (visible(mask_secrets(part)) for part in (text, code, note))
    text, code, note = (part.replace("\n", "␊") for part in (text, code, note))
    spans = [escape(" ".join(filter(None, (mark, text))))]
    if code:
        spans.append(f'<bdi style="{_MONO}">{escape(code)}</bdi>')
    if note:
        spans.append(f'<bdi style="{_MUTED}">{escape(note)}</bdi>')
    head = f'<span style="{_WRAP}">{"  ".join(filter(None, spans))}</span>'
    if boxes := "".join(_box(part) for part in ([Folded(detail)] if isinstance(detail, str) else detail) if part.text):
        head = f"<details{' open' * is_open}><summary>{head}</summary>{boxes}</details>"
    words = (" ".join(filter(None, (mark, text))), code, note)
    return {
        "text/html": f'<div class="mentra-line {NO_MATH}">{head}</div>',
        "text/plain": "  ".join(filter(None, words)),
    }


def _box(part: Folded) -> str:
    shown = coloured_html(visible(mask_secrets(part.text)), part.language)
    if not part.from_end:
        return f'<pre style="{_MONO};{_WRAP};{_BOX}" tabindex="0">{shown}</pre>'
    inner = f"{_MONO};{_WRAP};margin:0;flex:none"  # else the page lets it shrink, and it scrolls itself
    return f'<div style="{_MONO};{_BOX};{_FROM_END}" tabindex="0"><pre style="{inner}">{shown}</pre></div>'


def _link(url: str) -> bool:
    return _LINK.match(url.strip()) is not None


def _host(url: str) -> str:
    parts = urlsplit(url)
    return parts.path if parts.scheme.lower() == "mailto" else (parts.hostname or url)


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt
    from markdown_it.renderer import RendererHTML

    class Renderer(RendererHTML):
        def image(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
            # A link, so that nothing is fetched: the address of an image can carry data out.
            url, name = str(tokens[idx].attrs.get("src", "")), escape(tokens[idx].content)
            return f'<a href="{escape(url)}" rel="{_REL}" target="_blank">[image: {name}]</a>{_host_note(url)}'

        def link_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
            url = escape(str(tokens[idx].attrs["href"]))
            return f'<a href="{url}" rel="{_REL}" target="_blank">'

        def link_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
            opening = next(t for t in reversed(tokens[:idx]) if t.type == "link_open")
            url = str(opening.attrs["href"])
            # The text of an autolink is its address, but with a punycode host decoded to letters that may deceive.
            told = opening.info == "auto" and "xn--" not in _host(url).lower()
            return "</a>" if told else "</a>" + _host_note(url)

        def fence(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
            number, env["code"] = env["code"], env["code"] + 1
            return framed(tokens[idx].content, tokens[idx].info, number, coloured=env["coloured"])

        code_block = fence

        def table_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
            return '<div style="overflow-x:auto" tabindex="0"><table>\n'

        def table_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
            return "</table></div>\n"

        def formula(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
            shown = formula_html(tokens[idx].content, tokens[idx].markup, **tokens[idx].meta)
            return f'<p style="overflow-x:auto;overflow-y:hidden">{shown}</p>\n' if tokens[idx].block else shown

    md = MarkdownIt("commonmark", {"html": False, "linkify": False}, renderer_cls=Renderer)
    md.enable(["table", "strikethrough"]).disable(["html_inline", "html_block"])
    add_formulas(md)
    md.core.ruler.push("layout", _lay_out)
    md.validateLink = _link  # type: ignore[method-assign]  # the library's documented way
    return md


_BLOCKS = frozenset(f"{name}_open" for name in ("paragraph", "heading", "list_item", "blockquote", "td", "th"))
_TASK = re.compile(r"\[([ xX])\](?= )")


def _lay_out(state: Any) -> None:
    """Let each block run in the direction of its first letter, cells begin at their side, and tasks show a box."""
    before: list[Any] = [None, None]
    for token in state.tokens:
        if token.type in _BLOCKS:
            token.attrSet("dir", "auto")
        if token.type == "heading_open":
            token.attrSet("class", _NOT_LISTED)
        if token.type == "inline" and getattr(before[1], "type", "") == "heading_open":
            for child in token.children or ():
                if child.type == "formula":
                    child.meta["heading"] = int(before[1].tag[1])
        if token.type in ("td_open", "th_open") and "style" not in token.attrs:
            token.attrSet("style", "text-align:start")
        if token.type == "inline" and getattr(before[0], "type", "") == "list_item_open" and token.children:
            first = token.children[0]
            if first.type == "text" and (found := _TASK.match(first.content)):
                first.content = ("☐" if found[1] == " " else "☑") + first.content[found.end() :]
                before[0].attrSet("style", "list-style-type:none")
        before = [before[1], token]


def _host_note(url: str) -> str:
    return f' <bdi style="{_MUTED}">({escape(_host(url))})</bdi>'

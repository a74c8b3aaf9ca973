"""Rendering of untrusted text (of a model or a tool) for a trusted notebook page.

All output of a turn is a raw mimebundle made here. No other module builds HTML from untrusted text.
"""

from __future__ import annotations

import re
import time
import unicodedata
from functools import cache
from html import escape as _escape
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it import MarkdownIt
    from markdown_it.token import Token

Bundle = dict[str, Any]
"""MIME type → data, for `display(bundle, raw=True)`."""

# No user name and no `%` before the path: with them, browsers and urlsplit disagree about the host. markdown-it has
# written a backslash as %5C by then.
_LINK = re.compile(r"https?://[^\s/?#@%]+(?:[/?#]|$)|mailto:[^\s?]+$", re.IGNORECASE)
_REL = "noopener noreferrer nofollow"
_MUTED = "color:var(--jp-ui-font-color2,#666)"
_MONO = "font-family:var(--jp-code-font-family,monospace);font-size:var(--jp-code-font-size,13px)"
_WRAP = "white-space:pre-wrap;overflow-wrap:anywhere"
# Scrolls sideways: the page's own style breaks long lines inside words.
_FRAME = (
    "margin:0 0 1em;padding:0.5em 0.75em;border:1px solid var(--jp-border-color2,#ccc);border-radius:3px;"
    "white-space:pre;word-break:normal;overflow-x:auto"
)
# The classes by which JupyterLab keeps MathJax (2, and 3 or later) from searching untrusted text for formulas.
NO_MATH = "tex2jax_ignore mathjax_ignore"

_UNUSUAL = re.compile(r"[^\x20-\x7e\n\t]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | {
    chr(c) for c in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})


MAX_COLOURED = 2_000
"""Characters of the longest code that is coloured. Lexers take quadratic time for some text, such as blank lines."""
COLOUR_SECONDS = 0.05
"""After this time code is left without colours."""


def escape(text: str) -> str:
    """Escape for HTML text and attribute values. `$` as well, which some pages read as mathematics."""
    return _escape(text, quote=True).replace("$", "&#36;")


def visible(text: str) -> str:
    """Replace every character that could hide or reorder others by a visible form: `␛`, `\\u202e`. No HTML escapes."""
    return _UNUSUAL.sub(lambda found: _shown(found[0]), text)


def plain(text: str) -> str:
    """Make control characters visible and leave the rest: for prose in a terminal or a `text/plain` entry."""
    return _CONTROL.sub(lambda found: _shown(found[0]), text)


def _shown(char: str) -> str:
    code = ord(char)
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "␡"
    if unicodedata.category(char) in _HIDDEN_CATEGORIES or char in _INVISIBLE:
        return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    return char


def safe_html(markdown: str, *, coloured: bool = True) -> str:
    """Render Markdown as static HTML without raw HTML, images or scripts; links show their host."""
    body: str = _parser().render(plain(markdown), {"coloured": coloured}).replace("$", "&#36;")
    return f'<div class="mentra-text jp-RenderedMarkdown {NO_MATH}">{body}</div>'


def bundle(markdown: str, *, opener: str = "", coloured: bool = True) -> Bundle:
    """Return the text as a mimebundle: HTML, and the Markdown source as plain text.

    Args:
        markdown: The text.
        opener: Goes before the text in the HTML only: the opening fence, where it begins inside a block of code.
        coloured: Whether to colour code, which takes a while. Text that is still growing is drawn without.
    """
    return {"text/html": safe_html(opener + markdown, coloured=coloured), "text/plain": plain(markdown)}


def line(text: str, mark: str = "", *, detail: str = "", note: str = "") -> Bundle:
    """Return one static line (a tool call, a decision, a footer) as a mimebundle.

    Args:
        text: The line itself.
        mark: A sign before it, such as ✓; it carries the meaning without colour.
        detail: Text folded behind the line.
        note: Text after it, in grey.
    """
    text, note, detail = visible(text).replace("\n", "␊"), visible(note).replace("\n", "␊"), visible(detail)
    head = f'<span style="{_MONO};{_WRAP}">{escape(" ".join(filter(None, (mark, text))))}</span>'
    if note:
        head += f' <span style="{_MUTED}">{escape(note)}</span>'
    if detail:
        box = f"{_MONO};{_WRAP};max-height:20em;overflow:auto;margin:0 0 0 1.5em"
        head = f'<details><summary>{head}</summary><pre style="{box}">{escape(detail)}</pre></details>'
    return {
        "text/html": f'<div class="mentra-line {NO_MATH}">{head}</div>',
        "text/plain": "  ".join(filter(None, (" ".join(filter(None, (mark, text))), note))),
    }


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
            return _code(tokens[idx].content, tokens[idx].info if env["coloured"] else "")

        def code_block(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
            return _code(tokens[idx].content, "")

    md = MarkdownIt("commonmark", {"html": False, "linkify": False}, renderer_cls=Renderer)
    md.enable(["table", "strikethrough"]).disable(["html_inline", "html_block"])
    md.core.ruler.push("direction", _set_direction)
    md.validateLink = _link  # type: ignore[method-assign]  # the library's documented way
    return md


_BLOCKS = frozenset(f"{name}_open" for name in ("paragraph", "heading", "list_item", "blockquote", "td", "th"))


def _set_direction(state: Any) -> None:
    """Let each block run in the direction of its first letter."""
    for token in state.tokens:
        if token.type in _BLOCKS:
            token.attrSet("dir", "auto")


def _host_note(url: str) -> str:
    return f' <bdi style="{_MUTED}">({escape(_host(url))})</bdi>'


def _code(code: str, info: str) -> str:
    """Render a block of code, coloured if its language is known. Of the info string only the name is used."""
    found = re.match(r"[\w+#.-]*", info.strip(), re.ASCII)
    language = found[0].lower() if found else ""
    spans = _coloured(code, language) if language and len(code) <= MAX_COLOURED else escape(code)
    return f'<pre style="{_FRAME}"><code>{spans}</code></pre>\n'


def _coloured(code: str, language: str) -> str:
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        tokens = get_lexer_by_name(language, stripnl=False).get_tokens(code)
    except ClassNotFound:
        return escape(code)
    # Not an HtmlFormatter: its colours are fixed, these follow the page's light or dark theme.
    parts, until = [], time.monotonic() + COLOUR_SECONDS
    for kind, text in tokens:
        style = _colour(str(kind))
        parts.append(f'<span style="{style}">{escape(text)}</span>' if style else escape(text))
        if time.monotonic() > until:
            return escape(code)
    return "".join(parts)


_COLOURS = {
    "Token.Keyword": "keyword-color,#008000",
    "Token.Operator.Word": "keyword-color,#008000",
    "Token.Literal.String": "string-color,#ba2121",
    "Token.Literal.Number": "number-color,#080",
    "Token.Comment": "comment-color,#408080",
    "Token.Name.Function": "def-color,#00f",
    "Token.Name.Class": "def-color,#00f",
    "Token.Name.Builtin": "builtin-color,#008000",
    "Token.Generic.Deleted": "error-color,#f00",
    "Token.Generic.Inserted": "string-2-color,#080",
}


@cache
def _colour(kind: str) -> str:
    """Return the inline style of a Pygments token type, in the variables of JupyterLab's editors."""
    for name, colour in _COLOURS.items():
        if kind == name or kind.startswith(name + "."):
            return f"color:var(--jp-mirror-editor-{colour})"
    return ""

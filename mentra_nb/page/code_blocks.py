"""Blocks of code as static HTML: a frame with the language and the number of the block, coloured where it is known."""

from __future__ import annotations

import re
import time
from functools import cache

from mentra_nb.page.escaping import escape

MAX_COLOURED = 2_000
"""Characters of the longest code that is coloured. Lexers take quadratic time for some text, such as blank lines."""
COLOUR_SECONDS = 0.05
"""After so much time of the processor code is left without colours."""
LONG_LINE = 60
"""Characters of a line after which a block may be wider than a page, and can be scrolled by keyboard."""

_FRAME = "margin:0 0 1em;border:1px solid var(--jp-border-color2,#ccc);border-radius:4px;overflow:hidden"
_LABEL = (
    "display:flex;justify-content:space-between;padding:2px 10px;background:var(--jp-layout-color2,#eee);"
    "color:var(--jp-ui-font-color2,#555);font-family:var(--jp-ui-font-family,sans-serif);"
    "font-size:var(--jp-ui-font-size1,13px)"
)
# Scrolls sideways: the page's own style breaks long lines inside words.
_CODE = (
    "margin:0;padding:8px 10px;border:0;background:var(--jp-cell-editor-background,#f5f5f5);"
    "white-space:pre;word-break:normal;overflow-wrap:normal;overflow-x:auto"
)
_INNER = "padding:0;background:none;white-space:inherit"
"""The page's own style frames and wraps code."""


def framed(code: str, info: str, number: int, *, coloured: bool) -> str:
    """Return a block of code in its frame. Of the info string only the name of the language is used."""
    language = language_of(info)
    spans = coloured_html(code, language) if coloured else escape(code)
    focus = ' tabindex="0"' if max(map(len, code.split("\n"))) > LONG_LINE else ""
    return (
        f'<div class="mentra-code" style="{_FRAME}"><div style="{_LABEL}"><span>{escape(language)}</span>'
        f'<span>[{number}]</span></div><pre style="{_CODE}"{focus}><code style="{_INNER}">{spans}</code></pre></div>\n'
    )


def language_of(info: str) -> str:
    """Return the name of the language that an info string begins with, in lower case; empty if it names none."""
    found = re.match(r"[\w+#.-]*", info.strip(), re.ASCII)
    return found[0].lower() if found else ""


def coloured_html(code: str, language: str) -> str:
    """Return code as HTML, with a span for each run of one colour, in the page's own colours; long code has none."""
    if not language or len(code) > MAX_COLOURED:
        return escape(code)
    spans = ((style, escape(text)) for style, text in coloured_runs(code, language))
    return "".join(f'<span style="{style}">{text}</span>' if style else text for style, text in spans)


def coloured_runs(code: str, language: str) -> list[tuple[str, str]]:
    """Return code as pieces of one style each, in the page's own colours; in one piece where that takes too long."""
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        tokens = get_lexer_by_name(language, stripnl=False).get_tokens(code)
    except ClassNotFound:
        return [("", code)]
    # Not an HtmlFormatter: its colours are fixed, these follow the page's light or dark theme.
    runs: list[tuple[str, str]] = []
    until = time.thread_time() + COLOUR_SECONDS
    for kind, text in tokens:
        style = _colour(str(kind))
        if runs and (style == runs[-1][0] or text.isspace()):
            runs[-1] = runs[-1][0], runs[-1][1] + text
        else:
            runs.append((style, text))
        if time.thread_time() > until:
            return [("", code)]
    return runs


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

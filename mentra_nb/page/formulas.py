"""Formulas in Markdown: found between `$…$`, `$$…$$`, `\\(…\\)` and `\\[…\\]`, and shown as static MathML.

What cannot be converted is shown as it was written. Of the MathML only known elements and attributes are kept.
"""

from __future__ import annotations

import re
import sys
from functools import cache, lru_cache
from typing import Any
from xml.etree.ElementTree import Element

from mentra_nb.page.escaping import escape

MAX_FORMULA = 2_000
"""Characters of the longest formula."""
MAX_MATHML = 60_000
"""Characters of the longest MathML: macros may multiply what is written."""
MAX_DEPTH = 40
"""Levels of the deepest MathML. Browsers lay out deeply nested tables in exponential time."""

_CLOSING = {"$": "$", "$$": "$$", "\\(": "\\)", "\\[": "\\]"}
_BLOCK = frozenset({"$$", "\\["})
_TEX = re.compile(r"[\\^_={}<>+]")
_KEEPS_BACKSLASH = frozenset(",;:")
"""After a backslash these are spaces in TeX; Markdown has no use for it."""

_ELEMENTS = frozenset(
    re.findall(
        r"\w+",
        "math mrow mi mn mo ms mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mmultiscripts "
        "mprescripts none mtable mtr mtd mpadded mphantom menclose mstyle b i",
    )
)
_SOURCE = "font-family:monospace;font-size:13px"
"""Without variables, which such a page takes out too."""
_WORD = r"[a-z]{1,20}(?: [a-z]{1,20})*"
_LENGTH = r"(?:-?0?\.\d+|\d?(?:\.\d+)?)(?:em|ex)?"
_STYLE = (
    r"(?:(?:text-align|justify-items): ?(?:left|right|center|start|end);?|"
    r"padding-(?:left|right): ?(?:0|1em);?|width: ?(?:50|100)%;?)+"
)
_ATTRIBUTES = (
    ("display mathvariant form columnalign rowalign notation stretchy fence separator", _WORD),
    ("largeop movablelimits symmetric accent accentunder displaystyle", "true|false"),
    ("lspace rspace width height depth linethickness rowspacing columnspacing minsize maxsize", _LENGTH),
    ("scriptlevel", r"[+-]?\d"),
    ("style", _STYLE),
)
_PATTERNS = {name: re.compile(pattern) for names, pattern in _ATTRIBUTES for name in names.split()}


def add_formulas(md: Any) -> None:
    """Add the syntax to a parser. Its renderer needs rules for `formula` tokens: `content`, and `markup` that opens."""
    begins = {"alt": ["paragraph", "reference", "blockquote", "list"]}
    md.block.ruler.before("fence", "formula", _block, begins)
    md.inline.ruler.before("escape", "formula", _inline)


def formula_html(tex: str, opening: str, heading: int = 5) -> str:
    """Return a formula as MathML, or as it was written if it cannot be converted. `heading` is 1 to 6 inside of one.

    A page that does not trust a notebook takes the tags of MathML out, and leaves their text, which nobody can read.
    That text has no size then, but the source, which browsers do not show inside of MathML, has.
    """
    found = _mathml(tex.strip(), opening in _BLOCK)
    if found is None:
        return f"<code>{escape(opening + tex + _CLOSING[opening])}</code>"
    begin, inner = found.removesuffix("</math>").split(">", 1)
    source = f'<annotation><bdi style="{_SOURCE}">{escape(tex.strip())}</bdi></annotation>'
    size = f"font-size:calc(var(--jp-content-font-size1,14px)*{1.2 ** (5 - heading):.4g})"  # as the page's headings
    return (
        f'<span style="font-size:0">{begin} style="{size}"><semantics><mrow>{inner}</mrow>{source}</semantics></math>'
        "</span>"
    )


@lru_cache(maxsize=256)  # text that still grows is drawn many times
def _mathml(tex: str, is_block: bool) -> str | None:
    from xml.etree.ElementTree import ParseError, fromstring

    if not tex or len(tex) > MAX_FORMULA or sys.platform == "emscripten":  # for a browser there is no math-core
        return None
    from math_core import LatexError

    try:
        made = _converter().convert_with_local_state(tex, displaystyle=is_block)
        return _safe(fromstring(made), 0) if len(made) <= MAX_MATHML else None  # noqa: S314 - no DTD
    except (LatexError, ParseError, ValueError):
        return None


@cache
def _converter() -> Any:
    from math_core import LatexToMathML

    return LatexToMathML(fancy_error=False, max_expansions=50)


def _safe(element: Element, depth: int) -> str:
    """Return an element with what is known to be harmless. Raises `ValueError` for an unknown element."""
    if element.tag not in _ELEMENTS or depth > MAX_DEPTH:
        raise ValueError(f"{element.tag} is not shown")
    kept = "".join(
        f' {name}="{escape(value)}"'
        for name, value in element.attrib.items()
        if name in _PATTERNS and _PATTERNS[name].fullmatch(value)
    )
    inner = escape(element.text or "")
    for child in element:
        inner += _safe(child, depth + 1) + escape(child.tail or "")
    return f"<{element.tag}{kept}>{inner}</{element.tag}>"


def _opening(text: str, at: int) -> str | None:
    found = text[at : at + 2]
    return found if found in _CLOSING else "$" if found[:1] == "$" else None


def _end(text: str, at: int, opening: str) -> int | None:
    """Return where the closing sign of a formula is that was opened before `at`."""
    closing = _CLOSING[opening]
    end = text.find(closing, at, at + MAX_FORMULA)
    while end > 0 and text[end - 1] == "\\":  # an escaped dollar, or a line break of TeX before the sign
        end = text.find(closing, end + 1, at + MAX_FORMULA)
    return end if end > at else None


def _inline(state: Any, silent: bool) -> bool:
    text, at = state.src, state.pos
    if text[at] not in "$\\":
        return False
    if text[at] == "\\" and text[at + 1 : at + 2] in _KEEPS_BACKSLASH:
        return _push_text(state, silent)
    opening = _opening(text, at)
    if opening is None:
        return False
    begin = at + len(opening)
    end = _end(text, begin, opening)
    if end is None or (opening == "$" and not _is_formula(text, begin, end)):
        return opening[0] == "\\" and _push_text(state, silent)
    if not silent:
        token = state.push("formula", "math", 0)
        token.content, token.markup = text[begin:end], opening
    state.pos = end + len(opening)
    return True


def _push_text(state: Any, silent: bool) -> bool:
    """Take a backslash and the character after it as they are."""
    if not silent:
        state.pending += state.src[state.pos : state.pos + 2]
    state.pos += 2
    return True


def _is_formula(text: str, begin: int, end: int) -> bool:
    """Return whether the text between two single dollars is a formula, and not two prices or two names of a shell."""
    inner, before, after = text[begin:end], text[begin - 2 : begin - 1], text[end + 1 : end + 2]
    if inner[0].isspace() or inner[-1].isspace() or before.isalnum() or after.isalnum() or "$" in (before, after):
        return False
    return not (inner[0].isdigit() and " " in inner and _TEX.search(inner) is None)


def _block(state: Any, start: int, last: int, silent: bool) -> bool:
    """Take lines from `$$` or `\\[` to the closing sign as one formula, if no blank line comes before it."""
    at = state.bMarks[start] + state.tShift[start]
    opening = state.src[at : at + 2]
    if opening not in _BLOCK or state.is_code_block(start) or start < state.env.get(opening, 0):
        return False
    text = ""
    for line in range(start, last if _end(state.src, at + 2, opening) is not None else start):
        text += state.getLines(line, line + 1, state.blkIndent, False).strip() + "\n"
        end = _end(text, 2, opening)
        if end is not None and not text[end + 2 :].strip():
            if not silent:
                token = state.push("formula", "math", 0)
                token.block, token.content, token.markup, token.map = True, text[2:end], opening, [start, line + 1]
                state.line = line + 1
            return True
        if end is not None or state.isEmpty(line):
            state.env[opening] = line + 1  # from the lines up to here as well, no formula ends
            return False
        if len(text) > MAX_FORMULA:
            return False
    return False

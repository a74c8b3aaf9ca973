"""Untrusted text as it may be shown: escaped for HTML, and with its hidden characters made visible."""

from __future__ import annotations

import re
import unicodedata
from html import escape as _escape

NO_MATH = "tex2jax_ignore mathjax_ignore"
"""The classes by which JupyterLab keeps MathJax (2, and 3 or later) from searching untrusted text for formulas."""

_UNUSUAL = re.compile(r"[^\x20-\x7e\n\t]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | {
    chr(c) for c in (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})


def escape(text: str) -> str:
    """Escape for HTML text and attribute values. `$` as well, which some pages read as mathematics."""
    return _escape(text, quote=True).replace("$", "&#36;")


def visible(text: str) -> str:
    """Replace every character that could hide or reorder others by a visible form: `␛`, `\\u202e`. No HTML escapes."""
    return _UNUSUAL.sub(lambda found: _shown(found[0]), text)


def plain(text: str) -> str:
    """Make control characters and half surrogate pairs visible: for prose in a terminal or a `text/plain` entry."""
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


def visible_code(code: str) -> str:
    """Replace every character that could hide or reorder others in code by its escape: `\\x1b`, `\\u202e`.

    In Python that means the same within quotes, and is an error elsewhere. The ends of lines become `\\n`, as Python
    reads them.
    """
    text = code.replace("\r\n", "\n").replace("\r", "\n")
    return _UNUSUAL.sub(lambda found: f"\\x{ord(found[0]):02x}" if ord(found[0]) < 0x80 else _shown(found[0]), text)


def cut(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text. A cut one ends in `…`."""
    return text if len(text) <= limit else text[: limit - 1] + "…"

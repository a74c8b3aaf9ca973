"""The encoding of a text that is not UTF-8, guessed from its bytes."""

from __future__ import annotations

import re

KNOWN = (
    *("cp932", "euc_jp", "gb18030", "big5", "cp949"),
    *("cp1252", "cp1251", "cp1250", "cp1253", "koi8_r"),
)
"""The encodings that are guessed. Of those that fit equally well, the first is taken."""
BEFORE, AFTER = 32 << 10, 96 << 10
"""Bytes that are looked at around the first one that is not UTF-8."""
_NOT_TEXT = re.compile(rb"[\0-\x08\x0e-\x19\x1c-\x1f\x7f]")
"""The control characters that no text has. An end of file (1A) and an escape (1B) may be in one."""


def guessed(raw: bytes, at: int) -> str | None:
    """Return the encoding of a text of which the byte `at` is not UTF-8; `None` if it is not text.

    If none of `KNOWN` fits, it is Latin-1, which has a character for each byte.
    """
    if _NOT_TEXT.search(raw):
        return None
    from charset_normalizer import from_bytes  # it takes a while to load

    begin = raw.rfind(b"\n", 0, max(0, at - BEFORE)) + 1
    found = list(from_bytes(raw[begin : at + AFTER], cp_isolation=list(KNOWN)))
    least = min((each.chaos for each in found), default=0.0)
    fitting = {name for each in found if each.chaos == least for name in each.could_be_from_charset}
    for name in (*(each for each in KNOWN if each in fitting), "cp1252"):
        if _decodes(raw, name):
            return name
    return "latin_1"


def _decodes(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True

"""Replace secrets in text. Linear in the text's length; a text that cannot hold a secret costs a few microseconds."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mentra_nb.secrets.late import late
from mentra_nb.secrets.names import ENDS, by_letter, lowered, named
from mentra_nb.secrets.places import PLACES
from mentra_nb.secrets.vendors import FIXED, may_hold_key, prefixed

REDACTED = "[redacted]"

_FIXED = tuple((hint, late(form, re.ASCII)) for _, hint, form in FIXED)

_PARAMETER = r"(?:[\w.-]{0,30}[-_.])?(?:key|code|hash|hmac|ticket|credential|assertion)="
# What `FIXED` and `PLACES` need, in lower-case JSON or text, by rare letters; a name is found by its end.
_HINTS = {
    "z": r"(?<=authoriz)ation[\"'\\\])}]{0,4}(?:\s|\\t){0,9}[:=]|(?<=b3blbnnz)ac1|(?<=\baz) acr|(?<=7z)|ip ",
    "k": r"(?<=cook)ie|(?<=hooks.slack)\.com|(?<=webhook)(?:s/\d|b2/)|(?<=sk)[0-9a-f]{32}",
    "v": r"(?<=priv)ate-lines|(?<=atlasv)1\.|(?<=sv)n ",
    "b": r"earer|asic |cp |(?<=-b)[ =]|(?<=mariadb)|(?<=ified b)y|(?<=rabb)itmqctl",
    "=": r"(?<=sessid=)|(?<=sessionid=)|(?<=connect.sid=)",
    "/": r"(?<=://)[^\s/\"'`<>]{1,400}@",
    r"\?": _PARAMETER,
    "&": _PARAMETER,
    "u": r"(?<=[\"']au)th|(?<=-u)(?:ser)?(?:[ =]|\\{0,3}[\"'],?\s?)?[\"'\\]{0,4}[\w.@+-]{0,64}[:%]|(?<=--au)th"
    r"|(?<=-u)s\d|(?<=su)do -s|(?<=secu)restring|(?<=masterau)th|(?<=secu)rity|(?<=au)th\w{0,6}\s?=?\s?\("
    r"|(?<=[^a-z]au)th |(?<=net u)se|ser(?:add|mod)",
    "q": r"(?<=mysq)l|(?<=sq)l(?:cmd|plus)|(?<=\dq)~",
    "g": r"(?<=log)in|(?<=mong)o",
    "w": r"(?<=tw)ine",
    "x": r"(?<=influx)|(?<=psex)ec|freerdp|h ",
    "c": r"(?<=-c)li|(?<=http-basic)\.|(?<=sec)rets (?:set|put|create|add|update)",
    "p": r"(?<=snmp)|(?<=lftp)|(?<=http)s? |(?<=ldap)|link|scp|sftp|at[a-z0-9]{14}\.",
    ":": r"thin:|oci|[56]43\d?:|\*:|aa[\w-]{20}",
    "3": r"(?<=a3)-[a-z0-9]{6}-",
    r"\.": r"[\w-]{6}\.[\w-]{20}|(?<=[0-9a-f]{8}\.)[a-z0-9]{16}",
    r"\+": "ast",
    "j": r"qqj9|(?<=eyj)",
    r"\$": r"apr1|[2567y]|argon2|pbkdf2",
}
_HINT = by_letter({letter: "|".join(filter(None, (ENDS.get(letter), _HINTS[letter]))) for letter in _HINTS})


def may_hold_secret(text: str) -> bool:
    """Return whether `mask_secrets` could change a text, or the JSON of one. May be True without need, never False."""
    return _HINT.search(text.lower()) is not None or may_hold_key(text)


def secret_spans(text: str) -> list[tuple[int, int]]:
    """Return where secrets are, from the first to the last; no two overlap."""
    lower = lowered(text)
    found = list(prefixed(text))
    for hint, form in _FIXED:
        if hint in text:
            found.extend(match.span() for match in form.finditer(text))
    found.extend(named(text, lower))
    for hints, expression, is_secret in PLACES:
        if any(hint in lower for hint in hints):
            found.extend(match.span("value") for match in expression.finditer(text) if is_secret(match["value"]))
    return _merged(found)


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


_OF_KEYS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.~+/=-"
_LONGEST_PART = 1024


def without_last_part(text: str) -> str:
    """Return a text that was cut without the word at its end, of which a part may be missing: it may be half a key.

    A word of more than 1,024 characters stays.
    """
    end = text[-_LONGEST_PART:].rstrip(_OF_KEYS)
    return text[:-_LONGEST_PART] + end if end else text


def without_first_part(text: str) -> str:
    """Return a text whose beginning was cut off without the rest of the word there, as `without_last_part`."""
    begin = text[:_LONGEST_PART].lstrip(_OF_KEYS)
    return begin + text[_LONGEST_PART:] if begin else text


def mask_secrets(text: str) -> str:
    """Return a text with `[redacted]` in place of keys, tokens, passwords and private keys.

    Example:
        >>> mask_secrets("curl -u ann:pa55word https://example.org")
        'curl -u ann:[redacted] https://example.org'
    """
    if not may_hold_secret(text):
        return text
    parts, at = [], 0
    for start, end in secret_spans(text):
        parts += [text[at:start], REDACTED]
        at = end
    return "".join([*parts, text[at:]])

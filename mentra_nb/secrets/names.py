"""Secrets that stand after their name: `DB_PASSWORD="…"`, `--token …`, `{"api_key": "…"}`, `my password is …`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from mentra_nb.secrets.late import late
from mentra_nb.secrets.values import is_key, is_strong, is_value
from mentra_nb.secrets.vendors import looks_random

ENDS = {
    "k": r"(?<=tok)en(?!s)|eys?(?![a-z])|(?<=psk)(?<![a-z]psk)(?![a-z])",
    "w": r"(?<=passw)(?:or[dt]|d)(?!s)|(?<=pw)d?(?![a-z])|(?<=kennw)ort",
    "c": r"(?<=sec)ret(?!s)|(?<=passc)ode|redentials?",
    "p": r"(?<=passp)hrase|(?<=seed.p)hrase|ass(?![a-z])|(?<=[-_]p)at(?![a-z])",
    "g": r"(?<=sig)(?:nature)?(?![a-z])",
    "u": r"(?<=[-_]au)th(?![a-z])",
}
"""What `FINDER` finds in lower-case text, by rare letters: see `by_letter`."""


def by_letter(forms: Mapping[str, str]) -> re.Pattern[str]:
    """Return an expression for alternatives that begin with a letter each, escaped, and go on as given.

    A search for letters that are rare in text is several times faster than one for those that words begin with, and
    than one with an alternative that begins with a set of letters.
    """
    return late("|".join(f"{letter}(?:{rest})" for letter, rest in forms.items()))


FINDER = by_letter(ENDS)
"""The ends of the names of secrets, and of some other words: see `_is_whole`."""

_KEY = late(
    r"(?:api|app|access|secret|private|signing|signature|encryption|account|shared[-_ ]?access|client|master|service"
    r"|auth|admin|licen[cs]e|pre[-_]?shared|subscription|webhook|deploy|consumer|jwt|hmac|aes|unseal|functions?"
    r"|decryption|cipher|security)[-_ ]?keys?$",
    re.IGNORECASE,
)
_PASS = late(r"(?:store|key|user|root|admin|db|sql|ftp|ssh|mail|smtp|http|proxy|wifi)pass$", re.IGNORECASE)
_BEFORE = late(r"[\w.$-]{0,80}")
_TAIL = (
    r"(?i:[-_]?(?:value|string|text|base|b64|base64|old|new|prod|dev|test|live|secret|data)"
    r"|(?<=key)[-_]id|(?<=secret)[-_]id|[-_ ]?\d{1,3})?"
)
_TAIL_END = late(_TAIL)
_SPACED_KEY = late(r"(?i:api|access|secret|private|account|unseal|signing|license) $")

QUOTE = r"\\{0,3}(?:\"\"\"|'''|[\"'`])"
BLANK = r"(?:[ \t]|\\t){0,9}"
END = r"(?:\\{0,3}[\"'`])?\s?[\])}]{0,2}"


def _quoted(most: int) -> str:
    body = rf"(?:(?!(?P=quote))(?:\\\\\\[\"'`]|\\.|[^\r\n\\])){{1,{most}}}"
    return rf"(?:[fbruFBRU@]{{0,2}}(?P<quote>{QUOTE})(?P<quoted>{body}))"


def _value(most: int) -> str:
    return rf"(?:{_quoted(most)}|(?P<bare>(?:[^\s\"'`\\,;&<>|]|\\(?![\"'nrtu\\])){{1,{most}}}))"


_ANNOTATED = r":[ \t]{0,3}[A-Za-z][\w.|\[\]]{0,40}[ \t]{0,3}=(?=[ \t]{0,3}[\"'fbru\\])"
_BLOCK = r":[ \t]{1,3}[|>][-+]?[ \t]{0,3}(?:\r?\n|\\n)[ \t]{1,40}"
_ASSIGNED = late(rf"{_TAIL}{END}{BLANK}(?:{_ANNOTATED}|{_BLOCK}|:=|=>|(?P<test>[!=]==?)|\?=|::?|=){BLANK}")
_LISTED = late(rf"{_TAIL}{QUOTE},\s?(?=[fbru]?{QUOTE})")
_TAGGED = late(rf"{_TAIL}>\s{{0,9}}")
_VALUED = late(rf"{_TAIL}{END},?(?:\s|\\n){{0,40}}(?:{QUOTE})?(?i:value){END}{BLANK}[:=]{BLANK}")
_TOLD = late(r"\s(?:is|was|as|to|ist|lautet)(?: now)?:?\s{1,3}")
_APART = late(rf"{_TAIL}(?:\\?[\"'],\s{{0,9}}|\s{{1,3}})")
_SETTER = late(
    r"\b(?:set(?:x|env)?|export|add-generic-password|config(?:ure)? set|config:set|env|arg)\s{1,3}"
    r"(?:-\w{1,2}\s|//\S{1,80}:)?$",
    re.I,
)
_SHORT, _WHOLE = late(_value(256)), late(_value(65536))
_TEXT = late(r"(?P<bare>[^<\r\n]{3,512}+)(?=</|\Z)")


def lowered(text: str) -> str:
    """Return the text in lower case with every letter at its place."""
    lower = text.lower()
    return lower if len(lower) == len(text) else text.translate(_LOWER)


_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def named(text: str, lower: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of secrets that stand after their name."""
    at = 0
    while found := FINDER.search(lower, at):
        at = found.end()
        name = _name(text, at)
        if _is_whole(text, at, name) and (span := _after(text, at, name)) is not None:
            yield span
            at = span[1]


def is_secret_name(name: str) -> bool:
    """Return whether a value with this name is a secret: `db_password`, `X-Api-Key`, but not `max_tokens`."""
    short = name[-80:]
    lower = lowered(short)
    if lower.endswith(("authorization", "cookie")):
        return True
    for found in FINDER.finditer(lower):
        end = found.end()
        tail = _TAIL_END.match(short, end)
        if tail is not None and tail.end() == len(short) and _is_whole(short, end, short[:end]):
            return not _is_plain_key(short[:end]) and not lower.endswith(("sig", "signature"))
    return False


def is_generated_key(name: str, value: str) -> bool:
    """Return whether this is a plain `key` with a value that was generated."""
    return name.lower() == "key" and is_key(value, quoted=True)


def is_secret_flag(word: str) -> bool:
    """Return whether this word of a command is a flag whose value is a secret: `--token`."""
    return word.startswith("-") and len(word) <= 80 and is_secret_name(word)


def _name(text: str, end: int) -> str:
    """Return the word that ends here, with the one before it in `API key`."""
    before = _BEFORE.match(text[max(0, end - 80) : end][::-1])
    name = before[0][::-1] if before is not None else ""
    if name.lower() in ("key", "keys") and (
        word := _SPACED_KEY.search(text[max(0, end - len(name) - 9) : end - len(name)])
    ):
        return word[0] + name
    return name


def _is_whole(text: str, end: int, name: str) -> bool:
    """Return whether a short word ends a name: `DB_PASS`, `dbPass`, but not `compass`."""
    lower = name.lower()
    for word in ("keys", "key", "pass", "pw", "sig"):
        if lower.endswith(word):
            start = len(name) - len(word)
            before = name[start - 1 : start]
            if (word.startswith("key") and _KEY.search(name)) or lower.endswith("bindpw") or _PASS.search(name):
                return True
            return not before.isalpha() or (before.islower() and name[start].isupper())
    return True


def _is_plain_key(name: str) -> bool:
    return name.lower().endswith(("key", "keys")) and _KEY.search(name) is None


def _after(text: str, end: int, name: str) -> tuple[int, int] | None:
    """Return the span of the secret after a name, or `None` if there is none."""
    plain = _is_plain_key(name)
    usual = "key" if plain else "strong" if name.lower().endswith(("sig", "signature")) else "value"
    if (sign := _ASSIGNED.match(text, end)) is not None:
        return _taken(text, sign.end(), name, usual, only_quoted=sign["test"] is not None)
    if (sign := _VALUED.match(text, end)) is not None and not plain:
        return _taken(text, sign.end(), name, "value")
    if (sign := _TAGGED.match(text, end)) is not None and not plain:
        return (
            _taken(text, sign.end(), name, "value", _TEXT)
            if text[end - len(name) - 1 : end - len(name)] == "<"
            else None
        )
    if (sign := _LISTED.match(text, end)) is not None and not name.startswith("-"):
        called = re.search(r"\w\(\s?\\?[\"'`]$", text[max(0, end - len(name) - 5) : end - len(name)])
        return _taken(text, sign.end(), name, usual if called or plain else "strong")
    if (sign := _APART.match(text, end)) is None:
        return None
    if name.startswith("-"):
        return _taken(text, sign.end(), name, usual)
    if _SETTER.search(text[max(0, end - len(name) - 112) : end - len(name)]):
        return _taken(text, sign.end(), name, "value" if "_" in name and name.isupper() else "strong")
    if plain:
        return None
    told = _TOLD.match(text, end)
    return _taken(text, (told or sign).end(), name, "strong" if told is not None else "random")


def _taken(
    text: str, at: int, name: str, kind: str, form: re.Pattern[str] = _SHORT, *, only_quoted: bool = False
) -> tuple[int, int] | None:
    """Return the span of the value at a place, if it is a secret. A long value is read to its end only then."""
    found = form.match(text, at)
    if found is None:
        return None
    quoted = found.groupdict().get("quoted") is not None
    value = found["quoted"] if quoted else found["bare"]
    if kind == "key":
        good = is_key(value, quoted=quoted)
    elif kind == "random":
        good = "-" not in value and is_key(value, quoted=quoted) and looks_random(value)  # names have hyphens
    elif kind == "strong":
        good = is_strong(value, quoted=quoted)
    else:
        good = is_value(value, quoted=quoted, name=name)
    if not good or (only_quoted and not quoted):
        return None
    whole = _WHOLE.match(text, at) if form is _SHORT else found
    assert whole is not None
    start, end = whole.span("quoted" if quoted else "bare")
    if not quoted and form is _SHORT:
        end -= len(whole["bare"]) - len(whole["bare"].rstrip(")]}"))
    return start, end

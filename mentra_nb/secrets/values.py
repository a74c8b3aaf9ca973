"""Whether a text in the place of a secret is one, or code, a path, a placeholder, a word of prose."""

from __future__ import annotations

import re

from mentra_nb.secrets.late import late
from mentra_nb.secrets.vendors import looks_random

_PLACEHOLDER = late(
    r"""\$[\w{(\[:]|\{|\#\{|<[^<>]*>?$|%[\w({]|\*{3}|x{4,}$|\.{3}|…|\[redacted\]|\[[A-Z]+\]$
    |(?:none|null|nil|undefined|true|false|redacted|required|optional|hidden|missing|invalid|empty|masked|string|str
       |int|bytes|bool|any|object|unknown|value|not|default|secretstr|union|callable|sequence|literal|await|new|lambda
       |self|cls|yield|include|omit|same-origin)\b[\]?!|]*\W*$
    |(?:your|my|the|insert|replace|enter|an?|paste)[-_ ][A-Za-z _-]*$""",
    re.VERBOSE | re.IGNORECASE,
)
_WORDS = r"(?:tokens?|secrets?|passw(?:or)?ds?|pwd|keys?|credentials?|env|passphrase|signature|authorization|cookies?)"
_OF_CODE = late(
    rf"""[A-Za-z_][\w.]*[(\[]  # a call, an item
    |[A-Za-z_]\w*(?:(?:\.|->|::)[A-Za-z_]+)+[^\w]*$  # an attribute
    |(?:[a-z_]+[_.])?{_WORDS}(?:_[a-z_]+)?\d?[^\w]*$  # another name
    |(?:[A-Z]+_)?{_WORDS.upper()}[^\w]*$
    |(?:[A-Z][a-z]+)*(?:Token|Secret|Password|Key|Credential|Str)s?[^\w]*$  # a type
    |[(\[]|-{{1,2}}[a-z]|@\w+$""",
    re.VERBOSE,
)
_SNAKE = late(r"[a-z]+(?:_[a-z]+)+\W*$")
_PATH = late(r"(?:~|\.{1,2}|[A-Za-z]:)?[/\\](?![\w+/]*[+=])")
_UUID = late(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SECRET_WORD = late(rf"\b{_WORDS}\b", re.IGNORECASE)
_MOST_WORDS = 12


def is_placeholder(value: str) -> bool:
    """Return whether a value stands for another: `$TOKEN`, `{token}`, `<token>`, `***`, `your-key`, `None`."""
    return _PLACEHOLDER.match(value) is not None


def is_value(value: str, *, quoted: bool, name: str = "") -> bool:
    """Return whether what follows a secret's name is one: not a variable, a call, a type, a path, a placeholder."""
    value = value.strip()
    if len(value) < 4 or is_placeholder(value) or _PATH.match(value):
        return False
    if quoted:
        return not (" " in value and (_SECRET_WORD.search(value) or value.count(" ") >= _MOST_WORDS))
    return not (_OF_CODE.match(value) or (name.islower() and _SNAKE.match(value))) and value.strip(")]}") != ""


def is_strong(value: str, *, quoted: bool) -> bool:
    """Return whether a value looks like a secret by itself: it has a digit and a letter, or is long."""
    if len(value) < 6 or " " in value or not is_value(value, quoted=quoted) or re.match(r"[A-Z_]+$", value):
        return False
    if _is_path(value):
        return False
    return (re.search(r"\d", value) is not None and re.search("[A-Za-z]", value) is not None) or len(value) >= 24


def _is_path(value: str) -> bool:
    """Return whether a text with slashes has names between them, and not the letters of a generated key."""
    if "/" not in value or (len(value) >= 20 and re.search("[+=]", value)):
        return False
    parts = re.findall(r"[A-Za-z0-9]{16,}", value)
    return not any(re.search(r"\d", part) and part not in (part.lower(), part.upper()) for part in parts)


def is_key(value: str, *, quoted: bool) -> bool:
    """Return whether the value of a plain `key` is a secret: generated, and not a date, a path, a UUID or a name."""
    if not re.fullmatch(r"[\w+/=~.-]{12,8192}", value) or not is_value(value, quoted=quoted) or _UUID.fullmatch(value):
        return False
    if _is_path(value):
        return False
    return looks_random(value) if len(value) >= 16 else "-" not in value and is_strong(value, quoted=quoted)


def is_password(value: str) -> bool:
    """Return whether what follows `user:` is a password, and not the number of a group or a port."""
    return not (len(value) < 3 or is_placeholder(value) or (value.isdigit() and len(value) < 6))


def is_argument(value: str) -> bool:
    """Return whether the word after a flag for passwords is one, and not another flag."""
    return is_password(value) and not value.startswith("-")


def is_header(value: str) -> bool:
    """Return whether the value of `Authorization` or `Cookie` is one, and not prose or a placeholder."""
    value = value.strip()
    scheme, _, rest = value.partition(" ")
    if scheme.lower() in ("basic", "bearer", "token", "digest", "negotiate", "apikey", "api-key", "bot", "key", "ntlm"):
        return rest.strip() != "" and not is_placeholder(rest.strip())
    if len(value) < 4 or is_placeholder(value) or is_placeholder(scheme) or _OF_CODE.match(value):
        return False
    return re.search(r"[\d=]", value) is not None or " " not in value

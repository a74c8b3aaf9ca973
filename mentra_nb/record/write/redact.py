"""What of an event is recorded: secrets become `[redacted]`, long texts are cut, and texts can be left out.

Pure functions from one event (a JSON-like dict) to another, without I/O.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

from mentra_nb.errors import ConfigurationError

Pattern: TypeAlias = re.Pattern[str]
LogText = Literal["none", "preview", "full"]
"""`none` leaves texts out, `preview` keeps 8 KiB of each, `full` up to 4 MiB of each."""

REDACTED = "[redacted]"
PREVIEW_LIMIT = 8 * 1024
FULL_LIMIT = 4 << 20  # queries skip lines above 64 MiB

_SECRET_KEY = re.compile(
    r"(?i)(?:^|[-_])(?:authorization|cookie|token|secret|password|passwd|passphrase|pwd|credentials?)$"
    r"|(?:api|access|secret|private|signing|encryption|account)[-_]?keys?(?:[-_]?id)?$"
    r"|(?<=[a-z])(?:token|secret|password)$"
)
_NOT_YET = r"(?!\[redacted\])"
_SECRET_TEXT: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.I), replacement)
    for pattern, replacement in (
        (r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?s:.*?)(?:-----END [A-Z ]*-----|\Z)", REDACTED),
        (rf"((?:authorization|cookie)\\?[\"']?\s*[:=]\s*\\?[\"']?){_NOT_YET}[^\r\n\"'\\]+", rf"\1{REDACTED}"),
        (r"\b(bearer)\s+(?:(?=\S*\d)[\w.~+/=-]{8,}|[\w.~+/=-]{20,})", rf"\1 {REDACTED}"),
        (r"\b(?:sk|rk|pk)[-_](?=[\w-]{0,40}\d)[\w-]{16,}", REDACTED),
        (r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", REDACTED),
        (r"\b(?:gh[pousr]_|github_pat_|glpat-|hf_|xox[abeoprs]-|npm_|pypi-)(?=[\w-]{0,40}\d)[\w-]{10,}", REDACTED),
        (r"\bhf_[a-z]{30,}", REDACTED),
        (r"\bAIza[\w-]{30,}", REDACTED),
        (r"(?<![\w-])eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+", REDACTED),
        (r"(?<=://)[^\s/:@]*:[^\s/@]+(?=@)", REDACTED),
        (
            r"((?:(?:api|access|secret|private)[-_]?key|token|secret|password|passwd|pwd)\\?[\"']?\s*[:=]\s*\\?[\"']?)"
            rf"{_NOT_YET}[^\s\"'\\,;&}}]{{4,}}",
            rf"\1{REDACTED}",
        ),
    )
)
# A quick test on lower-case text: each pattern above needs one of these. Our own names, such as `input_tokens` and
# `tool_authorization_started`, do not match. Each alternative begins at its rarest letter, which is much faster.
_HINT = re.compile(
    r"k(?<=tok)en(?!s)|k(?<=cook)ie|key|k[-_]|k(?<=ak)ia|z(?<=authoriz)ation(?!_)|z(?<=aiz)a|x(?<=x)ox|j(?<=eyj)"
    r"|w(?<=passw)|phrase|pwd|c(?<=sec)ret|credential|bearer|:(?=//)|i(?<=asi)a|g(?:h[pousr]_|ithub_pat_|lpat-)|f(?<=hf)_"
    r"|m(?<=npm)_|pypi-"
)

_MOST_FIELDS = 32
_LONGEST_NAME = 64
_SHORT_FIELD = 256
_DEEPEST = 100
_MOST_BITS = 10_000  # Python refuses to write longer numbers as decimal digits

_BODIES = ("prompt", "output_preview", "subject", "command", "query_preview", "detail")
_PREVIEW_BODIES = ("raw_input", "structured_input")


def may_hold_secret(line: str) -> bool:
    """Return whether `redact` could change this JSON text. Cheap; may return True without need, never False."""
    return _HINT.search(line.lower()) is not None


def own_patterns(patterns: Iterable[str]) -> tuple[Pattern, ...]:
    """Compile a user's regular expressions for `redact`. Raises `ConfigurationError` for an invalid one."""
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            raise ConfigurationError(f"redact: {pattern!r} is not a regular expression: {error}") from None
    return tuple(compiled)


def redact(event: dict[str, Any], own: Iterable[Pattern] = ()) -> dict[str, Any]:
    """Return the event with `[redacted]` for each value whose key or form is that of a secret, and each match of `own`.

    Counts such as `input_tokens` are kept.
    """
    return {key: REDACTED if _is_secret(key, value) else _redact_value(value, own) for key, value in event.items()}


def _is_secret(key: Any, value: Any) -> bool:
    return isinstance(value, str | list | dict) and bool(value) and _SECRET_KEY.search(str(key)) is not None


def _redact_value(value: Any, own: Iterable[Pattern]) -> Any:
    if isinstance(value, str):
        return redact_text(value, own)
    if isinstance(value, dict):
        return redact(value, own)
    if isinstance(value, list | tuple):
        return [_redact_value(item, own) for item in value]
    return value


def redact_text(text: str, own: Iterable[Pattern] = ()) -> str:
    """Return the text with keys, tokens, passwords in URLs, `Authorization` values and private keys replaced."""
    for pattern in own:
        text = pattern.sub(REDACTED, text)
    for secret, replacement in _SECRET_TEXT:
        text = secret.sub(replacement, text)
    return text


def without_bodies(payload: dict[str, Any]) -> dict[str, Any]:
    """Return the payload for `log_text='none'`: without prompts, arguments, commands and outputs."""
    kept: dict[str, Any] = {key: "" if key in _BODIES else value for key, value in payload.items()}
    if "input" in kept:
        kept["input"] = None
    if isinstance(preview := kept.get("preview"), dict):
        kept["preview"] = {key: None if key in _PREVIEW_BODIES else value for key, value in preview.items()}
    for key in ("error", "reason"):
        if isinstance(kept.get(key), str):
            kept[key] = kept[key][:200]
    return kept


def capped(payload: dict[str, Any], limit: int) -> dict[str, Any]:
    """Return the payload with each value cut to about `limit` bytes, and `output_truncated` set if the output was cut.

    Objects stay objects, so that a query finds their short fields; see `_shortened`.
    """
    kept = dict(payload)
    for key, value in payload.items():
        if key == "preview" and isinstance(value, dict):
            kept[key] = {name: _fitting(part, limit) for name, part in value.items()}
        elif (fitting := _fitting(value, limit)) is not value:
            kept[key] = fitting
            if not isinstance(value, dict):
                kept["output_truncated" if key == "output_preview" else f"{key}_truncated"] = True
    return kept


def _fitting(value: Any, limit: int) -> Any:
    """Return the value itself if it fits, else a shorter one: of a text or list the beginning, else an object."""
    if isinstance(value, str):
        return _cut(value, limit)
    if not isinstance(value, dict | list | tuple) or len(text := _as_json(value)) * 4 <= limit:
        return value
    if len(text.encode("utf-8", "replace")) <= limit:
        return value
    if isinstance(value, dict):
        return _shortened(value, text, limit)
    return _first_items(value, limit) or [_cut(text, limit)]


def _shortened(value: dict[str, Any], text: str, limit: int) -> dict[str, Any]:
    """Return an object of about `limit` bytes: short fields as they are, the beginnings of long texts, and `truncated`.

    `truncated` names the fields that were cut. In place of an object with many fields or long names, it is the first
    part of its JSON.
    """
    if len(value) > _MOST_FIELDS or any(len(str(key)) > _LONGEST_NAME for key in value):
        return {"truncated": _cut(text, limit)}
    if set(value) == {"truncated"}:
        return {"truncated": _fitting(value["truncated"], limit)}
    long = [key for key, part in value.items() if key != "truncated" and len(_as_json(part)) > _SHORT_FIELD]
    room = limit // max(1, len(long))
    earlier = value.get("truncated")
    names = [*(earlier if isinstance(earlier, list) else []), *long]
    short = {key: part for key, part in value.items() if key not in long}
    return short | {key: _beginning(value[key], room) for key in long} | {"truncated": list(dict.fromkeys(names))}


def _beginning(value: Any, room: int) -> str:
    """Return the first part of a text, or of a value's JSON, whose JSON has at most `room` bytes."""
    part = _cut(value if isinstance(value, str) else _as_json(value), room)
    while (size := len(_as_json(part).encode("utf-8", "replace"))) > room and part:
        part = part[: len(part) * room // size]
    return part


def _first_items(items: list[Any] | tuple[Any, ...], limit: int) -> list[Any]:
    """Return as many items from the beginning of a list as fit."""
    kept = []
    for item in items:
        limit -= len(_as_json(item).encode("utf-8", "replace")) + 2
        if limit < 0:
            break
        kept.append(item)
    return kept


def _cut(text: str, limit: int) -> str:
    """Return the text itself if it fits, else as many whole characters as fit."""
    if len(text) * 4 <= limit or len(raw := text.encode("utf-8", "replace")) <= limit:
        return text
    return raw[:limit].decode("utf-8", "ignore")


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def jsonable(value: Any, depth: int = 0) -> Any:
    """Return the value as standard JSON types that every reader takes.

    Keys, NaN, infinities, whole numbers of thousands of digits and other types become text. What is nested deeper than
    `_DEEPEST` levels is left out.
    """
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < _MOST_BITS else hex(value)
    if isinstance(value, dict | list | tuple) and depth >= _DEEPEST:
        return "[nested too deep]"
    if isinstance(value, dict):
        return {str(key): jsonable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item, depth + 1) for item in value]
    return str(value)

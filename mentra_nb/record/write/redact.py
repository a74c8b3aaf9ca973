"""What may be written down: secrets become `[redacted]`, long texts are cut, and texts can be left out altogether.

Pure functions from one event (a JSON-like dict) to another; nothing here reads or writes a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

from mentra_nb.errors import ConfigurationError

Pattern: TypeAlias = re.Pattern[str]
LogText = Literal["none", "preview", "full"]
"""`none` leaves texts out, `preview` keeps 8 KiB of each, `full` keeps up to 4 MiB of each."""

REDACTED = "[redacted]"
PREVIEW_LIMIT = 8 * 1024
FULL_LIMIT = 4 << 20  # a reader refuses lines above 64 MiB

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
        (r"\b(?:sk|rk|pk)[-_](?=[\w-]*\d)[\w-]{16,}", REDACTED),
        (r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", REDACTED),
        (r"\b(?:gh[pousr]_|github_pat_|glpat-|hf_|xox[abeoprs]-|npm_|pypi-)(?=[\w-]*\d)[\w-]{10,}", REDACTED),
        (r"\bAIza[\w-]{30,}", REDACTED),
        (r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+", REDACTED),
        (r"(?<=://)[^\s/:@]+:[^\s/@]+(?=@)", REDACTED),
        (
            r"((?:(?:api|access|secret|private)[-_]?key|token|secret|password|passwd|pwd)\\?[\"']?\s*[:=]\s*\\?[\"']?)"
            rf"{_NOT_YET}[^\s\"'\\,;&}}]{{4,}}",
            rf"\1{REDACTED}",
        ),
    )
)
# In lower case. Each pattern above needs one of these; our own names, `input_tokens` and
# `tool_authorization_started`, are not what is looked for. Each begins at its rarest letter, which is much faster.
_HINT = re.compile(
    r"k(?<=tok)en(?!s)|k(?<=cook)ie|key|k[-_]|k(?<=ak)ia|z(?<=authoriz)ation(?!_)|z(?<=aiz)a|x(?<=x)ox|j(?<=eyj)"
    r"|w(?<=passw)|phrase|pwd|c(?<=sec)ret|credential|bearer|:(?=//)|i(?<=asi)a|g(?:h[pousr]_|ithub_pat_|lpat-)|f(?<=hf)_"
    r"|m(?<=npm)_|pypi-"
)

_BODIES = ("prompt", "output_preview", "subject", "command", "query_preview", "detail")
_PREVIEW_BODIES = ("raw_input", "structured_input")


def may_hold_secret(line: str) -> bool:
    """Whether `redact` could change this JSON text. Cheap, and wrong on the safe side only."""
    return _HINT.search(line.lower()) is not None


def own_patterns(patterns: Iterable[str]) -> tuple[Pattern, ...]:
    """Regular expressions of the user's own, for `redact`. Raises `ConfigurationError` for one that is not valid."""
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            raise ConfigurationError(f"redact: {pattern!r} is not a regular expression: {error}") from None
    return tuple(compiled)


def redact(event: dict[str, Any], own: Iterable[Pattern] = ()) -> dict[str, Any]:
    """The event with every value that looks like a secret, by its key or by its form, replaced by `[redacted]`.

    So is every match of `own`. Counts such as `input_tokens` are no secrets and stay.
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
    """The text with keys, tokens, passwords in URLs, `Authorization` values and private keys replaced."""
    for pattern in own:
        text = pattern.sub(REDACTED, text)
    for secret, replacement in _SECRET_TEXT:
        text = secret.sub(replacement, text)
    return text


def without_bodies(payload: dict[str, Any]) -> dict[str, Any]:
    """The payload for `log_text='none'`: who did what and how it ended, without the words."""
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
    """The payload with every text cut to `limit` bytes, and `output_truncated` set if the output was.

    Tool arguments above the limit become `{"truncated": <the first part of their JSON>}`.
    """
    kept = dict(payload)
    for key, value in payload.items():
        if isinstance(value, str) and (text := _cut(value, limit)) is not value:
            kept[key] = text
            kept["output_truncated" if key == "output_preview" else f"{key}_truncated"] = True
    if isinstance(payload.get("input"), dict) and (start := _cut_json(payload["input"], limit)) is not None:
        kept["input"] = {"truncated": start}
    if isinstance(preview := payload.get("preview"), dict):
        cut = {key: _cut_json(preview[key], limit) for key in _PREVIEW_BODIES if key in preview}
        kept["preview"] = preview | {key: text for key, text in cut.items() if text is not None}
    return kept


def _cut(text: str, limit: int) -> str:
    """The text itself if it fits, else as many whole characters as do."""
    if len(text) * 4 <= limit or len(raw := text.encode("utf-8", "replace")) <= limit:
        return text
    return raw[:limit].decode("utf-8", "ignore")


def _cut_json(value: Any, limit: int) -> str | None:
    """The first `limit` bytes of the value as JSON, or `None` if it fits."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return None if (cut := _cut(text, limit)) is text else cut


def jsonable(value: Any) -> Any:
    """The value in a form every JSON reader takes: odd keys and values as text, NaN and infinities too."""
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return str(value)

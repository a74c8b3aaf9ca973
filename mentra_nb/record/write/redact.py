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
# A quick test on lower-case text: each pattern above needs one of these. Our own names, such as `input_tokens` and
# `tool_authorization_started`, do not match. Each alternative begins at its rarest letter, which is much faster.
_HINT = re.compile(
    r"k(?<=tok)en(?!s)|k(?<=cook)ie|key|k[-_]|k(?<=ak)ia|z(?<=authoriz)ation(?!_)|z(?<=aiz)a|x(?<=x)ox|j(?<=eyj)"
    r"|w(?<=passw)|phrase|pwd|c(?<=sec)ret|credential|bearer|:(?=//)|i(?<=asi)a|g(?:h[pousr]_|ithub_pat_|lpat-)|f(?<=hf)_"
    r"|m(?<=npm)_|pypi-"
)

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
    """Return the payload with each text cut to `limit` bytes, and `output_truncated` set if the output was cut.

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
    """Return the text itself if it fits, else as many whole characters as fit."""
    if len(text) * 4 <= limit or len(raw := text.encode("utf-8", "replace")) <= limit:
        return text
    return raw[:limit].decode("utf-8", "ignore")


def _cut_json(value: Any, limit: int) -> str | None:
    """Return the first `limit` bytes of the value as JSON, or `None` if all of it fits."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return None if (cut := _cut(text, limit)) is text else cut


def jsonable(value: Any) -> Any:
    """Return the value as standard JSON types: keys, NaN, infinities and other types become text."""
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return str(value)

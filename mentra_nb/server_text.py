"""What a server says in the body of an error: its own words, without the JSON or HTML around them."""

from __future__ import annotations

import json
import re
from typing import Any

from mentra_nb.secrets.late import late

LONGEST = 400
"""Characters of a message."""
DEEPEST = 6
"""Levels of JSON, or of JSON in a text, that are looked into."""
_KEYS = ("error", "message", "detail", "msg", "error_description", "title", "reason", "errors")
_MARKUP = late(r"\s*<[!?a-z]", re.IGNORECASE)
_TITLE = late(r"<(title|h1)\b[^>]{0,200}>([^<]{1,200})<", re.IGNORECASE)
_CUT_MESSAGE = late(r'"(?:message|detail|msg)"\s{0,9}:\s{0,9}"((?:[^"\\]|\\.){1,400})')


def message_in(body: Any) -> str:
    """Return the message in the body of an error, or in a part of it, as one line; empty if there is none.

    Characters that could hide others, or steer a terminal, are `\ufffd`.

    Args:
        body: Text (also JSON, HTML, or a text with JSON in it), or JSON that has been decoded.
    """
    text = " ".join(_found(body, 0)[: 4 * LONGEST].split())
    text = "".join(character if character.isprintable() else "\ufffd" for character in text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _found(value: Any, depth: int) -> str:
    if depth > DEEPEST:
        return ""
    if isinstance(value, str):
        return _in_text(value, depth)
    if isinstance(value, list):
        return _found(value[0], depth + 1) if value else ""
    if not isinstance(value, dict):
        return ""
    said = next((text for key in _KEYS if (text := _found(value.get(key), depth + 1))), "")
    metadata = value.get("metadata")
    inner = _found(metadata.get("raw"), depth + 1) if isinstance(metadata, dict) else ""  # OpenRouter passes it on
    place = value.get("loc")
    if said and isinstance(place, list):  # FastAPI names what is wrong
        said = f"{'.'.join(map(str, place))}: {said}"
    return f"{said}: {inner}" if said and inner and inner not in said else said or inner


def _in_text(text: str, depth: int) -> str:
    if _MARKUP.match(text):
        title = _TITLE.search(text[:16_384])
        return f"an HTML page, {title[2]}" if title else "an HTML page"
    begin = min((at for mark in "{[" if (at := text.find(mark)) >= 0), default=-1)
    if begin < 0:
        return text
    before = text[:begin].strip()
    try:
        inner, _ = json.JSONDecoder().raw_decode(text[begin:])
    except (ValueError, RecursionError):
        if before:
            return text  # a bracket in prose
        cut = _CUT_MESSAGE.search(text)
        return cut[1].replace("\\n", " ").replace('\\"', '"') if cut else ""
    if not isinstance(inner, dict | list) or (before and not isinstance(inner, dict)):
        return text
    said = _found(inner, depth + 1)
    return f"{before.rstrip(' -:')}: {said}" if before and said else before or said

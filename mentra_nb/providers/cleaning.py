"""Keep secrets out of a tape: of a request, and of the body of an answer, where a key may be split over many pieces.

What is cleaned twice is as if cleaned once, so a cleaned request can be compared with one that is cleaned later.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from mentra_nb.secrets.mask import REDACTED, mask_secrets, may_hold_secret, secret_spans
from mentra_nb.secrets.tree import mask_values

_PIECES = {"text", "content", "delta", "thinking", "reasoning", "reasoning_content", "refusal", "summary"}
"""Names of fields that hold a piece of a text."""
_ARGUMENTS = {"arguments", "partial_json"}
"""Names of fields that hold a piece of the JSON of a call's arguments."""
_NUMBERS = ("index", "output_index", "content_index", "summary_index", "item_id", "type")
"""Names of fields that say to which text a piece belongs."""

_Place = tuple[dict[str, Any], str]


def clean_text(text: str) -> str:
    """Return a text of a request without secrets. JSON, such as a call's arguments, is written anew in one form."""
    value = _parsed(text)
    if value is None:
        return mask_secrets(text)
    return json.dumps(mask_values(value, clean_text), separators=(",", ":"))


def _clean_answer(text: str) -> str:
    value = _parsed(text)
    if value is None:
        return mask_secrets(text)
    clean = mask_values(value, _clean_answer)
    return text if clean == value else json.dumps(clean, ensure_ascii=False)


def clean_body(body: str) -> str:
    """Return the body of an answer, a stream of events or JSON, without secrets, also those in several pieces."""
    lines, events = body.split("\n"), []
    for at, line in enumerate(lines):
        value = _parsed(line.removeprefix("data:"))
        if value is not None:
            events.append((at, json.dumps(value), value))
        else:
            lines[at] = mask_secrets(line)
    if not events:
        return _clean_answer(body)
    _clean_pieces([value for *_, value in events])
    for at, before, value in events:
        clean = mask_values(value, _clean_answer)
        if json.dumps(clean) != before:
            begin = "data: " if lines[at].startswith("data:") else ""
            lines[at] = begin + json.dumps(clean, ensure_ascii=False)
    return "\n".join(lines)


def _parsed(text: str) -> Any:
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _clean_pieces(events: list[Any]) -> None:
    """Take secrets out of the texts that events hold in pieces."""
    texts: dict[tuple[Any, ...], list[_Place]] = defaultdict(list)
    for event in events:
        for key, place in _pieces(event, ()):
            texts[key].append(place)
    for key, places in texts.items():
        whole = "".join(fields[name] for fields, name in places)
        if not may_hold_secret(whole):
            continue
        if key[-1] in _ARGUMENTS and (arguments := _parsed(whole)) is not None:
            if (clean := mask_values(arguments, _clean_answer)) != arguments:
                _write(places, json.dumps(clean, ensure_ascii=False))
        else:
            _cut(places, secret_spans(whole))


def _pieces(value: Any, key: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], _Place]]:
    """Yield each piece of a text with its place, and a key that all pieces of the same text have."""
    if isinstance(value, list):
        for item in value:
            yield from _pieces(item, key)
    if not isinstance(value, dict):
        return
    key = (*key, *(value.get(name) for name in _NUMBERS if isinstance(value.get(name), str | int)))
    for name, item in value.items():
        if isinstance(item, str) and name in _PIECES | _ARGUMENTS:
            yield (*key, name), (value, name)
        else:
            yield from _pieces(item, (*key, name))


def _write(places: list[_Place], text: str) -> None:
    for fields, name in places:
        fields[name], text = text, ""


def _cut(places: list[_Place], spans: list[tuple[int, int]]) -> None:
    """Put `[redacted]` where each span begins, and take the rest of it out of all pieces."""
    at = 0
    for fields, name in places:
        piece, kept, begin = fields[name], [], at
        at += len(piece)
        shown = begin
        for start, end in spans:
            if end <= begin or start >= at:
                continue
            kept += [piece[shown - begin : max(start, begin) - begin], REDACTED if start >= begin else ""]
            shown = min(end, at)
        fields[name] = "".join([*kept, piece[shown - begin :]])

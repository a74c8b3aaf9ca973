"""JSON of the wires: compact encoding, bodies joined from cached fragments, and checked access to a frame's members."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mentra_nb.errors import MalformedStream

_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))  # `json.dumps` would make one each time


def compact(value: Any) -> str:
    """Return JSON without spaces, and with characters as they are."""
    return _encoder.encode(value)


def encode(value: Any) -> bytes:
    """Return compact JSON as UTF-8; half a surrogate pair becomes `?`."""
    return compact(value).encode("utf-8", "replace")


def join_body(members: Mapping[str, Any], **ready: bytes | Sequence[bytes] | None) -> bytes:
    """Return a JSON object of `members` and of encoded JSON in `ready`: a value, or the items of an array.

    Members that are `None` are left out. Items are copied only once, as a conversation may be megabytes.
    """
    given = encode({name: value for name, value in members.items() if value is not None})[1:-1]
    parts = [given] if given else []
    for name, value in ready.items():
        if isinstance(value, bytes):
            parts.append(b'"%s":%s' % (name.encode(), value))
        elif value is not None:
            items = [*value] or [b""]
            items[0] = b'"%s":[%s' % (name.encode(), items[0])
            items[-1] += b"]"
            parts += items  # the final join puts commas between members and items alike
    parts = parts or [b""]
    parts[0] = b"{" + parts[0]
    parts[-1] += b"}"
    return b",".join(parts)


class Fragment(bytes):
    """A message as JSON on a wire where roles alternate: `{"role": role, name: parts}`; empty without parts."""

    __slots__ = ()

    @classmethod
    def of(cls, role: str, name: str, parts: Sequence[bytes]) -> Fragment:
        return cls(b'{"role":"%s","%s":[%s]}' % (role.encode(), name.encode(), b",".join(parts)) if parts else b"")

    @property
    def head(self) -> bytes:
        """The JSON before the parts: the same for every fragment of a role."""
        return self[: self.index(b"[") + 1]

    @property
    def is_user(self) -> bool:
        return self.startswith(b'{"role":"user"')

    def followed_by(self, other: Fragment) -> Fragment:
        """Return one message with the parts of both."""
        return Fragment(self[:-2] + b"," + other[len(self.head) :])

    def with_member(self, member: bytes) -> Fragment:
        """Return the message with a member added to its last part."""
        return Fragment(b"%s,%s}]}" % (self[:-3], member))


def merge_roles(messages: Iterable[Fragment]) -> list[Fragment]:
    """Return the messages with neighbours of the same role merged, and without empty ones."""
    merged: list[Fragment] = []
    for message in messages:
        if not message:
            continue
        if merged and merged[-1].head == message.head:
            merged[-1] = merged[-1].followed_by(message)
        else:
            merged.append(message)
    return merged


def member(frame: dict[str, Any], key: str) -> dict[str, Any]:
    """Return an object that a frame must contain. Raises `MalformedStream`."""
    value = frame.get(key)
    if not isinstance(value, dict):
        raise MalformedStream(f"{frame.get('type')} without its {key}")
    return value


def count(source: Any, *names: str) -> int | None:
    """Return the first of these members that is an integer, or `None`."""
    values = [source.get(name) for name in names] if isinstance(source, Mapping) else []
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), None)

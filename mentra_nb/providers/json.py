"""JSON of the wires: compact encoding, bodies joined from kept fragments, and checked reading of a frame's members."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mentra_nb.errors import MalformedStream


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def encode(value: Any) -> bytes:
    """Compact JSON; half a surrogate pair becomes `?`."""
    return compact(value).encode("utf-8", "replace")


def join_body(members: Mapping[str, Any], **ready: bytes | Sequence[bytes] | None) -> bytes:
    """A JSON object of `members` and of ready-made JSON: a value, or the items of an array. What is None is left out.

    Items are copied once: a conversation may be megabytes.
    """
    parts = [encode(name) + b":" + encode(value) for name, value in members.items() if value is not None]
    for name, value in ready.items():
        if isinstance(value, bytes):
            parts.append(encode(name) + b":" + value)
        elif value is not None:
            items = [*value] or [b""]
            items[0] = encode(name) + b":[" + items[0]
            items[-1] += b"]"
            parts += items  # members of an object are joined by commas just as items are
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
        """What comes before the parts: the same for every fragment of a role."""
        return self[: self.index(b"[") + 1]

    @property
    def is_user(self) -> bool:
        return self.startswith(b'{"role":"user"')

    def followed_by(self, other: Fragment) -> Fragment:
        """The parts of both, as one turn."""
        return Fragment(self[:-2] + b"," + other[len(self.head) :])

    def with_member(self, member: bytes) -> Fragment:
        """With this member of an object added to the last part."""
        return Fragment(b"%s,%s}]}" % (self[:-3], member))


def merge_roles(messages: Iterable[Fragment]) -> list[Fragment]:
    """The messages with neighbours of one role as one, and without the empty."""
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
    """An object that a frame must have. Raises `MalformedStream`."""
    value = frame.get(key)
    if not isinstance(value, dict):
        raise MalformedStream(f"{frame.get('type')} without its {key}")
    return value


def count(source: Any, *names: str) -> int | None:
    """The first of these members that is a number of tokens."""
    values = [source.get(name) for name in names] if isinstance(source, Mapping) else []
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), None)

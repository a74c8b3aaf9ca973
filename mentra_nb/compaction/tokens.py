"""How many tokens a request has, estimated. Only the provider knows, after it has answered."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mentra_nb.content import Image, Opaque, Sendable, Text, Thinking, ToolResult, ToolUse
from mentra_nb.providers.base import ProviderToolSpec

BYTES_PER_TOKEN = 3
"""Of text. English prose has more, so the estimate is rather too high."""
IMAGE_TOKENS = 1_600
"""Of a picture, whatever the size of its data."""
PER_MESSAGE = 6
"""Tokens that a wire adds to a message."""
MOST_FOR_ANSWER = 8_192
"""Tokens kept free for an answer that has no limit."""


class Room(NamedTuple):
    """How the tokens of a context window are divided."""

    window: int
    usable: int
    """The most that a request may have, so that there is room for its answer."""

    @property
    def start(self) -> int:
        """The tokens of a request from which on it is made shorter."""
        return self.usable * 4 // 5

    @property
    def goal(self) -> int:
        """The tokens that a request should have at most after that."""
        return self.usable // 2

    def share(self, percent: int) -> int:
        """Return a part of the usable tokens."""
        return self.usable * percent // 100


def room_in(window: int, max_output_tokens: int | None) -> Room:
    """Return how a window is divided: at most a quarter of it is kept free for the answer."""
    return Room(window, window - min(max_output_tokens or MOST_FOR_ANSWER, window // 4))


def of_text(text: str) -> int:
    """Return the tokens of a text.

    Example:
        >>> of_text("Hello."), of_text("")
        (2, 0)
    """
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return -(-size // BYTES_PER_TOKEN)


def of_message(message: Sendable) -> int:
    """Return the tokens of a message. A picture counts the same whatever its size.

    Example:
        >>> picture = Image.from_bytes("image/png", bytes(1_000_000))
        >>> of_message(Message.user([Text(text="What is this?"), picture]))
        1611
    """
    return PER_MESSAGE + sum(map(_of_block, message.content))


def of_messages(messages: Iterable[Sendable]) -> int:
    """Return the tokens of messages."""
    return sum(map(of_message, messages))


def of_tools(tools: Sequence[ProviderToolSpec]) -> int:
    """Return the tokens of the descriptions of tools."""
    return sum(PER_MESSAGE + of_text(tool.model_dump_json()) for tool in tools)


def _of_block(block: Any) -> int:
    match block:
        case Text():
            return of_text(block.text)
        case Image():
            return IMAGE_TOKENS
        case ToolUse():
            return of_text(block.name) + of_text(json.dumps(block.input, ensure_ascii=False, default=str))
        case ToolResult():
            return of_text(block.display()) + IMAGE_TOKENS * len(block.images)
        case Thinking():
            return sum(of_text(part or "") for part in (block.text, block.signature, block.encrypted))
        case Opaque() if block.provider is not None and block.provider != OURS:
            return of_text(block.data)
    return 0


OURS = "mentra_nb"
"""The provider that an opaque block of ours names, so that no provider is sent it."""

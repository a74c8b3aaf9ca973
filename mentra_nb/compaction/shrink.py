"""Old messages as they are sent to save room: long results in part, and pictures named only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mentra_nb.content import Image, Message, Text, ToolResult
from mentra_nb.tools.clipping import clipped
from mentra_nb.tools.needed import read_on
from mentra_nb.words import counted

LONG = 1_000
"""Bytes of a result that is sent whole however old it is."""
EXCERPT = 600
"""Bytes that are sent of a longer one."""
KEEP_ROUNDS = 3
"""The newest rounds of calls whose results are sent whole."""
PICTURE = "[a picture that was sent earlier is left out]"


def shorter(message: Message) -> Message | None:
    """Return a message as it is sent once it is old, `None` if it is sent as it is.

    Example:
        >>> result = ToolResult(tool_use_id="call-1", content="line\\n" * 400)
        >>> old = shorter(Message.user([result]))
        >>> old.tool_results()[0].content.splitlines()[-1]
        'line'
        >>> len(old.tool_results()[0].content)
        586
    """
    blocks = tuple(map(_shorter_block, message.content))
    return None if blocks == message.content else Message(role=message.role, content=blocks)


def _shorter_block(block: Any) -> Any:
    if isinstance(block, Image):
        return Text(text=PICTURE)
    if not isinstance(block, ToolResult):
        return block
    text, images = block.display(), len(block.images)
    if len(text) > LONG or images:
        size, place = len(text.encode("utf-8", "replace")), read_on(_literal(block.tool_use_id), "{line}")
        text = clipped(text, EXCERPT, 40, f"[… {{left}} of {size} bytes left out to save room; read on with {place} …]")
        if images:
            text += f"\n[{counted(images, 'picture')} left out to save room]"
        return block.model_copy(update={"content": text, "images": ()})
    return block


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def old_count(messages: Sequence[Message]) -> int:
    """Return how many messages, from the first on, are old enough to be sent in part.

    Example:
        >>> round = [Message.assistant("Look."), Message.user([ToolResult(tool_use_id="1", content="seen")])]
        >>> old_count([Message.user("Hello."), *round * 4])
        3
    """
    rounds = 0
    for at in range(len(messages) - 1, -1, -1):
        rounds += bool(messages[at].tool_results())
        if rounds > KEEP_ROUNDS:
            return at + 1
    return 0

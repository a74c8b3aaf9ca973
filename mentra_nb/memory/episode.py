"""What is kept of a turn: who said what, and what the tools answered, in bounded lines without secrets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from mentra_nb.content import Message, Role, Text, ToolResult, ToolUse
from mentra_nb.record.write.own import OwnExpressions
from mentra_nb.secrets.mask import mask_secrets
from mentra_nb.store.records import Entry

MAX_LINE = 500
"""Characters that are kept of a line."""
MAX_EPISODE = 8_000
"""Characters that are kept of a turn. Of a longer one the lines in the middle are left out."""
LEFT_OUT = "[…]"
KINDS = ("user_turn", "assistant_turn", "assistant_part", "tool_exchange")
"""The entries that are kept. Reminders, results of background commands and summaries are the runtime's own."""


def episode_of(entries: Iterable[Entry], redact: Iterable[str] = ()) -> str:
    """Return the text that is kept of the entries of a turn; empty if nothing was said.

    What looks like a secret is masked, and what the expressions `redact` match is left out.
    """
    own = OwnExpressions(redact)
    own.begin()
    lines = [line for entry in entries if entry.kind in KINDS for line in lines_of(entry.message)]
    return _bounded([cut for line in lines if (cut := own.applied(mask_secrets(line))[:MAX_LINE].rstrip())])


def lines_of(message: Message) -> Iterator[str]:
    """Yield a message as lines: `user: …`, `assistant: …`, `tool use NAME {…}`, `tool result …`. No images."""
    name = "assistant" if message.role is Role.ASSISTANT else "user"
    for block in message.content:
        match block:
            case Text(text=text):
                yield from (f"{name}: {line}" for line in _lines(text))
            case ToolUse(name=tool, input=arguments):
                yield f"tool use {tool} {json.dumps(arguments, ensure_ascii=False)}"
            case ToolResult():
                yield from (f"tool result {line}" for line in _lines(block.display()))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _bounded(lines: list[str]) -> str:
    """Return the lines as one text: the first and last of them, if they are too long together."""
    text = "\n".join(lines)
    if len(text) <= MAX_EPISODE:
        return text
    head = text[: MAX_EPISODE // 2].rpartition("\n")[0]
    tail = text[-(MAX_EPISODE // 2 - len(LEFT_OUT) - 2) :].partition("\n")[2]
    return f"{head}\n{LEFT_OUT}\n{tail}"

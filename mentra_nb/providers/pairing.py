"""Ids and names of tool calls as every provider accepts them, in what is sent.

A conversation may have been stored by another version, or with another model, so that its ids are too long, have other
characters, or occur twice. They are replaced while a message is encoded; each result keeps the id of its call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from mentra_nb.content import ContentBlock, Conversation, Message, Sendable, ToolResult, ToolUse
from mentra_nb.ids import UniqueIds, clean_id, clean_name
from mentra_nb.providers.base import Request

T = TypeVar("T")


def encoded(request: Request, wire: str, encode: Callable[[Message], T]) -> Iterator[T]:
    """Yield each message of a request in the form of a wire, with ids and names that every provider accepts.

    Args:
        request: the request with the messages.
        wire: the name under which forms are kept.
        encode: makes the form of a message.
    """
    unique, sent = UniqueIds(), dict[str, list[str]]()

    def take(ids: tuple[str, ...]) -> None:
        sent.update({id: [] for id in ids})
        for id in ids:
            sent[id].append(unique.take(clean_id(id)))

    def encode_paired(whole: Sendable) -> T:
        return encode(_paired(whole, sent))

    messages = request.messages
    calls, ready = messages.sent(wire) if isinstance(messages, Conversation) else ((), ())
    for ids in filter(None, calls):
        take(ids)
    yield from ready
    for message in messages[len(ready) :]:
        if ids := message.call_ids():
            take(ids)
        yield message.encoded(wire, encode_paired)


def _paired(message: Sendable, sent: dict[str, list[str]]) -> Message:
    """Return the message with the ids its calls and results are sent with: `sent`, by their own id."""
    used = Counter[str]()

    def sent_id(id: str) -> str:
        """Return the id to send; if one message has an id several times, the calls and results pair in order."""
        found = sent.get(id) or [clean_id(id)]
        used[id] += 1
        return found[min(used[id], len(found)) - 1]

    def mended(block: ContentBlock) -> ContentBlock:
        if isinstance(block, ToolUse):
            wanted = {"id": sent_id(block.id), "name": clean_name(block.name)}
            return block if wanted == {"id": block.id, "name": block.name} else block.model_copy(update=wanted)
        if isinstance(block, ToolResult) and (id := sent_id(block.tool_use_id)) != block.tool_use_id:
            return block.model_copy(update={"tool_use_id": id})
        return block

    blocks = tuple(mended(block) for block in message.content)
    same = all(new is old for new, old in zip(blocks, message.content, strict=True))
    return message if same and isinstance(message, Message) else Message(role=message.role, content=blocks)


def with_clean_names(request: Request) -> tuple[Request, dict[str, str]]:
    """Return the request with tool names that every provider accepts, and the original names by those that changed."""
    names = {clean_name(tool.name): tool.name for tool in request.tools}
    changed = {clean: name for clean, name in names.items() if clean != name}
    if not changed:
        return request, changed
    tools = [tool.model_copy(update={"name": clean_name(tool.name)}) for tool in request.tools]
    choice = request.tool_choice
    if choice is not None and choice.name:
        choice = replace(choice, name=clean_name(choice.name))
    return replace(request, tools=tools, tool_choice=choice), changed

"""A model's answer while it streams: folds a provider's events into a message and returns them as agent events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mentra_nb.content import MAX_DEPTH, Message, Opaque, Role, Text, Thinking, TokenUsage, ToolUse, is_too_deep
from mentra_nb.errors import MalformedStream, StreamTruncated
from mentra_nb.event import types as e
from mentra_nb.ids import UniqueIds
from mentra_nb.providers import base as p

MAX_ARGUMENT_BYTES = 4 << 20
MAX_ANSWER = 16 << 20
"""Characters of one answer, with what goes back unread; more is a malformed stream."""
PER_BLOCK = 128
"""Characters that a block counts beside its own."""


@dataclass(eq=False, repr=False)
class _Block:
    """A block of the answer while it arrives."""

    start: p.ContentBlockStarted
    pieces: list[str] = field(default_factory=list)
    size: int = 0
    """Characters of a call's arguments."""
    held: str = ""
    """The first half of a surrogate pair whose other half has not arrived."""
    stopped: p.ContentBlockStopped | None = None
    call: ToolUse | None = None

    def mended(self, text: str) -> str:
        """Return the next piece as valid Unicode: some servers split surrogate pairs."""
        text, self.held = self.held + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self.held = text[:-1], text[-1]
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def text(self) -> str:
        """Return all of it. The pieces become one, so that the next call joins only what came since."""
        if len(self.pieces) != 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0]


class PendingMessage:
    """The assistant message while it streams. Pieces are kept as pieces and joined when they are needed."""

    def __init__(self, agent_id: str, provider: str, model: str, ids: Callable[[], Iterable[str]] = tuple) -> None:
        self.agent_id = agent_id
        self.provider = provider
        self.model = model
        self._known_ids = ids
        self.stop_reason: str | None = None
        self.stop_detail: str | None = None
        self.usage: TokenUsage | None = None
        self.started: p.MessageStarted | None = None
        self.complete: bool = False
        self.said_something: bool = False
        """True once text or a whole call was shown: the request is not retried then, as it would be shown twice."""
        self._blocks: dict[int, _Block] = {}
        self._size = 0

    def apply(self, event: p.ProviderEvent) -> e.AgentEvent | None:
        """Fold in one event and return the agent event for it, or `None`. Raises `MalformedStream`."""
        if isinstance(event, p.ContentBlockDelta):  # nearly all are
            return self._delta(self._blocks.get(event.index) or self._open_block(event.index), event.text)
        match event:
            case p.ContentBlockStarted(index=index):
                if index in self._blocks:
                    raise MalformedStream(f"block {index} was started twice")
                self._blocks[index] = _Block(event)
                self._grow(PER_BLOCK)
            case p.ContentBlockStopped(index=index):
                return self._stop(self._open_block(index), event)
            case p.MessageDelta(stop_reason, usage, detail):
                self.stop_reason = stop_reason or self.stop_reason
                self.stop_detail = detail or self.stop_detail
                self.usage = usage or self.usage
            case p.MessageStarted():
                self.started = event
            case p.MessageStopped():
                self.complete = True
        return None

    def _open_block(self, index: int) -> _Block:
        try:
            return self._blocks[index]
        except KeyError:
            raise MalformedStream(f"block {index} was never started") from None

    def _delta(self, block: _Block, text: str) -> e.AgentEvent | None:
        if block.held or not text.isascii():
            text = block.mended(text)
        if not text:
            return None
        block.pieces.append(text)
        self._size += len(text)
        if self._size > MAX_ANSWER:
            self._grow(0)
        kind = block.start.kind
        if kind != "tool_use":
            self.said_something = True
            return e.TextDelta(self.agent_id, text) if kind == "text" else e.ReasoningDelta(self.agent_id, text)
        block.size += len(text)
        if block.size > MAX_ARGUMENT_BYTES:
            raise MalformedStream(f"the arguments of '{block.start.name}' are over {MAX_ARGUMENT_BYTES} bytes")
        return e.ToolUseUpdated(self.agent_id, block.start.index, block.start.id or "", block.start.name or "", text)

    def _grow(self, characters: int) -> None:
        self._size += characters
        if self._size > MAX_ANSWER:
            raise MalformedStream(f"the answer is longer than {MAX_ANSWER} characters")

    def _stop(self, block: _Block, stopped: p.ContentBlockStopped) -> e.AgentEvent | None:
        if block.stopped is not None:
            return None
        block.stopped = stopped
        self._grow(len(stopped.signature or "") + len(stopped.encrypted or ""))
        if block.start.kind != "tool_use":
            return None
        arguments, error = parse_arguments(block.text())
        block.call = ToolUse(
            id=self._ids.take(block.start.id or "call"),
            name=block.start.name or "",
            item_id=block.start.item_id,
            input=arguments,
            error=error,
        )
        if error is not None:
            return None
        self.said_something = True
        return e.ToolUseReady(agent_id=self.agent_id, index=block.start.index, call=block.call)

    @cached_property
    def _ids(self) -> UniqueIds:
        """The ids of the conversation's calls, and of this message's: models use one twice."""
        return UniqueIds(self._known_ids())

    def partial_text(self) -> str:
        """Return the text received so far."""
        return "".join(self._blocks[i].text() for i in sorted(self._blocks) if self._blocks[i].start.kind == "text")

    def message(self) -> Message:
        """Return the whole message, blocks in index order. Raises `StreamTruncated` if it is not complete."""
        if not self.complete:
            raise StreamTruncated
        unfinished = [index for index, block in self._blocks.items() if block.stopped is None]
        if unfinished:
            raise StreamTruncated(f"block {unfinished[0]} did not complete")
        blocks = (self._content(self._blocks[index]) for index in sorted(self._blocks))
        return Message(role=Role.ASSISTANT, content=tuple(block for block in blocks if block is not None))

    def _content(self, block: _Block) -> Text | Thinking | ToolUse | Opaque | None:
        if block.call is not None:
            return block.call
        text = block.text()
        assert block.stopped is not None
        if block.start.kind == "text":
            return Text(text=text, phase=block.stopped.phase) if text else None
        if block.start.kind == "opaque":
            whole = block.stopped.encrypted
            return Opaque(data=whole, provider=self.provider, model=self.model) if whole else None
        return Thinking(
            text=text,
            id=block.start.item_id,
            signature=block.stopped.signature,
            encrypted=block.stopped.encrypted,
            provider=self.provider,
            model=self.model,
        )


def parse_arguments(text: str) -> tuple[dict[str, Any], str | None]:
    """Return a call's arguments, and what is wrong with them or `None`. An empty text means no arguments."""
    if not text.strip():
        return {}, None
    try:
        value = json.loads(text, parse_constant=_no_constant)
        if isinstance(value, str):  # some models and servers encode the arguments twice
            value = json.loads(value, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()  # raises for half a surrogate pair, which an escape can spell
    except (ValueError, RecursionError) as error:
        return {}, f"{error}; received {_cut(text)}"
    if not isinstance(value, dict):
        return {}, f"expected an object; received {_cut(text)}"
    if is_too_deep(value):
        return {}, f"nested deeper than {MAX_DEPTH} levels; received {_cut(text)}"
    return value, None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _cut(text: str, limit: int = 240) -> str:
    return text if len(text) <= limit else text[:limit] + "..."

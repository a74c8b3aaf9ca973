"""A server whose model gives out tasks, some at a time, and lets each subagent look once before it answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from kits.http_server import Listener, sse

AT_ONCE = 50
"""Tasks in one answer."""
TOKENS = 100
"""Of each answer, in all."""


class DelegatingModel(Listener):
    """Gives out as many tasks as the last prompt that is a number says, and ends once all have a result."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if head.startswith("get "):  # for its models, of which it knows no window
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            return True
        size = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        messages = json.loads(await reader.readexactly(size))["messages"]
        self.answers += 1
        self.answering(head)
        body = sse(*self._frames(messages), done=True)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(body))
        writer.write(body)
        await writer.drain()
        return True

    def answering(self, head: str) -> None:
        """Called before each answer, with the head of its request in lower case."""

    def _frames(self, messages: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
        said, calls = _next(messages)
        delta: dict[str, Any] = {"role": "assistant", "content": "" if calls else f"answer to {said}"}
        if calls:
            delta["tool_calls"] = [
                {
                    "index": n,
                    "id": f"call-{self.answers}-{n}",
                    "function": {"name": name, "arguments": json.dumps(given)},
                }
                for n, (name, given) in enumerate(calls)
            ]
        reason = "tool_calls" if calls else "stop"
        yield {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        usage = {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": TOKENS}
        yield {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": usage}


def _next(messages: list[dict[str, Any]]) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    """Return what the conversation is about, and the next calls."""
    asked = [n for n, each in enumerate(messages) if each["role"] == "user" and each["content"].isdigit()]
    if asked:
        total = int(messages[asked[-1]]["content"])
        done = sum(each["role"] == "tool" for each in messages[asked[-1] :])
        tasks = range(done, min(done + AT_ONCE, total))
        return str(total), [("task", {"prompt": f"item {n}"}) for n in tasks]
    item = next(each["content"] for each in messages if each["role"] == "user")
    has_looked = any(each["role"] == "tool" for each in messages)
    return item, [] if has_looked else [("look", {"what": item})]

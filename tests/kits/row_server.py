"""A server of chat completions on loopback, on a thread of its own, that answers rows and counts what it is asked."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Literal

from kits.http_server import ThreadedListener

Fate = Literal["answer", "refuse", "hold", "fail", "break", "silence"]
HOLD_SECONDS = 3
"""For how long `hold` refuses any other request."""


def _chunk(delta: dict[str, object], finish: str | None = None) -> bytes:
    body = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return f"data: {json.dumps(body)}\n\n".encode()


_USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":50,"completion_tokens":5,"total_tokens":55}}\n\n'


class RowServer(ThreadedListener):
    """Answers `yes to PROMPT`, unless `fate(prompt, attempt)` decides otherwise.

    `asked` has the prompts in the order in which they came, `keys` the keys that came with them. `on_request` is
    called with each, on the server's thread, before it is answered. As a context manager it runs on a thread of its
    own.
    """

    def __init__(
        self,
        fate: Callable[[str, int], Fate] = lambda prompt, attempt: "answer",
        on_request: Callable[[str], None] = lambda prompt: None,
    ) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.keys = set[str]()
        self._times: Counter[str] = Counter()
        self.fate, self.on_request = fate, on_request

    @property
    def url(self) -> str:
        return f"http://{self.address}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        self.keys.add(head.partition("authorization: bearer ")[2].partition("\r\n")[0])
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        content = json.loads(await reader.readexactly(length))["messages"][-1]["content"]
        prompt = content if isinstance(content, str) else content[-1]["text"]
        self.asked.append(prompt)
        self._times[prompt] += 1
        self.on_request(prompt)
        return await self._answer(self.fate(prompt, self._times[prompt]), prompt, reader, writer)

    async def _answer(
        self, fate: Fate, prompt: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if fate == "silence":
            await reader.read()
            return False
        body = _chunk({"role": "assistant", "content": f"yes to {prompt}"}) + _chunk({}, "stop") + _USAGE
        body += b"data: [DONE]\n\n"
        status, headers = "200 OK", ["content-type: text/event-stream"]
        if fate in ("refuse", "hold", "fail"):
            body = b'{"error": {"message": "later"}}'
            status, headers = "500 Broken" if fate == "fail" else "429 Slow", ["content-type: application/json"]
            headers += {"refuse": ["retry-after-ms: 20"], "hold": [f"retry-after: {HOLD_SECONDS}"]}.get(fate, [])
        lines = "\r\n".join([f"HTTP/1.1 {status}", *headers, f"content-length: {len(body)}", "", ""]).encode()
        writer.write(lines + (body[: len(body) // 2] if fate == "break" else body))
        await writer.drain()
        return fate != "break"

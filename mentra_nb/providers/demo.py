"""A scripted model for the first minute, when there is no key: it streams, calls real tools, and says what it is.

Its text is fixed and it understands nothing; it never pretends otherwise.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from itertools import islice
from pathlib import Path

import anyio
import anyio.to_thread

from mentra_nb.content import Role, Sendable, ToolResult, ToolUse
from mentra_nb.providers.base import (
    ModelInfo,
    Provider,
    ProviderDescriptor,
    ProviderEvent,
    Request,
)
from mentra_nb.providers.scripted import ScriptedAnswer, ScriptedCall, call_block, message, text_block

FIRST = "First a tool that only reads: `read`. It runs unasked."
SECOND = "Now one that runs a command: `shell`. Unless a rule covers it, you decide."
TEXTS = (".csv", ".md", ".txt", ".py", ".ipynb")
"""Suffixes of the files that `read` is tried on, the preferred first."""
MOST_ENTRIES = 1000
"""How many entries of the working folder are looked at."""

INTRO = (
    "Hello! I am the **demo**: a script, not an AI. I did not read your question, "
    "but what happens next is real: the stream, the tools, your decision, the record.\n\n"
)
CONNECT = (
    "To ask a real model, choose one:\n\n"
    "- set `OPENAI_API_KEY` and use `-m openai/gpt-5`; likewise `ANTHROPIC_API_KEY` and `-m anthropic/…`, "
    "`GEMINI_API_KEY` and `-m gemini/…`, `OPENROUTER_API_KEY` and `-m openrouter/…`\n"
    "- start Ollama on this machine and use `-m ollama/qwen3` (no key)\n"
    "- start a llama.cpp server and use `-m llamacpp/default` (no key)\n"
)
AGAIN = "I am still the **demo**, a script and not an AI, so I cannot answer that.\n\n" + CONNECT


class DemoProvider(Provider):
    """The provider `demo` with its one model `demo`.

    `pace` is the pause between pieces of text in seconds; an answer takes less than 2 s at the default. No tokens are
    counted, so no usage is reported.
    """

    def __init__(self, pace: float = 0.012) -> None:
        self.descriptor: ProviderDescriptor = ProviderDescriptor(
            id="demo", display_name="Demo", description="A script for the first minute; not an AI, needs no key."
        )
        self._pace = pace

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[ProviderEvent]]:
        events = self._play(await anyio.to_thread.run_sync(_answer, request))
        async with aclosing(events):
            yield events

    async def _play(self, answer: ScriptedAnswer) -> AsyncGenerator[ProviderEvent, None]:
        for event in answer.events:
            await anyio.sleep(self._pace)
            yield event

    async def list_models(self) -> list[ModelInfo]:
        return [ModelInfo(id="demo", provider="demo", display_name="Demo (a script, not an AI)")]


def _answer(request: Request) -> ScriptedAnswer:
    before, since = _split_at_prompt(request)
    if any(sent.role is Role.ASSISTANT for sent in before):
        return _say(AGAIN)
    called = [use for sent in since for use in sent.tool_uses()]
    results = {result.tool_use_id: result for sent in since for result in sent.tool_results()}
    report = _report(called[-1], results) if called else INTRO
    left = {tool.name for tool in request.tools} - {use.name for use in called}
    for call, announcement in _calls():
        if call.name in left:
            blocks = [text_block(0, _pieces(report + announcement)), call_block(1, call, f"demo-{len(called) + 1}")]
            return message(blocks, "tool_use")
    return _say(report + CONNECT)


def _calls() -> Iterator[tuple[ScriptedCall, str]]:
    """Yield the calls with their announcements. Each is made once, in this order, if its tool is offered."""
    if (file := _text_file(Path.cwd())) is not None:
        yield ScriptedCall("read", {"path": file, "limit": 5}), FIRST
    yield ScriptedCall("shell", {"command": "echo hello from your shell"}), SECOND


def _text_file(folder: Path) -> str | None:
    """Return the name of a text file in a folder, or `None`. A link is not taken: it may lead out of the folder."""
    try:
        with os.scandir(folder) as entries:
            files = [entry.name for entry in islice(entries, MOST_ENTRIES) if entry.is_file(follow_symlinks=False)]
    except OSError:
        return None
    names = [name for name in files if name.endswith(TEXTS) and not name.startswith(".")]
    return min(names, key=lambda name: (TEXTS.index(Path(name).suffix), name), default=None)


def _split_at_prompt(request: Request) -> tuple[list[Sendable], list[Sendable]]:
    """Return the messages before the newest prompt, and those from it on."""
    messages = list(request.messages)
    for at in range(len(messages) - 1, -1, -1):
        if messages[at].role is Role.USER and not messages[at].tool_results():
            return messages[:at], messages[at:]
    return [], messages


def _report(use: ToolUse, results: dict[str, ToolResult]) -> str:
    """Return a sentence on the last call, with its result quoted."""
    result = results.get(use.id)
    lines = result.display().strip().splitlines() if result else []
    quoted = "\n".join("    " + line[:200] for line in lines[:10]) or "    (nothing)"
    verdict = "did not run, or failed, and told me" if result is not None and result.is_error else "gave me"
    return f"The tool `{use.name}` {verdict}:\n\n{quoted}\n\n"


def _say(content: str) -> ScriptedAnswer:
    return message([text_block(0, _pieces(content))], "end")


def _pieces(content: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", content)

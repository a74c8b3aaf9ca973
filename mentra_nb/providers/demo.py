"""A scripted model for the first minute, when there is no key: it streams, calls a real tool, and says what it is.

Its text is fixed and it understands nothing; it never pretends otherwise.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import anyio

from mentra_nb.content import Role, Sendable, ToolResult, ToolUse
from mentra_nb.providers.base import (
    ModelInfo,
    Provider,
    ProviderDescriptor,
    ProviderEvent,
    Request,
)
from mentra_nb.providers.scripted import ScriptedAnswer, ScriptedCall, call_block, message, text_block

CALLS = (
    ("files", {"operations": [{"op": "list", "path": ".", "limit": 10}]}, "First a tool that only reads: `files`."),
    (
        "shell",
        {"command": "echo hello from your shell"},
        "Next one that runs a command, `shell`. Unless a rule covers it, you decide.",
    ),
)
"""Tool, arguments, announcement: each is called once, in this order, if it is offered."""

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
        events = self._play(_answer(request))
        async with aclosing(events):
            yield events

    async def _play(self, turn: ScriptedAnswer) -> AsyncGenerator[ProviderEvent, None]:
        for event in turn.events:
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
    offered = {tool.name for tool in request.tools}
    used = {use.name for use in called}
    for name, arguments, announcement in CALLS:
        if name in offered and name not in used:
            call = ScriptedCall(name, arguments)
            blocks = [text_block(0, _pieces(report + announcement)), call_block(1, call, f"demo-{len(called) + 1}")]
            return message(blocks, "tool_use")
    return _say(report + CONNECT)


def _split_at_prompt(request: Request) -> tuple[list[Sendable], list[Sendable]]:
    """The messages before the newest prompt, and those from it on."""
    messages = list(request.messages)
    for at in range(len(messages) - 1, -1, -1):
        if messages[at].role is Role.USER and not messages[at].tool_results():
            return messages[:at], messages[at:]
    return [], messages


def _report(use: ToolUse, results: dict[str, ToolResult]) -> str:
    """What came of the last call, quoted."""
    result = results.get(use.id)
    lines = result.display().strip().splitlines() if result else []
    quoted = "\n".join("    " + line[:200] for line in lines[:10]) or "    (nothing)"
    verdict = "did not run, or failed, and told me" if result is not None and result.is_error else "gave me"
    return f"The tool `{use.name}` {verdict}:\n\n{quoted}\n\n"


def _say(content: str) -> ScriptedAnswer:
    return message([text_block(0, _pieces(content))], "end")


def _pieces(content: str) -> list[str]:
    return re.findall(r"\S+\s*|\s+", content)

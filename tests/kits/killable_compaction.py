"""A conversation on a small context window whose process kills itself at a write of the store.

As a program it takes a folder. For each write, before and after its transaction, a forked process begins the
conversation anew in a folder of its own and is killed there; another one then goes on. For each it prints a line of
JSON: where it was killed, the questions that were acknowledged before, and what the conversation has afterwards.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from kits.core import MODEL, Unattended
from mentra_nb.agent.config import AgentConfig
from mentra_nb.compaction.summary import MARK
from mentra_nb.compaction.summary import SYSTEM as SUMMARY_SYSTEM
from mentra_nb.errors import NoResumableTurn
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.base import ModelInfo, ProviderEvent, Request
from mentra_nb.providers.scripted import ScriptedAnswer, ScriptedProvider, text, tool_calls
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.tools.function import tool

WINDOW = 4_000
QUESTIONS = [f"question {number}, look" for number in range(4)]
WRITES = (
    *("append_entries", "start_run", "finish_run", "begin_tool_call"),
    *("finish_tool_call", "save_memories", "update_agent"),
)


@tool(reads_only=True)
def look() -> str:
    """Look at something long."""
    return "word " * 500


class Judge(ScriptedProvider):
    """Looks once for each question; checks that each result has its call."""

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[ProviderEvent]]:
        calls = [use.id for message in request.messages for use in message.tool_uses()]
        answered = [result.tool_use_id for message in request.messages for result in message.tool_results()]
        assert calls == answered
        self.push(self.answer(request))
        async with super().stream(request) as events:
            yield events

    def answer(self, request: Request) -> ScriptedAnswer:
        if request.system == SUMMARY_SYSTEM:
            return text('{"goal": "to look"}')
        last = request.messages[-1]
        return text("seen") if last.tool_results() or "look" not in last.text() else tool_calls([("look", {})])

    async def list_models(self) -> list[ModelInfo]:
        return [MODEL.model_copy(update={"context_window": WINDOW})]


class Killing(SqliteStore):
    """Calls `step` before and after each write."""

    def __init__(self, file: Path, step: Callable[[str], None]) -> None:
        super().__init__(file)
        for name in WRITES:
            setattr(self, name, self._stepping(name, getattr(self, name), step))

    @staticmethod
    def _stepping(name: str, write: Callable[..., Any], step: Callable[[str], None]) -> Callable[..., Any]:
        async def stepping(*args: Any, **how: Any) -> Any:
            step(f"{name}:before")
            done = await write(*args, **how)
            step(f"{name}:after")
            return done

        return stepping


async def converse(folder: Path, kill_at: int) -> None:
    """Take the turns, and be killed at a step. What was answered is noted in the file `notes`."""
    steps = 0

    def step(name: str) -> None:
        nonlocal steps
        steps += 1
        if steps == kill_at:
            (folder / "killed").write_text(name)
            os.kill(os.getpid(), signal.SIGKILL)

    store = Killing(folder / "state.sqlite", step)
    async with Unattended([Judge()], [look], builtin_tools=False, store=store, audit=NullAudit()) as runtime:
        agent = await runtime.spawn("a", MODEL, AgentConfig(max_output_tokens=500))
        (folder / "agent").write_text(agent.id)
        for question in QUESTIONS:
            await agent.send(question)
            with (folder / "notes").open("a") as notes:
                notes.write(f"{question}\n")


async def go_on(folder: Path) -> None:
    """Resume the conversation, ask once more, and print what it has."""
    judge = Judge()
    store = SqliteStore(folder / "state.sqlite")
    async with Unattended([judge], [look], builtin_tools=False, store=store, audit=NullAudit()) as runtime:
        agent = await runtime.resume_agent((folder / "agent").read_text())
        with suppress(NoResumableTurn):
            await agent.resume()
        answer = await agent.send("and now?")
        path = await store.load_path(agent.id, agent.leaf)
    notes = folder / "notes"
    found = {
        "killed": (folder / "killed").read_text(),
        "acknowledged": notes.read_text().splitlines() if notes.exists() else [],
        "asked": [entry.message.text() for entry in path if entry.kind == "user_turn"],
        "summaries": sum(entry.kind == "compaction_summary" for entry in path),
        "sent": judge.recorded_requests[-1].messages[0].text().startswith(MARK),
        "answer": answer.text(),
    }
    print(json.dumps(found), flush=True)


def forked(work: Callable[[], Any]) -> int:
    """Do the work in a forked process, and return its status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            asyncio.run(work())
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def main(home: Path, every: int) -> None:
    """Kill at each step, or at each so many."""
    for at in range(1, 1_000, every):
        folder = home / str(at)
        folder.mkdir()
        if forked(lambda: converse(folder, at)) == 0:  # noqa: B023  # used at once
            return
        if (folder / "agent").exists() and forked(lambda: go_on(folder)) != 0:  # noqa: B023
            raise SystemExit(f"going on after {(folder / 'killed').read_text()} ({at}) failed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

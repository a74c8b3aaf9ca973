"""An agent that gives out two hundred tasks, and whose process is killed from outside in the midst.

As a program it takes a folder and the address of a `DelegatingModel`. It reads lines: `begin N` forks a process that
works in the folder N, with its own id as the key of its requests, so that the server can kill it; `resume N` forks one
that goes on there. For each it prints a line of JSON. Each subagent writes to its lead, and the lead is told something
now and then; what was acknowledged is written to a file at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio

from kits.core import Unattended
from kits.killable_team import in_child
from mentra_nb.agent.agent import Agent
from mentra_nb.agent.config import AgentConfig
from mentra_nb.agent.limits import RunOptions
from mentra_nb.errors import EmptyAssistantResponse, NoResumableTurn
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.base import ModelInfo
from mentra_nb.providers.chat_completions import ChatCompletionsProvider
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.teams.team import team_of
from mentra_nb.teams.tools import team_tools
from mentra_nb.tools.builtin.task import subagent_tools
from mentra_nb.tools.function import tool

TOTAL = 200
SAYS_EVERY = 10
LOOK_AGAIN = "Look for more mail, and end."


class Work:
    """The runtime in one folder."""

    def __init__(self, folder: Path, url: str, budget: str) -> None:
        self.folder = folder
        self.options = RunOptions(budgets={"day": budget}, retry_budget=0)
        self.lead: Agent | None = None
        self._said = 0
        provider = ChatCompletionsProvider("lab", url, api_key=str(os.getpid()))
        options = {"builtin_tools": False, "store": SqliteStore(folder / "state.sqlite"), "audit": NullAudit()}
        tools = [*subagent_tools(), tool(reads_only=True)(self.look), *team_tools()]
        self.runtime = Unattended([provider], tools, **options)

    async def look(self, what: str) -> str:
        """Look, and write to the lead."""
        assert self.lead is not None
        await team_of(self.lead).send("scout", "lead", f"mail about {what}")
        self.acknowledged(f"mail about {what}")
        self._said += 1
        if self._said % SAYS_EVERY == 0:
            said, steering = f"said after {what}", self.lead.steering
            steering.steer(said)
            assert steering.keeper is not None
            await steering.keeper.kept()
            self.acknowledged(said)
        return f"seen {what}"

    def acknowledged(self, line: str) -> None:
        with (self.folder / "acknowledged").open("a") as file:
            file.write(line + "\n")

    async def begin(self) -> None:
        async with self.runtime:
            config = AgentConfig(max_output_tokens=500)
            self.lead = await self.runtime.spawn("lead", ModelInfo(id="m", provider="lab"), config)
            await self.lead.run(str(TOTAL), self.options)

    async def go_on(self) -> dict[str, Any]:
        async with self.runtime:
            [self.lead] = found = await self.runtime.resume()
            ended: str | None = None
            try:
                with contextlib.suppress(NoResumableTurn):
                    await self.lead.resume(self.options)
                await self.lead.run(LOOK_AGAIN, self.options)
            except EmptyAssistantResponse as error:
                ended = str(error)
            history = self.lead.history()
            store, texts = self.runtime.store, [message.text() for message in history]
            waiting = [mail.content for mail, _ in await store.open_messages(self.lead.id, "lead")]
            calls = [call.id for message in history for call in message.tool_uses()]
            results = [each.tool_use_id for message in history for each in message.tool_results()]
            count = await store.count_budget("day", time.strftime("%Y-%m-%d"), "tokens")
            return {
                "ended": ended,
                "resumed": len(found),
                "read": read_in(texts),
                "waiting": waiting,
                "acknowledged": (self.folder / "acknowledged").read_text().splitlines(),
                "calls": len(calls),
                "paired": sorted(calls) == sorted(results) and len({*calls}) == len(calls),
                "spent": count.spent,
                "reserved": count.reserved,
            }


def read_in(texts: Iterable[str]) -> dict[str, int]:
    """Return how often a conversation has each message."""
    read: Counter[str] = Counter()
    for text in texts:
        if text.startswith("<team-inbox>"):
            read.update(mail["content"] for mail in json.loads(text.split("\n", 1)[1].rsplit("\n", 1)[0]))
        elif text.startswith("said after"):
            read.update(text.splitlines())
    return dict(read)


def main(folder: Path, url: str, budget: str) -> None:
    for line in sys.stdin:
        what, name = line.split()
        own = folder / name
        own.mkdir(exist_ok=True)

        def work(what: str = what, own: Path = own) -> None:
            made = Work(own, url, budget)
            if what == "begin":
                anyio.run(made.begin)
            else:
                print(json.dumps(anyio.run(made.go_on)), flush=True)

        status = in_child(work)
        if what == "begin":
            print(json.dumps({"status": status}), flush=True)
        elif status != 0:
            sys.exit(f"{name} could not go on: {status}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])

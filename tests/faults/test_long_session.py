"""A session of very many turns on a small context window: what it sends, costs and stores, and what it still knows.

`MENTRA_FAULT_TURNS` is the number of turns.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from statistics import mean

import pytest
from kits.core import MODEL, Unattended

from mentra_nb.compaction.summary import SYSTEM as SUMMARY_SYSTEM
from mentra_nb.content import TokenUsage
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.base import ModelInfo, ProviderEvent, Request
from mentra_nb.providers.scripted import ScriptedAnswer, ScriptedProvider, text, tool_calls
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.tools.function import tool

pytestmark = [pytest.mark.anyio, pytest.mark.fault]

TURNS = int(os.environ.get("MENTRA_FAULT_TURNS", "160"))
WINDOW = 8_000
PLANTED = {10: "harbour", 500 * TURNS // 2000: "lantern", 1500 * TURNS // 2000: "meadow"}
SAMPLE = 40
"""Turns whose mean is taken."""


@tool(reads_only=True)
def look(what: str) -> str:
    """Look at something long."""
    return f"{what}: " + "word " * 300


class Judge(ScriptedProvider):
    """Counts the tokens of each request, a token for four characters, and knows only what is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.summaries = 0

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[ProviderEvent]]:
        shown = [
            *(m.text() for m in request.messages),
            *(r.display() for m in request.messages for r in m.tool_results()),
        ]
        described = "".join(spec.model_dump_json() for spec in request.tools)
        size = (sum(map(len, shown)) + len(request.system or "") + len(described)) // 4
        self.largest = max(self.largest, size)
        self.push(self._answer(request, "\n".join(shown), TokenUsage(input_tokens=size, output_tokens=20)))
        async with super().stream(request) as events:
            yield events
        self.recorded_requests.clear()

    def _answer(self, request: Request, shown: str, usage: TokenUsage) -> ScriptedAnswer:
        facts = list(dict.fromkeys(re.findall(r"word \d+ is \w+", shown)))
        if request.system == SUMMARY_SYSTEM:
            self.summaries += 1
            return text(json.dumps({"goal": "a long talk", "progress": "so far", "facts": facts}), usage=usage)
        asked = request.messages[-1]
        if "Which words" in asked.text():
            return text("; ".join(facts), usage=usage)
        if not asked.tool_results() and "look" in asked.text():
            return tool_calls([("look", {"what": "it"})], usage=usage)
        return text(f"Noted. {'answer ' * 30}", usage=usage)

    async def list_models(self) -> list[ModelInfo]:
        return [MODEL.model_copy(update={"context_window": WINDOW})]


def size_of(file: Path) -> int:
    """Return the bytes of a database that is in use."""
    with closing(sqlite3.connect(file)) as db:
        [[pages]] = db.execute("PRAGMA page_count")
        [[size]] = db.execute("PRAGMA page_size")
    return int(pages) * int(size)


async def test_each_request_fits_costs_the_same_and_what_was_said_first_is_still_known(tmp_path: Path) -> None:
    file, judge = tmp_path / "state.sqlite", Judge()
    store, cpu, sizes = SqliteStore(file), list[float](), list[int]()
    async with Unattended([judge], [look], builtin_tools=False, store=store, audit=NullAudit()) as runtime:
        agent = await runtime.spawn("a", MODEL)
        for number in range(TURNS):
            fact = f"Remember: word {number} is {PLANTED[number]}." if number in PLANTED else ""
            began = time.process_time()
            await agent.send(f"{fact} Question {number}{', look' if number % 5 == 0 else ''}: {'please ' * 20}")
            cpu.append(time.process_time() - began)
            if number in (TURNS // 4, TURNS // 2, TURNS * 3 // 4):
                sizes.append(size_of(file))
        answer = await agent.send("Which words are to be remembered?")
        path = await store.load_path(agent.id, agent.leaf)
    early, late = mean(cpu[10 : 10 + SAMPLE]), mean(cpu[-SAMPLE:])
    growth = (sizes[2] - sizes[1]) / (sizes[1] - sizes[0])
    print(
        f"{TURNS} turns, {judge.summaries} summaries, largest request {judge.largest}, "
        f"CPU {early * 1000:.1f} → {late * 1000:.1f} ms, {sizes[-1] / 1e6:.1f} MB, growth of the quarters {growth:.2f}"
    )
    assert sorted(answer.text().split("; ")) == sorted(f"word {number} is {word}" for number, word in PLANTED.items())
    assert judge.largest <= WINDOW * 3 // 4
    assert judge.summaries >= TURNS // 50
    assert late <= 2 * early
    assert growth <= 1.3
    assert sum(entry.kind == "user_turn" for entry in path) == TURNS + 1

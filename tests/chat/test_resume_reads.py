"""Resuming in a new process reads the store at most six times before the model is asked."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mentra_nb.chat.chat import chat_on
from mentra_nb.chat.engine import Engine
from mentra_nb.errors import FailedToStreamResponse, InvalidRequest
from mentra_nb.event.bus import NullAudit
from mentra_nb.providers.scripted import (
    ControlledStream,
    ScriptedAnswer,
    ScriptedProvider,
    failure,
    text,
    tool_calls,
)
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import Settings
from mentra_nb.store.sqlite import SqliteStore
from mentra_nb.store.transactions import Transaction
from mentra_nb.tools.function import tool

NOTEBOOK = "nb.ipynb"


class CountingStore(SqliteStore):
    reads = 0

    async def read(self, work: Callable[[Transaction], Any]) -> Any:
        self.reads += 1
        return await super().read(work)


@tool(reads_only=True)
def act() -> str:
    """Do it."""
    return "done"


def engine_on(store: SqliteStore, *turns: ScriptedAnswer | ControlledStream) -> Engine:
    runtime = Runtime([ScriptedProvider(turns)], builtin_tools=False, store=store, audit=NullAudit())
    return Engine(Settings(model="scripted/scripted"), runtime)


def resumed(path: Path, name: str | None) -> tuple[int, list[str]]:
    """Resume as a new process would; return the number of reads and the roles of the messages sent."""
    store = CountingStore(path)
    engine = engine_on(store, text("there"))
    try:
        reply = chat_on(engine, name, tools=[act], notebook=NOTEBOOK).resume().result()
        assert reply.text == "there"
        provider = engine.runtime.provider("scripted")
        assert isinstance(provider, ScriptedProvider)
        return store.reads, [str(message.role) for message in provider.recorded_requests[0].messages]
    finally:
        engine.close()


@pytest.mark.parametrize("name", ["work", None])
def test_a_failed_turn_is_resumed_in_six_reads(tmp_path: Path, name: str | None) -> None:
    engine = engine_on(SqliteStore(tmp_path / "s"), tool_calls([("act", {})]), failure(InvalidRequest("no")))
    try:
        with pytest.raises(FailedToStreamResponse):
            chat_on(engine, name, tools=[act], notebook=NOTEBOOK).ask("go")
    finally:
        engine.close()
    reads, messages = resumed(tmp_path / "s", name)
    assert reads <= 6
    assert messages == ["user", "assistant", "user"]


@pytest.mark.parametrize("name", ["work", None])
def test_a_turn_whose_process_died_is_resumed_in_six_reads(tmp_path: Path, name: str | None) -> None:
    stream = ControlledStream()
    engine = engine_on(SqliteStore(tmp_path / "living"), tool_calls([("act", {})]), stream)
    try:
        turn = chat_on(engine, name, tools=[act], notebook=NOTEBOOK).start("go")
        engine.call(stream.wait_opened)
        with (  # the store as if the process were killed now
            closing(sqlite3.connect(tmp_path / "living")) as living,
            closing(sqlite3.connect(tmp_path / "dead")) as dead,
        ):
            living.backup(dead)
            dead.execute("DELETE FROM leases")
            dead.commit()
        turn.stop()
        turn.wait()
    finally:
        engine.close()
    reads, messages = resumed(tmp_path / "dead", name)
    assert reads <= 6
    assert messages == ["user", "assistant", "user"]

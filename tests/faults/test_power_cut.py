"""What a power cut would leave: the files as they were when they were last synced.

Before a call with effects runs, and once a person's answer counts, everything so far is there. Nothing else is synced,
as each sync makes a turn wait for the disk.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kits import killable_turn as turn
from kits import stores

from mentra_nb.authorization import PermissionDecision
from mentra_nb.event.types import AgentEvent, ToolAuthorizationFinished
from mentra_nb.record.write.journal import Journal
from mentra_nb.store.sqlite import SqliteStore

pytestmark = [pytest.mark.fault, pytest.mark.anyio]


class Disk:
    """What has been synced of a home."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "disk" / "home"
        self.home.mkdir(parents=True)
        self.syncs: Counter[str] = Counter()
        """How often each operation of the store has synced it."""

    def take_store(self, home: Path) -> None:
        for file in home.glob("state.sqlite*"):
            shutil.copy(file, self.home)

    def take_record(self, folder: Path) -> None:
        shutil.copytree(folder, self.home.parent / "record", dirs_exist_ok=True)

    def rows(self, table: str) -> list[dict[str, Any]]:
        return list(turn.rows(self.home).get(table, {}).values())

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Return the payloads of the recorded events of a kind."""
        segments = (self.home.parent / "record" / "events").glob("*.jsonl")
        lines = [json.loads(line) for segment in segments for line in segment.read_text().splitlines()]
        return [line["payload"] for line in lines if line["event_type"] == kind]


class SyncedStore(SqliteStore):
    def __init__(self, home: Path, disk: Disk) -> None:
        super().__init__(turn.state_file(home))
        self.home, self.disk = home, disk

    async def write(self, work: Callable[[Any], Any], *, sync: bool = False, brief: bool = False) -> Any:
        if sync:
            self.disk.syncs[work.__qualname__.partition(".<locals>")[0].rpartition(".")[2]] += 1
        return await super().write(work, sync=sync, brief=brief)

    def _sync_log(self, number: int) -> None:
        before = self._synced
        super()._sync_log(number)
        assert self._synced > before
        self.disk.take_store(self.home)


class SyncedJournal(Journal):
    def __init__(self, folder: Path, disk: Disk) -> None:
        super().__init__(folder)
        self.disk = disk

    def sync(self) -> None:
        super().sync()
        if threading.current_thread().name != "mentra-journal":  # that one syncs whenever it gets to it
            self.disk.take_record(self.folder)


async def test_calls_with_effects_and_answers_are_on_the_disk_before_they_count(tmp_path: Path) -> None:
    home, disk = tmp_path / "home", Disk(tmp_path)
    home.mkdir()
    acted: list[str] = []

    def step(name: str) -> None:
        if name in ("tool.act:before", "tool.keep:before"):
            begun = [row for row in disk.rows("tool_calls") if row["finished_at"] is None]
            event = disk.events("tool_execution_started")[-1]
            [call] = [(row["tool"], json.loads(row["arguments"])) for row in begun]
            assert call == (event["tool_name"], event["input"])
            assert {row["outcome"] for row in disk.rows("questions")} <= {"allowed"}
            acted.append(event["input"]["what"])

    decided: list[str] = []
    recorded: list[str] = []

    def hear(event: AgentEvent) -> None:
        if isinstance(event, ToolAuthorizationFinished) and event.request_id is not None:
            decided.append(event.request_id)
            recorded.append(disk.events("permission_resolved")[-1]["request_id"])

    store, record = SyncedStore(home, disk), SyncedJournal(turn.record_folder(home), disk)
    async with turn.open_runtime(home, turn.Model(), step, store, record) as runtime:
        session = await runtime.create_session(turn.NAME, turn.MODEL)
        turn.Person(session, again=False)
        session.permissions.bus.tap(hear)
        await session.permissions.add_rule("act", turn.RULED_BEFORE, allow=True)
        await turn.say_the_rest(session)
    record.close()
    store.close()

    assert acted == ["a", "a", "b1", "b2", "b3"]
    assert len(decided) > 0
    assert recorded == decided
    assert disk.syncs == {"begin_tool_call": 5, "save_rule": 2, "close_question": len(decided)}


async def test_what_a_person_decides_of_dead_turns_and_of_rules_is_on_the_disk(tmp_path: Path) -> None:
    home, disk = tmp_path / "home", Disk(tmp_path)
    home.mkdir()
    store = SyncedStore(home, disk)
    await store.create_agent(stores.agent())
    await store.start_run(stores.run())
    await store.begin_tool_call(stores.tool_call())
    await store.open_question(stores.question("q1"))

    assert await store.close_question("q1", PermissionDecision(allow=True), in_time=True)
    assert [row["outcome"] for row in disk.rows("questions")] == ["allowed"]
    assert await store.resolve_tool_call("run-1", "call-1", "skipped")
    assert [row["resolution"] for row in disk.rows("tool_calls")] == ["skipped"]
    rule = await store.save_rule(stores.rule("rule-1"))
    assert [row["id"] for row in disk.rows("rules")] == ["rule-1"]
    assert await store.revoke_rule(rule.id)
    assert disk.rows("rules") == []
    store.close()

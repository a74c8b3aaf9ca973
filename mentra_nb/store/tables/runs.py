"""The tables of turns (`runs`) and of their tool calls, which are stored before they are made."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from mentra_nb.errors import StoreError
from mentra_nb.store.records import Entry, Resolution, RunRecord, RunState, ToolCallEnd, ToolCallRecord
from mentra_nb.store.tables.agents import update_agent
from mentra_nb.store.tables.leases import check_holder
from mentra_nb.store.tables.transcripts import append, are_short, entry_rows, insert_entries, to_entries
from mentra_nb.store.transactions import SHORT, Database, Transaction, insert, to_json

AGENT_STATUS = {"finished": "Finished", "interrupted": "Interrupted", "failed": "Failed", "running": "Running"}
"""The status of an agent by the state of its latest turn."""

ENTRIES_OF_RUN = """
    WITH RECURSIVE branch(id, depth) AS (
      SELECT e.id, 0 FROM entries e WHERE e.run_id = ? AND NOT EXISTS (
        SELECT 1 FROM entries p WHERE p.id = e.parent_id AND p.run_id = e.run_id)
      UNION ALL SELECT e.id, branch.depth + 1 FROM entries e JOIN branch ON e.parent_id = branch.id WHERE e.run_id = ?)
    SELECT entries.* FROM branch JOIN entries ON entries.id = branch.id ORDER BY branch.depth, entries.id
"""


class RunTable(Database):
    async def start_run(self, run: RunRecord, *, entries: Sequence[Entry] = (), holder: str | None = None) -> None:
        rows = entry_rows(entries)

        def work(db: Transaction) -> None:
            check_holder(db, run.agent_id, holder)
            insert(db, "runs", run.model_dump())
            insert_entries(db, rows)
            update_agent(db, run.agent_id, {"status": AGENT_STATUS[run.state], "last_run": run.id})

        await self.write(work, brief=are_short(rows))

    async def save_partial(self, run_id: str, text: str, *, holder: str | None = None) -> None:
        def work(db: Transaction) -> None:
            if holder is not None:
                check_holder(db, _load_run(db, run_id).agent_id, holder)
            db.execute("UPDATE runs SET partial = ? WHERE id = ? AND state = 'running'", (text, run_id))

        await self.write(work, brief=len(text) < SHORT)

    async def finish_run(
        self,
        run_id: str,
        state: RunState,
        *,
        leaf: str | None,
        error: str | None = None,
        entries: Sequence[Entry] = (),
        holder: str | None = None,
    ) -> None:
        rows, now = entry_rows(entries), time.time()

        def work(db: Transaction) -> None:
            run = _load_run(db, run_id)
            check_holder(db, run.agent_id, holder)
            if run.state != "running":
                raise StoreError(f"run '{run_id}' is {run.state} already: it was closed elsewhere")
            insert_entries(db, rows)
            db.execute(
                "UPDATE runs SET state = ?, error = ?, leaf = ?, partial = '', finished_at = ? WHERE id = ?",
                (state, error, leaf, now, run_id),
            )
            moved = {} if leaf is None else {"leaf": leaf}
            update_agent(db, run.agent_id, {"status": AGENT_STATUS[state], **moved})

        await self.write(work, brief=are_short(rows))

    async def list_runs(self, agent_id: str, cell_id: str | None = None) -> list[RunRecord]:
        if cell_id is not None:
            return await self._runs("agent_id = ? AND cell_id = ? ORDER BY started_at, id", agent_id, cell_id)
        return await self._runs("agent_id = ? ORDER BY started_at, id", agent_id)

    async def latest_run(self, agent_id: str) -> RunRecord | None:
        found = await self._runs("id = (SELECT last_run FROM agents WHERE agents.id = ?)", agent_id)
        return found[0] if found else None

    async def open_runs(self, agent_id: str) -> list[RunRecord]:
        return await self._runs("agent_id = ? AND state = 'running' ORDER BY started_at, id", agent_id)

    async def _runs(self, which: str, *parameters: str) -> list[RunRecord]:
        rows = await self.read(lambda db: db.execute(f"SELECT * FROM runs WHERE {which}", parameters).fetchall())
        return [to_run(row) for row in rows]

    async def run_entries(self, run_id: str) -> list[Entry]:
        return to_entries(await self.read(lambda db: db.execute(ENTRIES_OF_RUN, (run_id, run_id)).fetchall()))

    async def begin_tool_call(self, call: ToolCallRecord, *, holder: str | None = None) -> None:
        row = {**call.model_dump(), "arguments": to_json(call.arguments), "result": None}

        def work(db: Transaction) -> None:
            check_holder(db, call.agent_id, holder)
            insert(db, "tool_calls", row)

        await self.write(work, sync=call.effect != "none", brief=len(row["arguments"]) < SHORT)

    async def finish_tool_call(
        self, run_id: str, end: ToolCallEnd, *, entries: Sequence[Entry] = (), holder: str | None = None
    ) -> None:
        statement = (
            "UPDATE tool_calls SET finished_at = ?, is_error = ?, result = ?, ends_turn = ? "
            "WHERE run_id = ? AND call_id = ?"
        )
        row = (time.time(), int(end.is_error), to_json(end.result), int(end.ends_turn), run_id, end.call_id)
        rows = entry_rows(entries)

        def work(db: Transaction) -> None:
            db.execute(statement, row)
            append(db, rows, holder)

        await self.write(work, brief=are_short(rows) and len(row[2]) < SHORT)

    async def resolve_tool_call(self, run_id: str, call_id: str, resolution: Resolution) -> bool:
        statement = (
            "UPDATE tool_calls SET resolution = ? "
            "WHERE run_id = ? AND call_id = ? AND finished_at IS NULL AND resolution IS NULL"
        )
        row = (resolution, run_id, call_id)
        return await self.write(lambda db: db.execute(statement, row).rowcount > 0, sync=True)

    async def keep_result(
        self, agent_id: str, run_id: str, call_id: str, text: str, *, holder: str | None = None
    ) -> None:
        row = {
            "agent_id": agent_id,
            "run_id": run_id,
            "call_id": call_id,
            "content": to_json(text),
            "kept_at": time.time(),
        }

        def work(db: Transaction) -> None:
            check_holder(db, agent_id, holder)
            insert(db, "tool_results", row)

        await self.write(work)

    async def load_result(self, agent_id: str, call_id: str) -> str | None:
        statement = "SELECT content FROM tool_results WHERE agent_id = ? AND call_id = ? ORDER BY kept_at DESC LIMIT 1"
        row = await self.read(lambda db: db.execute(statement, (agent_id, call_id)).fetchone())
        return None if row is None else json.loads(row["content"])

    async def list_tool_calls(self, run_id: str) -> list[ToolCallRecord]:
        statement = "SELECT * FROM tool_calls WHERE run_id = ? ORDER BY started_at, call_id"
        rows = await self.read(lambda db: db.execute(statement, (run_id,)).fetchall())
        return [
            ToolCallRecord.model_validate(
                {**dict(row), "arguments": json.loads(row["arguments"]), "result": json.loads(row["result"] or "null")}
            )
            for row in rows
        ]


def _load_run(db: Transaction, run_id: str) -> RunRecord:
    row = db.execute("SELECT * FROM runs WHERE id = ?", (run_id,)).fetchone()
    if row is None:
        raise StoreError(f"there is no run '{run_id}'")
    return to_run(row)


def to_run(row: Any) -> RunRecord:
    """Return the turn in this row."""
    return RunRecord.model_validate(dict(row))

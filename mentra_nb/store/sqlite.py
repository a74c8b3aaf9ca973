"""The state store in one SQLite file, shared by every kernel of a user: WAL, one kept connection, one thread.

The file and its folder are made by the first call, not by the constructor.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from mentra_nb import paths
from mentra_nb.authorization import PermissionQuestion, PermissionRule
from mentra_nb.content import Message
from mentra_nb.errors import StoreError
from mentra_nb.store.base import AgentRecord, Entry, RunRecord, RunState, SessionRecord, ToolCallRecord
from mentra_nb.store.migrations import STEPS

T = TypeVar("T")
BUSY_TIMEOUT_MS = 5000


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


class SqliteStore:
    """State in `path` (default: `MENTRA_STATE`, else `state.sqlite` in the home). Safe to use from any event loop."""

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = Path(path) if path is not None else paths.state_file()
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mentra-store")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    # ---- the one thread ---------------------------------------------------------------------------------------

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction on the store's thread. It commits even if the caller is cancelled meanwhile."""
        return await asyncio.shield(asyncio.wrap_future(self._thread.submit(self._transaction, work)))

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection = self._connection or self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            return result
        except sqlite3.Error as error:
            raise StoreError(f"the state store {self.path} failed: {error}") from error

    def _open(self) -> sqlite3.Connection:
        if str(self.path) != ":memory:":
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            except OSError as error:
                raise StoreError(f"the state store {self.path} cannot be opened: {error.strerror}") from error
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA user_version").fetchone()[0] == len(STEPS):
            return
        connection.execute("BEGIN IMMEDIATE")  # another kernel may be at it: look again inside
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(STEPS):
            connection.execute("ROLLBACK")
            raise StoreError(
                f"the state store {self.path} was written by a newer mentra-nb (schema {version}, this one knows "
                f"{len(STEPS)}): upgrade mentra-nb or set MENTRA_HOME to another folder"
            )
        for step in STEPS[version:]:
            for statement in step.split(";"):
                if statement.strip():
                    connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(STEPS)}")
        connection.execute("COMMIT")

    def close(self) -> None:
        """Finish what was asked for and close the file. The next call opens it again."""

        def shut() -> None:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

        try:
            self._thread.submit(shut).result()
        except RuntimeError:  # the interpreter is going down and its worker threads are gone already
            shut()

    # ---- agents and sessions ----------------------------------------------------------------------------------

    async def create_agent(self, agent: AgentRecord) -> None:
        row = {**agent.model_dump(), "config": _json(agent.config)}
        await self._do(lambda db: _insert(db, "agents", row))

    async def load_agent(self, agent_id: str) -> AgentRecord | None:
        row = await self._do(lambda db: db.execute("SELECT * FROM agents WHERE id = ?", (agent_id,)).fetchone())
        return None if row is None else _agent(row)

    async def list_agents(self, runtime_identifier: str | None = None) -> list[AgentRecord]:
        rows = await self._do(
            lambda db: db.execute(
                "SELECT * FROM agents WHERE ?1 IS NULL OR runtime_identifier = ?1 ORDER BY created_at, id",
                (runtime_identifier,),
            ).fetchall()
        )
        return [_agent(row) for row in rows]

    async def set_status(self, agent_id: str, status: str) -> None:
        await self._do(
            lambda db: db.execute(
                "UPDATE agents SET status = ?, updated_at = ? WHERE id = ?", (status, time.time(), agent_id)
            )
        )

    async def save_session(self, session: SessionRecord) -> None:
        await self._do(lambda db: _insert(db, "sessions", session.model_dump(), replace=True))

    async def load_session(self, name: str, project: str | None = None) -> SessionRecord | None:
        row = await self._do(
            lambda db: db.execute(
                "SELECT * FROM sessions WHERE (name = ?1 OR id = ?1) AND (?2 IS NULL OR project = ?2) "
                "ORDER BY created_at DESC, id DESC LIMIT 1",
                (name, project),
            ).fetchone()
        )
        return None if row is None else SessionRecord.model_validate(dict(row))

    async def list_sessions(self) -> list[SessionRecord]:
        rows = await self._do(lambda db: db.execute("SELECT * FROM sessions ORDER BY created_at, id").fetchall())
        return [SessionRecord.model_validate(dict(row)) for row in rows]

    # ---- transcript -------------------------------------------------------------------------------------------

    async def append_entries(self, entries: Sequence[Entry]) -> None:
        rows = [
            {**entry.model_dump(exclude={"message"}), "message": entry.message.model_dump_json()} for entry in entries
        ]

        def work(db: sqlite3.Connection) -> None:
            for row in rows:
                _insert(db, "entries", row)

        await self._do(work)

    async def load_path(self, agent_id: str, leaf: str | None) -> list[Entry]:
        rows = await self._do(
            lambda db: db.execute(
                "WITH RECURSIVE path AS (SELECT *, 0 AS depth FROM entries WHERE id = ?1 AND agent_id = ?2 UNION ALL "
                "SELECT e.*, path.depth + 1 FROM entries e JOIN path ON e.id = path.parent_id) "
                "SELECT * FROM path ORDER BY depth DESC",
                (leaf, agent_id),
            ).fetchall()
        )
        return [
            Entry.model_validate({**dict(row), "message": Message.model_validate_json(row["message"])}) for row in rows
        ]

    # ---- runs and tool calls ----------------------------------------------------------------------------------

    async def start_run(self, run: RunRecord) -> None:
        def work(db: sqlite3.Connection) -> None:
            _insert(db, "runs", run.model_dump())
            db.execute(
                "UPDATE agents SET status = 'Running', updated_at = ? WHERE id = ?", (run.started_at, run.agent_id)
            )

        await self._do(work)

    async def save_partial(self, run_id: str, text: str) -> None:
        await self._do(lambda db: db.execute("UPDATE runs SET partial = ? WHERE id = ?", (text, run_id)))

    async def finish_run(self, run_id: str, state: RunState, *, leaf: str | None, error: str | None = None) -> None:
        def work(db: sqlite3.Connection) -> None:
            now = time.time()
            db.execute(
                "UPDATE runs SET state = ?, error = ?, leaf = ?, partial = '', finished_at = ? WHERE id = ?",
                (state, error, leaf, now, run_id),
            )
            status = {"finished": "Finished", "interrupted": "Interrupted"}.get(state, "Failed")
            db.execute(
                "UPDATE agents SET status = ?, leaf = coalesce(?, leaf), updated_at = ? "
                "WHERE id = (SELECT agent_id FROM runs WHERE id = ?)",
                (status, leaf, now, run_id),
            )

        await self._do(work)

    async def list_runs(self, agent_id: str) -> list[RunRecord]:
        rows = await self._do(
            lambda db: db.execute(
                "SELECT * FROM runs WHERE agent_id = ? ORDER BY started_at, id", (agent_id,)
            ).fetchall()
        )
        return [RunRecord.model_validate(dict(row)) for row in rows]

    async def begin_tool_call(self, call: ToolCallRecord) -> None:
        row = {**call.model_dump(), "arguments": _json(call.arguments), "result": None}
        await self._do(lambda db: _insert(db, "tool_calls", row))

    async def finish_tool_call(self, run_id: str, call_id: str, result: Any, *, is_error: bool) -> None:
        await self._do(
            lambda db: db.execute(
                "UPDATE tool_calls SET finished_at = ?, is_error = ?, result = ? WHERE run_id = ? AND call_id = ?",
                (time.time(), is_error, _json(result), run_id, call_id),
            )
        )

    async def list_tool_calls(self, run_id: str) -> list[ToolCallRecord]:
        rows = await self._do(
            lambda db: db.execute("SELECT * FROM tool_calls WHERE run_id = ? ORDER BY started_at", (run_id,)).fetchall()
        )
        return [
            ToolCallRecord.model_validate(
                {**dict(row), "arguments": json.loads(row["arguments"]), "result": json.loads(row["result"] or "null")}
            )
            for row in rows
        ]

    # ---- rules and questions ----------------------------------------------------------------------------------

    async def save_rule(self, rule: PermissionRule) -> PermissionRule:
        def work(db: sqlite3.Connection) -> None:
            db.execute(
                "DELETE FROM rules WHERE scope = ? AND scope_key = ? AND tool = ? AND pattern = ?",
                (rule.scope, rule.scope_key, rule.tool, rule.pattern),
            )
            _insert(db, "rules", rule.model_dump())

        await self._do(work)
        return rule

    async def list_rules(self, session_id: str | None, project: str | None = None) -> list[PermissionRule]:
        rows = await self._do(
            lambda db: db.execute(
                "SELECT * FROM rules WHERE scope = 'global' OR (scope = 'session' AND scope_key = ?) "
                "OR (scope = 'project' AND scope_key = ?) ORDER BY created_at, id",
                (session_id, project),
            ).fetchall()
        )
        return [PermissionRule.model_validate(dict(row)) for row in rows]

    async def revoke_rule(self, rule_id: str) -> bool:
        return await self._do(lambda db: db.execute("DELETE FROM rules WHERE id = ?", (rule_id,)).rowcount > 0)

    async def count_rule_use(self, rule_id: str) -> None:
        await self._do(lambda db: db.execute("UPDATE rules SET times_used = times_used + 1 WHERE id = ?", (rule_id,)))

    async def open_question(self, question: PermissionQuestion) -> None:
        row = {
            "request_id": question.request_id,
            "session_id": question.session_id,
            "payload": question.model_dump_json(),
            "asked_at": question.asked_at,
        }
        await self._do(lambda db: _insert(db, "questions", row))

    async def close_question(self, request_id: str, outcome: str, decided_by: str) -> None:
        await self._do(
            lambda db: db.execute(
                "UPDATE questions SET outcome = ?, decided_by = ?, decided_at = ? WHERE request_id = ?",
                (outcome, decided_by, time.time(), request_id),
            )
        )

    async def open_questions(self, session_id: str | None = None) -> list[PermissionQuestion]:
        rows = await self._do(
            lambda db: db.execute(
                "SELECT payload FROM questions WHERE outcome IS NULL AND (?1 IS NULL OR session_id = ?1) "
                "ORDER BY asked_at",
                (session_id,),
            ).fetchall()
        )
        return [PermissionQuestion.model_validate_json(row["payload"]) for row in rows]


def _insert(db: sqlite3.Connection, table: str, row: dict[str, Any], *, replace: bool = False) -> None:
    verb = "INSERT OR REPLACE" if replace else "INSERT"
    columns, marks = ", ".join(row), ", ".join("?" * len(row))
    db.execute(f"{verb} INTO {table} ({columns}) VALUES ({marks})", tuple(row.values()))


def _agent(row: sqlite3.Row) -> AgentRecord:
    return AgentRecord.model_validate({**dict(row), "config": json.loads(row["config"])})

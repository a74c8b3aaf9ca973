"""The table of sessions: the conversations people have with agents."""

from __future__ import annotations

from typing import Any

from mentra_nb.content import Message
from mentra_nb.errors import LeaseUnavailable
from mentra_nb.store.records import SAID, ConversationSummary, SessionRecord, StoredConversation
from mentra_nb.store.tables.agents import to_agent
from mentra_nb.store.tables.memories import delete_memories_of
from mentra_nb.store.tables.runs import to_run
from mentra_nb.store.tables.transcripts import path_length
from mentra_nb.store.transactions import Database, Transaction, insert, marks
from mentra_nb.who import person

LATEST_AND_OPEN_RUNS = """
    SELECT * FROM runs WHERE agent_id = ? AND state = 'running'
    UNION SELECT * FROM runs WHERE id = (SELECT last_run FROM agents WHERE id = ?)
    ORDER BY started_at, id
"""

HAS_SAID = "SELECT 1 FROM team_mail WHERE team = ? AND recipient = ? AND delivery <> 'acknowledged' LIMIT 1"

CONVERSATIONS = """
    SELECT sessions.*, runs.state AS last_state, runs.started_at AS used_at,
      (SELECT count(*) FROM runs asked WHERE asked.agent_id = agents.id AND asked.resumes IS NULL) AS turns,
      (SELECT message FROM entries WHERE entries.agent_id = agents.id AND entries.kind = 'user_turn'
       ORDER BY entries.id LIMIT 1) AS first_message
    FROM sessions JOIN agents ON agents.id = sessions.agent_id JOIN runs ON runs.id = agents.last_run
    WHERE {}
    ORDER BY used_at, sessions.id
"""

LAST_USED = """
    SELECT sessions.* FROM sessions
    JOIN agents ON agents.id = sessions.agent_id JOIN runs ON runs.id = agents.last_run
    WHERE {}
    ORDER BY runs.started_at DESC, sessions.id DESC LIMIT 1
"""
"""The last row of `CONVERSATIONS`."""


OWN_AGENTS = """
    WITH RECURSIVE own(id) AS (
      SELECT agent_id FROM sessions WHERE id = ?
      UNION SELECT agents.id FROM agents JOIN own ON agents.parent_id = own.id)
    SELECT id FROM own
"""
"""Its agent with subagents and teammates."""
OF_AGENTS = {
    "entries": "agent_id",
    "tool_calls": "agent_id",
    "tool_results": "agent_id",
    "runs": "agent_id",
    "jobs": "agent_id",
    "memory_cursors": "agent_id",
    "tasks": "namespace",
    "team_members": "team",
    "team_mail": "team",
    "team_requests": "team",
    "agents": "id",
}
"""The tables with rows of agents and the columns with their ids, those that refer to others first.

A team is known by the id of its lead, and so is a task board, unless it was given a name that several agents share.
"""


class SessionTable(Database):
    async def save_session(self, session: SessionRecord) -> None:
        await self.write(lambda db: insert(db, "sessions", session.model_dump(), replace="id"))

    async def load_session(self, name: str, project: str | None = None) -> SessionRecord | None:
        return await self.read(lambda db: _find(db, name, project))

    async def load_conversation(self, name: str, project: str | None = None) -> StoredConversation | None:
        def work(db: Transaction) -> StoredConversation | None:
            session = _find(db, name, project)
            agent_id = session.agent_id if session is not None else name
            row = db.execute("SELECT * FROM agents WHERE id = ?", (agent_id,)).fetchone()
            if row is None:
                return None
            agent = to_agent(row)
            runs = [to_run(found) for found in db.execute(LATEST_AND_OPEN_RUNS, (agent_id, agent_id)).fetchall()]
            return StoredConversation(
                session=session,
                agent=agent,
                latest_run=next((run for run in runs if run.id == row["last_run"]), None),
                open_runs=tuple(run for run in runs if run.state == "running"),
                path_length=path_length(db, agent_id, agent.leaf),
                has_jobs=db.execute("SELECT 1 FROM jobs WHERE agent_id = ? LIMIT 1", (agent_id,)).fetchone()
                is not None,
                has_said=db.execute(HAS_SAID, (SAID, agent_id)).fetchone() is not None,
            )

        return await self.read(work)

    async def last_session(self, project: str | None, notebook: str | None) -> SessionRecord | None:
        where, parameters = _own(*_exactly(project=project, notebook=notebook))

        def work(db: Transaction) -> SessionRecord | None:
            row = db.execute(LAST_USED.format(where), parameters).fetchone()
            return None if row is None else _session(row)

        return await self.read(work)

    async def list_sessions(self) -> list[SessionRecord]:
        rows = await self.read(lambda db: db.execute("SELECT * FROM sessions ORDER BY created_at, id").fetchall())
        return [_session(row) for row in rows]

    async def list_conversations(self, project: str | None, notebook: str | None = None) -> list[ConversationSummary]:
        where, parameters = _exactly(project=project)
        if notebook is not None:
            where, parameters = _own(*_exactly(project=project, notebook=notebook))
        rows = await self.read(lambda db: db.execute(CONVERSATIONS.format(where), parameters).fetchall())
        return [_summary(dict(row)) for row in rows]

    async def delete_conversation(self, session_id: str) -> None:
        def work(db: Transaction) -> None:
            agents = [row["id"] for row in db.execute(OWN_AGENTS, (session_id,)).fetchall()]
            which, keys = marks(agents), [f"agent:{agent}" for agent in agents]
            if agents and db.execute(f"SELECT key FROM leases WHERE key IN ({which})", keys).fetchone() is not None:
                raise LeaseUnavailable(f"conversation '{session_id}' is in use: close it there, or wait until it ends")
            db.execute("DELETE FROM rules WHERE scope = 'session' AND scope_key = ?", (session_id,))
            db.execute("DELETE FROM questions WHERE session_id = ?", (session_id,))
            db.execute("DELETE FROM sessions WHERE id = ?", (session_id,))
            if agents:
                delete_memories_of(db, agents)
                db.execute(f"DELETE FROM team_mail WHERE team = ? AND recipient IN ({which})", [SAID, *agents])
            for table, column in OF_AGENTS.items() if agents else ():
                db.execute(f"DELETE FROM {table} WHERE {column} IN ({which})", agents)

        await self.write(work)


def _exactly(**wanted: str | None) -> tuple[str, list[str]]:
    """Return the condition that columns have these values, and its parameters; `None` is NULL."""
    conditions = [f"{column} = ?" if value is not None else f"{column} IS NULL" for column, value in wanted.items()]
    return " AND ".join(conditions), [value for value in wanted.values() if value is not None]


def _own(where: str, parameters: list[str]) -> tuple[str, list[str]]:
    """Return a condition and its parameters that leave out what another user of the operating system began."""
    return f"{where} AND (sessions.os_user IS NULL OR sessions.os_user = ?)", [*parameters, person().os_user]


def _summary(row: dict[str, Any]) -> ConversationSummary:
    about = {name: row.pop(name) for name in ("turns", "used_at", "last_state")}
    first = row.pop("first_message")
    prompt = Message.model_validate_json(first).text() if first is not None else None
    return ConversationSummary(session=SessionRecord.model_validate(row), first_prompt=prompt, **about)


def _find(db: Transaction, name: str, project: str | None) -> SessionRecord | None:
    where, parameters = "(name = ? OR id = ? OR agent_id = ?)", [name, name, name]
    if project is not None:
        where, parameters = f"{where} AND project = ?", [*parameters, project]
    return _newest(db, where, parameters)


def _newest(db: Transaction, where: str, parameters: list[str]) -> SessionRecord | None:
    statement = f"SELECT * FROM sessions WHERE {where} ORDER BY created_at DESC, id DESC LIMIT 1"
    row = db.execute(statement, parameters).fetchone()
    return None if row is None else _session(row)


def _session(row: Any) -> SessionRecord:
    return SessionRecord.model_validate(dict(row))

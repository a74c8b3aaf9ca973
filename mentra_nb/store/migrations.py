"""The schema of the state store, as numbered steps. A step is never edited once it has landed; add the next one."""

from __future__ import annotations

from collections.abc import Iterator

STEPS: tuple[str, ...] = (
    """
    CREATE TABLE agents(
      id TEXT PRIMARY KEY, runtime_identifier TEXT NOT NULL, name TEXT NOT NULL, model TEXT NOT NULL,
      provider_id TEXT NOT NULL, config TEXT NOT NULL, status TEXT NOT NULL, leaf TEXT,
      created_at REAL NOT NULL, updated_at REAL NOT NULL) STRICT;
    CREATE INDEX agents_by_runtime ON agents(runtime_identifier, created_at, id);

    CREATE TABLE sessions(
      id TEXT PRIMARY KEY, name TEXT NOT NULL, agent_id TEXT NOT NULL REFERENCES agents(id), model TEXT NOT NULL,
      project TEXT, notebook TEXT, created_at REAL NOT NULL, updated_at REAL NOT NULL) STRICT;
    CREATE INDEX sessions_by_name ON sessions(name, created_at);

    CREATE TABLE entries(
      id TEXT PRIMARY KEY, agent_id TEXT NOT NULL REFERENCES agents(id), parent_id TEXT REFERENCES entries(id),
      run_id TEXT, kind TEXT NOT NULL, message TEXT NOT NULL, created_at REAL NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX entries_by_agent ON entries(agent_id, id);

    CREATE TABLE runs(
      id TEXT PRIMARY KEY, agent_id TEXT NOT NULL REFERENCES agents(id), state TEXT NOT NULL, error TEXT,
      base TEXT, leaf TEXT, partial TEXT NOT NULL DEFAULT '', cell_id TEXT,
      started_at REAL NOT NULL, finished_at REAL) STRICT;
    CREATE INDEX runs_by_agent ON runs(agent_id, started_at);

    CREATE TABLE tool_calls(
      run_id TEXT NOT NULL REFERENCES runs(id), call_id TEXT NOT NULL, agent_id TEXT NOT NULL, tool TEXT NOT NULL,
      arguments TEXT NOT NULL, arguments_hash TEXT NOT NULL,
      effect TEXT NOT NULL CHECK(effect IN ('none', 'idempotent', 'once')),
      started_at REAL NOT NULL, finished_at REAL, is_error INTEGER, result TEXT,
      PRIMARY KEY(run_id, call_id)) STRICT, WITHOUT ROWID;

    CREATE TABLE rules(
      id TEXT PRIMARY KEY, scope TEXT NOT NULL CHECK(scope IN ('session', 'project', 'global')),
      scope_key TEXT NOT NULL, tool TEXT NOT NULL, pattern TEXT NOT NULL, allow INTEGER NOT NULL, reason TEXT,
      created_at REAL NOT NULL, times_used INTEGER NOT NULL DEFAULT 0,
      UNIQUE(scope, scope_key, tool, pattern)) STRICT;

    CREATE TABLE questions(
      request_id TEXT PRIMARY KEY, session_id TEXT NOT NULL, payload TEXT NOT NULL, outcome TEXT, decided_by TEXT,
      asked_at REAL NOT NULL, decided_at REAL) STRICT;
    CREATE INDEX questions_open ON questions(session_id) WHERE outcome IS NULL;
    """,
    """
    ALTER TABLE agents ADD COLUMN kind TEXT NOT NULL DEFAULT 'agent';
    ALTER TABLE agents ADD COLUMN parent_id TEXT REFERENCES agents(id);
    ALTER TABLE runs ADD COLUMN resumes TEXT;
    CREATE INDEX runs_open ON runs(agent_id) WHERE state = 'running';
    ALTER TABLE tool_calls ADD COLUMN resolution TEXT;

    CREATE INDEX entries_by_parent ON entries(parent_id);
    CREATE INDEX entries_by_run ON entries(run_id);

    CREATE TABLE leases(
      key TEXT PRIMARY KEY, runtime_id TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
      process_started REAL NOT NULL, acquired_at REAL NOT NULL, expires_at REAL NOT NULL) STRICT, WITHOUT ROWID;

    ALTER TABLE questions ADD COLUMN run_id TEXT;
    ALTER TABLE questions ADD COLUMN tool_call_id TEXT NOT NULL DEFAULT '';
    ALTER TABLE questions ADD COLUMN arguments_hash TEXT NOT NULL DEFAULT '';
    ALTER TABLE questions ADD COLUMN deadline REAL NOT NULL DEFAULT 0;
    ALTER TABLE questions ADD COLUMN reason TEXT;
    UPDATE questions SET
      run_id = json_extract(payload, '$.run_id'), tool_call_id = json_extract(payload, '$.tool_call_id'),
      arguments_hash = json_extract(payload, '$.arguments_hash'), deadline = json_extract(payload, '$.deadline');
    CREATE INDEX questions_by_call ON questions(run_id, tool_call_id);
    """,
)


def statements(step: str) -> Iterator[str]:
    """The statements of a step, one by one."""
    return (statement for statement in step.split(";") if statement.strip())

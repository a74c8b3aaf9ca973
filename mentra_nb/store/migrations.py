"""The schema of the state store, as numbered steps in SQLite's dialect.

Never edit a step that has been released: add the next one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Literal

from mentra_nb.errors import StoreError

Dialect = Literal["sqlite", "postgresql"]

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
    -- sqlite
    UPDATE questions SET
      run_id = json_extract(payload, '$.run_id'), tool_call_id = json_extract(payload, '$.tool_call_id'),
      arguments_hash = json_extract(payload, '$.arguments_hash'), deadline = json_extract(payload, '$.deadline');
    CREATE INDEX questions_by_call ON questions(run_id, tool_call_id);

    CREATE TABLE tasks(
      namespace TEXT NOT NULL, id INTEGER NOT NULL, payload TEXT NOT NULL, PRIMARY KEY(namespace, id))
      STRICT, WITHOUT ROWID;

    CREATE TABLE team_members(
      team TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL, role TEXT NOT NULL, model TEXT NOT NULL,
      status TEXT NOT NULL, failure TEXT, PRIMARY KEY(team, name)) STRICT, WITHOUT ROWID;
    CREATE TABLE team_mail(
      team TEXT NOT NULL, recipient TEXT NOT NULL, id TEXT NOT NULL, payload TEXT NOT NULL, sent_at REAL NOT NULL,
      delivery TEXT NOT NULL DEFAULT 'pending' CHECK(delivery IN ('pending', 'in_flight', 'acknowledged')),
      PRIMARY KEY(team, recipient, id)) STRICT, WITHOUT ROWID;
    CREATE INDEX team_mail_open ON team_mail(team, recipient) WHERE delivery <> 'acknowledged';
    CREATE TABLE team_requests(
      team TEXT NOT NULL, request_id TEXT NOT NULL, protocol TEXT NOT NULL, sender TEXT NOT NULL,
      recipient TEXT NOT NULL, content TEXT NOT NULL, status TEXT NOT NULL, created_at REAL NOT NULL,
      resolved_at REAL, resolution_reason TEXT, PRIMARY KEY(team, request_id)) STRICT, WITHOUT ROWID;

    CREATE TABLE jobs(
      agent_id TEXT NOT NULL, id TEXT NOT NULL, command TEXT NOT NULL, cwd TEXT NOT NULL, status TEXT NOT NULL,
      output_preview TEXT, output_path TEXT, runtime_id TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
      process_started REAL NOT NULL, started_at REAL NOT NULL, finished_at REAL,
      delivery TEXT CHECK(delivery IN ('pending', 'in_flight', 'acknowledged')),
      PRIMARY KEY(agent_id, id)) STRICT, WITHOUT ROWID;
    CREATE INDEX jobs_running ON jobs(runtime_id) WHERE status = 'running';

    CREATE TABLE memories(
      number INTEGER PRIMARY KEY, agent_id TEXT NOT NULL, record_id TEXT NOT NULL,
      kind TEXT NOT NULL CHECK(kind IN ('episode', 'summary', 'fact')), content TEXT NOT NULL,
      source_revision INTEGER NOT NULL, created_at REAL NOT NULL, metadata TEXT NOT NULL, source TEXT,
      pinned INTEGER NOT NULL, tombstoned_at REAL, UNIQUE(agent_id, record_id)) STRICT;
    CREATE TABLE memory_cursors(agent_id TEXT PRIMARY KEY, revision INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    -- sqlite
    CREATE VIRTUAL TABLE memories_words USING fts5(content, content = 'memories', content_rowid = 'number');
    -- sqlite
    CREATE TRIGGER memories_added AFTER INSERT ON memories BEGIN
      INSERT INTO memories_words(rowid, content) VALUES (new.number, new.content);
    END;
    -- sqlite
    CREATE TRIGGER memories_removed AFTER DELETE ON memories BEGIN
      INSERT INTO memories_words(memories_words, rowid, content) VALUES ('delete', old.number, old.content);
    END;
    -- sqlite
    CREATE TRIGGER memories_changed AFTER UPDATE OF content ON memories BEGIN
      INSERT INTO memories_words(memories_words, rowid, content) VALUES ('delete', old.number, old.content);
      INSERT INTO memories_words(rowid, content) VALUES (new.number, new.content);
    END;
    -- postgresql
    ALTER TABLE memories ADD COLUMN words tsvector;
    -- postgresql
    CREATE INDEX memories_words ON memories USING gin(words);
    """,
    """
    ALTER TABLE agents ADD COLUMN last_run TEXT;
    UPDATE agents SET last_run =
      (SELECT id FROM runs WHERE agent_id = agents.id ORDER BY started_at DESC, id DESC LIMIT 1);
    """,
    """
    ALTER TABLE tool_calls ADD COLUMN ends_turn INTEGER NOT NULL DEFAULT 0;
    """,
    """
    UPDATE sessions SET name = id WHERE name = 'mentra';  -- the name of every conversation that was given none
    """,
    """
    CREATE TABLE tool_results(
      agent_id TEXT NOT NULL, call_id TEXT NOT NULL, run_id TEXT NOT NULL, content TEXT NOT NULL, kept_at REAL NOT NULL,
      PRIMARY KEY(agent_id, call_id, run_id)) STRICT;
    """,
    """
    ALTER TABLE rules ADD COLUMN folders TEXT;
    """,
    """
    ALTER TABLE questions ADD COLUMN answer TEXT;
    """,
    """
    CREATE TABLE budgets(
      period TEXT NOT NULL, key TEXT NOT NULL, unit TEXT NOT NULL, spent INTEGER NOT NULL DEFAULT 0,
      reserved INTEGER NOT NULL DEFAULT 0, extra INTEGER NOT NULL DEFAULT 0,
      PRIMARY KEY(period, key, unit)) STRICT, WITHOUT ROWID;
    CREATE TABLE reservations(
      id TEXT PRIMARY KEY, runtime_id TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
      process_started REAL NOT NULL, claims TEXT NOT NULL, made_at REAL NOT NULL) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE row_answers(
      digest TEXT PRIMARY KEY, prompt TEXT NOT NULL, model TEXT NOT NULL, answer TEXT NOT NULL,
      answered_at REAL NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX row_answers_by_prompt ON row_answers(prompt);
    """,
    """
    ALTER TABLE runs ADD COLUMN model TEXT;
    """,
    """
    ALTER TABLE memories ADD COLUMN made_by TEXT;
    ALTER TABLE memories ADD COLUMN session_id TEXT;
    ALTER TABLE memories ADD COLUMN run_id TEXT;
    ALTER TABLE memories ADD COLUMN cell_id TEXT;
    """,
    """
    ALTER TABLE sessions ADD COLUMN os_user TEXT;
    """,
    """
    CREATE TABLE row_batches(
      key TEXT PRIMARY KEY, model TEXT NOT NULL, digests TEXT NOT NULL, made_at REAL NOT NULL,
      provider_batch TEXT, reservation TEXT) STRICT, WITHOUT ROWID;
    CREATE INDEX row_batches_by_model ON row_batches(model);
    """,
)


def missing_steps(version: int, where: str, remedy: str) -> tuple[str, ...]:
    """Return the steps that a store at schema `version` still needs.

    Args:
        version: The number of steps the store has had.
        where: The store by name, for the message.
        remedy: What to do besides upgrading, for the message.

    Raises:
        StoreError: A newer version of this package wrote the store.
    """
    if version > len(STEPS):
        raise StoreError(
            f"the state store {where} was written by a newer mentra-nb (schema {version}, this one knows "
            f"{len(STEPS)}): upgrade mentra-nb or {remedy}"
        )
    return STEPS[version:]


def statements(step: str, dialect: Dialect) -> Iterator[str]:
    """Yield the statements of a step. One after a line `-- sqlite` or `-- postgresql` is for that engine only."""
    statement = ""
    for part in step.split(";")[:-1]:
        statement += f"{part};"
        if sqlite3.complete_statement(statement):  # a trigger has semicolons inside
            first = statement.strip().partition("\n")[0]
            if not first.startswith("-- ") or first == f"-- {dialect}":
                yield statement
            statement = ""

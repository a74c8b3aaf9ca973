# ruff: noqa: S608  # the SQL is made of our own constants and quoted paths
"""The record's columns and views, in one place: what a line holds, which parts become columns, and the views' SQL.

Text only; `tables.py` runs it in memory, and `segments.py` writes it into `record.duckdb`.

All times are UTC (`TIMESTAMPTZ`), a name in `_s` is seconds, `ms` is milliseconds, `cost_usd` is US dollars and NULL
when the price is not known, `priced` is the fraction of model responses whose price is known.

| view | a row is | columns |
|---|---|---|
| events | event | id, ts, seq, source, v, scope, kind, payload, and one per line of `PROMOTED` |
| usage | model response with a token count | ts, day, session_id, run_id, agent_id, request_id, provider, model, attempt, tokens, the eight counts of `TokenUsage`, cost_usd |
| model_calls | attempt to ask a model | ts, session_id, run_id, agent_id, request_id, provider, model, attempt, status (ok, error, unfinished), stop_reason, error, seconds, tokens, input_tokens, output_tokens, cost_usd |
| decisions | call that was decided or is being asked about | ts, session_id, run_id, agent_id, call_id, request_id, tool, subject, description, outcome (allow, deny, prompt, pending), decided_by, scope (of the rule made), reason, wait_s, deadline |
| tool_calls | call a model made | ts, session_id, run_id, agent_id, call_id, tool, input (JSON), decision, decided_by, wait_s, status (ok, error, denied, pending, unfinished), ms, error, output |
| turns | question to an agent | ts, session_id, run_id, agent_id, cell_id, execution_count, notebook, project, model, prompt, stop_reason (NULL while it runs), error, ms, tools, denials, tokens, input_tokens, output_tokens, cost_usd, priced |
| sessions | session | session_id, started, last, title, model, notebook, project, turns, tools, denials, tokens, cost_usd, priced, human_wait_s, model_s, tool_s (each a sum, so parallel calls add up) |
"""  # noqa: E501

from __future__ import annotations

from pathlib import Path

SCHEMA_VERSION = 1
"""Raised when a view or a promoted column changes; `record.duckdb` is then written anew."""

ENVELOPE = {
    "id": "UUID",
    "ts": "DOUBLE",
    "seq": "BIGINT",
    "source": "UUID",
    "v": "SMALLINT",
    "scope": "VARCHAR",
    "event_type": "VARCHAR",
    "payload": "JSON",
}
"""What a line of a segment holds. `ts` is Unix seconds, `seq` counts from 0 in its segment, `source`."""

USAGE = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "reasoning_tokens",
    "thoughts_tokens",
    "tool_input_tokens",
)


def _at(path: str, type_: str = "VARCHAR") -> str:
    # TRY_CAST: one odd value must not fail every query. Brackets: ->> binds weaker than IS NULL in DuckDB 1.5.
    return f"TRY_CAST((payload->>'$.{path}') AS {type_})"


PROMOTED = {
    "agent_id": _at("agent_id"),
    "run_id": _at("run_id"),
    "session_id": _at("session_id"),
    "cell_id": _at("cell_id"),
    "execution_count": _at("execution_count", "BIGINT"),
    "request_id": _at("request_id"),
    "call_id": _at("tool_call_id"),
    "tool": _at("tool_name"),
    "provider": _at("provider"),
    "model": _at("model"),
    "attempt": _at("attempt", "BIGINT"),
    "outcome": _at("outcome"),
    "decided_by": _at("decided_by"),
    "rule_scope": _at("rule_scope"),
    "stop_reason": _at("stop_reason"),
    "success": f"coalesce({_at('success', 'BOOLEAN')}, NOT {_at('is_error', 'BOOLEAN')})",
    "reason": _at("reason"),
    "error": _at("error"),
    "duration_ms": _at("duration_ms", "BIGINT"),
    "wait_ms": f"coalesce({_at('wait_ms', 'BIGINT')}, {_at('waited_ms', 'BIGINT')})",
    "lost": _at("lost", "BIGINT"),
    **{name: _at(f"usage.{name}", "BIGINT") for name in USAGE},
}
"""The parts of a payload that are columns: adding one is adding a line here and raising `SCHEMA_VERSION`."""

PRICES = {
    "provider": "VARCHAR",
    "model": "VARCHAR",
    "from_day": "DATE",
    "until_day": "DATE",
    "from_time": "TIME",
    "until_time": "TIME",
    "above": "BIGINT",
    "up_to": "BIGINT",
    "input_mtok": "DOUBLE",
    "output_mtok": "DOUBLE",
    "cache_read_mtok": "DOUBLE",
    "cache_write_mtok": "DOUBLE",
    "source": "VARCHAR",
}
"""`prices.parquet`: USD per million tokens, for a range of days, of times of day (UTC) and of prompt sizes."""

TYPED = "SELECT id, to_timestamp(ts) AS ts, seq, source, v, scope, event_type AS kind, payload, " + ", ".join(
    f"{expression} AS {name}" for name, expression in PROMOTED.items()
)
"""Turns lines into rows of `events`; goes before `FROM`."""

_LINES = (
    "format='newline_delimited', ignore_errors=true, maximum_object_size=67108864, columns={"
    + ", ".join(f"{name}: '{type_}'" for name, type_ in ENVELOPE.items())
    + "}"
)


def quoted(path: Path | str) -> str:
    """A path as an SQL string."""
    return "'" + str(Path(path).as_posix()).replace("'", "''") + "'"


def read_lines(path: Path | str, *, filename: bool = False) -> str:
    """The table function that reads segments; a line that is torn or no JSON is a row whose `id` is NULL."""
    return f"read_json({quoted(path)}, {'filename=true, ' if filename else ''}{_LINES})"


def empty(columns: dict[str, str]) -> str:
    """A SELECT with these columns and no row."""
    return "SELECT " + ", ".join(f"NULL::{type_} AS {name}" for name, type_ in columns.items()) + " LIMIT 0"


def events_sql(events: Path, *, jsonl: bool, parquet: bool) -> str:
    """The body of `events` over a segment folder that has, or has not, files of each sort."""
    parts = []
    if parquet:
        files = f"read_parquet({quoted(events / '*.parquet')}, union_by_name=true)"
        parts.append(f"SELECT * REPLACE (payload::JSON AS payload) FROM {files}")
    if jsonl:  # a segment that is Parquet already is not read twice
        compacted = f"SELECT parse_filename(file, true) FROM glob({quoted(events / '*.parquet')})"
        parts.append(
            f"{TYPED} FROM {read_lines(events / '*.jsonl', filename=True)} "
            f"WHERE id IS NOT NULL AND parse_filename(filename, true) NOT IN ({compacted})"
        )
    return " UNION ALL BY NAME ".join(parts) if parts else f"{TYPED} FROM ({empty(ENVELOPE)})"


_RUNS = "(SELECT run_id, any_value(session_id) AS session_id FROM events WHERE session_id IS NOT NULL GROUP BY run_id)"
_COST = "sum(cost_usd) AS cost_usd, count(cost_usd) / nullif(count(*), 0) AS priced"


def _last(column: str, *kinds: str) -> str:
    """The newest value of a column among events of these kinds."""
    return f"arg_max({column}, id) FILTER (kind IN ({', '.join(repr(kind) for kind in kinds)}))"


# Anthropic counts cached tokens beside input_tokens, the others within it; `prompt` is what was sent either way.
# Gemini's thoughts are output and its tool prompts are input, each counted apart.
_USAGE = f"""
WITH counted AS (
    SELECT *, (ts AT TIME ZONE 'UTC') AS utc,
        coalesce(output_tokens, 0) + coalesce(thoughts_tokens, 0) AS output,
        coalesce(cache_read_input_tokens, 0) AS cached, coalesce(cache_creation_input_tokens, 0) AS written,
        coalesce(input_tokens, 0) + coalesce(tool_input_tokens, 0)
            + CASE WHEN provider = 'anthropic' THEN cached + written ELSE 0 END AS prompt
    FROM events
    WHERE kind = 'model_response_finished' AND coalesce({", ".join(USAGE)}) IS NOT NULL
)
SELECT c.ts, c.utc::DATE AS day, coalesce(c.session_id, runs.session_id) AS session_id, c.run_id, c.agent_id,
    c.request_id, c.provider, c.model, c.attempt, coalesce(c.total_tokens, c.prompt + c.output) AS tokens,
    {", ".join("c." + name for name in USAGE)},
    (greatest(c.prompt - c.cached - c.written, 0) * p.input_mtok + c.cached * p.cache_read_mtok
        + c.written * p.cache_write_mtok + c.output * p.output_mtok) / 1e6 AS cost_usd
FROM counted c LEFT JOIN {_RUNS} runs ON runs.run_id = c.run_id LEFT JOIN prices p
    ON p.provider = c.provider AND p.model = c.model
    AND c.utc::DATE >= p.from_day AND c.utc::DATE < p.until_day
    AND c.utc::TIME >= p.from_time AND c.utc::TIME < p.until_time
    AND c.prompt > p.above AND c.prompt <= p.up_to
"""

_MODEL_CALLS = f"""
WITH calls AS (
    SELECT coalesce(request_id, id::VARCHAR) AS key, min(ts) AS ts, any_value(run_id) AS run_id,
        any_value(agent_id) AS agent_id, any_value(request_id) AS request_id, any_value(provider) AS provider,
        any_value(model) AS model, any_value(attempt) AS attempt,
        bool_and(success) AS success, count(*) FILTER (kind = 'model_response_finished') AS responses,
        {_last("stop_reason", "model_response_finished")} AS stop_reason, arg_max(error, id) AS error,
        min(ts) FILTER (kind = 'model_request_started') AS asked,
        max(ts) FILTER (kind <> 'model_request_started') AS ended
    FROM events WHERE kind IN ('model_request_started', 'model_request_finished', 'model_response_finished')
    GROUP BY key
), spent AS (
    SELECT request_id, sum(tokens) AS tokens, sum(input_tokens) AS input_tokens, sum(output_tokens) AS output_tokens,
        sum(cost_usd) AS cost_usd
    FROM usage WHERE request_id IS NOT NULL GROUP BY request_id
)
SELECT c.ts, runs.session_id, c.run_id, c.agent_id, c.request_id, c.provider, c.model, c.attempt,
    CASE WHEN NOT c.success THEN 'error' WHEN c.responses > 0 THEN 'ok' ELSE 'unfinished' END AS status,
    c.stop_reason, c.error, epoch(c.ended) - epoch(c.asked) AS seconds,
    s.tokens::BIGINT AS tokens, s.input_tokens::BIGINT AS input_tokens, s.output_tokens::BIGINT AS output_tokens,
    s.cost_usd
FROM calls c LEFT JOIN {_RUNS} runs ON runs.run_id = c.run_id LEFT JOIN spent s ON s.request_id = c.request_id
"""

_DECISIONS = f"""
WITH calls AS (
    SELECT run_id, call_id, min(ts) AS ts, arg_max(session_id, id) AS session_id, any_value(agent_id) AS agent_id,
        arg_max(request_id, id) AS request_id, any_value(tool) AS tool, arg_max((payload->>'$.subject'), id) AS subject,
        arg_max((payload->>'$.description'), id) AS description,
        coalesce(
            {_last("outcome", "tool_authorization_finished")},
            CASE {_last("outcome", "permission_resolved")} WHEN 'allowed' THEN 'allow' WHEN 'denied' THEN 'deny' END,
            'pending') AS outcome,
        arg_max(decided_by, id) AS decided_by, arg_max(rule_scope, id) AS scope, arg_max(reason, id) AS reason,
        arg_max(wait_ms, id) / 1000.0 AS wait_s,
        to_timestamp(arg_max(TRY_CAST((payload->>'$.deadline') AS DOUBLE), id)) AS deadline
    FROM events WHERE kind IN ('permission_requested', 'permission_resolved', 'tool_authorization_finished')
    GROUP BY run_id, call_id
)
SELECT c.ts, coalesce(c.session_id, runs.session_id) AS session_id, c.run_id, c.agent_id, c.call_id, c.request_id,
    c.tool, c.subject, c.description, c.outcome, c.decided_by, c.scope, c.reason, c.wait_s, c.deadline
FROM calls c LEFT JOIN {_RUNS} runs ON runs.run_id = c.run_id
"""

_TOOL_CALLS = f"""
WITH calls AS (
    SELECT run_id, call_id, min(ts) AS ts, any_value(agent_id) AS agent_id, any_value(tool) AS tool,
        coalesce({_last("payload->>'$.input'", "tool_execution_started")},
            {_last("payload->>'$.preview.raw_input'", "tool_authorization_started")})::JSON AS input,
        count(*) FILTER (kind IN ('tool_authorization_blocked', 'tool_execution_blocked')) > 0 AS blocked,
        {_last("success", "tool_execution_finished")} AS success,
        {_last("error", "tool_execution_finished")} AS error,
        {_last("payload->>'$.output_preview'", "tool_execution_finished")} AS output,
        coalesce({_last("duration_ms", "tool_execution_finished")}, round(1000 * (
            epoch(max(ts) FILTER (kind = 'tool_execution_finished'))
            - epoch(min(ts) FILTER (kind = 'tool_execution_started'))))::BIGINT) AS ms
    FROM events
    WHERE call_id IS NOT NULL AND (kind LIKE 'tool%' OR kind IN ('permission_requested', 'policy_denied'))
    GROUP BY run_id, call_id
)
SELECT c.ts, coalesce(d.session_id, runs.session_id) AS session_id, c.run_id, c.agent_id, c.call_id, c.tool, c.input,
    d.outcome AS decision, d.decided_by, d.wait_s,
    CASE WHEN c.blocked OR d.outcome IN ('deny', 'prompt') THEN 'denied' WHEN c.success THEN 'ok'
        WHEN NOT c.success THEN 'error' WHEN d.outcome = 'pending' THEN 'pending' ELSE 'unfinished' END AS status,
    c.ms, c.error, c.output
FROM calls c LEFT JOIN decisions d ON d.call_id = c.call_id AND d.run_id IS NOT DISTINCT FROM c.run_id
    LEFT JOIN {_RUNS} runs ON runs.run_id = c.run_id
"""

_TURNS = f"""
WITH runs AS (
    SELECT run_id, min(ts) AS ts, any_value(session_id) AS session_id, any_value(agent_id) AS agent_id,
        any_value(cell_id) AS cell_id, any_value(execution_count) AS execution_count,
        any_value(payload->>'$.notebook') AS notebook, any_value(payload->>'$.project') AS project,
        any_value(model) AS model, any_value(payload->>'$.prompt') AS prompt,
        {_last("stop_reason", "turn_finished")} AS stop_reason, {_last("error", "turn_finished")} AS error,
        {_last("duration_ms", "turn_finished")} AS ms
    FROM events WHERE kind IN ('turn_started', 'turn_finished') AND run_id IS NOT NULL GROUP BY run_id
), called AS (
    SELECT run_id, count(*) AS tools, count(*) FILTER (status = 'denied') AS denials FROM tool_calls GROUP BY run_id
), spent AS (
    SELECT run_id, sum(tokens)::BIGINT AS tokens, sum(input_tokens)::BIGINT AS input_tokens,
        sum(output_tokens)::BIGINT AS output_tokens, {_COST}
    FROM usage GROUP BY run_id
)
SELECT r.ts, r.session_id, r.run_id, r.agent_id, r.cell_id, r.execution_count, r.notebook, r.project, r.model,
    r.prompt, r.stop_reason, r.error, r.ms, coalesce(c.tools, 0) AS tools, coalesce(c.denials, 0) AS denials,
    s.tokens, s.input_tokens, s.output_tokens, s.cost_usd, s.priced
FROM runs r LEFT JOIN called c USING (run_id) LEFT JOIN spent s USING (run_id)
"""

_SESSIONS = f"""
WITH named AS (
    SELECT session_id, min(ts) AS started, max(ts) AS last, any_value(payload->>'$.title') AS title,
        arg_max(model, id) AS model, any_value(payload->>'$.notebook') AS notebook,
        any_value(payload->>'$.project') AS project, count(*) FILTER (kind = 'turn_started') AS turns
    FROM events WHERE session_id IS NOT NULL GROUP BY session_id
), called AS (
    SELECT session_id, count(*) AS tools, count(*) FILTER (status = 'denied') AS denials, sum(ms) / 1000.0 AS tool_s
    FROM tool_calls GROUP BY session_id
), spent AS (
    SELECT session_id, sum(tokens)::BIGINT AS tokens, {_COST} FROM usage GROUP BY session_id
), waited AS (
    SELECT session_id, sum(wait_s) FILTER (request_id IS NOT NULL) AS human_wait_s FROM decisions GROUP BY session_id
), modelled AS (
    SELECT session_id, sum(seconds) AS model_s FROM model_calls GROUP BY session_id
)
SELECT n.session_id, n.started, n.last, n.title, n.model, n.notebook, n.project, n.turns,
    coalesce(c.tools, 0) AS tools, coalesce(c.denials, 0) AS denials, s.tokens, s.cost_usd, s.priced,
    coalesce(w.human_wait_s, 0) AS human_wait_s, coalesce(m.model_s, 0) AS model_s, coalesce(c.tool_s, 0) AS tool_s
FROM named n LEFT JOIN called c USING (session_id) LEFT JOIN spent s USING (session_id)
    LEFT JOIN waited w USING (session_id) LEFT JOIN modelled m USING (session_id)
"""

VIEWS = {
    "usage": _USAGE,
    "model_calls": _MODEL_CALLS,
    "decisions": _DECISIONS,
    "tool_calls": _TOOL_CALLS,
    "turns": _TURNS,
    "sessions": _SESSIONS,
}
"""The views over `events` and `prices`, in the order in which they build on each other."""

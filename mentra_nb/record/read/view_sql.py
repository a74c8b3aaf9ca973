# ruff: noqa: S608  # the SQL is made of our own constants
"""The SQL of the views over `events`, `prices` and `known_rules`.

Text only. `query.py` runs it in memory, and `views.py` writes it into `record.duckdb`.

`RECORD.md` documents each column of a view. All times are UTC (`TIMESTAMPTZ`); `seconds` and names in `_s` are seconds,
names in `_ms` milliseconds; `cost_usd` is US dollars, and NULL if the price is not known.
"""

from __future__ import annotations

from mentra_nb.record.advice import advice_sql
from mentra_nb.record.effects import effects_sql
from mentra_nb.record.feedback import feedback_sql
from mentra_nb.record.schema import USAGE, at

_RUNS = """(
    SELECT run_id, any_value(session_id) AS session_id, any_value(cell_id) AS cell_id, any_value(notebook) AS notebook,
        any_value(project) AS project
    FROM events WHERE session_id IS NOT NULL GROUP BY run_id
)"""


def _last(expression: str, *kinds: str) -> str:
    """Return SQL for the newest value among events of these kinds. CASE keeps it from parsing the JSON of others."""
    return f"arg_max(CASE WHEN kind IN ({', '.join(repr(kind) for kind in kinds)}) THEN {expression} END, id)"


def _only(expression: str, kind: str) -> str:
    """Return SQL for the value of the one event of a kind. After a crash there may be two of them, which are equal."""
    return f"any_value({expression}) FILTER (kind = '{kind}')"


_LAST_SECOND = 253402300799  # of the year 9999: Python has no later time


def _model(of: str = "") -> str:
    """Return SQL for the model of a row as `provider/model`, as it is asked for; NULL if neither is known."""
    return f"nullif(concat_ws('/', {of}provider, {of}model), '')"


def _sum(column: str) -> str:
    """Return SQL for the sum of a column of whole numbers under its own name; NULL if it is out of range."""
    return f"TRY_CAST(sum({column}) AS BIGINT) AS {column.rpartition('.')[2]}"


_TOKENS = ", ".join(map(_sum, ("total_tokens", "input_tokens", "output_tokens")))
_ASKING = "kind IN ('model_request_started', 'model_request_finished', 'model_response_finished')"
_COUNTED = f"kind = 'model_response_finished' AND coalesce({', '.join(USAGE)}) IS NOT NULL"


# Anthropic does not include cached tokens in input_tokens, the others do; `prompt` is all that was sent either way.
# Gemini counts thoughts (output) and tool prompts (input) separately.
def _responses(which: str) -> str:
    """Return SQL for the events that are `which`, with `total_tokens` and what a price is for where one was counted."""
    return f"""(
    SELECT * REPLACE (CASE WHEN counted THEN coalesce(total_tokens, TRY_CAST(prompt + output AS BIGINT)) END
        AS total_tokens)
    FROM (
        SELECT *, {_COUNTED} AS counted, CASE WHEN counted THEN reported_cost_usd END AS reported,
            CASE WHEN counted THEN coalesce(output_tokens, 0)::HUGEINT + coalesce(thoughts_tokens, 0)::HUGEINT END
                AS output,
            CASE WHEN counted THEN coalesce(cache_read_input_tokens, 0)::HUGEINT END AS cached,
            CASE WHEN counted THEN coalesce(cache_creation_input_tokens, 0)::HUGEINT END AS written,
            CASE WHEN counted THEN coalesce(input_tokens, 0)::HUGEINT + coalesce(tool_input_tokens, 0)::HUGEINT
                + CASE WHEN provider = 'anthropic' THEN cached + written ELSE 0 END END AS prompt
        FROM events WHERE {which}
    )
)"""


_COST = """coalesce(c.reported, (greatest(c.prompt - c.cached - c.written, 0) * p.input_mtok
            + c.cached * p.cache_read_mtok + c.written * p.cache_write_mtok + c.output * p.output_mtok) / 1e6)"""
"""SQL for the cost of a row of `c` at its price `p`, unless a cost came with the response, as with a replayed one."""
_PRICE = """prices p ON p.provider = c.provider AND p.model = c.model
        AND c.ts >= (p.from_day::TIMESTAMP AT TIME ZONE 'UTC') AND c.ts < (p.until_day::TIMESTAMP AT TIME ZONE 'UTC')
        AND CASE WHEN p.from_time = TIME '00:00' AND p.until_time = TIME '24:00' THEN true
            ELSE (c.ts AT TIME ZONE 'UTC')::TIME >= p.from_time AND (c.ts AT TIME ZONE 'UTC')::TIME < p.until_time END
        AND c.prompt > p.above AND c.prompt <= p.up_to"""


def _priced(which: str) -> str:
    """Return SQL for the events that are `which`, with `total_tokens` and `cost_usd` where a provider has counted."""
    return f"(SELECT c.*, {_COST} AS cost_usd FROM {_responses(which)} c LEFT JOIN {_PRICE})"


_ENDED = "(kind = 'model_response_finished' OR kind = 'model_request_finished' AND NOT success)"
_SECONDS = f"""epoch(max(CASE WHEN {_ENDED} THEN ts END))
            - epoch(min(CASE WHEN kind = 'model_request_started' THEN ts END)) AS seconds"""

_OF_REQUEST = ("reported", "prompt", "output", "cached", "written", "os_user", "host")
_REQUESTS = f"""(
    SELECT c.* REPLACE ({_model("c.")} AS model), c.responses * {_COST} AS cost_usd
    FROM (SELECT min(ts) AS began, any_value(run_id) AS run_id, any_value(agent_id) AS agent_id, request_id,
        any_value(provider) AS provider, any_value(model) AS model, any_value(attempt) AS attempt,
        CASE WHEN NOT bool_and(success) THEN 'error'
            WHEN count(*) FILTER (kind = 'model_response_finished') > 0 THEN 'ok' ELSE 'unfinished' END AS outcome,
        {_only("stop_reason", "model_response_finished")} AS stop_reason, arg_max(error, id) AS error, {_SECONDS},
        {_TOKENS}, max(ts) AS ts, count(*) FILTER (counted) AS responses,
        {", ".join(f"any_value({part}) AS {part}" for part in _OF_REQUEST)}
    FROM {_responses(_ASKING)} GROUP BY request_id, CASE WHEN request_id IS NULL THEN id END) c LEFT JOIN {_PRICE}
)"""
"""A row per request. Priced after it is grouped, as only one of its events has a price."""

_DEADLINE = f"""CASE WHEN {at("deadline", "DOUBLE")} BETWEEN 0 AND {_LAST_SECOND} THEN {at("deadline", "DOUBLE")} END"""

_DECIDING = ("permission_requested", "permission_resolved", "tool_authorization_finished")

_CALLS = f"""(
    SELECT *,
        CASE WHEN given IS NOT NULL THEN coalesce(TRY_CAST(given AS JSON), json_object('truncated', given)) END
            AS input,
        CASE WHEN decision = 'invalid' THEN 'invalid' WHEN blocked OR decision IN ('deny', 'prompt') THEN 'denied'
        WHEN success THEN 'ok'
        WHEN NOT success THEN 'error' WHEN decision = 'pending' THEN 'pending' ELSE 'unfinished' END AS outcome,
        CASE WHEN starts_with(decider, 'rule:') THEN 'rule' ELSE decider END AS decided_by,
        CASE WHEN starts_with(decider, 'rule:') THEN substr(decider, 6) ELSE decided_rule END AS rule_id
    FROM (SELECT * REPLACE (CASE WHEN misfit THEN 'invalid' ELSE decision END AS decision)
    FROM (SELECT run_id, call_id, any_value(agent_id) AS agent_id, any_value(tool) AS tool, min(ts) AS ts,
        min(ts) FILTER (kind IN {_DECIDING}) AS decided_ts, any_value(session_id) AS session_id,
        any_value(request_id) AS request_id, {_last("subject", *_DECIDING)} AS subject,
        {_last("payload->>'$.description'", "permission_requested")} AS description,
        to_timestamp({_last(_DEADLINE, "permission_requested")}) AS deadline,
        count(*) FILTER (kind = 'permission_requested') > 0 AS asked,
        coalesce(
            {_only("outcome", "tool_authorization_finished")},
            CASE {_only("outcome", "permission_resolved")} WHEN 'allowed' THEN 'allow' WHEN 'denied' THEN 'deny' END,
            CASE WHEN asked THEN 'pending' END) AS decision,
        coalesce({_only("decided_by", "tool_authorization_finished")}, arg_max(decided_by, id)) AS decider,
        arg_max(rule_scope, id) AS scope, {_only("rule_id", "tool_authorization_finished")} AS decided_rule,
        {_only("pattern", "permission_resolved")} AS pattern,
        coalesce({_only("os_user", "permission_resolved")}, {_last("os_user", *_DECIDING)}) AS os_user,
        coalesce({_only("host", "permission_resolved")}, {_last("host", *_DECIDING)}) AS host,
        {_last("reason", *_DECIDING)} AS reason, max(wait_ms) / 1000.0 AS wait_s,
        coalesce({_last("payload->>'$.input'", "tool_execution_started")},
            {_last("payload->>'$.preview.raw_input'", "tool_authorization_started")}) AS given,
        count(*) FILTER (kind IN ('tool_authorization_blocked', 'tool_execution_blocked')) > 0 AS blocked,
        {_only("duration_ms", "tool_execution_finished")} / 1000.0 AS seconds,
        {_only("success", "tool_execution_finished")} AS success, {_last("error", "tool_execution_finished")} AS error,
        {_last("payload->>'$.output_preview'", "tool_execution_finished")} AS output,
        bool_or(invalid AND kind = 'tool_authorization_finished' AND decided_by = 'runtime' AND outcome = 'deny')
            AS misfit
    FROM events WHERE call_id IS NOT NULL AND kind != 'effect_made' GROUP BY run_id, call_id))
)"""

_CALLED = f"""(
    SELECT run_id, count(*) AS tools, count(*) FILTER (outcome = 'denied') AS denials, round(sum(seconds), 3) AS tool_s,
        sum(wait_s) FILTER (asked) AS human_wait_s
    FROM {_CALLS} GROUP BY run_id
)"""

_RULED = """LEFT JOIN known_rules ruled ON ruled.rule_id = c.rule_id"""

_USAGE = f"""
SELECT c.ts, {_model("c.")} AS model, {", ".join("c." + name for name in USAGE[:3])}, c.cost_usd,
    {", ".join("c." + name for name in USAGE[3:])}, c.attempt, (c.ts AT TIME ZONE 'UTC')::DATE AS day, c.provider,
    c.os_user, c.host, runs.notebook, runs.project, runs.cell_id,
    coalesce(c.session_id, runs.session_id) AS session_id, c.run_id, c.request_id, c.agent_id
FROM {_priced(_COUNTED)} c LEFT JOIN {_RUNS} runs ON runs.run_id = c.run_id
"""

_MODEL_CALLS = f"""
SELECT c.began AS ts, c.model, c.outcome, c.stop_reason, c.seconds, c.total_tokens, c.cost_usd, c.error, c.attempt,
    c.input_tokens, c.output_tokens, c.provider, c.os_user, c.host, runs.session_id, c.run_id, c.request_id, c.agent_id
FROM {_REQUESTS} c LEFT JOIN {_RUNS} runs ON runs.run_id = c.run_id
"""

_DECISIONS = f"""
SELECT c.decided_ts AS ts, c.tool, c.subject, c.decision AS outcome, c.decided_by, ruled.rule, c.reason, c.wait_s,
    asked.prompt, c.description, c.scope, c.pattern, c.deadline, c.os_user, c.host, runs.notebook, runs.cell_id,
    c.rule_id, coalesce(c.session_id, runs.session_id) AS session_id, c.run_id, c.call_id, c.request_id, c.agent_id
FROM {_CALLS} c LEFT JOIN {_RUNS} runs ON runs.run_id = c.run_id {_RULED} LEFT JOIN (
    SELECT run_id, any_value(payload->>'$.prompt') AS prompt FROM events WHERE kind = 'turn_started' GROUP BY run_id
) asked ON asked.run_id = c.run_id WHERE c.decided_ts IS NOT NULL
"""

_TOOL_CALLS = f"""
SELECT c.ts, c.tool, c.subject, c.decision, c.decided_by, ruled.rule, c.outcome, c.seconds, c.wait_s, c.error, c.output,
    c.input, c.os_user, c.host, c.rule_id, coalesce(c.session_id, runs.session_id) AS session_id, c.run_id, c.call_id,
    c.agent_id
FROM {_CALLS} c LEFT JOIN {_RUNS} runs ON runs.run_id = c.run_id {_RULED}
"""

_WAITED = f"""(
    SELECT run_id, sum(seconds) AS model_s
    FROM (SELECT run_id, {_SECONDS} FROM events
        WHERE (kind = 'model_request_started' OR {_ENDED}) AND request_id IS NOT NULL GROUP BY run_id, request_id)
    GROUP BY run_id
)"""

_TAKEN = f"""(
    SELECT run_id, min(ts) FILTER (NOT counted) AS ts, any_value(session_id) AS session_id,
        any_value(agent_id) AS agent_id, any_value(cell_id) AS cell_id, any_value(execution_count) AS execution_count,
        any_value(notebook) AS notebook, any_value(project) AS project, any_value(model) FILTER (NOT counted) AS model,
        any_value(CASE WHEN kind = 'turn_started' THEN payload->>'$.prompt' END) AS prompt,
        any_value(CASE WHEN kind = 'turn_started' THEN first_words END) AS first_words,
        any_value(resumes) AS resumes, any_value(parent_run_id) AS parent_run_id,
        any_value(os_user) FILTER (NOT counted) AS os_user,
        any_value(host) FILTER (NOT counted) AS host, min(id) FILTER (kind = 'turn_started') AS began,
        {_last("payload->>'$.text'", "turn_finished")} AS answer,
        {_last("stop_reason", "turn_finished")} AS stop_reason,
        {_last("error", "turn_finished")} AS error, {_last("duration_ms", "turn_finished")} / 1000.0 AS seconds,
        {_TOKENS}, sum(cost_usd) AS cost_usd, count(cost_usd) AS known, count(total_tokens) AS counted
    FROM {_priced(f"(kind IN ('turn_started', 'turn_finished') OR {_COUNTED})")}
    WHERE run_id IS NOT NULL GROUP BY run_id
)"""
"""For each turn what its first and last event say, and what was spent: together, as payloads take long to read."""

_SPOKE = f"""(
    SELECT run_id, max(id) FILTER (answered) AS answered, max(id) AS asked,
        coalesce(arg_max(name, id) FILTER (answered), arg_max(name, id)) AS model
    FROM (SELECT run_id, id, {_model()} AS name, kind = 'model_response_finished' AND success AS answered
        FROM events WHERE {_ASKING} AND NOT starts_with(coalesce(request_id, ''), 'review'))
    GROUP BY run_id
)"""
"""For each turn the model that answered last, or if none did, the one that was asked last."""

_TURNS = f"""
SELECT r.ts, r.prompt, r.answer, coalesce(m.model, r.model) AS model, r.stop_reason, r.error,
    coalesce(c.tools, 0) AS tools, coalesce(c.denials, 0) AS denials, r.total_tokens, r.cost_usd, r.seconds,
    coalesce(c.human_wait_s, 0) AS human_wait_s, coalesce(w.model_s, 0) AS model_s, coalesce(c.tool_s, 0) AS tool_s,
    r.input_tokens, r.output_tokens, r.known / nullif(r.counted, 0) AS priced, r.counted - r.known AS unpriced,
    r.os_user, r.host, r.execution_count, r.notebook, r.project, r.cell_id, r.session_id, r.run_id, r.resumes,
    r.parent_run_id, r.agent_id
FROM {_TAKEN} r LEFT JOIN {_CALLED} c USING (run_id) LEFT JOIN {_WAITED} w USING (run_id)
    LEFT JOIN {_SPOKE} m USING (run_id)
WHERE r.ts IS NOT NULL
"""

_UNNAMED = "mentra"
"""The name of a session that was given none, in old records. Else it is the id."""
_NO_NAME = f"coalesce(nullif(name, session_id), '{_UNNAMED}') = '{_UNNAMED}'"
_TITLE_LENGTH = 48
_WORDS = f"""(CASE WHEN length(asked) <= {_TITLE_LENGTH} THEN asked
    ELSE regexp_replace(left(asked, {_TITLE_LENGTH - 1}), '(\\S)\\s+\\S*$', '\\1') || '…' END)"""
"""The first words of `asked`."""

_SESSIONS = f"""
WITH seen AS (
    SELECT session_id, min(ts) AS started, max(ts) AS last, max(title) AS name, arg_max(model, ts) AS model,
        any_value(notebook) AS notebook, any_value(project) AS project, arg_min(os_user, ts) AS os_user,
        arg_min(host, ts) AS host, count(*) FILTER (kind = 'turn_started' AND parent_run_id IS NULL) AS turns
    FROM events WHERE session_id IS NOT NULL AND kind <> 'rule_changed' GROUP BY session_id
), sums AS (
    SELECT r.session_id, arg_min(s.first_words, s.began) AS asked,
        {_sum("c.tools")}, {_sum("c.denials")},
        {_sum("s.total_tokens")}, sum(s.cost_usd) AS cost_usd,
        sum(s.known) / nullif(sum(s.counted), 0) AS priced, sum(s.counted - s.known) AS unpriced,
        sum(c.human_wait_s) AS human_wait_s, sum(w.model_s) AS model_s, sum(c.tool_s) AS tool_s,
        coalesce(arg_max(m.model, m.answered), arg_max(m.model, m.asked)) AS spoke
    FROM (SELECT run_id, session_id FROM events WHERE session_id IS NOT NULL GROUP BY run_id, session_id) r
        LEFT JOIN {_CALLED} c USING (run_id) LEFT JOIN {_WAITED} w USING (run_id) LEFT JOIN {_TAKEN} s USING (run_id)
        LEFT JOIN {_SPOKE} m USING (run_id)
    GROUP BY r.session_id
)
SELECT started,
    CASE WHEN {_NO_NAME} AND asked <> '' THEN {_WORDS} ELSE name END AS title,
    coalesce(spoke, model) AS model, turns, coalesce(tools, 0) AS tools, coalesce(denials, 0) AS denials, total_tokens,
    cost_usd, last, coalesce(human_wait_s, 0) AS human_wait_s, coalesce(model_s, 0) AS model_s,
    coalesce(tool_s, 0) AS tool_s, priced, coalesce(unpriced, 0)::BIGINT AS unpriced, os_user, host, notebook,
    project, session_id
FROM seen JOIN sums USING (session_id)
"""

_RULE_CHANGES = f"""
SELECT ts, {at("action")} AS action, tool, pattern, {at("allow", "BOOLEAN")} AS allow, rule_scope AS scope, reason,
    decided_by, os_user, host, {at("scope_key")} AS scope_key, rule_id, {at("replaces")} AS replaces, session_id,
    request_id
FROM events WHERE kind = 'rule_changed'
"""


def known_rules(every: str) -> str:
    """Return the SELECT of `known_rules`: the pattern of each rule, from a view of all events, of whatever session."""
    return f"""SELECT rule_id, any_value(pattern) AS rule FROM {every}
        WHERE kind IN ('rule_changed', 'permission_resolved') AND rule_id IS NOT NULL GROUP BY rule_id"""


VIEWS = {
    "usage": _USAGE,
    "model_calls": _MODEL_CALLS,
    "decisions": _DECISIONS,
    "tool_calls": _TOOL_CALLS,
    "turns": _TURNS,
    "sessions": _SESSIONS,
    "rule_changes": _RULE_CHANGES,
    "effects": effects_sql(_RUNS),
    "advice": advice_sql(_RUNS),
    "feedback": feedback_sql(_RUNS),
}
"""The views over `events`, `prices` and `known_rules`; none uses another."""

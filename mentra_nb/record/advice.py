# ruff: noqa: S608  # the SQL is made of our own constants
"""The SQL of the view `advice`: a row for each question that a reviewer advised on, beside what a person decided."""

from __future__ import annotations

PEOPLE = ("user", "host")
"""What `decided_by` says where a person answered: in a notebook, or through the program that holds the runtime."""


def advice_sql(runs: str) -> str:
    """Return the SELECT of `advice` over `events`. `runs` are the turns with their session, notebook and cell.

    A call whose arguments the person changed was not the one that the advice was about, so it is wrong about neither.
    """
    return f"""
SELECT a.ts, a.risk, a.reason, a.tool, q.subject, coalesce(q.outcome, 'pending') AS outcome, q.decided_by,
    coalesce(a.risk = 'high' AND q.outcome = 'allowed' AND q.decided_by IN {PEOPLE}, false) AS false_alarm,
    coalesce(a.risk = 'low' AND q.outcome = 'denied' AND q.decided_by IN {PEOPLE}, false) AS miss,
    nullif(concat_ws('/', a.provider, a.model), '') AS model, a.duration_ms / 1000.0 AS seconds, q.os_user, q.host,
    runs.notebook, runs.cell_id, coalesce(a.session_id, runs.session_id) AS session_id, a.run_id, a.call_id,
    a.request_id, a.agent_id
FROM (SELECT *, payload->>'$.risk' AS risk FROM events WHERE kind = 'permission_advised') a
    LEFT JOIN (
        SELECT request_id, any_value(subject) AS subject,
            any_value(CASE WHEN outcome = 'allowed' AND coalesce(json_type(payload, '$.input'), 'NULL') <> 'NULL'
                THEN 'changed' ELSE outcome END) FILTER (kind = 'permission_resolved') AS outcome,
            any_value(decided_by) FILTER (kind = 'permission_resolved') AS decided_by,
            any_value(os_user) FILTER (kind = 'permission_resolved') AS os_user,
            any_value(host) FILTER (kind = 'permission_resolved') AS host
        FROM events WHERE kind IN ('permission_requested', 'permission_resolved') GROUP BY request_id
    ) q ON q.request_id = a.request_id
    LEFT JOIN {runs} runs ON runs.run_id = a.run_id
"""

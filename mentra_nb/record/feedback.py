# ruff: noqa: S608  # the SQL is made of our own constants
"""The SQL of the view `feedback`: a row for each time a person said what they thought of an answer."""

from __future__ import annotations


def feedback_sql(runs: str) -> str:
    """Return the SELECT of `feedback` over `events`. `runs` are the turns with their session, notebook and cell."""
    return f"""
SELECT f.ts, f.verdict, f.note, t.prompt, t.answer, t.model, t.tools, f.os_user, f.host, runs.notebook, runs.cell_id,
    coalesce(f.session_id, runs.session_id) AS session_id, f.run_id, f.agent_id
FROM (
        SELECT *, payload->>'$.verdict' AS verdict, payload->>'$.note' AS note FROM events
        WHERE kind = 'feedback_given'
    ) f LEFT JOIN (
        SELECT run_id, any_value(CASE WHEN kind = 'turn_started' THEN payload->>'$.prompt' END) AS prompt,
            arg_max(CASE WHEN kind = 'turn_finished' THEN payload->>'$.text' END, id) AS answer,
            arg_max(CASE WHEN kind = 'model_response_finished' AND NOT starts_with(coalesce(request_id, ''), 'review')
                THEN nullif(concat_ws('/', provider, model), '') END, id) AS model,
            count(DISTINCT call_id) AS tools
        FROM events WHERE run_id IN (SELECT run_id FROM events WHERE kind = 'feedback_given') GROUP BY run_id
    ) t ON t.run_id = f.run_id
    LEFT JOIN {runs} runs ON runs.run_id = f.run_id
"""

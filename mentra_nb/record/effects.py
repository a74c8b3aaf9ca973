# ruff: noqa: S608  # the SQL is made of our own constants
"""The SQL of the view `effects`: a row for each file that a call changed."""

from __future__ import annotations


def effects_sql(runs: str) -> str:
    """Return the SELECT of `effects` over `events`. `runs` are the turns with their session, notebook and cell."""
    return f"""
SELECT c.ts, file->>'$.path' AS path, file->>'$.change' AS change, c.tool, payload->>'$.agent_name' AS agent,
    c.outcome, file->>'$.type' AS type,
    TRY_CAST(file->>'$.bytes_before' AS BIGINT) AS bytes_before, TRY_CAST(file->>'$.bytes' AS BIGINT) AS bytes,
    file->>'$.mode_before' AS mode_before, file->>'$.mode' AS mode, file->>'$.digest_before' AS digest_before,
    file->>'$.digest' AS digest, c.os_user, c.host, runs.notebook, runs.cell_id,
    coalesce(c.session_id, runs.session_id) AS session_id, c.run_id, c.call_id,
    payload->>'$.entry' AS effect_id, payload->>'$.undoes' AS undoes, c.agent_id
FROM (SELECT *, unnest(TRY_CAST(payload->'$.files' AS JSON[])) AS file FROM events WHERE kind = 'effect_made') c
    LEFT JOIN {runs} runs ON runs.run_id = c.run_id
"""

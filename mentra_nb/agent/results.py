"""Limits of a tool's result, and the results of calls that did not run to their end."""

from __future__ import annotations

import json
from typing import Any

MAX_RESULT_LINES = 2_000
MAX_RESULT_BYTES = 50 * 1024
SKIPPED = "interrupted while it ran: it may have taken effect, and was not run again"
STOPPED = "stopped before it finished; it may have taken effect"
NOT_RUN = "not executed: the turn was stopped"


def limited(content: Any) -> Any:
    """Return a result within 2,000 lines and 50 KiB: whole leading lines and a notice. JSON is replaced, not cut."""
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
    size = len(text.encode())
    if size <= MAX_RESULT_BYTES and text.count("\n") < MAX_RESULT_LINES:
        return content
    if not isinstance(content, str):
        return f"[the result is JSON of {size} bytes, over the limit of {MAX_RESULT_BYTES}: ask for less of it]"
    lines, kept, used = text.split("\n"), [], 0
    for line in lines[:MAX_RESULT_LINES]:
        used += len(line.encode()) + 1
        if used > MAX_RESULT_BYTES:
            break
        kept.append(line)
    return "\n".join([*kept, f"[truncated: showing {len(kept)} of {len(lines)} lines]"])

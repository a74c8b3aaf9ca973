"""What an approval of a call is bound to, and how long it is waited for."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import anyio

from mentra_nb.authorization import ToolAuthorizationDecision, ToolAuthorizationRequest, ToolAuthorizer

AGAIN = "it was interrupted while it ran and may have taken effect: run it again?"
"""What a person is asked about a call whose result nobody knows."""


def arguments_hash(tool: str, arguments: dict[str, Any]) -> str:
    """Binds an approval to exactly these arguments: SHA-256 of the tool's name and canonical JSON, in hex."""
    canonical = json.dumps([tool, arguments], sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


async def decide_in_time(authorizer: ToolAuthorizer, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision:
    """What an authorizer says, or a denial when it does not within its own time-out. Raises what it raises."""
    timeout = authorizer.timeout()
    with anyio.move_on_after(timeout):
        return await authorizer.authorize(request)
    return ToolAuthorizationDecision.deny(f"authorizer timed out after {duration(timeout or 0)}", "timeout")


def duration(seconds: float) -> str:
    """Whole seconds as `3s`, else `20ms`, `5us` or `7ns`, whichever is the largest that is not zero."""
    if seconds >= 1 and seconds == int(seconds):
        return f"{int(seconds)}s"
    for factor, unit in ((1e3, "ms"), (1e6, "us")):
        if int(seconds * factor):
            return f"{int(seconds * factor)}{unit}"
    return f"{int(seconds * 1e9)}ns"

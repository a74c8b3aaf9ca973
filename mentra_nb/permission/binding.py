"""The hash that binds an approval to its arguments, and the time-out of authorizers."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import anyio

from mentra_nb.authorization import ToolAuthorizationDecision, ToolAuthorizationRequest, ToolAuthorizer

AGAIN = "it was interrupted while it ran and may have taken effect: run it again?"
"""The question about a call that began in a turn that died."""


def arguments_hash(tool: str, arguments: dict[str, Any]) -> str:
    """Return the SHA-256, in hex, of the tool's name and its arguments as canonical JSON."""
    canonical = json.dumps([tool, arguments], sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


async def decide_in_time(authorizer: ToolAuthorizer, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision:
    """Return an authorizer's decision, or a denial when its time-out passes. Raises what the authorizer raises."""
    timeout = authorizer.timeout()
    with anyio.move_on_after(timeout):
        return await authorizer.authorize(request)
    return ToolAuthorizationDecision.deny(f"authorizer timed out after {duration(timeout or 0)}", "timeout")


def duration(seconds: float) -> str:
    """Format seconds as `3s`, `20ms`, `5us` or `7ns`: whole seconds, else the largest unit that is not zero."""
    if seconds >= 1 and seconds == int(seconds):
        return f"{int(seconds)}s"
    for factor, unit in ((1e3, "ms"), (1e6, "us")):
        if int(seconds * factor):
            return f"{int(seconds * factor)}{unit}"
    return f"{int(seconds * 1e9)}ns"

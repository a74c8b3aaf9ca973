"""The hash that binds an approval to its arguments, and the time-out of authorizers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

from mentra_nb.authorization import ToolAuthorizationDecision, ToolAuthorizationRequest, ToolAuthorizer
from mentra_nb.errors import as_exception

T = TypeVar("T")

AGAIN = "it was interrupted while it ran and may have taken effect: run it again?"
"""The question about a call that began in a turn that died."""


def arguments_hash(tool: str, arguments: dict[str, Any]) -> str:
    """Return the SHA-256, in hex, of the tool's name and its arguments as canonical JSON."""
    canonical = json.dumps([tool, arguments], sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


def effective_hash(request: ToolAuthorizationRequest) -> str:
    """Return the hash that binds an answer to a call as it would run, and to what it did in the sandbox if it did."""
    preview = request.preview
    effective = {"arguments": request.arguments, "input": preview.structured_input, "in": preview.working_directory}
    if request.effect is not None:
        effective["effect"] = request.effect.digest
    return arguments_hash(request.tool_name, effective)


async def decide_in_time(authorizer: ToolAuthorizer, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision:
    """Return an authorizer's decision, or a denial when its time-out passes. Raises what the authorizer raises."""
    timeout = contained_call(authorizer.timeout)
    with anyio.move_on_after(timeout):
        return await contained(authorizer.authorize(request))
    return ToolAuthorizationDecision.deny(f"authorizer timed out after {duration(timeout or 0)}", "timeout")


async def contained(foreign: Awaitable[T]) -> T:
    """Await code of an application, and raise whatever it raises as an `Exception`; only a cancellation stays one.

    `KeyboardInterrupt`, `GeneratorExit` and the like would otherwise end the event loop's thread.
    """
    try:
        return await foreign
    except (Exception, anyio.get_cancelled_exc_class()):
        raise
    except BaseException as error:
        raise as_exception(error) from error


def contained_call(foreign: Callable[[], T]) -> T:
    """Call code of an application, and raise whatever it raises as an `Exception`."""
    try:
        return foreign()
    except Exception:
        raise
    except BaseException as error:
        raise as_exception(error) from error


def duration(seconds: float) -> str:
    """Format seconds as `3s`, `20ms`, `5us` or `7ns`: whole seconds, else the largest unit that is not zero."""
    if seconds >= 1 and seconds == int(seconds):
        return f"{int(seconds)}s"
    for factor, unit in ((1e3, "ms"), (1e6, "us")):
        if int(seconds * factor):
            return f"{int(seconds * factor)}{unit}"
    return f"{int(seconds * 1e9)}ns"

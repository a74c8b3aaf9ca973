"""Pre-execution hooks: asked about a call before anything is decided about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class PreExecutionContext:
    """A call that may run. `input` are its arguments as the tool reads them, or as sent if they do not fit."""

    agent_id: str
    tool_name: str
    tool_call_id: str
    input: dict[str, Any]
    working_directory: str


@dataclass(frozen=True)
class PreExecutionDecision:
    """`allow`, `deny` with a reason, or `modify` with the arguments to use instead.

    Example:
        >>> mn.PreExecutionDecision("modify", input={"path": "report.md"})
        PreExecutionDecision(outcome='modify', reason=None, input={'path': 'report.md'})
    """

    outcome: Literal["allow", "deny", "modify"]
    reason: str | None = None
    input: dict[str, Any] | None = None


class PreExecutionHook(Protocol):
    """Decide about a call before policy and authorizer do. The first denial wins, changes chain, raising is a denial.

    What arguments do not fit the tool when all hooks have been asked is refused.

    Example:
        >>> class KeepOut:
        ...     async def before_execution(self, context):
        ...         if "secret" in str(context.input):
        ...             return mn.PreExecutionDecision("deny", "keep out")
        ...         return mn.PreExecutionDecision("allow")
        >>> runtime = mn.Runtime(pre_hooks=[KeepOut()])
    """

    async def before_execution(self, context: PreExecutionContext) -> PreExecutionDecision:
        """Return what is to be done with the call."""
        ...

"""Pre-execution hooks: asked after authorization, just before a tool runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class PreExecutionContext:
    """The call that is about to run; `input` are its effective arguments."""

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
    """Decide about a call before it runs. The first denial wins, changes chain, raising is a denial.

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

"""What a rule or a person decided, as the decision about a call."""

from __future__ import annotations

from mentra_nb.authorization import (
    PermissionDecision,
    PermissionRule,
    ToolAuthorizationDecision,
    ToolAuthorizationOutcome,
)
from mentra_nb.permission.questions import DENIED


def by_rule(rule: PermissionRule) -> ToolAuthorizationDecision:
    """Return what a rule decides about a call that it covers."""
    decided = ToolAuthorizationDecision.allow(f"rule:{rule.id}")
    if not rule.allow:
        why = f"blocked by a remembered rule for '{rule.pattern}'; asking again will not help"
        reason = f"{rule.reason}; {why}" if rule.reason else why
        decided = ToolAuthorizationDecision.deny(reason, decided.decided_by)
    return decided.model_copy(update={"pattern": rule.pattern})


def as_authorization(request_id: str, decided: PermissionDecision) -> ToolAuthorizationDecision:
    """Return the decision about a call that an answer is."""
    return ToolAuthorizationDecision(
        outcome=ToolAuthorizationOutcome.ALLOW if decided.allow else ToolAuthorizationOutcome.DENY,
        reason=decided.reason if decided.allow else decided.reason or DENIED,
        decided_by=decided.by,
        request_id=request_id,
        values=decided.values,
        arguments=decided.arguments,
    )

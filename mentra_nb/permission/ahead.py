"""The questions about the calls of one answer, open together before the turn of each call has come.

Calls with effects run one after another, and each goes through all of its gates when its turn comes. Only the answer
of a person may be there by then. It counts if the call is still what was asked about; otherwise it is asked anew.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import anyio
from anyio.abc import TaskGroup, TaskStatus

from mentra_nb.authorization import (
    PermissionDecision,
    PermissionRule,
    ToolAuthorizationDecision,
    ToolAuthorizationOutcome,
    ToolAuthorizationRequest,
)
from mentra_nb.errors import OperationDenied
from mentra_nb.permission.asking import SessionPermissions

CHANGED = "what it acts on has changed since it was first asked about; "
"""How the reason of a question begins that is asked anew."""


@dataclass(eq=False)
class _Early:
    """A question that was put before the turn of its call."""

    request: ToolAuthorizationRequest
    request_id: str = ""
    closed: anyio.Event = field(default_factory=anyio.Event)
    decision: ToolAuthorizationDecision = field(default_factory=lambda: ToolAuthorizationDecision.deny("", "cancelled"))


class AskedAhead:
    """The authorizer of the calls of one answer. Their questions wait in `group`: cancelling it closes them."""

    def __init__(self, permissions: SessionPermissions, group: TaskGroup) -> None:
        self._permissions, self._group = permissions, group
        self._early: dict[str, _Early] = {}

    def timeout(self) -> float | None:
        """Return `None`, as the session's authorizer does."""
        return self._permissions.timeout()

    async def ask(self, request: ToolAuthorizationRequest) -> None:
        """Put the question about a call whose turn has not come, and return once it is open, if it needs one."""
        rules = await self._permissions.rules()
        reason = await self._permissions.without_asking(request, rules)
        if isinstance(reason, str):
            early = _Early(request)
            early.request_id = await self._group.start(self._put, early, reason, rules)
            self._early[request.tool_call_id] = early
            if not self._is_open(early):
                await early.closed.wait()  # answered at once, maybe by a rule that covers the next call

    async def _put(
        self, early: _Early, reason: str, rules: list[PermissionRule], *, task_status: TaskStatus[str]
    ) -> None:
        early.decision = await self._permissions.put_question(early.request, reason, rules, task_status.started)
        early.closed.set()

    async def authorize(self, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision:
        """Decide about a call whose turn has come, by the answer to its question if that counts still."""
        early = self._early.pop(request.tool_call_id, None) if request.effect is None else None
        if early is None:
            return await self._permissions.authorize(request)
        if early.request != request:
            self._answer(early, PermissionDecision(allow=False, by="cancelled", reason="asked again"))
            await early.closed.wait()
            if _is_by_person(early.decision) and early.decision.outcome is ToolAuthorizationOutcome.DENY:
                return early.decision
            return await self._permissions.authorize(request, CHANGED)
        now = await self._permissions.without_asking(request, await self._permissions.rules())
        if isinstance(now, ToolAuthorizationDecision):
            allow = now.outcome is ToolAuthorizationOutcome.ALLOW
            self._answer(early, PermissionDecision(allow=allow, by=now.decided_by, reason=now.reason))
        was_open = self._is_open(early)
        await early.closed.wait()
        lapsed = not was_open and early.decision.decided_by == "timeout"
        return await self._later_of(early.decision, now, request, lapsed=lapsed)

    async def _later_of(
        self,
        answer: ToolAuthorizationDecision,
        now: ToolAuthorizationDecision | str,
        request: ToolAuthorizationRequest,
        *,
        lapsed: bool,
    ) -> ToolAuthorizationDecision:
        """Return the decision by an answer, and by what decides now without a person: a denial of either counts.

        A question that `lapsed` before the turn of its call is asked anew.
        """
        counts = not lapsed and (_is_by_person(answer) or answer.decided_by == "timeout")
        if isinstance(now, ToolAuthorizationDecision):
            if now.outcome is ToolAuthorizationOutcome.DENY or not counts:
                return await self._permissions.counted(now)
        elif not counts:
            return await self._permissions.authorize(request)
        return answer

    def withdraw(self, call_id: str) -> None:
        """Close the question about a call that was refused before its question mattered."""
        if (early := self._early.pop(call_id, None)) is not None:
            self._answer(early, PermissionDecision(allow=False, by="cancelled", reason="the call was refused"))

    def _is_open(self, early: _Early) -> bool:
        return any(each.request_id == early.request_id for each in self._permissions.open_questions())

    def _answer(self, early: _Early, decision: PermissionDecision) -> None:
        """Close a question that is open still."""
        with contextlib.suppress(OperationDenied):
            self._permissions.resolve(early.request_id, decision)


def _is_by_person(decision: ToolAuthorizationDecision) -> bool:
    return decision.decided_by not in ("timeout", "cancelled") and not decision.decided_by.startswith("rule:")

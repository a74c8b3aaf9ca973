"""The order in which a call is decided, and the life of a question put to a person.

    deny rule → authorizer deny → allow rule → authorizer allow → setting → sandbox → ask

The policy's hard denials come before all of this, in `agent/gates.py`. A question has a deadline, is bound to its
arguments, and is closed exactly once: answered, timed out, or cancelled with its turn. A late answer is refused.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import anyio
import anyio.to_thread

from mentra_nb.authorization import (
    CallEffect,
    PermissionDecision,
    PermissionQuestion,
    PermissionRule,
    ToolAuthorizationDecision,
    ToolAuthorizationOutcome,
    ToolAuthorizationRequest,
    ToolAuthorizer,
    ToolCapability,
)
from mentra_nb.errors import OperationDenied, StoreError
from mentra_nb.event import types as e
from mentra_nb.event.bus import EventBus
from mentra_nb.ids import new_id
from mentra_nb.permission.advice import how_to_allow, why
from mentra_nb.permission.binding import AGAIN, decide_in_time, duration, effective_hash
from mentra_nb.permission.effects import covers_command, denial_of, keeping_rule, named_folders, why_asked
from mentra_nb.permission.remembering import check_scope, remember
from mentra_nb.permission.rules import exactly, find_rule, pattern_problem
from mentra_nb.store.protocols import RuntimeStore

if TYPE_CHECKING:
    import asyncio

log: logging.Logger = logging.getLogger(__name__)

AskMode = Literal["always", "changes", "rules"]
"""When to ask: about every call, about what is not declared read-only, or never (what no rule covers is denied)."""

SandboxMode = Literal["auto", "off"]
"""Whether a command runs in the sandbox first, where there is one, so that its effect is asked about instead of it."""

DEFAULT_ASK_TIMEOUT = 600.0
"""Seconds a question stays open."""

ASK_IN_A_CELL = "ask with %mentra, mn.ask or Chat.ask in a cell of a live notebook, where a person can answer"
"""The other way to let a call run where nobody can be asked."""

BE_ASKED = "set ask to 'changes' to be asked: %config Mentra.ask = 'changes'"
"""The other way where the setting keeps anybody from being asked."""

CLOSED = "that question is closed: it was answered, timed out, or its turn was stopped"


@dataclass(eq=False, repr=False)
class _Open:
    """A question that waits for its answer."""

    question: PermissionQuestion
    answered: anyio.Event
    loop: asyncio.AbstractEventLoop
    rules: list[PermissionRule]
    """Those that held when it was asked."""
    decision: PermissionDecision | None = None
    """Set by the thread that answers, so that an accepted answer is never overtaken by the deadline."""


class SessionPermissions:
    """The authorizer of one session. `ask`, `ask_timeout` (seconds) and `can_ask` may be changed between turns."""

    can_ask: Callable[[], bool] = staticmethod(lambda: True)
    """Returns whether a person can be asked. If not, the call is denied at once."""

    def __init__(
        self,
        session_id: str,
        bus: EventBus,
        store: RuntimeStore,
        *,
        inner: ToolAuthorizer | None = None,
        project: str | None = None,
        ask: AskMode = "changes",
        ask_timeout: float = DEFAULT_ASK_TIMEOUT,
    ) -> None:
        self.session_id = session_id
        self.project = project
        self.bus = bus
        self.store = store
        self.inner = inner
        self.ask: AskMode = ask
        self.ask_timeout: float = ask_timeout
        self.sandbox: SandboxMode = "off"
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()

    def timeout(self) -> float | None:
        """Return `None`: a question has its own deadline, and the inner authorizer its own time-out."""
        return None

    # ---- deciding ---------------------------------------------------------------------------------------------

    async def authorize(self, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision:
        """Decide about a call, asking a person when nothing else decides."""
        rules = await self.store.list_rules(self.session_id, self.project)
        if request.effect is not None:
            return await self._authorize_effect(request, request.effect, rules)
        rule = find_rule(rules, request.tool_name, request.subject)
        if rule is not None and not rule.allow:
            return await self._by_rule(rule)
        verdict = await self._inner_verdict(request)
        if verdict is not None and verdict.outcome is ToolAuthorizationOutcome.DENY:
            return verdict
        if rule is not None and not request.again:
            return await self._by_rule(rule)
        if verdict is not None and verdict.outcome is ToolAuthorizationOutcome.ALLOW and not request.again:
            return verdict
        if (answer := await self._answered_before(request)) is not None:
            return answer
        prompted = verdict is not None or request.again
        if not prompted and self.ask == "changes" and _runs_unasked(request):
            return ToolAuthorizationDecision.allow("setting")
        tries = self.ask == "changes" or (self.ask == "rules" and covers_command(request, rules))
        if not prompted and tries and self.sandbox == "auto" and request.subject.sandboxed:
            return ToolAuthorizationDecision.allow("sandbox")  # where it runs; what it does there is decided about then
        if self.ask == "rules":
            how = how_to_allow(request, rules, BE_ASKED)
            return ToolAuthorizationDecision.deny(f"no rule covers it and ask is 'rules'; {how}", "setting")
        if not self.can_ask():
            how = how_to_allow(request, rules, ASK_IN_A_CELL)
            return ToolAuthorizationDecision.deny(f"nobody is there to be asked; {how}", "headless")
        given = AGAIN if request.again else verdict and verdict.reason
        return await self.put_question(request, given or why(request, self.ask, rules), rules)

    async def _authorize_effect(
        self, request: ToolAuthorizationRequest, effect: CallEffect, rules: list[PermissionRule]
    ) -> ToolAuthorizationDecision:
        """Decide about what a call did in the sandbox, or whether it may run outside as it could not do it there."""
        if (denial := denial_of(request, effect, rules)) is not None:
            return await self._by_rule(denial)
        if not effect.files and (not effect.outside or not self.can_ask()):
            return ToolAuthorizationDecision.allow("sandbox")
        if (keeping := keeping_rule(request, effect, rules)) is not None:
            return await self._by_rule(keeping)
        if (answer := await self._answered_before(request)) is not None:
            return answer
        if self.ask == "rules":
            how = how_to_allow(request, rules, BE_ASKED)
            return ToolAuthorizationDecision.deny(f"no rule keeps it and ask is 'rules'; {how}", "setting")
        if not self.can_ask():
            how = how_to_allow(request, rules, ASK_IN_A_CELL)
            return ToolAuthorizationDecision.deny(f"nobody is there to judge it; {how}", "headless")
        return await self.put_question(request, why_asked(effect), rules)

    async def _answered_before(self, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision | None:
        """Return what a person answered about these exact arguments after the turn that asked had died, if anything."""
        if request.again or not request.earlier_runs:
            return None
        bound_to = effective_hash(request)
        for run_id in request.earlier_runs:
            answer = await self.store.answered_question(run_id, request.tool_call_id, bound_to)
            if answer is not None and answer.decided_by == "user" and time.time() <= answer.deadline:
                outcome = (
                    ToolAuthorizationOutcome.ALLOW if answer.outcome == "allowed" else ToolAuthorizationOutcome.DENY
                )
                return ToolAuthorizationDecision(
                    outcome=outcome, reason=answer.reason, decided_by="user", request_id=answer.request_id
                )
        return None

    async def answer(self, request_id: str, decision: PermissionDecision) -> None:
        """Answer a question as `resolve` does, also one whose turn has died: resuming the turn then acts on the answer.

        Raises:
            OperationDenied: the question is closed, or its deadline has passed.
        """
        if request_id in self._open:
            self.resolve(request_id, decision)
            return
        check_scope(decision.remember, self.project)
        left = {question.request_id: question for question in await self.store.open_questions(self.session_id)}
        if request_id in left:
            check_pattern(left[request_id], decision, await self.rules())
        if request_id not in left or not await self.store.answer_question(
            request_id, allow=decision.allow, decided_by=decision.by, reason=decision.reason
        ):
            raise OperationDenied(CLOSED)
        question = left[request_id]
        await self._record(question, decision, await self._store_rules(question, decision))

    async def _close_earlier(self, request: ToolAuthorizationRequest) -> None:
        """Close the questions that a dead turn had asked about the same call: the new question replaces them."""
        if not request.earlier_runs:
            return
        for question in await self.store.open_questions(self.session_id):
            if question.tool_call_id == request.tool_call_id and question.run_id in request.earlier_runs:
                await self._close(question, PermissionDecision(allow=False, by="cancelled", reason="asked again"))

    async def _by_rule(self, rule: PermissionRule) -> ToolAuthorizationDecision:
        await self.store.count_rule_use(rule.id)
        decided = ToolAuthorizationDecision.allow(f"rule:{rule.id}")
        if not rule.allow:
            why = f"blocked by a remembered rule for '{rule.pattern}'; asking again will not help"
            reason = f"{rule.reason}; {why}" if rule.reason else why
            decided = ToolAuthorizationDecision.deny(reason, decided.decided_by)
        return decided.model_copy(update={"pattern": rule.pattern})

    async def _inner_verdict(self, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision | None:
        """Return what the application's own authorizer says, if there is one."""
        return None if self.inner is None else await decide_in_time(self.inner, request)

    # ---- the life of a question -------------------------------------------------------------------------------

    async def put_question(
        self, request: ToolAuthorizationRequest, reason: str, rules: list[PermissionRule]
    ) -> ToolAuthorizationDecision:
        import asyncio

        await self._close_earlier(request)
        question = self._question(request, reason)
        waiting = self._open[question.request_id] = _Open(question, anyio.Event(), asyncio.get_running_loop(), rules)
        decided = PermissionDecision(allow=False, by="cancelled", reason="the turn was stopped")
        try:
            await self.store.open_question(question)
            self.bus.emit(asked(question))
            with anyio.move_on_after(self.ask_timeout):
                await waiting.answered.wait()
            late = f"nobody answered within {duration(self.ask_timeout)}"
            decided = self._stop_waiting(waiting) or PermissionDecision(allow=False, by="timeout", reason=late)
        finally:
            self._stop_waiting(waiting)
            with anyio.CancelScope(shield=True):
                await self._close(question, decided)
        if decided.allow:
            return ToolAuthorizationDecision(
                outcome=ToolAuthorizationOutcome.ALLOW,
                decided_by=decided.by,
                request_id=question.request_id,
                values=decided.values,
            )
        return ToolAuthorizationDecision(
            outcome=ToolAuthorizationOutcome.DENY,
            reason=decided.reason or "denied by the user",
            decided_by=decided.by,
            request_id=question.request_id,
        )

    def _question(self, request: ToolAuthorizationRequest, reason: str) -> PermissionQuestion:
        now = time.time()
        return PermissionQuestion(
            **vars(request),
            request_id=new_id("perm"),
            session_id=self.session_id,
            description=reason,
            arguments_hash=effective_hash(request),
            asked_at=now,
            deadline=now + self.ask_timeout,
            capabilities=tuple(str(c) for c in request.preview.capabilities),
        )

    async def _close(self, question: PermissionQuestion, decided: PermissionDecision) -> None:
        """Store an answer before it takes effect: the rule, the question's row, the event, synced to disk."""
        rule = await self._store_rules(question, decided)
        try:
            await self.store.close_question(question.request_id, "allowed" if decided.allow else "denied", decided.by)
        except StoreError:
            log.exception("the answer to %s could not be stored", question.request_id)
        await self._record(question, decided, rule)

    async def _store_rules(self, question: PermissionQuestion, decided: PermissionDecision) -> PermissionRule | None:
        """Store the rules that an answer asks for and return the last; `None` if it asks for none or storing fails."""
        if decided.remember is None:
            return None
        try:
            rule = None
            for pattern in [decided.pattern] if decided.pattern else map(exactly, question.subject.parts):
                rule = await remember(
                    self.store,
                    self.bus,
                    self.session_id,
                    self.project,
                    question.tool_name,
                    pattern,
                    allow=decided.allow,
                    scope=decided.remember,
                    folders=named_folders(question, decided),
                    reason=decided.reason,
                    decided_by=decided.by,
                    request_id=question.request_id,
                )
            return rule
        except (StoreError, OperationDenied):
            log.exception("the answer to %s could not be remembered", question.request_id)
            return None

    async def _record(
        self, question: PermissionQuestion, decided: PermissionDecision, rule: PermissionRule | None
    ) -> None:
        """Record how a question was closed, and sync the record."""
        self.bus.emit(
            e.QuestionAnswered(
                agent_id=question.agent_id,
                run_id=question.run_id,
                request_id=question.request_id,
                tool_name=question.tool_name,
                tool_call_id=question.tool_call_id,
                outcome="allowed" if decided.allow else "denied",
                decided_by=decided.by,
                rule_scope=rule.scope if rule is not None else None,
                reason=decided.reason,
                waited_ms=int((time.time() - question.asked_at) * 1000),
                session_id=self.session_id,
                rule_id=rule.id if rule is not None else None,
                pattern=rule.pattern if rule is not None else None,
            )
        )
        await anyio.to_thread.run_sync(self.bus.sync)

    def _stop_waiting(self, waiting: _Open) -> PermissionDecision | None:
        """Stop accepting an answer. Returns the one that came, if any."""
        with self._lock:
            self._open.pop(waiting.question.request_id, None)
            return waiting.decision

    def open_questions(self) -> list[PermissionQuestion]:
        """Return the questions that wait for an answer, oldest first."""
        return [waiting.question for waiting in list(self._open.values())]

    def resolve(self, request_id: str, decision: PermissionDecision) -> None:
        """Answer a question, from any thread. The first answer counts.

        Raises:
            OperationDenied: no such question is open (answered, timed out, or cancelled); or the answer cannot be
                remembered as it says or lacks a value, and then the question stays open.
        """
        check_scope(decision.remember, self.project)
        with self._lock:
            waiting = self._open.get(request_id)
            if waiting is None:
                raise OperationDenied(CLOSED)
            check_pattern(waiting.question, decision, waiting.rules)
            if (form := waiting.question.form) is not None and decision.allow:
                decision = decision.model_copy(update={"values": form.filled(decision.values or {})})
            del self._open[request_id]
            waiting.decision = decision
        waiting.loop.call_soon_threadsafe(waiting.answered.set)

    # ---- rules ------------------------------------------------------------------------------------------------

    async def add_rule(self, tool: str, pattern: str, *, allow: bool, **options: Any) -> PermissionRule:
        """Store a decision of this session as a rule. `options`, such as `scope`, and what is raised as `remember`."""
        return await remember(
            self.store, self.bus, self.session_id, self.project, tool, pattern, allow=allow, **options
        )

    async def rules(self) -> list[PermissionRule]:
        """Return the rules that apply: the session's, its project's and the global ones."""
        return await self.store.list_rules(self.session_id, self.project)


def check_pattern(question: PermissionQuestion, decision: PermissionDecision, rules: Sequence[PermissionRule]) -> None:
    """Raise `OperationDenied` when an answer is to be remembered by a pattern that does not cover the call itself.

    Beside the denials among `rules`, a wildcard may not cover it.
    """
    named_folders(question, decision)
    if decision.remember is not None and question.form is not None:
        raise OperationDenied("values are asked for each time: an answer cannot be remembered")
    if decision.remember is None or decision.pattern is None:
        return
    rule = PermissionRule(id="", tool=question.tool_name, pattern=decision.pattern, allow=decision.allow)
    denials = [each for each in rules if not each.allow] if decision.allow else []
    if find_rule([rule, *denials], question.tool_name, question.subject) is not rule:
        why = pattern_problem(decision.pattern, question.subject.kind, allow=decision.allow)
        whole = " and ".join(repr(exactly(part)) for part in question.subject.parts)
        raise OperationDenied(f"{why or f'{decision.pattern!r} does not cover this call'}; {whole} does")


def asked(question: PermissionQuestion) -> e.QuestionAsked:
    """Return the event for a question that was asked."""
    return e.QuestionAsked(
        agent_id=question.agent_id,
        run_id=question.run_id,
        request_id=question.request_id,
        tool_name=question.tool_name,
        tool_call_id=question.tool_call_id,
        description=question.description,
        subject=str(question.subject),
        deadline=question.deadline,
        session_id=question.session_id,
        structured_input=question.preview.structured_input,
    )


def expired(question: PermissionQuestion) -> e.QuestionAnswered:
    """Return the event for a question whose turn has died and whose deadline has passed."""
    return e.QuestionAnswered(
        agent_id=question.agent_id,
        run_id=question.run_id,
        request_id=question.request_id,
        tool_name=question.tool_name,
        tool_call_id=question.tool_call_id,
        outcome="denied",
        decided_by="timeout",
        waited_ms=int((question.deadline - question.asked_at) * 1000),
        session_id=question.session_id,
    )


def _runs_unasked(request: ToolAuthorizationRequest) -> bool:
    if request.subject.protected:
        return False
    return ToolCapability.READ_ONLY in request.preview.capabilities or not request.asks

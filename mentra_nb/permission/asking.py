"""The order in which a call is decided, and the life of a question put to a person.

    deny rule → authorizer deny → allow rule → authorizer allow → setting → sandbox → ask

The policy's hard denials come before all of this, in `agent/gates.py`. A question has a deadline, is bound to its
arguments, and is closed exactly once: answered, timed out, or cancelled with its turn. A late answer is refused.
What an answer does is in `questions.py`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol
from weakref import WeakValueDictionary

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
from mentra_nb.event.bus import EventBus
from mentra_nb.forms import Form
from mentra_nb.ids import new_id
from mentra_nb.permission.advice import how_to_allow, why
from mentra_nb.permission.binding import AGAIN, decide_in_time, duration, effective_hash
from mentra_nb.permission.effects import covers_command, denial_of, keeping_rule, why_asked
from mentra_nb.permission.questions import (
    CLOSED,
    LOOK_EVERY,
    answered,
    asked,
    check_answer,
    close,
    close_as_gone,
)
from mentra_nb.permission.remembering import remember
from mentra_nb.permission.rules import find_rule
from mentra_nb.permission.verdicts import as_authorization, by_rule
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

NOBODY = "nobody is there to answer: go on without an answer, or say what is missing"
"""What the model reads where its question cannot be put to anybody."""

BE_ASKED = "set ask to 'changes' to be asked: %config Mentra.ask = 'changes'"
"""The other way where the setting keeps anybody from being asked."""


def _unknown_tool(name: str, _arguments: dict[str, Any]) -> dict[str, Any]:
    raise OperationDenied(f"the arguments of '{name}' cannot be changed here")


class Reviewer(Protocol):
    """Advises on a question before a person decides."""

    async def review(self, question: PermissionQuestion) -> None:
        """Announce advice on a question."""
        ...


async def _contained_review(reviewer: Reviewer, question: PermissionQuestion) -> None:
    """Let a reviewer advise. It may fail in any way: the question stays open."""
    try:
        await reviewer.review(question)
    except Exception:
        log.exception("the reviewer failed on %s", question.request_id)


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

    reviewers: ClassVar[WeakValueDictionary[str, Reviewer]] = WeakValueDictionary()
    """By the ids of the turns that have one, of all sessions."""
    can_ask: Callable[[], bool] = staticmethod(lambda: True)
    """Returns whether a person can be asked. If not, the call is denied at once."""
    fits: Callable[[str, dict[str, Any]], dict[str, Any]] = staticmethod(_unknown_tool)
    """Returns the arguments of a tool, by its name, in normal form. Raises `MentraError` where they do not fit it."""

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

    async def authorize(self, request: ToolAuthorizationRequest, said: str = "") -> ToolAuthorizationDecision:
        """Decide about a call, asking a person when nothing else decides; the reason to ask begins with `said`.

        What a dead turn had asked about the same call is closed: whatever decides now replaces it.
        """
        rules = await self.rules()
        decision = await self.without_asking(request, rules)
        if isinstance(decision, str):
            decision = await self.put_question(request, f"{said}{decision}", rules)
            if (
                decision.outcome is ToolAuthorizationOutcome.ALLOW and decision.arguments is None
            ):  # else they are judged
                decision = await self._denied_meanwhile(request) or decision
        await self._close_earlier(request)
        return await self.counted(decision)

    async def _denied_meanwhile(self, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision | None:
        """Return the denial by a rule that was made while the question about a call was open, if there is one."""
        rules = [rule for rule in await self.rules() if not rule.allow]
        if request.effect is not None:
            found = denial_of(request, request.effect, rules)
        else:
            found = find_rule(rules, request.tool_name, request.subject)
        return by_rule(found) if found is not None else None

    async def without_asking(
        self, request: ToolAuthorizationRequest, rules: list[PermissionRule]
    ) -> ToolAuthorizationDecision | str:
        """Return what is decided about a call without a person, or why a person is to be asked. Changes nothing."""
        if request.effect is not None:
            return await self._authorize_effect(request, request.effect, rules)
        if request.form is not None:
            return await self._ask_values(request, request.form, rules)
        rule = find_rule(rules, request.tool_name, request.subject)
        if rule is not None and not rule.allow:
            return by_rule(rule)
        verdict = await self._inner_verdict(request)
        if verdict is not None and verdict.outcome is ToolAuthorizationOutcome.DENY:
            return verdict
        if rule is not None and not request.again:
            return by_rule(rule)
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
        return given or why(request, self.ask, rules)

    async def _ask_values(
        self, request: ToolAuthorizationRequest, form: Form, rules: list[PermissionRule]
    ) -> ToolAuthorizationDecision | str:
        """Ask for the values that a call is about; they are the decision. No rule can give them, but one can refuse."""
        denials = [rule for rule in rules if not rule.allow]
        if (denial := find_rule(denials, request.tool_name, request.subject)) is not None:
            return by_rule(denial)
        if (verdict := await self._inner_verdict(request)) and verdict.outcome is ToolAuthorizationOutcome.DENY:
            return verdict
        if (answer := await self._answered_before(request)) is not None:
            return answer
        if self.ask == "rules":
            return ToolAuthorizationDecision.deny(f"ask is 'rules', so nobody is asked; {BE_ASKED}", "setting")
        if not self.can_ask():
            return ToolAuthorizationDecision.deny(NOBODY, "headless")
        return f"{form.who} asks for this to go on"

    async def _authorize_effect(
        self, request: ToolAuthorizationRequest, effect: CallEffect, rules: list[PermissionRule]
    ) -> ToolAuthorizationDecision | str:
        """Decide about what a call did in the sandbox, or whether it may run outside as it could not do it there."""
        if (denial := denial_of(request, effect, rules)) is not None:
            return by_rule(denial)
        if not effect.files and (not effect.outside or not self.can_ask()):
            return ToolAuthorizationDecision.allow("sandbox")
        if (keeping := keeping_rule(request, effect, rules)) is not None:
            return by_rule(keeping)
        if (answer := await self._answered_before(request)) is not None:
            return answer
        if self.ask == "rules":
            how = how_to_allow(request, rules, BE_ASKED)
            return ToolAuthorizationDecision.deny(f"no rule keeps it and ask is 'rules'; {how}", "setting")
        if not self.can_ask():
            how = how_to_allow(request, rules, ASK_IN_A_CELL)
            return ToolAuthorizationDecision.deny(f"nobody is there to judge it; {how}", "headless")
        return why_asked(effect)

    async def _answered_before(self, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision | None:
        """Return what a person answered about these exact arguments after the turn that asked had died, if anything."""
        if request.again or not request.earlier_runs:
            return None
        bound_to = effective_hash(request)
        for run_id in request.earlier_runs:
            answer = await self.store.answered_question(run_id, request.tool_call_id, bound_to)
            if answer is not None and answer.decision.by == "user" and time.time() <= answer.deadline:
                return as_authorization(answer.request_id, answer.decision)
        return None

    async def answer(self, request_id: str, decision: PermissionDecision) -> None:
        """Answer a question as `resolve` does, also one whose turn has died: resuming the turn then acts on the answer.

        Raises:
            OperationDenied: the question is closed, or its deadline has passed.
        """
        if request_id in self._open:
            self.resolve(request_id, decision)
            return
        left = {question.request_id: question for question in await self.store.open_questions(self.session_id)}
        if request_id not in left:
            raise OperationDenied(CLOSED)
        await close_as_gone(self.store, self.bus, left[request_id], self.project)
        decision = check_answer(left[request_id], decision, await self.rules(), self.project)
        if not await close(self.store, self.bus, left[request_id], decision, self.project, in_time=True):
            raise OperationDenied(CLOSED)

    async def _close_earlier(self, request: ToolAuthorizationRequest) -> bool:
        """Close the questions that a dead turn had asked about the same call. Returns whether one was just answered."""
        overtaken = False
        for question in await self.store.open_questions(self.session_id) if request.earlier_runs else ():
            if question.tool_call_id == request.tool_call_id and question.run_id in request.earlier_runs:
                again = PermissionDecision(allow=False, by="cancelled", reason="asked again")
                overtaken |= not await close(self.store, self.bus, question, again, self.project)
        return overtaken

    async def denial(self, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision | None:
        """Return why a call that a person has allowed may not run after all: a rule, or the inner authorizer."""
        rules = [rule for rule in await self.rules() if not rule.allow]
        if (rule := find_rule(rules, request.tool_name, request.subject)) is not None:
            return await self.counted(by_rule(rule))
        verdict = await self._inner_verdict(request)
        return verdict if verdict is not None and verdict.outcome is ToolAuthorizationOutcome.DENY else None

    async def counted(self, decision: ToolAuthorizationDecision) -> ToolAuthorizationDecision:
        """Return a decision about a call, and count it as a use of the rule that made it."""
        kind, _, rule_id = decision.decided_by.partition(":")
        if kind == "rule":
            await self.store.count_rule_use(rule_id)
        return decision

    async def _inner_verdict(self, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision | None:
        """Return what the application's own authorizer says, if there is one."""
        return None if self.inner is None else await decide_in_time(self.inner, request)

    # ---- the life of a question -------------------------------------------------------------------------------

    async def put_question(
        self,
        request: ToolAuthorizationRequest,
        reason: str,
        rules: list[PermissionRule],
        opened: Callable[[str], None] = lambda _request_id: None,
    ) -> ToolAuthorizationDecision:
        """Ask a person, here or in any process of the same home, and return what was decided.

        `opened` takes the id of the question once it can be answered.
        """
        import asyncio

        if await self._close_earlier(request) and (answer := await self._answered_before(request)) is not None:
            return answer
        question = self._question(request, reason)
        waiting = self._open[question.request_id] = _Open(question, anyio.Event(), asyncio.get_running_loop(), rules)
        decided = PermissionDecision(allow=False, by="cancelled", reason="the turn was stopped")
        try:
            await self.store.open_question(question)
            self.bus.emit(asked(question))
            opened(question.request_id)
            async with self._reviewed(question):
                with anyio.move_on_after(self.ask_timeout):
                    await self._wait(waiting)
            late = f"nobody answered within {duration(self.ask_timeout)}"
            decided = self._stop_waiting(waiting) or PermissionDecision(allow=False, by="timeout", reason=late)
        finally:
            self._stop_waiting(waiting)
            with anyio.CancelScope(shield=True):
                decided = await self._close(question, decided)
        return as_authorization(question.request_id, decided)

    @contextlib.asynccontextmanager
    async def _reviewed(self, question: PermissionQuestion) -> AsyncIterator[None]:
        """Have the reviewer of the question's turn, if it has one, advise until the block ends."""
        reviewer = self.reviewers.get(question.run_id or "")
        if reviewer is None or question.form is not None:
            yield
            return
        async with anyio.create_task_group() as group:
            group.start_soon(_contained_review, reviewer, question)
            yield
            group.cancel_scope.cancel()

    async def _wait(self, waiting: _Open) -> None:
        """Return when the question is answered: here, or by another process in the store."""
        while not waiting.answered.is_set():
            with anyio.move_on_after(LOOK_EVERY):
                await waiting.answered.wait()
                return
            with contextlib.suppress(StoreError):  # what is wrong shows when the question is closed
                if await self.store.question_answer(waiting.question.request_id) is not None:
                    return

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

    async def _close(self, question: PermissionQuestion, decided: PermissionDecision) -> PermissionDecision:
        """Close a question before its answer takes effect. Returns the answer that counts: the first in the store."""
        try:
            if not await close(self.store, self.bus, question, decided, self.project):
                found = await self.store.question_answer(question.request_id)
                if found is None:
                    raise StoreError("its row is gone")
                decided = found.decision
                self.bus.show(answered(question, decided))  # the process that closed it has recorded it
        except StoreError as error:
            log.exception("the answer to %s could not be stored", question.request_id)
            decided = PermissionDecision(allow=False, by="runtime", reason=f"the answer could not be stored: {error}")
            self.bus.emit(answered(question, decided))
        if decided.remember is not None:
            await self._decide_others()
        return decided

    async def _decide_others(self) -> None:
        """Decide the other open questions of this session that a new rule covers."""
        rules = await self.rules()
        for other in list(self._open.values()):
            question = other.question
            if question.effect is not None or question.form is not None or question.again:
                continue
            if (rule := find_rule(rules, question.tool_name, question.subject)) is not None:
                by_rule = PermissionDecision(allow=rule.allow, by=f"rule:{rule.id}", reason=rule.reason)
                with contextlib.suppress(OperationDenied):  # it was answered meanwhile
                    self.resolve(question.request_id, by_rule)

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
        with self._lock:
            waiting = self._open.get(request_id)
            if waiting is None:
                raise OperationDenied(CLOSED)
            decision = check_answer(waiting.question, decision, waiting.rules, self.project)
            if decision.arguments is not None:
                fitting = self.fits(waiting.question.tool_name, decision.arguments)
                decision = decision.model_copy(update={"arguments": fitting})
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


def _runs_unasked(request: ToolAuthorizationRequest) -> bool:
    if request.subject.protected:
        return False
    return ToolCapability.READ_ONLY in request.preview.capabilities or not request.asks

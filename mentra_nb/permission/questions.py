"""The end of a question that was put to a person: checked, closed once in the store, remembered, recorded.

Any process of the same home may answer. The store says which answer was first, and the process that closed a question
there records it; the process that asked hears of it within `LOOK_EVERY`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import anyio.to_thread

from mentra_nb.authorization import PermissionDecision, PermissionQuestion, PermissionRule
from mentra_nb.errors import OperationDenied, StoreError
from mentra_nb.event import types as e
from mentra_nb.event.bus import EventBus
from mentra_nb.permission.effects import named_folders
from mentra_nb.permission.patterns import exactly
from mentra_nb.permission.remembering import check_scope, remember
from mentra_nb.permission.rules import find_rule, pattern_problem
from mentra_nb.store.protocols import RuntimeStore
from mentra_nb.who import person

log: logging.Logger = logging.getLogger(__name__)

LOOK_EVERY = 0.25
"""Seconds between two looks into the store for the answer of another process, while a question is open."""

DENIED = "denied by the user"
"""What a model reads that was denied without a reason."""
GONE = (
    "what asked this has died with its kernel, so nobody would get the answer: %mentra resume goes on, and it is asked "
    "again if it is needed"
)
CLOSED = "that question is closed: it was answered, timed out, or its turn was stopped"


def check_answer(
    question: PermissionQuestion,
    decision: PermissionDecision,
    rules: Sequence[PermissionRule],
    project: str | None,
) -> PermissionDecision:
    """Return an answer as it can be taken: with the values of a form in their types.

    Raises:
        OperationDenied: it cannot be remembered as it says, lacks a value, or changes what cannot be changed.
    """
    check_scope(decision.remember, project)
    _check_pattern(question, decision, rules)
    if decision.arguments is not None:
        if not decision.allow or question.form is not None or question.effect is not None or question.again:
            raise OperationDenied("the arguments cannot be changed in the answer to this question")
        if decision.remember is not None:
            raise OperationDenied("an answer that changes the arguments holds once: it cannot be remembered")
    if question.form is None and decision.values:
        raise OperationDenied("this question asks for no values: answer it with allow or deny")
    if question.form is not None and decision.allow:
        return decision.model_copy(update={"values": question.form.filled(decision.values or {})})
    return decision


def _check_pattern(question: PermissionQuestion, decision: PermissionDecision, rules: Sequence[PermissionRule]) -> None:
    """Raise `OperationDenied` when an answer is to be remembered by a pattern that does not cover the call itself.

    Beside the denials among `rules`, a wildcard may not cover it.
    """
    named_folders(question, decision)
    if decision.remember is not None and question.form is not None:
        raise OperationDenied("values are asked for each time: an answer cannot be remembered")
    if decision.remember is None or decision.pattern is None:
        return
    kept = question.effect is not None
    made = {"tool": question.tool_name, "pattern": decision.pattern, "allow": decision.allow}
    rule = PermissionRule.model_validate({"id": "", **made, "folders": () if kept else None})
    denials = [each for each in rules if not each.allow] if decision.allow else []
    if find_rule([rule, *denials], question.tool_name, question.subject, on_effects=kept) is not rule:
        why = pattern_problem(decision.pattern, question.subject.kind, allow=decision.allow)
        whole = " and ".join(repr(exactly(part)) for part in question.subject.parts)
        raise OperationDenied(f"{why or f'{decision.pattern!r} does not cover this call'}; {whole} does")


async def close(
    store: RuntimeStore,
    bus: EventBus,
    question: PermissionQuestion,
    decision: PermissionDecision,
    project: str | None,
    *,
    in_time: bool = False,
) -> bool:
    """Close a question with an answer that was checked, then remember and record it, synced to disk.

    Returns `False` if it was closed before, or with `in_time` if its deadline has passed: then nothing was changed.

    Raises:
        StoreError: it could not be closed.
    """
    if decision.by == "user":
        user, host = person()
        decision = decision.model_copy(update={"user": user, "host": host})
    if not await store.close_question(question.request_id, decision, in_time=in_time):
        return False
    bus.emit(answered(question, decision, await _store_rules(store, bus, question, decision, project)))
    await anyio.to_thread.run_sync(bus.sync)
    return True


async def close_as_gone(store: RuntimeStore, bus: EventBus, question: PermissionQuestion, project: str | None) -> None:
    """Close a question whose asking process has died. Raises `OperationDenied` where nobody would get the answer."""
    if question.form is not None and question.form.is_live:
        await close(
            store, bus, question, PermissionDecision(allow=False, by="cancelled", reason="its kernel died"), project
        )
        raise OperationDenied(GONE)


async def _store_rules(
    store: RuntimeStore, bus: EventBus, question: PermissionQuestion, decided: PermissionDecision, project: str | None
) -> PermissionRule | None:
    """Store the rules that an answer asks for and return the last; `None` if it asks for none or storing fails."""
    if decided.remember is None:
        return None
    try:
        rule = None
        for pattern in [decided.pattern] if decided.pattern else map(exactly, question.subject.parts):
            rule = await remember(
                store,
                bus,
                question.session_id,
                project,
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


def answered(
    question: PermissionQuestion, decided: PermissionDecision, rule: PermissionRule | None = None
) -> e.QuestionAnswered:
    """Return the event for a question that was closed, with the rule that was made."""
    return e.QuestionAnswered(
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
        session_id=question.session_id,
        rule_id=rule.id if rule is not None else None,
        pattern=rule.pattern if rule is not None else None,
        input=decided.arguments,
    )


def expired(question: PermissionQuestion) -> e.QuestionAnswered:
    """Return the event for a question whose turn has died and whose deadline has passed."""
    late = PermissionDecision(allow=False, by="timeout")
    waited = int((question.deadline - question.asked_at) * 1000)
    return answered(question, late).model_copy(update={"waited_ms": waited})

"""The questions that wait for a person, of all processes of this home, and answering them from here."""

from __future__ import annotations

import time
from dataclasses import dataclass

from mentra_nb.authorization import PermissionDecision, PermissionQuestion
from mentra_nb.chat.engine import Engine, engine
from mentra_nb.chat.identity import word_for
from mentra_nb.errors import LeaseUnavailable, OperationDenied
from mentra_nb.event.bus import EventBus
from mentra_nb.permission.questions import CLOSED, check_answer, close, close_as_gone
from mentra_nb.store.records import ConversationSummary


@dataclass(frozen=True)
class Waiting:
    """An open question, and the conversation that it is asked in."""

    question: PermissionQuestion
    conversation: str
    """Its name, or the end of its id."""
    project: str | None
    notebook: str | None
    os_user: str | None
    """The user of the operating system who began it; `None` if that is not known."""

    @property
    def left(self) -> float:
        """Seconds until its deadline."""
        return self.question.deadline - time.time()


def open_questions() -> list[Waiting]:
    """Return the questions that can still be answered, oldest first: also those of turns whose process has died."""
    used = engine()
    return used.call(_open_questions, used)


async def _open_questions(used: Engine) -> list[Waiting]:
    store, now = used.runtime.store, time.time()
    found = [question for question in await store.open_questions() if question.deadline > now]
    sessions = {session.id: session for session in await store.list_sessions()} if found else {}
    waiting = []
    for question in found:
        session = sessions.get(question.session_id)
        name = word_for(session.given_name if session else None, question.session_id)
        place = (session.project, session.notebook, session.os_user) if session else (None, None, None)
        waiting.append(Waiting(question, name, *place))
    return waiting


def answer(asked: Waiting, decision: PermissionDecision) -> None:
    """Answer an open question. The turn that asked goes on within a second; one that has died uses it when resumed.

    Raises:
        OperationDenied: it is closed or past its deadline, or the answer cannot be taken so: then it stays open.
        MentraError: changed arguments do not fit the tool.
    """
    used = engine()
    used.call(_answer, used, asked, decision)


async def _answer(used: Engine, asked: Waiting, decision: PermissionDecision) -> None:
    question, store = asked.question, used.runtime.store
    bus = EventBus(used.runtime.hooks, used.runtime.audit)
    if question.form is not None and question.form.is_live and await _has_died(used, question):
        await close_as_gone(store, bus, question, asked.project)
    rules = await store.list_rules(question.session_id, asked.project)
    decision = check_answer(question, decision, rules, asked.project)
    if decision.arguments is not None:
        decision = decision.model_copy(update={"arguments": used.runtime.fits(question.tool_name, decision.arguments)})
    if not await close(store, bus, question, decision, asked.project, in_time=True):
        raise OperationDenied(CLOSED)


async def _has_died(used: Engine, question: PermissionQuestion) -> bool:
    """Return whether the turn that asked has died: it was closed since, or no process has its conversation."""
    here = (each.request_id for turn in list(used.turns) for each in turn.open_questions())
    if question.request_id in here:
        return False
    runs = {run.id: run.state for run in await used.runtime.store.list_runs(question.agent_id)}
    if runs.get(question.run_id or "", "running") != "running":
        return True
    sessions = [each for each in await used.runtime.store.list_sessions() if each.id == question.session_id]
    try:
        for session in sessions:
            await used.runtime.check_free(session, session.name)
    except LeaseUnavailable:
        return False
    return bool(sessions)


def stopped(conversation: ConversationSummary) -> list[PermissionQuestion]:
    """Return the questions that were open when the last turn of a conversation was stopped, such as by a restart."""
    used = engine()
    return used.call(_stopped, used, conversation) if conversation.last_state == "interrupted" else []


async def _stopped(used: Engine, conversation: ConversationSummary) -> list[PermissionQuestion]:
    store = used.runtime.store
    last = await store.latest_run(conversation.session.agent_id)
    return [] if last is None or last.state != "interrupted" else await store.stopped_questions(last.id)


def decided(request_id: str) -> PermissionDecision | None:
    """Return the answer that closed a question; `None` while it is open."""
    used = engine()
    found = used.call(used.runtime.store.question_answer, request_id)
    return found.decision if found is not None else None

"""The question whether a plan is carried out, which is the answer of a turn that only reads until then.

It is a question as any other: with a card and a deadline, listed by `%mentra`, answered from any notebook, also after
the kernel has died. It names `plan` in place of a tool, and the entry of the answer in place of a call.
"""

from __future__ import annotations

from mentra_nb.agent.results import APPROVED, bounded
from mentra_nb.agent.turn import Turn
from mentra_nb.authorization import (
    Subject,
    ToolAuthorizationDecision,
    ToolAuthorizationOutcome,
    ToolAuthorizationPreview,
    ToolAuthorizationRequest,
)
from mentra_nb.content import Message
from mentra_nb.event import types as e
from mentra_nb.forms import Form
from mentra_nb.ids import new_id
from mentra_nb.permission.asking import NOBODY, SessionPermissions
from mentra_nb.permission.questions import DENIED

TOOL_NAME = "plan"
"""What the question names in place of a tool."""
NOT_APPROVED = "plan_denied"
"""Why a turn ends whose plan was not approved."""


async def decide(turn: Turn, earlier_runs: tuple[str, ...] = ()) -> str | None:
    """Ask a person about the answer that the turn has ended with, which is stored.

    Returns `None` if the turn goes on: with all tools, or with what they want instead. Else the stop reason.

    Args:
        turn: The turn.
        earlier_runs: The ids of turns that died after they had asked this.
    """
    last = turn.transcript.last
    assert last is not None
    request = _request(turn, last.id, last.message.text(), earlier_runs)
    authorizer = turn.environment.authorizer
    if isinstance(authorizer, SessionPermissions):
        decision = await authorizer.authorize(request)
    else:
        decision = ToolAuthorizationDecision.deny(NOBODY, "headless")
    if decision.request_id is None:
        _announce(turn, request, decision)
    said = f" and says: {bounded(decision.reason)}" if decision.decided_by == "user" and decision.reason else ""
    if decision.outcome is ToolAuthorizationOutcome.ALLOW:
        text = f"{APPROVED}{said}]\nCarry it out now, with all your tools."
        await turn.commit(Message.user(text), "canonical_context")
        await turn.scheduler.toolbox.carry_out()
        return None
    if decision.decided_by != "user" or decision.reason in (None, DENIED):
        return NOT_APPROVED
    text = f"[The user did not approve this plan{said}]\nNothing was done. Answer with another plan."
    await turn.commit(Message.user(text), "canonical_context")
    return None


def _request(turn: Turn, entry_id: str, plan: str, earlier_runs: tuple[str, ...]) -> ToolAuthorizationRequest:
    caller = turn.scheduler.caller
    form = Form(
        who=caller.agent_name,
        message=plan,
        title="Carry out this plan?",
        yes="Approve plan",
        no="Deny",
        say="Say to the model",
    )
    return ToolAuthorizationRequest(
        agent_id=turn.agent_id,
        agent_name=caller.agent_name,
        model=turn.model,
        run_id=turn.id,
        tool_call_id=entry_id,
        tool_name=TOOL_NAME,
        preview=ToolAuthorizationPreview(working_directory=str(turn.environment.working_directory)),
        subject=Subject.text(plan),
        arguments={"plan": plan},
        form=form,
        earlier_runs=earlier_runs,
    )


def _announce(turn: Turn, request: ToolAuthorizationRequest, decision: ToolAuthorizationDecision) -> None:
    """Record and show what was decided without a question."""
    about = request.model_dump(include={"agent_id", "run_id", "tool_name", "tool_call_id"})
    turn.emit(
        e.QuestionAnswered(
            **about,
            request_id=new_id("perm"),
            outcome="denied",
            decided_by=decision.decided_by,
            reason=decision.reason,
            waited_ms=0,
        )
    )

"""A request of a turn that is not part of its conversation: it is recorded, and counts against the turn's limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mentra_nb.agent.answer import PendingMessage
from mentra_nb.agent.spending import count_usage
from mentra_nb.agent.turn import Turn
from mentra_nb.errors import MentraError
from mentra_nb.event import types as e
from mentra_nb.ids import new_id
from mentra_nb.providers.base import Provider, Request

if TYPE_CHECKING:
    from mentra_nb.amounts import Unit
    from mentra_nb.budget.meter import Reservation


async def answer_aside(turn: Turn, provider: Provider, request: Request, kind: str, attempt: int = 1) -> str:
    """Return the text of the answer to a request without tools. `kind` is the first part of the request's id.

    Raises:
        BudgetSpent: a budget has no room for it. Nobody is asked for more.
        MentraError: the request failed, or a limit of the turn has no room for it.
    """
    turn.limits.count_request()
    from mentra_nb.budget.requests import is_free_of_charge, used

    id, model = provider.descriptor.id, request.model
    reservation, most = await _reserve(turn, provider, request)
    sent = e.ModelRequestStarted(
        agent_id=turn.agent_id,
        run_id=turn.id,
        model=model,
        provider=id,
        attempt=attempt,
        request_id=new_id(kind),
    )
    about = sent.model_dump(exclude={"kind"})
    pending = PendingMessage(turn.agent_id, id, model)
    opened, why, spent = False, "cancelled", most
    turn.emit(sent)
    try:
        async with provider.stream(request) as events:
            opened = True
            turn.emit(e.ModelRequestFinished(**about, success=True))
            async for event in events:
                pending.apply(event)
        text, why = pending.message().text(), ""
        return text
    except MentraError as error:
        why = str(error) or type(error).__name__
        if not opened and reservation is not None and is_free_of_charge(error):
            spent = dict.fromkeys(most, 0)
        raise
    finally:
        if opened:
            how: dict[str, Any] = {"stop_reason": pending.stop_reason, "usage": pending.usage}
            turn.emit(e.ModelResponseFinished(**about, success=not why, error=why or None, **how))
        else:
            turn.emit(e.ModelRequestFinished(**about, success=False, error=why))
        if pending.usage is not None:
            turn.usage = turn.usage + pending.usage
            count_usage(turn, id, model, pending.usage)
        if reservation is not None:
            if opened:
                spent = used(id, model, pending.usage, most)
            await reservation.settle(spent)


async def _reserve(turn: Turn, provider: Provider, request: Request) -> tuple[Reservation | None, dict[Unit, int]]:
    """Reserve the most that a request may use, if the turn has budgets. Raises `BudgetSpent`; asks nobody."""
    meter = turn.limits.meter
    if meter is None:
        return None, {}
    from mentra_nb.budget.requests import most_of, most_of_head, most_of_messages

    prompt = most_of_head(request.system, ()) + most_of_messages(request.messages)
    free = bool(getattr(provider, "free", False))
    most = most_of(meter, provider.descriptor.id, request.model, prompt, request.max_output_tokens, free=free)
    return await meter.reserve_unasked(most), most

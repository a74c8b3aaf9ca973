"""The budgets of a turn, where it has any: its meter, and what its requests and calls reserve and settle."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import NamedTuple

from mentra_nb import paths
from mentra_nb.agent.turn import Turn
from mentra_nb.amounts import Unit
from mentra_nb.budget.meter import Meter
from mentra_nb.budget.requests import (
    is_free_of_charge,
    most_of,
    most_of_head,
    most_of_messages,
    used,
)
from mentra_nb.content import prompt_tokens
from mentra_nb.event import types as e
from mentra_nb.ids import new_id
from mentra_nb.permission.asking import SessionPermissions
from mentra_nb.permission.person import AskPerson
from mentra_nb.providers.base import Request
from mentra_nb.store.records import LeaseHolder

TOOL_NAME = "budget"
"""What the question at a limit names in place of a tool."""
MEASURED = 512
"""Requests whose tokens are remembered."""


class _Measure(NamedTuple):
    """How many tokens the provider counted for a request that ended with a certain entry."""

    provider: str
    model: str
    head: tuple[object, ...]
    tokens: int


_measures: OrderedDict[str, _Measure] = OrderedDict()
"""By the id of the entry, which names the whole path to it."""


def begin(turn: Turn, origin: e.TurnOrigin) -> None:
    """Give the turn a meter for its budgets; a subagent uses its parent's.

    Raises:
        ConfigurationError: a budget is not an amount, the model has no price for one in money, or no limit of answers.
    """
    options, environment = turn.limits.options, turn.environment
    if options.is_child:
        return
    project = origin.project or str(paths.project_root(environment.working_directory))
    ask = None
    if isinstance(environment.authorizer, SessionPermissions):
        ask = partial(
            AskPerson(environment.authorizer),
            agent_id=turn.agent_id,
            agent_name=turn.scheduler.caller.agent_name,
            model=turn.model,
            run_id=turn.id,
            tool_call_id=turn.id,
            tool_name=TOOL_NAME,
        )
    meter = Meter(
        environment.store,
        LeaseHolder.here(environment.holder or new_id("runtime")),
        options.budgets,
        {"turn": turn.id, "session": origin.session_id or turn.agent_id, "project": project},
        ask,
    )
    _most(turn, meter, 0)
    turn.limits.use_meter(meter)


def _most(turn: Turn, meter: Meter, prompt: int) -> dict[Unit, int]:
    provider = turn.provider
    is_free = bool(getattr(provider, "free", False))
    return most_of(meter, provider.descriptor.id, turn.model, prompt, turn.config.max_output_tokens, free=is_free)


@asynccontextmanager
async def reserved(turn: Turn, meter: Meter, request: Request) -> AsyncIterator[None]:
    """Reserve the most that a request may use, and settle what it has used when its answer has ended.

    An answer that broke off without a count of its tokens counts as the most. Raises `BudgetSpent` on entering.
    """
    provider, model, leaf = turn.provider.descriptor.id, turn.model, turn.transcript.leaf
    spent = most = _most(turn, meter, _most_of_prompt(turn, request))
    reservation = await meter.reserve(most | _a_moment(turn))
    began = time.monotonic()
    try:
        yield
        usage = turn.pending.usage if turn.pending is not None else None
        spent = used(provider, model, usage, most)
        if usage is not None and usage.input_tokens and leaf is not None:
            head = (request.system, tuple(request.tools))
            _measures[leaf] = _Measure(provider, model, head, prompt_tokens(provider, usage))
            if len(_measures) > MEASURED:
                _measures.popitem(last=False)
    except BaseException as error:
        if not turn.opened and is_free_of_charge(error):
            spent = dict.fromkeys(most, 0)
        raise
    finally:
        await reservation.settle(spent | _time_since(turn, began))


def _most_of_prompt(turn: Turn, request: Request) -> int:
    """Return the most tokens of a request. What the provider has counted of its beginning is taken at its count."""
    head, aside = (request.system, tuple(request.tools)), turn.transcript.aside
    later = most_of_messages([aside]) if aside is not None else 0
    for entry in reversed(turn.transcript.tail):
        known = _measures.get(entry.id)
        if known is not None and (known.provider, known.model) == (turn.provider.descriptor.id, turn.model):
            changed = 0 if known.head == head else most_of_head(request.system, request.tools)
            return known.tokens + changed + later
        later += most_of_messages([entry.message])
    return most_of_head(request.system, request.tools) + most_of_messages(request.messages)


@asynccontextmanager
async def counted(turn: Turn, meter: Meter, calls: int) -> AsyncIterator[None]:
    """Count tool calls and the time they take, without the time in which a person was waited for.

    Raises `BudgetSpent` on entering.
    """
    reservation = await meter.reserve({"calls": calls, **_a_moment(turn)})
    began = time.monotonic()
    with _waiting(turn) as waited:
        try:
            yield
        finally:
            spent: dict[Unit, int] = {"calls": calls}
            await reservation.settle(spent | _time_since(turn, began, sum(waited)))


@contextmanager
def _waiting(turn: Turn) -> Iterator[list[int]]:
    """Yield the milliseconds that each question was open which is answered inside."""
    waited: list[int] = []

    def hear(event: e.AgentEvent) -> None:
        if isinstance(event, e.QuestionAnswered):
            waited.append(event.waited_ms or 0)

    end = turn.environment.bus.tap(hear)
    try:
        yield waited
    finally:
        end()


def _a_moment(turn: Turn) -> dict[Unit, int]:
    """Return what must be left of a budget in minutes. The time of a subagent is that of the call it works for."""
    return {} if turn.limits.options.is_child else {"minutes": 1}


def _time_since(turn: Turn, began: float, waited: int = 0) -> dict[Unit, int]:
    ms = int((time.monotonic() - began) * 1000) - waited
    return {} if turn.limits.options.is_child else {"minutes": max(ms, 1)}

"""The rounds of a turn: ask the model, run its calls, send it the results, until it answers.

How a turn begins and ends is in `beginning.py` and `ending.py`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from itertools import count
from typing import Any, Literal, NamedTuple

from mentra_nb.agent.answer import PendingMessage
from mentra_nb.agent.recovery import OpenEnd
from mentra_nb.agent.request import assemble
from mentra_nb.agent.retrying import asked_wait, most_retries, wait_before_retry
from mentra_nb.agent.spending import check_priced, count_usage
from mentra_nb.agent.steering import Boundary, Steering
from mentra_nb.agent.turn import Turn
from mentra_nb.content import Message, ToolResult, ToolUse, prompt_tokens
from mentra_nb.errors import (
    BudgetSpent,
    ErrorCategory,
    FailedToStreamResponse,
    MalformedStream,
    ProviderError,
    StreamTruncated,
    is_too_long,
)
from mentra_nb.event import types as e
from mentra_nb.ids import new_id
from mentra_nb.permission.binding import contained
from mentra_nb.providers.base import ContentBlockStopped, ProviderEvent, Request

SAVE_EVERY = 0.25
"""The least seconds between two saves of the text that is streaming, within a block."""
LONG_TEXT = 1 << 16
"""Characters from which on the wait after a save is at least `SAVE_SHARE` times as long as the save took."""
SAVE_SHARE = 20
LONG_CONVERSATION = 2_000
"""Tokens of a conversation from which on it is looked whether it fits the model's context window."""
MAX_MALFORMED_ROUNDS = 3
"""A turn fails after this many rounds in a row whose calls all have malformed arguments."""


WHOLE = ("tool_use", "end", "pause")
"""Stop reasons after which the calls of an answer are as the model meant them."""
WHY_NOT_WHOLE = {
    "max_tokens": "the answer was cut at the limit of tokens (max_output_tokens)",
    "context_overflow": "the model's context was full before the answer was complete",
    "content_filter": "the provider's content filter cut the answer",
    "refusal": "the model refused to go on",
    "error": "the model's output was unusable",
}


async def run_rounds(turn: Turn) -> str:
    """Take rounds until the model answers without calling a tool, or a limit ends them. Returns the stop reason."""
    malformed, incomplete, at = 0, 0, Boundary.ROUND
    while not turn.limits.ends_early():
        turn.limits.begin_round()
        if turn.injected is not None:
            await turn.commit(turn.injected)
            turn.injected = None
        await drain_sources(turn, at)
        at = Boundary.ROUND
        try:
            answer = await ask_model(turn)
        except BudgetSpent as spent:
            return budget_ended(turn, spent)
        calls = answer.message.tool_uses()
        goes_on = answer.stop_reason == "pause" and not calls and bool(answer.message.content)
        is_last = not (calls or goes_on or may_go_on(turn) or is_spoken_to(turn))
        if answer.message.content:
            await turn.commit(answer.message, "assistant_part" if goes_on else None, is_last=is_last)
            turn.emit(e.AssistantMessageCommitted(agent_id=turn.agent_id, message=answer.message))
        response_finished(turn)

        if goes_on:
            continue  # the provider continues the same answer
        if not calls:
            if (ended := await after_answer(turn, answer, is_last=is_last)) is not None:
                return ended
            at = Boundary.ANSWER
            continue
        if answer.stop_reason not in WHOLE:
            await refuse(turn, calls, why_not_whole(answer.stop_reason))
            incomplete += 1
            if incomplete >= MAX_MALFORMED_ROUNDS:
                raise FailedToStreamResponse(MalformedStream(f"{incomplete} answers in a row were cut off in a call"))
            continue
        incomplete = 0
        malformed = malformed + 1 if all(call.error for call in calls) else 0
        if malformed >= MAX_MALFORMED_ROUNDS:
            raise FailedToStreamResponse(MalformedStream(f"{malformed} rounds in a row of malformed tool arguments"))
        try:
            if (ended := await execute(turn, calls)) is not None:
                return ended
        except BudgetSpent as spent:
            return budget_ended(turn, spent)
    return "stopped" if turn.limits.options.ended_early == "stop_requested" else "budget"


def may_go_on(turn: Turn) -> bool:
    """Return whether something decides after an answer without calls how the turn continues."""
    return turn.limits.options.round_strategy is not None or is_planning(turn)


def is_planning(turn: Turn) -> bool:
    """Return whether the answer of the turn is a plan for a person to decide about; that of a subagent is none."""
    return turn.config.planning and not turn.limits.options.is_child


async def after_answer(turn: Turn, answer: Answer, *, is_last: bool) -> str | None:
    """Return the stop reason if the turn ends with an answer without calls, `None` if it goes on."""
    if is_last or not turn.limits.has_room():
        return answer.stop_reason
    if is_spoken_to(turn):
        return None
    if is_planning(turn) and answer.stop_reason == "end" and answer.message.text().strip():
        from mentra_nb.agent.planning import decide

        return await decide(turn)
    return None if await consult(turn, answer.message) == "inject" else answer.stop_reason


def budget_ended(turn: Turn, spent: BudgetSpent) -> str:
    """Note why a budget ends the turn. Returns the stop reason."""
    turn.limits.end("budget")
    turn.stop_detail = str(spent)
    return "budget"


def is_spoken_to(turn: Turn) -> bool:
    """Return whether a message waits that the model is to read after its answer."""
    return any(source.is_waiting(Boundary.ANSWER) for source in turn.sources)


async def finish_open_round(turn: Turn, end: OpenEnd) -> str | None:
    """Finish the round that an earlier turn left open. Returns the stop reason if the turn ends with it."""
    last = turn.transcript.last
    assert last is not None
    calls = last.message.tool_uses()
    if any(result.tool_use_id in end.calls.ends_turn for result in last.message.tool_results()):
        return "ended_by_tool"
    if not calls:
        if last.kind == "assistant_turn" and is_planning(turn):
            from mentra_nb.agent.planning import decide

            return await decide(turn, end.calls.run_ids)
        return "end" if last.kind == "assistant_turn" else None
    for index, call in enumerate(calls):
        if call.id not in end.calls.results:
            turn.emit(e.ToolUseReady(agent_id=turn.agent_id, index=index, call=call))
    return await execute(turn, calls, end)


async def execute(turn: Turn, calls: Sequence[ToolUse], end: OpenEnd | None = None) -> str | None:
    """Run the calls of one answer and commit their results. Returns the stop reason if the turn ends with them."""
    turn.phase, turn.scheduler.history_len = "ExecutingTool", len(turn.transcript)
    known = end.calls if end is not None else None
    try:
        async with calls_in_budget(turn, len(calls) - (len(known.results) if known is not None else 0)):
            ended = await turn.scheduler.execute(calls, known)
    except BudgetSpent as spent:
        if end is not None:  # nothing is lost: the turn can be resumed again
            raise
        await refuse(turn, calls, str(spent))
        return budget_ended(turn, spent)
    results = turn.scheduler.take_results()
    if not turn.provider.takes_result_images(turn.model):
        results = [without_images(result) for result in results]
    message = Message.user(results)
    await turn.commit(message)
    if ended:
        return "ended_by_tool"
    if any(isinstance(source, Steering) and source.is_waiting(Boundary.ROUND) for source in turn.sources):
        return None
    if await consult(turn, message, calls, results) == "stop":
        turn.limits.end("stop_requested")
        return "stopped"
    return None


def calls_in_budget(turn: Turn, calls: int) -> AbstractAsyncContextManager[None]:
    """Return what counts calls against the budgets of a turn, if it has any."""
    if (meter := turn.limits.meter) is None:
        return nullcontext()
    from mentra_nb.agent.budgeting import counted

    return counted(turn, meter, calls)


def request_in_budget(turn: Turn, request: Request) -> AbstractAsyncContextManager[None]:
    """Return what reserves a request's share of the budgets of a turn, if it has any."""
    if (meter := turn.limits.meter) is None:
        return nullcontext()
    from mentra_nb.agent.budgeting import reserved

    return reserved(turn, meter, request)


def why_not_whole(stop_reason: str) -> str:
    """Return why the calls of an answer may be cut off."""
    why = WHY_NOT_WHOLE.get(stop_reason, f"the answer ended for an unknown reason ({stop_reason})")
    return f"{why}, so its calls may be incomplete"


async def refuse(turn: Turn, calls: Sequence[ToolUse], why: str) -> None:
    """Answer the calls of an answer with an error, without running any."""
    turn.phase = "ExecutingTool"
    turn.scheduler.refuse(calls, f"not executed: {why}")
    await turn.commit(Message.user(turn.scheduler.take_results()))


async def consult(
    turn: Turn, committed: Message, calls: Sequence[ToolUse] = (), results: Sequence[ToolResult] = ()
) -> Literal["inject", "stop"] | None:
    """Ask the strategy, unless a limit decides already. Applies its changes, and keeps what it injects for later.

    Returns `None` where the turn goes on as without a strategy.
    """
    strategy, limits = turn.limits.options.round_strategy, turn.limits
    if strategy is None or limits.early_end() is not None or not limits.has_room():
        return None
    from mentra_nb.agent.strategy import Continue, Inject, RoundContext, Stop, ToolSummary

    tools = (ToolSummary(use.id, use.name, result.is_error) for use, result in zip(calls, results, strict=True))
    context = RoundContext(
        boundary="tool_results_committed" if calls else "assistant_message_committed",
        message=committed,
        tools=tuple(tools),
        rounds_completed=limits.rounds,
        model_requests=turn.requests,
        transport_retries=turn.retries,
    )
    decision = await contained(strategy(context)) or Continue()
    if isinstance(decision, Stop):
        return "stop"
    if decision.adjust is not None:
        await turn.adjust(decision.adjust)
    if not isinstance(decision, Inject):
        return None
    turn.injected = Message.user(decision.content)
    return "inject"


def without_images(result: ToolResult) -> ToolResult:
    """Replace the images of a result by a note, for models that take none in results."""
    if not result.images:
        return result
    note = f"[{len(result.images)} image(s) left out: this model takes none in the results of tools]"
    return result.model_copy(update={"content": f"{result.display()}\n{note}".strip(), "images": ()})


async def drain_sources(turn: Turn, at: Boundary) -> None:
    """Put the waiting messages of the sources into the conversation, source by source."""
    for source in turn.sources:
        if source.is_waiting(at):
            for kind, message in await source.drain(at):
                await turn.commit(message, kind)


class Answer(NamedTuple):
    """What a model answered, and why it stopped."""

    message: Message
    stop_reason: str


async def ask_model(turn: Turn) -> Answer:
    """Ask for one answer. Transient errors are retried until part of the answer was shown."""
    turn.phase = "AwaitingModel"
    provider, model = turn.provider, turn.model  # a change meanwhile is for the next request
    if turn.limits.options.cost_budget is not None:
        check_priced(provider.descriptor.id, model)
    turn.scheduler.use_model(model)
    await turn.transcript.ready_for((provider, model))
    request = assemble(model, turn.config, turn.transcript.messages(), turn.environment, turn.scheduler.toolbox)
    turn.about, refused = 0, False
    if turn.transcript.tokens > LONG_CONVERSATION or turn.scheduler.wants_compaction:
        from mentra_nb.agent.compacting import fitted

        request = await fitted(turn, request)
    turn.limits.count_request()
    for attempt in count(1):
        try:
            async with request_in_budget(turn, request):
                request_started(turn, provider.descriptor.id, model, attempt)
                async with provider.stream(request) as events:
                    request_opened(turn)
                    pending = PendingMessage(turn.agent_id, provider.descriptor.id, model, turn.transcript.call_ids)
                    turn.pending = pending
                    return await read_answer(turn, pending, events)
        except ProviderError as error:
            said_something = turn.pending is not None and turn.pending.said_something
            if isinstance(error, StreamTruncated) and not said_something:
                error.category = ErrorCategory.RETRYABLE  # like a connection that broke
            too_long = asked_wait(error) > turn.limits.options.retry_after_cap
            if too_long:
                error.args = (f"{error}; the server asks to wait {asked_wait(error):,.0f} s before the next request",)
            request_failed(turn, error)
            turn.pending = None
            if not (refused or said_something) and is_too_long(error):
                refused, shorter = True, await shorter_request(turn, request, error)
                if shorter is not None:
                    request = shorter
                    turn.limits.count_request()
                    continue
            is_last = attempt > most_retries(error, turn.limits.options)
            if said_something or too_long or not error.is_transient or is_last:
                raise FailedToStreamResponse(error, f"{provider.descriptor.id}/{model}") from error
            turn.limits.count_request()  # before the wait, so that no time is lost when the budget is spent
            await wait_before_retry(turn, error, attempt)
    raise AssertionError("unreachable")


async def shorter_request(turn: Turn, request: Request, refusal: ProviderError) -> Request | None:
    """Return the request again after the provider refused it as too long; `None` if it cannot be made shorter."""
    from mentra_nb.agent.compacting import after_refusal

    return await after_refusal(turn, request, refusal)


async def read_answer(turn: Turn, pending: PendingMessage, events: AsyncIterator[ProviderEvent]) -> Answer:
    """Fold the stream into a message, announce each piece, and save the text every `SAVE_EVERY` and at block ends.

    Where the message ends with a block, it is about to be stored as a whole.
    """
    saved, save_at, emit = "", time.monotonic() + SAVE_EVERY, turn.environment.bus.emit
    async for event in events:
        announced = pending.apply(event)
        if announced is not None:
            emit(announced)
        if (begun := time.monotonic()) >= save_at or (isinstance(event, ContentBlockStopped) and not event.at_end):
            if (text := pending.partial_text()) != saved:
                await turn.environment.store.save_partial(turn.id, text, holder=turn.environment.holder)
                saved = text
            save_at = begun + SAVE_EVERY
            if len(saved) > LONG_TEXT:
                save_at += SAVE_SHARE * (time.monotonic() - begun)
    turn.stop_detail = pending.stop_detail
    return Answer(pending.message(), pending.stop_reason or "end")


def request_started(turn: Turn, provider: str, model: str, attempt: int) -> None:
    """Announce a model request, and count it."""
    turn.request = e.ModelRequestStarted(
        agent_id=turn.agent_id,
        run_id=turn.id,
        model=model,
        provider=provider,
        attempt=attempt,
        request_id=new_id("request"),
    )
    turn.emit(turn.request)
    turn.requests += 1
    turn.retries += attempt > 1


def request_opened(turn: Turn) -> None:
    """Announce that the answer to the open model request has begun."""
    turn.opened, turn.phase = True, "Streaming"
    _announce(turn, e.ModelRequestFinished, success=True)


def request_failed(turn: Turn, error: BaseException) -> None:
    """Announce the failure of the open model request, if there is one: its stream never opened, or broke."""
    if turn.request is None:
        return
    event = e.ModelResponseFinished if turn.opened else e.ModelRequestFinished
    _announce(turn, event, success=False, error=str(error) or type(error).__name__)
    turn.request, turn.opened = None, False


def response_finished(turn: Turn) -> None:
    """Announce the end of the open model request, and count its tokens as the provider reported them."""
    assert turn.pending is not None
    pending, usage = turn.pending, turn.pending.usage
    _announce(turn, e.ModelResponseFinished, success=True, stop_reason=pending.stop_reason, usage=usage)
    turn.request, turn.opened, turn.pending = None, False, None
    if usage is None:
        return
    turn.usage = turn.usage + usage
    if turn.about and (counted := prompt_tokens(pending.provider, usage)):
        turn.transcript.counted = turn.about, counted
    count_usage(turn, pending.provider, pending.model, usage)
    turn.emit(
        e.UsageReport(
            agent_id=turn.agent_id,
            input_tokens=usage.input_tokens or 0,
            output_tokens=usage.output_tokens or 0,
            cache_read_tokens=usage.cache_read_input_tokens or 0,
            cache_creation_tokens=usage.cache_creation_input_tokens or 0,
        )
    )


def _announce(turn: Turn, event: type[e.ModelRequestFinished] | type[e.ModelResponseFinished], **outcome: Any) -> None:
    assert turn.request is not None
    turn.emit(event(**turn.request.model_dump(exclude={"kind"}), **outcome))

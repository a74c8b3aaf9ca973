"""The turn itself: ask the model, run what it calls, tell it the results, until it answers.

It reads top to bottom like a turn. What surrounds a turn (its start, its end, a stop) is `agent.py`.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import anyio

from mentra_nb.agent.answer import PendingMessage
from mentra_nb.agent.environment import AgentEnvironment
from mentra_nb.agent.limits import RunOptions, TurnLimits
from mentra_nb.agent.recovery import OpenEnd
from mentra_nb.agent.request import AgentConfig, assemble
from mentra_nb.agent.scheduler import Scheduler
from mentra_nb.agent.steering import Boundary, RoundSource, Steering
from mentra_nb.agent.strategy import Adjustment, Continue, Decision, Inject, RoundContext, Stop, ToolSummary
from mentra_nb.agent.transcript import Transcript
from mentra_nb.content import Message, TokenUsage, ToolResult, ToolUse
from mentra_nb.errors import (
    ConfigurationError,
    FailedToStreamResponse,
    HttpError,
    MalformedStream,
    ProviderError,
    RetryableError,
)
from mentra_nb.event import types as e
from mentra_nb.ids import UniqueIds, new_id
from mentra_nb.providers.base import ContentBlockStopped, Provider, ProviderEvent
from mentra_nb.store.records import EntryKind

SAVE_EVERY = 0.25
"""Seconds between saves of the text that is streaming."""
MAX_MALFORMED_ROUNDS = 3


@dataclass
class Turn:
    """One turn on its way: what it uses, and what it has reached so far.

    `model`, `provider` and `config` may change while it runs; each request takes them as they are when it begins.
    """

    id: str
    agent_id: str
    model: str
    config: AgentConfig
    provider: Provider
    environment: AgentEnvironment
    transcript: Transcript
    limits: TurnLimits
    scheduler: Scheduler
    adjust: Callable[[Adjustment], Awaitable[None]]
    """What a strategy changes goes through here."""
    sources: Sequence[RoundSource] = ()
    injected: Message | None = None
    """What the strategy has to say with the next request."""
    requests: int = 0
    retries: int = 0
    phase: str = "AwaitingModel"
    """What it is doing, in the words of `AgentSnapshot.status`."""
    pending: PendingMessage | None = None
    request: e.ModelRequestStarted | None = None
    """The model request whose answer is still open."""
    opened: bool = False
    """Whether its stream is."""
    ids: UniqueIds = field(default_factory=UniqueIds)
    """The ids of the run's tool calls: models repeat them from answer to answer."""
    usage: TokenUsage = field(default_factory=TokenUsage)

    def emit(self, event: e.AgentEvent) -> None:
        self.environment.bus.emit(event)

    async def commit(self, message: Message, kind: EntryKind | None = None) -> None:
        """Append to the run's branch, in the store too."""
        entry = self.transcript.append(message, self.id, kind)
        await self.environment.store.append_entries([entry], holder=self.environment.holder)


async def run_rounds(turn: Turn) -> str:
    """Take rounds until the model answers without calling a tool. Returns the stop reason."""
    malformed, at = 0, Boundary.ROUND
    while not turn.limits.ends_early():
        turn.limits.begin_round()
        if turn.injected is not None:
            await turn.commit(turn.injected)
            turn.injected = None
        await take_up(turn, at)
        at = Boundary.ROUND
        answer = await ask_model(turn)
        calls = answer.message.tool_uses()
        goes_on = answer.stop_reason == "pause" and not calls and bool(answer.message.content)
        if answer.message.content:
            await turn.commit(answer.message, "assistant_part" if goes_on else None)
            turn.emit(e.AssistantMessageCommitted(agent_id=turn.agent_id, message=answer.message))
        response_finished(turn)
        turn.pending = None

        if goes_on:
            continue  # the provider goes on where it broke off
        if not calls:
            if not turn.limits.has_room():
                return answer.stop_reason
            is_waiting = any(source.is_waiting(Boundary.ANSWER) for source in turn.sources)
            if not is_waiting and not isinstance(await consult(turn, answer.message), Inject):
                return answer.stop_reason
            at = Boundary.ANSWER
            continue
        malformed = malformed + 1 if all(call.error for call in calls) else 0
        if malformed >= MAX_MALFORMED_ROUNDS:
            raise FailedToStreamResponse(MalformedStream(f"{malformed} rounds in a row of malformed tool arguments"))
        if (ended := await execute(turn, calls)) is not None:
            return ended
    return "stopped" if turn.limits.options.ended_early == "stop_requested" else "budget"


async def go_on(turn: Turn, end: OpenEnd) -> str | None:
    """Finish the round another run left open at the end of the transcript. A stop reason when that was the last one."""
    last = turn.transcript.last
    assert last is not None
    for entry in turn.transcript.tail:
        if entry.run_id in end.calls.run_ids:
            for call in entry.message.tool_uses():
                turn.ids.take(call.id)
    calls = last.message.tool_uses()
    if any(result.tool_use_id in end.calls.ends_turn for result in last.message.tool_results()):
        return "ended_by_tool"
    if not calls:
        return "end" if last.kind == "assistant_turn" else None
    for index, call in enumerate(calls):
        if call.id not in end.calls.results:
            turn.emit(e.ToolUseReady(agent_id=turn.agent_id, index=index, call=call))
    return await execute(turn, calls, end)


async def execute(turn: Turn, calls: Sequence[ToolUse], end: OpenEnd | None = None) -> str | None:
    """Run the calls of one answer and commit their results. A stop reason when the turn is over with them."""
    turn.phase, turn.scheduler.history_len = "ExecutingTool", len(turn.transcript)
    ended = await turn.scheduler.execute(calls, end.calls if end is not None else None)
    results = turn.scheduler.take_results()
    if not turn.provider.takes_result_images(turn.model):
        results = [without_images(result) for result in results]
    message = Message.user(results)
    await turn.commit(message)
    if ended:
        return "ended_by_tool"
    if any(isinstance(source, Steering) and source.is_waiting(Boundary.ROUND) for source in turn.sources):
        return None
    tools = [ToolSummary(use.id, use.name, result.is_error) for use, result in zip(calls, results, strict=True)]
    if isinstance(await consult(turn, message, tools), Stop):
        turn.limits.stop()
        return "stopped"
    return None


async def consult(turn: Turn, committed: Message, tools: Sequence[ToolSummary] = ()) -> Decision:
    """What the strategy says, unless a limit has decided already. What it changes and injects is taken up."""
    strategy, limits = turn.limits.options.round_strategy, turn.limits
    if strategy is None or limits.early_end() is not None or not limits.has_room():
        return Continue()
    context = RoundContext(
        boundary="tool_results_committed" if tools else "assistant_message_committed",
        message=committed,
        tools=tuple(tools),
        rounds_completed=limits.rounds,
        model_requests=turn.requests,
        transport_retries=turn.retries,
    )
    decision = await strategy(context) or Continue()
    if not isinstance(decision, Stop) and decision.adjust is not None:
        await turn.adjust(decision.adjust)
    if isinstance(decision, Inject):
        turn.injected = Message.user(decision.content)
    return decision


def without_images(result: ToolResult) -> ToolResult:
    """The result for a model that is shown no pictures: a line says that there were some."""
    if not result.images:
        return result
    note = f"[{len(result.images)} image(s) left out: this model takes none in the results of tools]"
    return result.model_copy(update={"content": f"{result.display()}\n{note}".strip(), "images": ()})


async def take_up(turn: Turn, at: Boundary) -> None:
    """Put what the sources have into the conversation, in their order."""
    for source in turn.sources:
        if source.is_waiting(at):
            for kind, message in await source.drain(at):
                await turn.commit(message, kind)


@dataclass(frozen=True)
class Answer:
    message: Message
    stop_reason: str


async def ask_model(turn: Turn) -> Answer:
    """One model answer. A transient error is retried until the answer has begun to show; after that it is final."""
    turn.phase = "AwaitingModel"
    provider, model = turn.provider, turn.model  # another model is asked from the next request on
    if turn.limits.options.cost_budget is not None:
        check_priced(provider.descriptor.id, model)
    turn.scheduler.use_model(model)
    await turn.transcript.ready_for((provider, model))
    request = assemble(model, turn.config, turn.transcript.messages(), turn.environment)
    turn.limits.count_request()
    for attempt in count(1):
        turn.request = e.ModelRequestStarted(
            agent_id=turn.agent_id,
            run_id=turn.id,
            model=model,
            provider=provider.descriptor.id,
            attempt=attempt,
            request_id=new_id("request"),
        )
        turn.emit(turn.request)
        turn.requests += 1
        turn.retries += attempt > 1
        try:
            async with provider.stream(request) as events:
                request_opened(turn)
                turn.pending = PendingMessage(turn.agent_id, provider.descriptor.id, model, turn.ids)
                return await read_answer(turn, turn.pending, events)
        except ProviderError as error:
            said_something = turn.pending is not None and turn.pending.said_something
            request_failed(turn, error)
            turn.pending = None
            if said_something or not error.is_transient or attempt > turn.limits.options.retry_budget:
                raise FailedToStreamResponse(error) from error
            turn.limits.count_request()  # before the wait: nobody waits for a request that may not go out
            await wait_before_retry(turn, error, attempt)
    raise AssertionError("unreachable")


async def read_answer(turn: Turn, pending: PendingMessage, events: AsyncIterator[ProviderEvent]) -> Answer:
    """Fold the stream into a message; tell of each piece, and save the text every 250 ms at most and at block ends."""
    saved, saved_at = "", time.monotonic()
    async for event in events:
        meaning = pending.apply(event)
        if meaning is not None:
            turn.emit(meaning)
        if time.monotonic() - saved_at >= SAVE_EVERY or isinstance(event, ContentBlockStopped):
            saved_at = time.monotonic()
            if (text := pending.partial_text()) != saved:
                await turn.environment.store.save_partial(turn.id, text, holder=turn.environment.holder)
                saved = text
    return Answer(pending.message(), pending.stop_reason or "end")


async def wait_before_retry(turn: Turn, error: ProviderError, attempt: int) -> None:
    """Announce the next attempt, and wait for it."""
    delay = retry_delay(error, attempt, random.random(), turn.limits.options)  # noqa: S311  # no secret
    turn.emit(
        e.RetryAttempt(
            agent_id=turn.agent_id,
            error_message=str(error),
            attempt=attempt,
            max_attempts=turn.limits.options.retry_budget,
            next_delay_ms=int(delay * 1000),
        )
    )
    await anyio.sleep(delay)


def retry_delay(error: ProviderError, attempt: int, chance: float, options: RunOptions) -> float:
    """Seconds: the share `chance`, in [0, 1], of a time that doubles, so that many clients do not return at once.

    It is never less than what the server asked for, as far as the options let it ask.
    """
    asked = error.delay if isinstance(error, RetryableError) else None
    asked = error.retry_after if isinstance(error, HttpError) else asked
    longest: float = min(options.retry_base * 2 ** min(attempt - 1, 10), options.retry_max)
    return max(chance * longest, min(asked or 0.0, options.retry_after_cap))


def request_opened(turn: Turn) -> None:
    assert turn.request is not None
    turn.opened, turn.phase = True, "Streaming"
    turn.emit(e.ModelRequestFinished(success=True, **turn.request.model_dump(exclude={"kind"})))


def request_failed(turn: Turn, error: BaseException) -> None:
    """Close the record of the open model request, if there is one: its stream never opened, or broke."""
    if turn.request is None:
        return
    text = str(error) or type(error).__name__
    if turn.opened:
        turn.emit(e.ModelResponseFinished(success=False, error=text, **turn.request.model_dump(exclude={"kind"})))
    else:
        turn.emit(e.ModelRequestFinished(success=False, error=text, **turn.request.model_dump(exclude={"kind"})))
    turn.request, turn.opened = None, False


def response_finished(turn: Turn) -> None:
    """Close the record of the open model request, with what the provider counted."""
    assert turn.request is not None
    assert turn.pending is not None
    about, pending = turn.request.model_dump(exclude={"kind"}), turn.pending
    turn.request, turn.opened = None, False
    turn.emit(
        e.ModelResponseFinished(success=True, stop_reason=pending.stop_reason, usage=pending.usage, **about),
    )
    if pending.usage is None:
        return
    usage = pending.usage
    turn.usage = turn.usage + usage
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


def count_usage(turn: Turn, provider: str, model: str, usage: TokenUsage) -> None:
    """Add a response to what the run and its budgets have used."""
    tokens = (usage.input_tokens or 0) + (usage.output_tokens or 0)
    cost = 0.0
    if turn.limits.options.cost_budget is not None:
        cost = _cost(provider, model, usage) or 0.0
    turn.limits.count_usage(tokens, cost)


def check_priced(provider: str, model: str) -> None:
    """Raises `ConfigurationError` for a model without a known price: no budget in money can hold it."""
    if _cost(provider, model, TokenUsage(input_tokens=1, output_tokens=1)) is None:
        raise ConfigurationError(
            f"{provider}/{model} has no known price, so a cost budget cannot hold it: use token_budget"
        )


def _cost(provider: str, model: str, usage: TokenUsage) -> float | None:
    from mentra_nb.pricing import cost_usd  # loads the price list

    return cost_usd(provider, model, usage)

"""The turn itself: ask the model, run what it calls, tell it the results, until it answers.

It reads top to bottom like a turn. What surrounds a turn (its start, its end, a stop) is `agent.py`.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count

import anyio

from mentra_nb import event_types as e
from mentra_nb.agent.request import AgentConfig, assemble
from mentra_nb.agent.transcript import Transcript
from mentra_nb.content import Message, TokenUsage
from mentra_nb.control.limits import RunLimits
from mentra_nb.errors import FailedToStreamResponse, HttpError, MalformedStream, ProviderError, RetryableError
from mentra_nb.identity import UniqueIds, new_id
from mentra_nb.providers.base import Provider, ProviderEvent
from mentra_nb.providers.pending import PendingMessage
from mentra_nb.tools.environment import AgentEnvironment
from mentra_nb.tools.scheduler import Scheduler

SAVE_EVERY = 0.25
"""Seconds between saves of the text that is streaming."""
MAX_MALFORMED_ROUNDS = 3
RETRY_BASE, RETRY_MAX, RETRY_AFTER_CAP = 0.5, 5.0, 60.0
"""Seconds: first wait, longest wait of our own, longest wait a server may ask for."""


@dataclass
class Run:
    """One turn on its way: what it uses, and what it has reached so far."""

    id: str
    agent_id: str
    model: str
    config: AgentConfig
    provider: Provider
    environment: AgentEnvironment
    transcript: Transcript
    limits: RunLimits
    scheduler: Scheduler
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

    async def commit(self, message: Message) -> None:
        """Append to the run's branch, in the store too."""
        await self.environment.store.append_entries([self.transcript.append(message, self.id)])


async def run_rounds(run: Run) -> str:
    """Take rounds until the model answers without calling a tool. Returns the stop reason."""
    malformed = 0
    while True:
        run.limits.begin_round()
        answer = await ask_model(run)
        if answer.message.content:
            await run.commit(answer.message)
            run.emit(e.AssistantMessageCommitted(agent_id=run.agent_id, message=answer.message))
        response_finished(run)
        run.pending = None

        calls = answer.message.tool_uses()
        if not calls and answer.stop_reason == "pause" and answer.message.content:
            continue  # the provider goes on where it broke off
        if not calls:
            return answer.stop_reason
        malformed = malformed + 1 if all(call.error for call in calls) else 0
        if malformed >= MAX_MALFORMED_ROUNDS:
            raise FailedToStreamResponse(MalformedStream(f"{malformed} rounds in a row of malformed tool arguments"))

        run.scheduler.history_len = len(run.transcript)
        ended = await run.scheduler.execute(calls)
        await run.commit(Message.user(run.scheduler.results[call.id] for call in calls))
        run.scheduler.results = {}
        if ended:
            return "ended_by_tool"


@dataclass(frozen=True)
class Answer:
    message: Message
    stop_reason: str


async def ask_model(run: Run) -> Answer:
    """One model answer. A transient error is retried until the answer has begun to show; after that it is final."""
    request = assemble(run.model, run.config, run.transcript.messages(), run.environment.tools)
    run.limits.count_request()
    for attempt in count(1):
        run.request = e.ModelRequestStarted(
            agent_id=run.agent_id,
            run_id=run.id,
            model=run.model,
            provider=run.provider.descriptor.id,
            attempt=attempt,
            request_id=new_id("request"),
        )
        run.emit(run.request)
        try:
            async with run.provider.stream(request) as events:
                request_opened(run)
                return await read_answer(run, events)
        except ProviderError as error:
            said_something = run.pending is not None and run.pending.said_something
            request_failed(run, error)
            run.pending = None
            if said_something or not error.is_transient or attempt > run.limits.options.retry_budget:
                raise FailedToStreamResponse(error) from error
            run.limits.count_request()  # before the wait: nobody waits for a request that may not go out
            await wait_before_retry(run, error, attempt)
    raise AssertionError("unreachable")


async def read_answer(run: Run, events: AsyncIterator[ProviderEvent]) -> Answer:
    """Fold the stream into a message, telling of each piece and saving the text at most every 250 ms."""
    run.pending = pending = PendingMessage(run.agent_id, run.provider.descriptor.id, run.model, run.ids)
    saved_at = time.monotonic()
    async for event in events:
        meaning = pending.apply(event)
        if meaning is not None:
            run.emit(meaning)
        if time.monotonic() - saved_at >= SAVE_EVERY:
            await run.environment.store.save_partial(run.id, pending.partial_text())
            saved_at = time.monotonic()
    return Answer(pending.message(), pending.stop_reason or "end")


async def wait_before_retry(run: Run, error: ProviderError, attempt: int) -> None:
    """Announce the next attempt, and wait for it."""
    delay = retry_delay(error, attempt, random.random())  # noqa: S311  # no secret
    run.emit(
        e.RetryAttempt(
            agent_id=run.agent_id,
            error_message=str(error),
            attempt=attempt,
            max_attempts=run.limits.options.retry_budget,
            next_delay_ms=int(delay * 1000),
        )
    )
    await anyio.sleep(delay)


def retry_delay(error: ProviderError, attempt: int, chance: float) -> float:
    """Seconds: the share `chance`, in [0, 1], of 500 ms doubling to 5 s, so that many clients do not return at once.

    It is never less than what the server asked for, of which at most 60 s count.
    """
    asked = error.delay if isinstance(error, RetryableError) else None
    asked = error.retry_after if isinstance(error, HttpError) else asked
    longest: float = min(RETRY_BASE * 2 ** min(attempt - 1, 10), RETRY_MAX)
    return max(chance * longest, min(asked or 0.0, RETRY_AFTER_CAP))


def request_opened(run: Run) -> None:
    assert run.request is not None
    run.opened = True
    run.emit(e.ModelRequestFinished(success=True, **run.request.model_dump(exclude={"kind"})))


def request_failed(run: Run, error: BaseException) -> None:
    """Close the record of the open model request, if there is one: its stream never opened, or broke."""
    if run.request is None:
        return
    text = str(error) or type(error).__name__
    if run.opened:
        run.emit(e.ModelResponseFinished(success=False, error=text, **run.request.model_dump(exclude={"kind"})))
    else:
        run.emit(e.ModelRequestFinished(success=False, error=text, **run.request.model_dump(exclude={"kind"})))
    run.request, run.opened = None, False


def response_finished(run: Run) -> None:
    """Close the record of the open model request, with what the provider counted."""
    assert run.request is not None
    assert run.pending is not None
    about, pending = run.request.model_dump(exclude={"kind"}), run.pending
    run.request, run.opened = None, False
    run.emit(
        e.ModelResponseFinished(success=True, stop_reason=pending.stop_reason, usage=pending.usage, **about),
    )
    if pending.usage is None:
        return
    usage = pending.usage
    run.usage = run.usage + usage
    run.emit(
        e.UsageReport(
            agent_id=run.agent_id,
            input_tokens=usage.input_tokens or 0,
            output_tokens=usage.output_tokens or 0,
            cache_read_tokens=usage.cache_read_input_tokens or 0,
            cache_creation_tokens=usage.cache_creation_input_tokens or 0,
        )
    )

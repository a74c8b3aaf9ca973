"""One row: its request, retries after passing errors, one repair of an answer that does not fit, and its cost."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import anyio
import anyio.to_thread

from mentra_nb.agent.answer import PendingMessage
from mentra_nb.agent.limits import RunOptions
from mentra_nb.agent.loop import WHY_NOT_WHOLE
from mentra_nb.agent.retrying import asked_wait, most_retries, retry_delay
from mentra_nb.amounts import Unit
from mentra_nb.budget.meter import Meter
from mentra_nb.budget.requests import is_free_of_charge, most_of, most_of_head, most_of_messages, used
from mentra_nb.content import Image, Message, Text, TokenUsage
from mentra_nb.errors import (
    BudgetSpent,
    ConfigurationError,
    HttpError,
    InvalidOutput,
    MalformedStream,
    MentraError,
    ProviderError,
    StoreError,
    UnsupportedCapability,
)
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers.base import MessageStarted, Provider, Request
from mentra_nb.rows.pace import Pace
from mentra_nb.rows.pictures import block, held
from mentra_nb.rows.shape import Cells, Shape
from mentra_nb.rows.template import Template

MAX_OUTPUT = 8192
"""Tokens of one answer, reasoning included."""
MAX_REFUSALS = 50
"""Refusals for the rate limit after which a row fails."""
Prompt = str | Sequence[Image | Text]
"""Of one row: text, or text and pictures."""
HOPELESS = (401, 402, 403, 404)
"""Statuses after which no other row can be answered either."""


@dataclass
class Outcome:
    """What became of one row."""

    cells: Cells | None = None
    """The values, `None` if there is no answer."""
    text: str = ""
    """The answer as the model gave it."""
    error: MentraError | None = None
    usage: TokenUsage = field(default_factory=TokenUsage)
    requests: int = 0
    is_last: bool = False
    """Whether no other row can be answered either."""


class Asker:
    """Asks one model about rows."""

    def __init__(
        self,
        provider: Provider,
        model: str,
        template: Template,
        shape: Shape,
        meter: Meter,
        pace: Pace,
        *,
        policy: RuntimePolicy,
        system: str | None = None,
        examples: Sequence[tuple[Mapping[str, Any], str]] = (),
        retries: int = 5,
    ) -> None:
        self.provider = provider
        self.model = model
        self.template = template
        self.shape = shape
        self.policy: RuntimePolicy = policy
        """Which files may be read."""
        self.meter: Meter = meter
        """What requests are reserved of."""
        self._pace = pace
        self.options: RunOptions = RunOptions(retry_budget=retries)
        """When a request that failed is sent again."""
        self._free = bool(getattr(provider, "free", False))
        self._system = system
        self._by_schema = provider.capabilities.supports_structured_output and not shape.is_text
        self._examples: list[Message] = []
        for values, answer in examples:
            self._examples += (Message.user(self._filled(values)), Message.assistant(answer))

    @property
    def name(self) -> str:
        """The model as `provider/model`."""
        return f"{self.provider.descriptor.id}/{self.model}"

    def _filled(self, values: Mapping[str, Any]) -> Prompt:
        if not (shown := held(self.template, values)):
            return self.template.fill(values)
        return self.template.blocks(values, {name: block(value, self.policy) for name, value in shown.items()})

    async def prompt(self, values: Mapping[str, Any]) -> Prompt:
        """Return the prompt of a row, with pictures and the content of files.

        Raises `MentraError` for one that cannot be sent.
        """
        if not held(self.template, values):
            return self.template.fill(values)
        return await anyio.to_thread.run_sync(self._filled, values)

    async def check_sight(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Raise `ConfigurationError` if there is a picture in the first row with anything but text: it takes none."""
        for values in rows:
            if held(self.template, values):
                with suppress(MentraError):  # a row that cannot be sent fails by itself
                    if not isinstance(prompt := await self.prompt(values), str) and _has_picture(prompt):
                        break
        else:
            return
        raise ConfigurationError(f"{self.name} takes no pictures: name a model that does")

    def request(self, text: Prompt, more: Sequence[Message] = ()) -> Request:
        """Return the request for a row, whose prompt is `text`. `more` follows it."""
        shape, system = self.shape, self._system
        asks = not shape.is_text and not self._by_schema
        if asks:
            system = "\n\n".join(filter(None, (system, shape.instruction())))
        return Request(
            self.model,
            [*self._examples, Message.user(text), *more],
            system,
            max_output_tokens=MAX_OUTPUT,
            response_format=shape.format() if self._by_schema else None,
        )

    def check_priced(self) -> None:
        """Raise `ConfigurationError` if a budget is in money and the model has no known price."""
        self.most(self.request(""))

    async def ask(self, values: Mapping[str, Any], answered: str | None = None) -> Outcome:
        """Ask about one row. An answer that does not fit the type is asked for once more; so is one given here."""
        outcome, more = Outcome(), list[Message]()
        try:
            prompt = await self.prompt(values)
            while True:
                outcome.text = await self._answer(prompt, more, outcome) if answered is None else answered
                answered = None
                try:
                    outcome.cells = self.shape.read(outcome.text)
                except InvalidOutput as error:
                    if more:
                        raise
                    said = f"{error}. Answer again, with nothing but a JSON object that fits the schema."
                    more = [Message.assistant(outcome.text or "-"), Message.user(said)]
                else:
                    return outcome
        except (BudgetSpent, StoreError) as error:
            outcome.error, outcome.is_last = error, True
        except MentraError as error:
            outcome.error = error
            hopeless = isinstance(error, HttpError) and error.status in HOPELESS
            outcome.is_last = hopeless or isinstance(error, UnsupportedCapability)
        except Exception as error:  # noqa: BLE001 - a provider may be foreign code
            outcome.error = ProviderError(f"the provider failed: {type(error).__name__}: {error}")
        return outcome

    async def _answer(self, prompt: Prompt, more: Sequence[Message], outcome: Outcome) -> str:
        """Return the text of one answer. Passing errors are retried; raises the last one."""
        attempts, refusals = 0, 0
        for number in count(1):
            request = self.request(prompt, more)
            try:
                async with self._pace.one() as place:
                    return await self._send(request, attempts + 1, outcome, place)
            except ProviderError as error:
                if isinstance(error, HttpError) and error.status in (400, 422) and request.response_format:
                    self._by_schema = False  # the server takes no schema, so the prompt has it
                    continue
                is_refusal = isinstance(error, HttpError) and error.status == 429
                refusals, attempts = refusals + is_refusal, attempts + (not is_refusal)
                transient = error.is_transient or isinstance(error, MalformedStream)
                too_long = asked_wait(error) > self.options.retry_after_cap
                spent = attempts > most_retries(error, self.options) or refusals > MAX_REFUSALS
                if spent or too_long or not transient:
                    raise
                await anyio.sleep(retry_delay(error, number, random.random(), self.options))  # noqa: S311
        raise AssertionError("unreachable")

    async def _send(self, request: Request, attempt: int, outcome: Outcome, place: int) -> str:
        """Send a request within the budgets and return the text of its answer."""
        spent = most = self.most(request)
        reservation = await self.meter.reserve(most) if most else None
        provider, opened, began = self.provider, False, time.monotonic()
        pending = PendingMessage("", provider.descriptor.id, self.model)
        outcome.requests += 1
        try:
            with self._pace.patience(attempt):
                async with provider.stream(request) as events:
                    opened = True
                    async for event in events:
                        pending.apply(event)
                        if isinstance(event, MessageStarted) and event.limits is not None:
                            self._pace.limited(event.limits, place)
            self._check_seen(request)
            text = pending.message().text()
            spent = used(provider.descriptor.id, self.model, pending.usage, most) if most else most
            if (why := WHY_NOT_WHOLE.get(pending.stop_reason or "end")) is not None:
                raise MentraError(why)
            if not text:
                raise MentraError("the model answered nothing")
        except ProviderError as error:
            if not opened and is_free_of_charge(error):
                spent = dict.fromkeys(most, 0)
            if isinstance(error, HttpError) and error.status == 429:
                self._pace.refused(began, min(asked_wait(error), self.options.retry_after_cap))
            raise
        finally:
            outcome.usage = outcome.usage + (pending.usage or TokenUsage())
            if reservation is not None:
                await reservation.settle(spent)
        self._pace.answered(time.monotonic() - began)
        return text

    def _check_seen(self, request: Request) -> None:
        """Raise `UnsupportedCapability` if a picture was left out, because the model refuses them."""
        if not self.provider.takes_images(self.model) and _has_picture(request.messages[-1].content):
            raise UnsupportedCapability(self.name, "pictures")

    def most(self, request: Request) -> dict[Unit, int]:
        """Return the most that a request may use of the budgets. Raises `ConfigurationError` without a known price."""
        meter = self.meter
        if not (meter.limits("usd") or meter.limits("tokens")):
            return {}
        prompt = most_of_head(request.system, ()) + most_of_messages(request.messages)
        if request.response_format is not None:
            prompt += len(str(request.response_format.schema).encode())
        return most_of(meter, self.provider.descriptor.id, self.model, prompt, MAX_OUTPUT, free=self._free)


def _has_picture(content: Iterable[Any]) -> bool:
    return any(isinstance(each, Image) for each in content)

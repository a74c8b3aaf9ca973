"""A model for tests of maps: it answers each prompt by a function, and counts what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from mentra_nb.content import TokenUsage
from mentra_nb.errors import MentraError
from mentra_nb.providers import scripted
from mentra_nb.providers.base import Provider, ProviderCapabilities, ProviderDescriptor, ProviderEvent, Request

USAGE = TokenUsage(input_tokens=100, output_tokens=10)
Answer = Callable[[str], str | MentraError]


class RowModel(Provider):
    """Answers the last message of a request with `answer(text)`; an error that it returns is raised.

    `gate`, if it is set to an event, is waited for before each answer.
    """

    def __init__(self, answer: Answer = lambda prompt: prompt, id: str = "rows", *, by_schema: bool = True) -> None:
        self.descriptor: ProviderDescriptor = ProviderDescriptor(id=id)
        self.capabilities: ProviderCapabilities = ProviderCapabilities(supports_structured_output=by_schema)
        self.answer = answer
        self.requests: list[Request] = []
        self.gate: asyncio.Event | None = None
        self.usage: TokenUsage = USAGE
        self.on_request: Callable[[], None] = lambda: None

    @property
    def prompts(self) -> list[str]:
        """The last message of each request."""
        return [request.messages[-1].text() for request in self.requests]

    @asynccontextmanager
    async def stream(self, request: Request) -> AsyncIterator[AsyncIterator[ProviderEvent]]:
        self.requests.append(request)
        self.on_request()
        if self.gate is not None:
            await self.gate.wait()
        yield self._events(self.answer(request.messages[-1].text()))

    async def _events(self, answer: str | MentraError) -> AsyncIterator[ProviderEvent]:
        if isinstance(answer, MentraError):
            raise answer
        for event in scripted.text(answer, usage=self.usage).events:
            yield event

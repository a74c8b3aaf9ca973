"""What the tests of the core share: a runtime on a script, with everything it says kept in a list."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from mentra_nb.agent.agent import Agent
from mentra_nb.agent.config import AgentConfig
from mentra_nb.authorization import (
    PermissionDecision,
    ToolAuthorizationDecision,
    ToolAuthorizationRequest,
    allow_everything,
)
from mentra_nb.event import screen as shown
from mentra_nb.event import types as e
from mentra_nb.event.bus import AuditStore, NullAudit
from mentra_nb.permission.policy import RuntimePolicy
from mentra_nb.providers.base import ModelInfo
from mentra_nb.providers.scripted import ControlledStream, ScriptedAnswer, ScriptedProvider
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.runtime.session import Session
from mentra_nb.sandbox.executor import LocalExecutor
from mentra_nb.store.volatile import VolatileStore
from mentra_nb.tools.tool import ToolContext

MODEL = ModelInfo(id="scripted", provider="scripted")
E = TypeVar("E")


@dataclass
class Recorder:
    """A hook that keeps every recorded event."""

    events: list[e.RuntimeEvent] = field(default_factory=list)

    def on_event(self, store: AuditStore, event: e.RuntimeEvent) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@dataclass
class Bench:
    """A runtime, what it is asked by, and what it said."""

    runtime: Runtime
    provider: ScriptedProvider
    recorder: Recorder

    async def agent(self, config: AgentConfig | None = None) -> Agent:
        return await self.runtime.spawn("tester", MODEL, config)

    async def session(self, name: str = "talk", project: str | None = None, **options: Any) -> Session:
        return await self.runtime.create_session(name, MODEL, None, project, **options)


class Unattended(Runtime):
    """A runtime whose agents are allowed everything; its sessions ask as ever."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._wiring = replace(self._wiring, authorizer=allow_everything)


@asynccontextmanager
async def bench(*turns: ScriptedAnswer | ControlledStream, **options: Any) -> AsyncIterator[Bench]:
    """A runtime that answers from `turns`, with nothing on disk unless `options` say so.

    Its agents are allowed everything unless `options` have an authorizer, or say `authorizer=None`.
    """
    provider, recorder = ScriptedProvider(turns), Recorder()
    hooks = [*options.pop("hooks", ()), recorder]
    options = {"store": VolatileStore(), "audit": NullAudit(), "builtin_tools": False, "hooks": hooks} | options
    kind = Runtime if "authorizer" in options else Unattended
    async with kind([provider], **options) as runtime:
        yield Bench(runtime, provider, recorder)


def heard(agent: Agent) -> list[e.AgentEvent]:
    """Everything the agent says from now on."""
    events: list[e.AgentEvent] = []
    agent.environment.bus.tap(events.append)
    return events


def allow_all(session: Session) -> None:
    """Answer every question of the session at once."""

    def hear(event: shown.SessionEvent) -> None:
        if isinstance(event, shown.QuestionAsked):
            session.resolve_permission(event.request_id, PermissionDecision(allow=True))

    session.subscribe(hear)


def of(events: list[Any], kind: type[E]) -> list[E]:
    return [event for event in events if isinstance(event, kind)]


def context(
    folder: Path, policy: RuntimePolicy | None = None, progress: Callable[[str], None] | None = None, **apps: Any
) -> ToolContext:
    """What a tool sees when it is run by itself."""
    return ToolContext(
        agent_id="agent-1",
        agent_name="tester",
        model="scripted",
        run_id="run-1",
        tool_call_id="call-1",
        tool_name="tool",
        working_directory=folder,
        policy=policy or RuntimePolicy(),
        executor=LocalExecutor(),
        progress=progress or (lambda line: None),
        services={type(app): app for app in apps.values()},
    )


@dataclass
class Judge:
    """An authorizer that says the same to everybody and remembers what it was asked."""

    verdict: ToolAuthorizationDecision | Exception
    seconds: float | None = None
    asked: list[ToolAuthorizationRequest] = field(default_factory=list)

    def timeout(self) -> float | None:
        return self.seconds

    async def authorize(self, request: ToolAuthorizationRequest) -> ToolAuthorizationDecision:
        self.asked.append(request)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict

"""One tool call on its way: its state, what is known of it from an earlier turn, and its events."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from mentra_nb.agent.delegation import Delegation
from mentra_nb.agent.environment import AgentEnvironment
from mentra_nb.agent.results import bounded
from mentra_nb.authorization import Subject, ToolAuthorizationDecision
from mentra_nb.content import ToolResult, ToolUse
from mentra_nb.event import types as e
from mentra_nb.permission.policy import PolicyViolation
from mentra_nb.store.records import ToolCallRecord
from mentra_nb.tools.tool import Delegate, Tool, ToolContext, ToolOutput

if TYPE_CHECKING:
    from mentra_nb.effect.journal import JournalEntry

T = TypeVar("T")


class Caller(NamedTuple):
    """The agent whose turn a call belongs to."""

    agent_id: str
    agent_name: str
    model: str
    run_id: str


@dataclass(eq=False, repr=False)
class Call:
    """A call whose tool is known. Pre-execution hooks may change `arguments`."""

    use: ToolUse
    tool: Tool
    context: ToolContext
    arguments: dict[str, Any]
    misfit: Exception | None = None
    """Why the arguments do not fit the tool."""
    decided: tuple[Subject, Any] | None = None
    """The subject and structured input that were decided about."""
    tried_ms: int = 0
    """How long it ran in the sandbox, where it was tried."""
    changes_nothing: bool = False
    """Whether it is known to change nothing."""
    note: str = ""
    """What its result begins with."""


class Earlier(NamedTuple):
    """What is known of calls that an interrupted turn had taken up."""

    results: Mapping[str, ToolResult] = MappingProxyType({})
    """By call id: the results that are known."""
    unknown: Mapping[str, ToolCallRecord] = MappingProxyType({})
    """By call id: calls that began and may have taken effect."""
    ends_turn: frozenset[str] = frozenset()
    """Ids of the calls whose results ended the turn."""
    run_ids: tuple[str, ...] = ()
    """The turn, and those it had continued."""


class Refused(Exception):
    """A gate refused the call. The text, which is kept short, is the result that the model reads."""

    def __init__(self, text: str) -> None:
        super().__init__(bounded(text))


def result_event(
    about: dict[str, Any],
    result: ToolResult,
    duration_ms: int | None = None,
    original: ToolResult | None = None,
    details: Any = None,
) -> e.ToolExecutionFinished:
    """Return the event of a call's result. `about` has the fields that every event of the call has.

    `original` is what the call came to, where the model reads something else.
    """
    came_to = original or result
    text = came_to.display()
    return e.ToolExecutionFinished(
        is_error=came_to.is_error,
        error=text if came_to.is_error else None,
        output_preview=text,
        duration_ms=duration_ms,
        model_output=None if original is None else result.display(),
        details=details,
        **about,
    )


@dataclass(eq=False, repr=False)
class CallEvents:
    """Emits what happens to the calls of one turn. `undecided` holds the ids of calls that still need a decision."""

    environment: AgentEnvironment
    caller: Caller
    services: Mapping[type, Any] = field(default_factory=dict)
    """What the tools of this turn may use, besides what those of all turns may."""
    delegation: Delegation | None = None
    """What gives tasks to subagents."""
    undecided: set[str] = field(default_factory=set)
    done_so_far: dict[str, ToolOutput] = field(default_factory=dict)
    """Call id → what the call has done, kept for its result in case it is stopped."""
    tried: set[str] = field(default_factory=set)
    """The ids of calls that have run in the sandbox, and have changed nothing by that."""

    def emit(self, event: e.AgentEvent) -> list[Exception]:
        """Emit an event. Returns the errors of hooks."""
        return self.environment.bus.emit(event)

    def about(self, use: ToolUse) -> dict[str, Any]:
        """Return the fields that name a call, in its events, in the request to allow it and in its tool's context."""
        return {
            "agent_id": self.caller.agent_id,
            "run_id": self.caller.run_id,
            "tool_name": use.name,
            "tool_call_id": use.id,
        }

    def subagents(self, use: ToolUse) -> tuple[str, ...]:
        """Return the ids of the subagents that a call has made, once."""
        return self.delegation.take(use.id) if self.delegation is not None else ()

    def decided(
        self,
        use: ToolUse,
        decision: ToolAuthorizationDecision,
        subject: Subject | None = None,
        wait_ms: int = 0,
        *,
        invalid: bool = False,
    ) -> None:
        """Record the call's one decision, or that its arguments are `invalid`, so that nothing was decided."""
        self.undecided.discard(use.id)
        parts = subject.parts if subject is not None else ()
        decided_by, _, rule_id = decision.decided_by.partition(":")
        self.emit(
            e.ToolAuthorizationFinished(
                outcome=decision.outcome,
                reason=None if decision.reason is None else bounded(decision.reason),
                decided_by=decided_by,
                rule_id=rule_id or None,
                pattern=decision.pattern,
                request_id=decision.request_id,
                wait_ms=wait_ms,
                subject="\n".join(parts) or None,
                subjects=parts if len(parts) > 1 else None,
                invalid=invalid or None,
                **self.about(use),
            )
        )

    def denied(self, use: ToolUse, reason: str, decided_by: str, prefix: str = "") -> Refused:
        """Record a denial, and return the exception to raise; only its text begins with `prefix`."""
        self.decided(use, ToolAuthorizationDecision.deny(reason, decided_by))
        return Refused(prefix + reason)

    def misfit(self, use: ToolUse, reason: str, prefix: str = "") -> Refused:
        """Record that the arguments do not fit the tool, and return the exception to raise, as `denied` does."""
        self.decided(use, ToolAuthorizationDecision.deny(reason, "runtime"), invalid=True)
        return Refused(prefix + reason)

    def blocked(self, use: ToolUse, reason: str) -> Refused:
        """Record that a pre-execution hook refused the call, and return the exception to raise."""
        self.decided(use, ToolAuthorizationDecision.deny(reason, "hook"))
        self.emit(e.ToolExecutionBlocked(reason=bounded(reason), **self.about(use)))
        return Refused(f"Blocked by pre-execution hook: {reason}")

    def policy_denied(self, use: ToolUse, violation: PolicyViolation) -> None:
        """Record what the policy refused."""
        caller, detail = self.caller, bounded(violation.detail)
        self.emit(e.PolicyDenied(reason=detail, **self.about(use)))
        self.emit(
            e.AuthorizationDenied(
                agent_id=caller.agent_id, run_id=caller.run_id, action=violation.action, detail=detail
            )
        )

    def finished(
        self,
        use: ToolUse,
        result: ToolResult,
        duration_ms: int | None,
        original: ToolResult | None = None,
        details: Any = None,
    ) -> None:
        """Record a call's result, as `result_event` says."""
        self.emit(result_event(self.about(use), result, duration_ms, original, details))

    def context(self, use: ToolUse, is_open: Callable[[str], bool]) -> ToolContext:
        """Return what the running tool may use. Its progress is shown from any thread while `is_open(call id)`."""
        import asyncio

        env, caller = self.environment, self.caller
        loop, ours = asyncio.get_running_loop(), threading.get_ident()

        def show(text: str) -> None:
            if is_open(use.id):  # an abandoned tool may still be reporting
                self.emit(e.ToolExecutionProgress(agent_id=caller.agent_id, id=use.id, name=use.name, progress=text))

        def on_loop(act: Callable[[T], None], value: T) -> None:
            if threading.get_ident() == ours:
                act(value)
            else:
                with contextlib.suppress(RuntimeError):  # the loop is closed, and the turn has ended
                    loop.call_soon_threadsafe(act, value)

        def record(entry: JournalEntry) -> None:
            from mentra_nb.event.effects import effects_made

            for event in effects_made(entry, agent_name=caller.agent_name, **self.about(use)):
                self.emit(event)

        delegates: dict[type, Any] = {Delegate: self.delegation.during(use.id)} if self.delegation is not None else {}
        return ToolContext(
            **self.about(use),
            agent_name=caller.agent_name,
            model=caller.model,
            working_directory=env.working_directory,
            policy=env.policy,
            executor=env.executor,
            progress=partial(on_loop, show),
            changed=partial(on_loop, record),
            so_far=partial(self.done_so_far.__setitem__, use.id),
            services={**env.services, **self.services, **delegates},
        )

"""Who is told what happened: the audit hook first and alone, then other hooks, then the taps of sessions and screens.

The store the audit hook writes to is a protocol here; `audit/sink.py` fits it by shape.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mentra_nb.event.types import AgentEvent, RuntimeEvent

log = logging.getLogger(__name__)


class AuditStore(Protocol):
    def record_audit_event(self, scope: str, event_type: str, payload: dict[str, Any]) -> None: ...

    def sync(self) -> None:
        """Return when everything recorded so far would survive a power cut."""
        ...


class NullAudit:
    """Records nothing. For programs that say so by name."""

    def record_audit_event(self, scope: str, event_type: str, payload: dict[str, Any]) -> None:
        return

    def sync(self) -> None:
        return


class RuntimeHook(Protocol):
    """Sees every recorded event, in order, on the engine's thread. Must not block."""

    def on_event(self, store: AuditStore, event: RuntimeEvent) -> None: ...


class AuditHook:
    """Writes each event to the record: scope, event type, and the `kind`-tagged JSON object.

    A record that fails is warned of once and holds nothing up.
    """

    def __init__(self) -> None:
        self._failing = False

    def on_event(self, store: AuditStore, event: RuntimeEvent) -> None:
        try:
            store.record_audit_event(event.scope(), event.kind, event.model_dump(mode="json"))
        except Exception as error:  # noqa: BLE001 - the record must never fail a run
            if not self._failing:
                log.warning("the record fails and events are missing from it: %s", error)
            self._failing = True
        else:
            self._failing = False


AuditLogHook = AuditHook


class RuntimeHooks:
    """An ordered list of hooks. Adding appends; the audit hook stays unless `replace_all` is called by name."""

    def __init__(self, hooks: Iterable[RuntimeHook] = ()) -> None:
        self._hooks: list[RuntimeHook] = [AuditHook(), *hooks]

    def with_hook(self, hook: RuntimeHook) -> RuntimeHooks:
        self._hooks.append(hook)
        return self

    def extend(self, hooks: Iterable[RuntimeHook]) -> RuntimeHooks:
        self._hooks.extend(hooks)
        return self

    def replace_all(self, hooks: Iterable[RuntimeHook]) -> RuntimeHooks:
        """Also drops the audit hook: from here on nothing is recorded unless one of `hooks` does it."""
        self._hooks = list(hooks)
        return self

    def emit(self, store: AuditStore, event: RuntimeEvent) -> list[Exception]:
        """Tell every hook, whatever the ones before it did. Returns what they raised."""
        errors: list[Exception] = []
        for hook in self._hooks:
            try:
                hook.on_event(store, event)
            except Exception as error:  # noqa: BLE001 - a hook is foreign code; the emitter decides what it means
                log.warning("hook %s failed on %s: %s", type(hook).__name__, event.kind, error)
                errors.append(error)
        return errors


Tap = Callable[[AgentEvent], None]


class EventBus:
    """The one way an event leaves the runtime: recorded first, then shown to taps in the order they were added."""

    def __init__(self, hooks: RuntimeHooks, audit: AuditStore) -> None:
        self.hooks = hooks
        self.audit = audit
        self._taps: list[Tap] = []

    def child(self) -> EventBus:
        """A bus with the same hooks and record and taps of its own: a session's."""
        return EventBus(self.hooks, self.audit)

    def tap(self, tap: Tap) -> Callable[[], None]:
        """See every event from now on. Returns the function that ends it."""
        self._taps.append(tap)
        return lambda: self._taps.remove(tap) if tap in self._taps else None

    def sync(self) -> None:
        """Return when the record would survive a power cut. One that cannot say so is warned of and fails no run."""
        try:
            self.audit.sync()
        except Exception as error:  # noqa: BLE001 - as in `AuditHook`
            log.warning("the record could not be synced: %s", error)

    def emit(self, event: AgentEvent) -> list[Exception]:
        """Record and show an event. Returns the errors of hooks; a tap that fails is logged and dropped."""
        errors = self.hooks.emit(self.audit, event) if isinstance(event, RuntimeEvent) else []
        for tap in list(self._taps):
            try:
                tap(event)
            except Exception:
                log.exception("a subscriber failed and is dropped")
                self._taps.remove(tap)
        return errors


@dataclass(frozen=True)
class PreExecutionContext:
    agent_id: str
    tool_name: str
    tool_call_id: str
    input: dict[str, Any]
    working_directory: str


@dataclass(frozen=True)
class PreExecutionDecision:
    """`allow`, `deny` with a reason, or `modify` with the arguments to use instead."""

    outcome: Literal["allow", "deny", "modify"]
    reason: str | None = None
    input: dict[str, Any] | None = None


class PreExecutionHook(Protocol):
    """Asked after authorization, before a tool runs. The first denial wins, changes chain, raising is a denial."""

    async def before_execution(self, context: PreExecutionContext) -> PreExecutionDecision: ...

"""The bus: each event goes to the record first, then to the other hooks, then to the taps of sessions and screens.

The record is a protocol here, `AuditStore`, in the original's name; `record/write/journal.py` implements it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol, cast

from mentra_nb.errors import as_exception
from mentra_nb.event.types import AgentEvent, RuntimeEvent

log: logging.Logger = logging.getLogger(__name__)


class AuditStore(Protocol):
    """Where recorded events go."""

    def record_audit_event(self, scope: str, event_type: str, payload: dict[str, Any]) -> None:
        """Store one event: `payload` is its `kind`-tagged JSON object."""
        ...

    def sync(self) -> None:
        """Return when everything stored so far would survive a power cut."""
        ...


class NullAudit:
    """Null record: pass it explicitly as `Runtime(audit=NullAudit())` to disable the record.

    Example:
        >>> runtime = mn.Runtime(audit=mn.NullAudit())
    """

    def record_audit_event(self, scope: str, event_type: str, payload: dict[str, Any]) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""


class RuntimeHook(Protocol):
    """Receive every recorded event, in order, on the engine's thread. Must not block.

    Example:
        >>> class Print:
        ...     def on_event(self, store, event):
        ...         if isinstance(event, mn.event_types.TurnFinished):
        ...             print(event.stop_reason)
        >>> provider = mn.ScriptedProvider([mn.scripted.text("Hello.")])
        >>> async with mn.Runtime([provider], hooks=[Print()]) as runtime:
        ...     agent = await runtime.spawn("greeter", mn.ModelInfo(id="scripted", provider="scripted"))
        ...     answer = await agent.send("Say hello.")
        end
    """

    def on_event(self, store: AuditStore, event: RuntimeEvent) -> None:
        """Handle one event. Raising at `tool_execution_started` blocks that call; elsewhere it is only logged."""
        ...


class AuditHook:
    """Write each event to the record: scope, event type, and the `kind`-tagged JSON object.

    A failing record is logged once and never fails a turn.

    Example:
        >>> hooks = mn.RuntimeHooks().replace_all([mn.AuditHook()])
    """

    def __init__(self) -> None:
        self._failing = False

    def on_event(self, store: AuditStore, event: RuntimeEvent) -> None:
        """Write one event to the record."""
        try:
            store.record_audit_event(event.scope(), event.kind, event.model_dump(mode="json"))
        except Exception as error:  # noqa: BLE001 - the record must never fail a turn
            if not self._failing:
                log.warning("the record fails and events are missing from it: %s", error)
            self._failing = True
        else:
            self._failing = False


AuditLogHook = AuditHook
"""The original runtime's other name for it."""


class RuntimeHooks:
    """An ordered list of hooks. Adding appends; the record's hook stays first unless `replace_all` removes it.

    Example:
        >>> class Count:
        ...     seen = 0
        ...     def on_event(self, store, event):
        ...         self.seen += 1
        >>> count = Count()
        >>> runtime = mn.Runtime()
        >>> hooks = runtime.hooks.with_hook(count)
    """

    def __init__(self, hooks: Iterable[RuntimeHook] = ()) -> None:
        self._hooks: list[RuntimeHook] = [AuditHook(), *hooks]

    def with_hook(self, hook: RuntimeHook) -> RuntimeHooks:
        """Append a hook and return this list."""
        self._hooks.append(hook)
        return self

    def extend(self, hooks: Iterable[RuntimeHook]) -> RuntimeHooks:
        """Append hooks and return this list.

        Example:
            >>> hooks = mn.RuntimeHooks().extend([])
        """
        self._hooks.extend(hooks)
        return self

    def replace_all(self, hooks: Iterable[RuntimeHook]) -> RuntimeHooks:
        """Replace all hooks, the record's too: from here on nothing is recorded unless one of `hooks` does it.

        Example:
            >>> hooks = mn.RuntimeHooks().replace_all([mn.AuditHook()])
        """
        self._hooks = list(hooks)
        return self

    def emit(self, store: AuditStore, event: RuntimeEvent) -> list[Exception]:
        """Call every hook, also after one has raised. Returns what they raised."""
        errors: list[Exception] = []
        for hook in self._hooks:
            try:
                hook.on_event(store, event)
            except BaseException as raised:  # noqa: BLE001 - a hook is foreign code; the emitter decides what it means
                error = as_exception(raised)
                log.warning("hook %s failed on %s: %s", type(hook).__name__, event.kind, error)
                errors.append(error)
        return errors


Tap = Callable[[AgentEvent], None]


class EventBus:
    """Record each event, then pass it to the taps in the order they were added."""

    def __init__(self, hooks: RuntimeHooks, audit: AuditStore) -> None:
        self.hooks = hooks
        self.audit = audit
        self._taps: tuple[Tap, ...] = ()

    def child(self) -> EventBus:
        """Return a bus with the same hooks and record but no taps: a session's."""
        return EventBus(self.hooks, self.audit)

    def tap(self, tap: Tap) -> Callable[[], None]:
        """Call `tap` with every event from now on. Returns the function that ends it."""
        self._taps = (*self._taps, tap)
        return lambda: self._remove(tap)

    def _remove(self, tap: Tap) -> None:
        taps = list(self._taps)
        if tap in taps:
            taps.remove(tap)
        self._taps = tuple(taps)

    def sync(self) -> None:
        """Return when the record would survive a power cut. A failure is logged and never fails a turn."""
        try:
            self.audit.sync()
        except Exception as error:  # noqa: BLE001 - as in `AuditHook`
            log.warning("the record could not be synced: %s", error)

    def emit(self, event: AgentEvent) -> list[Exception]:
        """Record an event and pass it to the taps; a tap that raises is removed. Returns the errors of hooks."""
        errors = self.hooks.emit(self.audit, cast("RuntimeEvent", event)) if event.is_recorded else []
        self.show(event)
        return errors

    def show(self, event: AgentEvent) -> None:
        """Pass an event to the taps only: it is not recorded, or another process has recorded it."""
        for tap in self._taps:
            try:
                tap(event)
            except BaseException:
                log.exception("a subscriber failed and was removed")
                self._remove(tap)

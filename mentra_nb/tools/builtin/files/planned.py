"""From what was decided about to what is done: paths are resolved once, and changes are worked out once.

Links may be swapped at any time, so what a path leads to is asked for only where the policy judges it. What was judged
is what is shown to a person, what a rule is matched against, and what is read or changed.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio.to_thread

from mentra_nb.authorization import Subject
from mentra_nb.permission.policy import as_given
from mentra_nb.permission.protected import Access
from mentra_nb.tools.builtin.files.places import Place, shown, subject_of
from mentra_nb.tools.tool import Tool, ToolContext

if TYPE_CHECKING:
    from mentra_nb.tools.builtin.files.plan import Plan

MAX_KNOWN = 64
"""Calls whose paths, and whose plans, are kept from being decided about until they run."""


class Named(NamedTuple):
    """A path of a call, relative to the working folder, and what is done there."""

    path: str
    access: Access
    action: str = "files_write"
    """As in the event `authorization_denied`."""


class PlacedTool(Tool):
    """A tool for files, whose calls name paths."""

    def __init__(self) -> None:
        self._places: OrderedDict[tuple[str, str], tuple[dict[str, Any], list[Place]]] = OrderedDict()

    def named(self, arguments: dict[str, Any]) -> list[Named]:
        """Return the paths that a call names."""
        raise NotImplementedError

    def check_policy(self, context: ToolContext, arguments: dict[str, Any]) -> None:
        places = [_judged(context, each) for each in self.named(arguments)]
        _remember(self._places, context, (arguments, places))

    def places(self, context: ToolContext, arguments: dict[str, Any]) -> list[Place]:
        """Return where the paths of a call lead, as the policy has judged them. Raises `PolicyViolation`."""
        known, places = self._places.get((context.run_id, context.tool_call_id), (None, []))
        return places if known == arguments else [_judged(context, each) for each in self.named(arguments)]

    def subject(self, context: ToolContext, arguments: dict[str, Any]) -> Subject:
        named, places = self.named(arguments), self.places(context, arguments)
        return subject_of((where, each.access) for where, each in zip(places, named, strict=True))


class PlannedTool(PlacedTool):
    """A tool whose calls are worked out to be decided about, and then carried out as they were worked out."""

    def __init__(self) -> None:
        super().__init__()
        self._plans: OrderedDict[tuple[str, str], tuple[dict[str, Any], Plan]] = OrderedDict()

    def work_out(self, context: ToolContext, arguments: dict[str, Any]) -> Plan:
        """Return what a call would do. Raises `ToolError` if it cannot be done."""
        raise NotImplementedError

    def planned(self, context: ToolContext, arguments: dict[str, Any]) -> Plan:
        """Return what a call would do, and keep it for `decided`."""
        made = self.work_out(context, arguments)
        _remember(self._plans, context, (arguments, made))
        return made

    async def decided(self, context: ToolContext, arguments: dict[str, Any]) -> Plan:
        """Return what was decided about, which is not worked out anew from files that may have changed since."""
        known, made = self._plans.pop((context.run_id, context.tool_call_id), (None, None))
        if made is not None and known == arguments:
            return made
        return await anyio.to_thread.run_sync(self.work_out, context, arguments)


def _judged(context: ToolContext, named: Named) -> Place:
    base = context.working_directory
    if named.access == "read":
        target = context.policy.readable(base, named.path, named.action)
    else:
        target = context.policy.writable(base, named.path)
    return Place(as_given(base, named.path), target, shown(base, target))


def _remember(known: OrderedDict[tuple[str, str], Any], context: ToolContext, value: Any) -> None:
    known[context.run_id, context.tool_call_id] = value
    while len(known) > MAX_KNOWN:
        known.popitem(last=False)

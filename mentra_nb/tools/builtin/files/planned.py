"""From what was decided about to what is done: a tool whose calls are worked out once."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from mentra_nb.tools.tool import Tool, ToolContext

if TYPE_CHECKING:
    from mentra_nb.tools.builtin.files.plan import Plan

MAX_PLANS = 16
"""Plans that are kept from being decided about until they are carried out."""


class PlannedTool(Tool):
    """A tool whose calls are worked out to be decided about, and then carried out as they were worked out."""

    def __init__(self) -> None:
        self._plans: OrderedDict[tuple[str, str], tuple[dict[str, Any], Plan]] = OrderedDict()

    def work_out(self, context: ToolContext, arguments: dict[str, Any]) -> Plan:
        """Return what a call would do. Raises `ToolError` if it cannot be done."""
        raise NotImplementedError

    def planned(self, context: ToolContext, arguments: dict[str, Any]) -> Plan:
        """Return what a call would do, and keep it for `decided`."""
        made = self.work_out(context, arguments)
        self._plans[context.run_id, context.tool_call_id] = arguments, made
        while len(self._plans) > MAX_PLANS:
            self._plans.popitem(last=False)
        return made

    async def decided(self, context: ToolContext, arguments: dict[str, Any]) -> Plan:
        """Return what was decided about, which is not worked out anew from files that may have changed since."""
        known, made = self._plans.pop((context.run_id, context.tool_call_id), (None, None))
        if made is not None and known == arguments:
            return made
        return await anyio.to_thread.run_sync(self.work_out, context, arguments)

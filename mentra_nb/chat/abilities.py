"""What the settings turn on and off for all conversations: groups of tools that few notebooks need."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import Settings
from mentra_nb.tools.tool import Tool


def _tasks() -> list[Tool]:
    from mentra_nb.task_board.tools import task_tools

    return task_tools()


GROUPS: dict[str, Callable[[], list[Tool]]] = {"tasks": _tasks}
"""By the setting that turns it on."""


class Abilities:
    """The groups of tools that were turned on, and which of them are not to be offered any more."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names: dict[str, list[str]] = {}

    def offer(self, runtime: Runtime) -> None:
        """Offer the tools of the groups that the settings turn on."""
        for setting, make in GROUPS.items():
            if getattr(self._settings, setting) and setting not in self._names:
                self._names[setting] = [runtime.register_tool(tool).spec.name for tool in make()]

    def profile(self) -> Sequence[str]:
        """Return the tool profile of the settings, without the tools of groups that were turned off again."""
        off = [name for group, names in self._names.items() if not getattr(self._settings, group) for name in names]
        return (*self._settings.tool_profile, *(f"-{name}" for name in off))

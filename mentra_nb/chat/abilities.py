"""What the settings turn on and off for all conversations: groups of tools that few notebooks need."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import Settings
from mentra_nb.tools.tool import Tool


def _tasks() -> list[Tool]:
    from mentra_nb.task_board.tools import task_tools

    return task_tools()


def _memory() -> list[Tool]:
    from mentra_nb.memory.tools import memory_tools

    return memory_tools()


GROUPS: dict[str, Callable[[], list[Tool]]] = {"tasks": _tasks, "memory": _memory}
"""By the setting that turns it on."""


class Abilities:
    """The groups of tools that were turned on, and which of them are not to be offered any more."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names: dict[str, list[str]] = {}

    def offer(self, runtime: Runtime) -> None:
        """Offer the tools of the groups that the settings turn on."""
        for setting, make in GROUPS.items():
            if self._is_on(setting) and setting not in self._names:
                self._names[setting] = [runtime.register_tool(tool).spec.name for tool in make()]
        if (scope := self._settings.memory) != "off":
            from mentra_nb.memory.config import MemoryConfig

            runtime.register_context(MemoryConfig(scope=scope))

    def _is_on(self, setting: str) -> bool:
        return getattr(self._settings, setting) not in (False, "off")

    def profile(self) -> Sequence[str]:
        """Return the tool profile of the settings, without the tools of groups that were turned off again."""
        off = [name for group, names in self._names.items() if not self._is_on(group) for name in names]
        return (*self._settings.tool_profile, *(f"-{name}" for name in off))

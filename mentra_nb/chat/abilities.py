"""What the settings turn on and off for all conversations: groups of tools that few notebooks need."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mentra_nb import paths
from mentra_nb.errors import ConfigurationError
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import Settings
from mentra_nb.teams.config import TeamConfig
from mentra_nb.tools.template import AgentTemplate
from mentra_nb.tools.tool import Tool

Made = tuple[list[Tool], list[str]]
"""Tools, and a sentence for each thing that cannot be offered with them."""


def _tasks(_settings: Settings) -> Made:
    from mentra_nb.task_board.tools import task_tools

    return task_tools(), []


def _subagents(settings: Settings) -> Made:
    from mentra_nb.tools.builtin.task import subagent_tools
    from mentra_nb.tools.builtin.templates import templates_in

    own, problems, templates = paths.config_file().parent / "agents", list[str](), dict[str, AgentTemplate]()
    for folder in [*([own] if own.is_dir() else []), *settings.agents]:
        try:
            templates = {each.name: each for each in templates_in(folder)} | templates
        except ConfigurationError as error:
            problems.append(str(error))
    return subagent_tools(templates[name] for name in sorted(templates)), problems


def _teams(_settings: Settings) -> Made:
    from mentra_nb.teams.tools import team_tools

    return team_tools(), []


def _memory(_settings: Settings) -> Made:
    from mentra_nb.memory.tools import memory_tools

    return memory_tools(), []


GROUPS: dict[str, Callable[[Settings], Made]] = {
    "tasks": _tasks,
    "subagents": _subagents,
    "teams": _teams,
    "memory": _memory,
}
"""By the setting that turns it on."""


class Abilities:
    """The groups of tools that were turned on, and which of them are not to be offered any more."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    def offer(self, runtime: Runtime, settings: Settings) -> list[str]:
        """Offer the tools of the groups that the settings turn on. Returns a sentence for what cannot be offered."""
        problems = []
        for setting, make in GROUPS.items():
            if _is_on(settings, setting):
                tools, missing = make(settings)
                self._names[setting] = [runtime.register_tool(tool).spec.name for tool in tools]
                problems += missing
        if "memory" in self._names:
            from mentra_nb.memory.config import MemoryConfig

            scope = settings.memory
            runtime.register_context(MemoryConfig(enabled=scope != "off", scope="agent" if scope == "off" else scope))
        claims, timeout, most = settings.team_claims, settings.team_idle_timeout, settings.team_members
        runtime.register_context(TeamConfig(claims=claims, idle_timeout=timeout, max_members=most))
        return problems

    def profile(self, settings: Settings) -> Sequence[str]:
        """Return the tool profile of the settings, without the tools of groups that were turned off again."""
        off = [name for group, names in self._names.items() if not _is_on(settings, group) for name in names]
        return (*settings.tool_profile, *(f"-{name}" for name in off))


def _is_on(settings: Settings, name: str) -> bool:
    return getattr(settings, name) not in (False, "off")

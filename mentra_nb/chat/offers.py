"""What the settings name is offered to the models of a notebook: folders of skills, and tools of installed packages."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from mentra_nb import paths
from mentra_nb.errors import MentraError
from mentra_nb.runtime.runtime import Runtime
from mentra_nb.settings import Settings

GROUP = "mentra_nb.tools"
"""The entry points of packages that have tools: each is a tool, a function, or a list of these."""


def skill_folders(settings: Settings) -> list[Path]:
    """Return the folders whose skills are offered: the user's own, if it is there, and those of the settings."""
    own = paths.config_file().parent / "skills"
    return [*([own] if own.is_dir() else []), *settings.skills]


def offer_named(runtime: Runtime, settings: Settings) -> list[str]:
    """Offer the skills and tools that the settings name. Returns a sentence for each that cannot be offered."""
    problems = []
    for folder in skill_folders(settings):
        try:
            runtime.register_skills_dir(folder)
        except MentraError as error:
            problems.append(str(error))
    installed = {point.name: point for point in entry_points(group=GROUP)} if settings.tools else {}
    for name in settings.tools:
        if name not in installed:
            known = ", ".join(sorted(installed)) or "none"
            problems.append(f"no installed package has tools named '{name}'; there are: {known}")
            continue
        try:
            found = installed[name].load()
            for tool in found if isinstance(found, list | tuple) else [found]:
                runtime.register_tool(tool)
        except Exception as error:  # noqa: BLE001  # another package's code
            problems.append(f"the tools '{name}' cannot be loaded: {type(error).__name__}: {error}")
    return problems

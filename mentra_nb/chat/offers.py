"""What the settings name is offered to the models of a notebook: folders of skills, and tools of installed packages."""

from __future__ import annotations

import site
import sysconfig
from importlib.metadata import EntryPoint, entry_points
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
    points = list(entry_points(group=GROUP)) if settings.tools else []
    installed = {point.name: point for point in points if _project_folder(point) is None}
    for name in settings.tools:
        if name not in installed:
            here = next((_project_folder(point) for point in points if point.name == name), None)
            found_there = f"; those in {here} came with this project and are not loaded" if here else ""
            known = ", ".join(sorted(installed)) or "none"
            problems.append(f"no installed package has tools named '{name}'; there are: {known}{found_there}")
            continue
        try:
            found = installed[name].load()
            for tool in found if isinstance(found, list | tuple) else [found]:
                runtime.register_tool(tool)
        except Exception as error:  # noqa: BLE001  # another package's code
            problems.append(f"the tools '{name}' cannot be loaded: {type(error).__name__}: {error}")
    return problems


def _project_folder(point: EntryPoint) -> Path | None:
    """Return the project's folder that has this entry point; `None` if an installed package has it."""
    where = Path(str(point.dist.locate_file("") if point.dist is not None else "")).resolve()
    if not where.is_relative_to(paths.project_root()):
        return None
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    return None if where in {Path(each).resolve() for each in installed} else where

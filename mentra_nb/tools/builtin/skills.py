"""Skills: instructions in `SKILL.md` files. A model sees their names and reads one with `load_skill`.

The files have the form of agentskills.io. They are read once, when their root is added, and what they say is untrusted:
names and descriptions reach the system prompt as single lines, a body cannot end the tags around it, every size has a
bound, and the tools that a skill asks for are a suggestion for a person. Its other files are read on demand.
"""

from __future__ import annotations

import builtins
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from mentra_nb.authorization import Subject, ToolCapability
from mentra_nb.content import Data
from mentra_nb.effect.handles import parent
from mentra_nb.errors import DuplicateSkillName, InvalidFrontmatter, ReadDir
from mentra_nb.providers.base import ProviderToolSpec
from mentra_nb.tools.builtin import front_matter
from mentra_nb.tools.builtin.front_matter import MAX_FILE_BYTES, one_line, reason
from mentra_nb.tools.schema import ToolError, schema_of
from mentra_nb.tools.spec import ToolSpec
from mentra_nb.tools.tool import Tool, ToolContext, ToolOutput

FILE_NAME = "SKILL.md"
MAX_NAME, MAX_DESCRIPTION = 64, 1024
"""Characters."""
MAX_SKILLS, MAX_FOLDERS = 500, 10_000
"""In one root."""
MAX_FILES = 100
"""Files of one skill that are listed."""

_NAME = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_CLOSING_TAG = re.compile(r"</(?=skill\s*>)", re.IGNORECASE)


class Skill(Data):
    """What is known of a skill without reading it. `path` is its `SKILL.md`."""

    name: str
    description: str
    path: Path
    allowed_tools: str = ""
    """The tools that it says it needs. They are asked about as ever: nothing that a skill says is a permission."""


class Skills:
    """The skills of a runtime: roots added one after the other; an earlier root wins by name."""

    def __init__(self) -> None:
        self._loaded: dict[str, tuple[Skill, str]] = {}

    def add_root(self, root: Path | str) -> None:
        """Add every `SKILL.md` under a folder, or none when one of them cannot be used. Symlinks are not followed.

        Raises:
            SkillLoadError: `ReadDir`, `ReadFile`, `InvalidFrontmatter` or `DuplicateSkillName`.
        """
        found: dict[str, tuple[Skill, str]] = {}
        for path in _skill_files(root):
            skill, body = _read(path)
            if skill.name in found:
                raise DuplicateSkillName(skill.name, found[skill.name][0].path, path)
            found[skill.name] = skill, body
        self._loaded = found | self._loaded

    def list(self) -> builtins.list[Skill]:
        """Return the skills, sorted by name."""
        return [self._loaded[name][0] for name in sorted(self._loaded)]

    def prompt(self) -> str | None:
        """Return the section of the system prompt that names the skills; `None` without any."""
        lines = [f"  - {skill.name}: {skill.description}" for skill in self.list()]
        if not lines:
            return None
        hint = "Call `load_skill` with the name of a skill to read it, only when it is relevant to the task."
        return "\n".join(["Skills available:", *lines, hint])

    def load(self, name: str) -> str:
        """Return a skill's instructions between `<skill>` tags, with the names of its other files.

        Raises `ToolError` when there is none of that name.
        """
        skill, body = self._found(name)
        files = other_files(skill.path.parent)
        listed = f"\n\nFiles of this skill, for `file`: {', '.join(files)}" if files else ""
        return f'<skill name="{name}">\n{_CLOSING_TAG.sub("&lt;/", body + listed)}\n</skill>'

    def read(self, name: str, file: str) -> str:
        """Return the text of another file of a skill, named as `load` lists it. Raises `ToolError`."""
        folder = self._found(name)[0].path.parent
        if file not in other_files(folder):
            raise ToolError(f"skill '{name}' has no file '{file}'")
        try:
            with parent(str(folder / file)) as (where, last), where.open(last) as source:
                text = source.read(MAX_FILE_BYTES + 1).decode()
        except UnicodeDecodeError:
            raise ToolError(f"'{file}' is not UTF-8 text") from None
        except OSError as error:
            raise ToolError(f"'{file}' cannot be read: {error.strerror}") from error
        if len(text.encode()) > MAX_FILE_BYTES:
            raise ToolError(f"'{file}' is larger than {MAX_FILE_BYTES // 1024} KiB")
        return f'<skill name="{name}" file="{file}">\n{_CLOSING_TAG.sub("&lt;/", text)}\n</skill>'

    def _found(self, name: str) -> tuple[Skill, str]:
        if name not in self._loaded:
            raise ToolError(f"Unknown skill '{name}'")
        return self._loaded[name]


class _LoadSkill(BaseModel):
    name: str = Field(description="The skill's name, as listed under 'Skills available'.")
    file: str | SkipJsonSchema[None] = Field(None, description="Another file of the skill to read, as it lists them.")


class LoadSkillTool(Tool):
    """`load_skill`: the instructions of one skill. Runs unasked by default; its rule subject is the skill's name."""

    spec: ToolSpec = ToolSpec(
        wire=ProviderToolSpec(
            name="load_skill",
            description="Read the instructions of a skill listed in the system prompt.",
            input_schema=schema_of(_LoadSkill),
        ),
        capabilities=(ToolCapability.SKILL_LOAD,),
        reads_only=True,
        parallel=True,
        asks=False,
    )

    def __init__(self, skills: Skills) -> None:
        self.skills = skills

    def validate(self, arguments: dict[str, Any]) -> dict[str, Any]:
        name = arguments.get("name")
        if not isinstance(name, str) or not name.strip():
            raise ToolError("Skill name is required")
        file = arguments.get("file")
        if file is not None and not isinstance(file, str):
            raise ToolError("file must be a name that the skill lists")
        return {"name": name.strip(), **({"file": file} if file else {})}

    def subject(self, context: ToolContext, arguments: dict[str, Any]) -> Subject:
        return Subject.text(arguments["name"])

    async def execute(self, context: ToolContext, arguments: dict[str, Any]) -> ToolOutput:
        name, file = arguments["name"], arguments.get("file")
        work = partial(self.skills.read, name, file) if file else partial(self.skills.load, name)
        return ToolOutput(await anyio.to_thread.run_sync(work, abandon_on_cancel=True))


# ---- reading --------------------------------------------------------------------------------------------------


def other_files(folder: Path) -> list[str]:
    """Return the names of a skill's files beside its `SKILL.md`, relative to its folder and sorted.

    Links, hidden files and folders, and those of a skill within it are left out.
    """
    found: list[str] = []
    folders = [folder]
    while folders and len(found) < MAX_FILES:
        here = folders.pop()
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError:
            continue
        if here != folder and any(entry.name == FILE_NAME for entry in entries):
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name == FILE_NAME:
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                found.append(Path(entry.path).relative_to(folder).as_posix())
    return sorted(found)[:MAX_FILES]


def _skill_files(root: Path | str) -> list[Path]:
    try:
        top = Path(root).expanduser().resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise ReadDir(root, reason(error)) from error
    found, folders, visited = [], [top], 0
    while folders:
        folder, visited = folders.pop(), visited + 1
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    elif entry.name == FILE_NAME and entry.is_file(follow_symlinks=False):
                        found.append(Path(entry.path))
        except OSError as error:
            raise ReadDir(folder, reason(error)) from error
        if len(found) > MAX_SKILLS:
            raise ReadDir(top, f"it holds more than {MAX_SKILLS} skills; name a folder with fewer")
        if visited + len(folders) > MAX_FOLDERS:
            raise ReadDir(top, f"it holds more than {MAX_FOLDERS} folders; name the one with the skills")
    return sorted(found)


def _read(path: Path) -> tuple[Skill, str]:
    fields, body = front_matter.read(path, ("name", "description", "allowed-tools"))
    name, description = path.parent.name, one_line(fields.get("description", ""))
    written = one_line(fields.get("name", ""))
    if written and written != name:
        raise InvalidFrontmatter(path, f"its `name` is {written!r} and its folder {name!r}: they must be the same")
    if len(name) > MAX_NAME or name != name.lower() or not _NAME.fullmatch(name):
        raise InvalidFrontmatter(path, f"a name is up to {MAX_NAME} lower-case letters, digits and single hyphens")
    if len(description) > MAX_DESCRIPTION:
        raise InvalidFrontmatter(path, f"its `description` is longer than {MAX_DESCRIPTION} characters; shorten it")
    tools = one_line(fields.get("allowed-tools", ""))
    return Skill(name=name, description=description, path=path, allowed_tools=tools), body

"""Templates of subagents, read from files: `reviewer.md` in a folder is the subagent `reviewer`.

What the files say is untrusted: names and descriptions reach a tool's description as single lines, every size has a
bound, and a template offers no tool and no permission that its parent does not have.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from mentra_nb.errors import ConfigurationError, InvalidFrontmatter, SkillLoadError
from mentra_nb.tools.builtin import front_matter
from mentra_nb.tools.builtin.front_matter import one_line
from mentra_nb.tools.template import AgentTemplate

MAX_NAME, MAX_DESCRIPTION = 64, 1024
"""Characters."""
MAX_TEMPLATES = 100
"""In one folder."""
MAX_ROUNDS = 200
_NAME = re.compile(r"[a-z0-9]+(?:[-_][a-z0-9]+)*")
_KEYS = ("name", "description", "tools", "model", "max_rounds")


def templates_in(folder: Path | str) -> list[AgentTemplate]:
    """Return the templates in a folder, sorted by name. Other files than `*.md`, links and folders are left out.

    Raises:
        ConfigurationError: The folder, or one of the files, cannot be used; then none is.
    """
    top = Path(folder).expanduser()
    try:
        with os.scandir(top) as entries:
            files = [each.path for each in entries if each.name.endswith(".md") and each.is_file(follow_symlinks=False)]
    except OSError as error:
        raise ConfigurationError(f"the folder '{folder}' of agents cannot be read: {error.strerror}") from error
    if len(files) > MAX_TEMPLATES:
        raise ConfigurationError(f"the folder '{folder}' has more than {MAX_TEMPLATES} agents; name one with fewer")
    try:
        return [_read(Path(file)) for file in sorted(files)]
    except SkillLoadError as error:
        raise ConfigurationError(str(error)) from error


def _read(path: Path) -> AgentTemplate:
    fields, body = front_matter.read(path, _KEYS, lists=("tools",))
    name, written = path.stem, one_line(fields.get("name", ""))
    if written and written != name:
        raise InvalidFrontmatter(path, f"its `name` is {written!r} and its file {path.name!r}: they must be the same")
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise InvalidFrontmatter(path, f"a name is up to {MAX_NAME} lower-case letters, digits, and single - or _")
    description = one_line(fields.get("description", ""))
    if not description or len(description) > MAX_DESCRIPTION:
        raise InvalidFrontmatter(path, f"it needs a `description` of up to {MAX_DESCRIPTION} characters")
    rounds = one_line(fields.get("max_rounds", ""))
    if rounds and not (rounds.isascii() and rounds.isdigit() and 1 <= int(rounds[:9]) <= MAX_ROUNDS):
        raise InvalidFrontmatter(path, f"its `max_rounds` must be a number from 1 to {MAX_ROUNDS}")
    tools, model = one_line(fields.get("tools", "")), one_line(fields.get("model", ""))
    return AgentTemplate(
        name,
        description,
        body.strip(),
        tuple(each.strip() for each in tools.split(",") if each.strip()) if "tools" in fields else None,
        model if model not in ("", "inherit") else None,
        int(rounds) if rounds else None,
        path,
    )

"""Files of Markdown that begin with lines of `key: value` between `---`: skills, and templates of subagents."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from mentra_nb.errors import InvalidFrontmatter, ReadFile

if TYPE_CHECKING:
    import yaml

MAX_FILE_BYTES = 256 * 1024
MAX_FRONT_MATTER = 16 * 1024
"""Characters."""

_FRONT_MATTER = re.compile(r"---\r?\n(.*?)^---\r?(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_JOINERS = "\u200c\u200d"  # invisible, but part of how words and emoji are written


def read(path: Path, keys: Collection[str], lists: Collection[str] = ()) -> tuple[dict[str, str], str]:
    """Return the texts of these keys as they are written, and the body. Those of `lists` may be lists of texts.

    Raises:
        ReadFile: It cannot be read, is too large, or is not UTF-8.
        InvalidFrontmatter: What it begins with is not as it must be.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ReadFile(path, reason(error)) from error
    if len(raw) > MAX_FILE_BYTES:
        raise ReadFile(path, f"it is larger than {MAX_FILE_BYTES // 1024} KiB; shorten it")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ReadFile(path, "it is not UTF-8 text; save it as UTF-8") from error
    front_matter, body = _split(path, text)
    return _fields(path, front_matter, keys, lists), body.rstrip("\r\n")


def _split(path: Path, text: str) -> tuple[str, str]:
    """Return the front matter, if the file begins with any, and the body."""
    if not text.startswith(("---\n", "---\r\n")):
        return "", text
    matter = _FRONT_MATTER.match(text)
    if matter is None:
        raise InvalidFrontmatter(path, "the closing line '---' is missing")
    if len(matter[1]) > MAX_FRONT_MATTER:
        raise InvalidFrontmatter(path, f"it is longer than {MAX_FRONT_MATTER} characters; shorten it")
    return matter[1], text[matter.end() :]


def _fields(path: Path, front_matter: str, keys: Collection[str], lists: Collection[str]) -> dict[str, str]:
    """Return the texts of these keys, as they are written."""
    if not front_matter:
        return {}
    import yaml

    try:
        # Only nodes: making values of them expands merge keys, and a few hundred bytes of those never end.
        root = yaml.compose(front_matter, Loader=yaml.SafeLoader)
    except RecursionError as error:
        raise InvalidFrontmatter(path, "it is nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        raise InvalidFrontmatter(path, _where(error)) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise InvalidFrontmatter(path, str(error).partition("\n")[0]) from error
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise InvalidFrontmatter(path, "write it as lines like `name: …` and `description: …`")
    fields = {}
    for key, value in root.value:
        if key.value in keys:
            if key.value in lists and isinstance(value, yaml.SequenceNode):
                fields[key.value] = ", ".join(str(each.value) for each in value.value)
                continue
            if not isinstance(value, yaml.ScalarNode):
                raise InvalidFrontmatter(path, f"its `{key.value}` must be text; put it in quotes")
            fields[key.value] = "" if value.tag == "tag:yaml.org,2002:null" else value.value
    return fields


def _where(error: yaml.MarkedYAMLError) -> str:
    said = ": ".join(part for part in (error.context, error.problem) if part)
    return f"{said} in line {error.problem_mark.line + 2}" if error.problem_mark else said


def one_line(text: str) -> str:
    """Return text without line breaks, control characters, lone surrogates or invisible ones."""
    return " ".join("".join(c if c.isprintable() or c in _JOINERS else " " for c in text).split())


def reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

"""What comes with a project's folder, and which of it a person has trusted.

Whoever wrote such a file is not the user. It holds only once a person has trusted exactly this content in this
project, which `trust.json` in the home remembers by digest, or the variable `MENTRA_TRUST` says as `path@sha256`.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from mentra_nb import paths
from mentra_nb.errors import ConfigurationError

VARIABLE = "MENTRA_TRUST"
"""The environment variable for runs where nobody can be asked."""
MAX_BYTES = 256 << 10
"""Bytes of a file that can be trusted, and of the files of a folder together: a person has to read them."""
MAX_FILES = 500
"""Files and folders of a folder that can be trusted."""
_TRUSTED = re.compile(r"\s*(\S.*?)@([0-9a-fA-F]{64})(?:[\s,;:]+|$)")


@dataclass(frozen=True)
class Content:
    """Something that came with a project's folder and waits to be trusted, or is."""

    root: Path
    """The project's folder."""
    name: str
    """Its path in the project, with `/`."""
    wants: str
    """What does not hold without trust, as the beginning of a sentence: `its settings model, mcp are ignored`."""
    text: str
    """What a person is shown."""
    digest: str
    """SHA-256, in hexadecimal."""

    def line(self, *, person: bool = True) -> str:
        """Return a line that says what does not hold, and how to trust it; `person`: whether one may be there."""
        how = "%mentra trust" if person else f"set {VARIABLE}={self.name}@{self.digest}"
        return f"{self.name} came with this folder, so {self.wants} until you trust it: {how}"


def content_of(file: Path, root: Path, wants: str) -> Content | None:
    """Return the content of a text file; `None` if there is no file.

    Raises:
        ConfigurationError: It must not be read, or is not text.
    """
    raw = read(file, root)
    if raw is None:
        return None
    try:
        return Content(root, _name(file, root), wants, raw.decode(), sha256(raw).hexdigest())
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file} is not read: it is not UTF-8 text") from None


def content_of_folder(folder: Path, root: Path, wants: str) -> Content | None:
    """Return the content of all files in a folder; `None` if there is no folder. Its digest is that of their list.

    The list has a line for each file, as `sha256sum` writes it, sorted by path.

    Raises:
        ConfigurationError: A file must not be read, or there are too many.
    """
    if not folder.is_dir():
        return None
    if not folder.resolve().is_relative_to(root):
        raise ConfigurationError(f"{folder} is not read: it leads out of the project")
    lines, shown, left = [], [], MAX_BYTES
    for file in _files_in(folder):
        if not _name(file, folder).isprintable():
            raise ConfigurationError(f"{folder} is not read: a name in it has characters that cannot be shown")
        raw = read(file, root) or b""
        left -= len(raw)
        if left < 0:
            raise ConfigurationError(f"{folder} is not read: its files have more than {MAX_BYTES >> 10} KiB")
        lines.append(f"{sha256(raw).hexdigest()}  {_name(file, folder)}\n")
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = f"{len(raw)} bytes that are not text, {lines[-1][:64]}"
        shown.append(f"[{_name(file, folder)}]\n{text.rstrip()}\n")
    listed = "".join(lines)
    return Content(root, _name(folder, root), wants, "\n".join(shown), sha256(listed.encode()).hexdigest())


def _files_in(folder: Path) -> list[Path]:
    """Return the files in a folder and those below it, sorted by path. Links to elsewhere are among them."""
    found, folders = list[Path](), [folder]
    for here in folders:  # grows as folders are found
        try:
            entries = list(os.scandir(here))
        except OSError as error:
            raise ConfigurationError(f"{here} is not read: {error.strerror}") from None
        for entry in entries:
            (folders if entry.is_dir(follow_symlinks=False) else found).append(Path(entry.path))
        if len(found) + len(folders) > MAX_FILES:
            raise ConfigurationError(f"{folder} is not read: it has more than {MAX_FILES} files and folders")
    return sorted(found, key=lambda file: file.as_posix())


def read(file: Path, root: Path | None = None) -> bytes | None:
    """Return the bytes of a file that nobody else could have put there; `None` if there is none.

    Args:
        file: What is read.
        root: The folder that it must not lead out of, if any.

    Raises:
        ConfigurationError: It belongs to another user, others can write to it, it leads out of `root`, is larger than
            `MAX_BYTES`, or is no file.
    """
    try:
        if root is not None and not file.resolve(strict=True).is_relative_to(root.resolve()):
            raise ConfigurationError(f"{file} is not read: it leads out of the project")
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError) as error:
        raise ConfigurationError(f"{file} cannot be read: {getattr(error, 'strerror', error)}") from None
    try:
        if problem := _problem(os.fstat(descriptor)):
            raise ConfigurationError(f"{file} is not read: {problem}")
        with open(descriptor, "rb", closefd=False) as source:
            raw = source.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(raw) > MAX_BYTES:
        raise ConfigurationError(f"{file} is not read: it has more than {MAX_BYTES >> 10} KiB")
    return raw


def _problem(found: os.stat_result) -> str | None:
    """Return why a file must not be read, or `None`. Files of the superuser may be."""
    if not stat.S_ISREG(found.st_mode):
        return "it is no regular file"
    if sys.platform in ("win32", "emscripten"):
        return None
    if found.st_uid not in (os.geteuid(), 0):
        return "it belongs to another user"
    shared = stat.S_IWOTH | (stat.S_IWGRP if found.st_gid != os.getegid() else 0)
    return "other users can write to it" if found.st_mode & shared else None


def _name(path: Path, base: Path) -> str:
    return os.path.relpath(path, base).replace(os.sep, "/")


# ---- the memory -----------------------------------------------------------------------------------------------------


def is_trusted(content: Content, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a person has trusted exactly this content in this project."""
    named = {
        (os.path.normpath(content.root / path), digest.lower())
        for path, digest in _TRUSTED.findall(environ.get(VARIABLE, ""))
    }
    own = (os.path.normpath(content.root / content.name), content.digest)
    return own in named or remembered(content.root).get(content.name, {}).get("sha256") == content.digest


def remembered(root: Path) -> dict[str, dict[str, Any]]:
    """Return what was trusted in a project, by name: `sha256`, `text`, and the date `at` in Unix seconds."""
    found = _memory().get(str(root), {})
    return {name: each for name, each in found.items() if isinstance(each, dict)} if isinstance(found, dict) else {}


def before(content: Content) -> str:
    """Return the text of this content that was trusted before; empty if there is none."""
    return str(remembered(content.root).get(content.name, {}).get("text", ""))


def grant(content: Content) -> None:
    """Remember that a person has trusted this content in its project.

    Raises:
        ConfigurationError: The home cannot hold it, as another user could change it or it cannot be written to.
    """
    with _changing() as memory:
        entry = {"sha256": content.digest, "text": content.text, "at": time.time()}
        memory.setdefault(str(content.root), {})[content.name] = entry


def withdraw(root: Path, name: str) -> None:
    """Forget that content was trusted. Does nothing if it was not. Raises as `grant`."""
    with _changing() as memory:
        memory.get(str(root), {}).pop(name, None)


def _file() -> Path:
    return paths.home() / "trust.json"


def _memory() -> dict[str, Any]:
    """Return what is remembered, by project; nothing if another user could have written it."""
    file = _file()
    if not file.exists() or paths.folder_problem(file.parent):
        return {}
    with suppress(ConfigurationError, ValueError, RecursionError, OSError):
        found = json.loads(_read_whole(file))
        return found if isinstance(found, dict) else {}
    return {}


def _read_whole(file: Path) -> bytes:
    with file.open("rb") as source:
        if problem := _problem(os.fstat(source.fileno())):
            raise ConfigurationError(problem)
        return source.read()


@contextmanager
def _changing() -> Iterator[dict[str, Any]]:
    """Change what is remembered, one process at a time; a crash leaves the old or the new."""
    import portalocker

    file = _file()
    try:
        paths.make_private(file.parent)
        if problem := paths.folder_problem(file.parent):
            raise ConfigurationError(problem)
        lock = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(lock, "r+b") as held:
            portalocker.lock(held, portalocker.LockFlags.EXCLUSIVE)
            memory = _memory()
            yield memory
            made = file.with_suffix(".new")
            made.unlink(missing_ok=True)
            with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
                json.dump(memory, out, indent=1)
                out.flush()
                os.fsync(out.fileno())
            made.replace(file)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror or error}") from None

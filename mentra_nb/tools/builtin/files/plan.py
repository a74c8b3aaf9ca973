"""A batch of operations worked out: what it would change, and what it says. Nothing is written here."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from mentra_nb.effect.types import Effect, FileChange
from mentra_nb.tools.builtin.files import operations as o
from mentra_nb.tools.builtin.files.edits import inserted, patched, replaced
from mentra_nb.tools.builtin.files.looking import lines_of, listed, searched
from mentra_nb.tools.builtin.files.overlay import MAX_BYTES, Overlay
from mentra_nb.tools.builtin.files.places import Place
from mentra_nb.tools.builtin.files.text import TextForm, editable, form_of
from mentra_nb.tools.schema import ToolError
from mentra_nb.words import counted


@dataclass(frozen=True)
class Plan:
    """What a batch would do. `sections` give its texts in order; those that only read are worked out when called."""

    changes: tuple[FileChange, ...]
    files: Overlay
    """The files as they would be."""
    sections: tuple[Callable[[], str], ...]
    progress: tuple[str, ...]
    """The first line of each section that changes something."""
    places: tuple[Place, ...]

    @property
    def digest(self) -> str:
        """What binds an answer to exactly these changes."""
        return Effect(self.changes).digest

    def content(self, path: str) -> BinaryIO:
        """Open the new content of a file."""
        return self.files.open(path)


def plan(folder: Path, arguments: o.Files, places: Sequence[Place]) -> Plan:
    """Work out a batch of operations in a working folder. Raises `ToolError` for the first that cannot be done.

    Args:
        places: Where the paths of all operations lead, in order.
    """
    overlay, rest = Overlay(), iter(places)
    sections: list[Callable[[], str]] = []
    progress = []
    for operation in arguments.operations:
        named = [next(rest) for _ in operation.paths]
        if isinstance(operation, o.READING):
            sections.append(partial(_looked, overlay.snapshot(), folder, operation, named[0]))
            continue
        try:
            text = _CHANGING[type(operation)](overlay, operation, *named)
        except OSError as error:
            raise ToolError(f"'{named[0].shown}' cannot be changed: {error.strerror}") from error
        sections.append(partial(str, text))
        progress.append(text)
    return Plan(tuple(overlay.changes()), overlay, tuple(sections), tuple(progress), tuple(places))


# ---- looking -----------------------------------------------------------------------------------------------------


def _looked(overlay: Overlay, folder: Path, operation: Any, at: Place) -> str:
    try:
        kind = overlay.type(at.path)
        if kind is None:
            raise ToolError(f"'{at.shown}' does not exist")
        if isinstance(operation, o.Read):
            check_file(kind, at.shown)
            with overlay.open(at.path) as file:
                text = lines_of(file, at.shown, operation.offset, operation.limit)
            return f"read {at.shown}\n{text}"
        if isinstance(operation, o.List):
            return f"list {at.shown}\n{listed(overlay, at.path, operation.depth, operation.limit)}"
        found = searched(overlay, at.path, str(folder.resolve()), operation.pattern, operation.limit)
        return f"search {at.shown} /{operation.pattern}/\n{found}"
    except OSError as error:
        raise ToolError(f"'{at.shown}' cannot be read: {error.strerror}") from error


def check_file(kind: str | None, shown: str) -> None:
    """Raise `ToolError` unless what is there is a file."""
    if kind is None:
        raise ToolError(f"'{shown}' does not exist")
    if kind != "file":
        raise ToolError(f"'{shown}' is not a file")


# ---- changing ----------------------------------------------------------------------------------------------------


def _create(overlay: Overlay, operation: o.Create, at: Place) -> str:
    if overlay.type(at.path) is not None:
        raise ToolError(f"'{at.shown}' already exists")
    if operation.path.endswith(("/", os.sep)):
        if operation.content:
            raise ToolError(f"'{operation.path}' names a folder, which has no content")
        overlay.make_folder(at.path)
    else:
        overlay.write(at.path, TextForm().encoded(operation.content, at.shown))
    return f"create {at.shown}"


def _set(overlay: Overlay, operation: o.Set, at: Place) -> str:
    check_file(overlay.type(at.path), at.shown)
    form = form_of(overlay.read(at.path)) if overlay.size(at.path) <= MAX_BYTES else TextForm()
    overlay.write(at.path, form.encoded(operation.content, at.shown))
    return f"set {at.shown}"


def _edited(overlay: Overlay, at: Place, edit: Callable[[str], tuple[str, int]]) -> int:
    """Change the text of a file and return the number that the edit gives."""
    check_file(overlay.type(at.path), at.shown)
    text, form = editable(overlay.read(at.path), at.shown)
    made, number = edit(text)
    overlay.write(at.path, form.encoded(made, at.shown))
    return number


def _same_ends(given: str, text: str) -> str:
    """Return a text that is looked for or added with `\\n` at line ends if the file's text has no `\\r\\n`."""
    return given if "\r" in text else given.replace("\r\n", "\n")


def _replace(overlay: Overlay, operation: o.Replace, at: Place) -> str:
    def edit(text: str) -> tuple[str, int]:
        old, new = (_same_ends(each, text) for each in (operation.old, operation.new))
        return replaced(text, at.shown, old, new, every=operation.replace_all, expected=operation.expected_replacements)

    return f"replace {at.shown} ({counted(_edited(overlay, at, edit), 'replacement')})"


def _insert(overlay: Overlay, operation: o.Insert, at: Place) -> str:
    def edit(text: str) -> tuple[str, int]:
        anchor, content = (_same_ends(each, text) for each in (operation.anchor, operation.content))
        return inserted(text, at.shown, anchor, operation.position, content, operation.occurrence), 1

    _edited(overlay, at, edit)
    return f"insert {at.shown}"


def _patch(overlay: Overlay, operation: o.Patch, at: Place) -> str:
    number = _edited(overlay, at, lambda text: patched(text, at.shown, _same_ends(operation.patch, text)))
    return f"patch {at.shown} ({counted(number, 'hunk')})"


def _move(overlay: Overlay, operation: o.Move, at: Place, to: Place) -> str:
    check_file(overlay.type(at.path), at.shown)
    if overlay.type(to.path) is not None:
        raise ToolError(f"'{to.shown}' already exists")
    overlay.move(at.path, to.path)
    return f"move {at.shown} -> {to.shown}"


def _delete(overlay: Overlay, operation: o.Delete, at: Place) -> str:
    kind = overlay.type(at.path)
    if kind == "folder" and overlay.names(at.path):
        raise ToolError(f"'{at.shown}' is a folder that is not empty")
    if kind != "folder":
        check_file(kind, at.shown)
    overlay.delete(at.path)
    return f"delete {at.shown}"


_CHANGING: dict[type, Callable[..., str]] = {
    o.Create: _create,
    o.Set: _set,
    o.Replace: _replace,
    o.Insert: _insert,
    o.Patch: _patch,
    o.Move: _move,
    o.Delete: _delete,
}

"""What a reference means in this notebook: a variable, an attribute, an output, a cell, the last error or a file."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, MethodDescriptorType
from typing import Any

from mentra_nb.chat.references.plain import library
from mentra_nb.chat.references.reference import File, Reference
from mentra_nb.errors import ConfigurationError
from mentra_nb.namespace.describe import kind_of
from mentra_nb.namespace.snapshot import own_names
from mentra_nb.notebook.references.tokens import Found, Token, tokens

_NUMBERED = re.compile(r"(?P<what>cell:|Out\[|In\[)(?P<number>-?\d+)\]?")
_LAST = re.compile(r"_{1,3}|_\d+")
"""Names of IPython for earlier outputs."""
_FRAMES = {"pandas": ("DataFrame",), "polars": ("DataFrame",)}
"""Classes whose columns are attributes."""
_RUN = frozenset({"numpy", "pandas", "polars", "pyarrow"})
"""Libraries whose properties only look."""
_PLAIN = (MemberDescriptorType, GetSetDescriptorType)


class _Unknown(Exception):
    """A reference means nothing; the text says why."""


@dataclass(frozen=True)
class Notebook:
    """The variables of a notebook, and the source of its cells by their number, the running one last."""

    names: dict[str, Any]
    cells: Sequence[str] = ()

    def find(self, prompt: str, include: Iterable[str] = ()) -> Found:
        """Return a question with what it refers to and what `include` names, each once.

        Raises:
            ConfigurationError: what `include` names is not there.
        """
        given: dict[str, Reference] = {}
        notes: dict[str, None] = {}
        for said in include:
            token = Token(0, 0, said.removeprefix("@"), is_file=said.removeprefix("@").startswith(("./", "../")))
            try:
                given.update(self._referred(token))
            except _Unknown as why:
                raise ConfigurationError(f"-i {said}: {why}") from None
        pieces, at = [], 0
        for token in tokens(prompt):
            if not token.said:
                pieces += [prompt[at : token.start], "@"]
                at = token.end
                continue
            try:
                given.update(self._referred(token))
            except _Unknown as why:
                notes[f"{why}: @{token.said} was sent as it is"] = None
        return Found("".join([*pieces, prompt[at:]]), tuple(given.values()), tuple(notes))

    def _referred(self, token: Token) -> dict[str, Reference]:
        said, label = token.said, f"@{token.said}"
        if token.is_file:
            if not Path(said).exists():
                raise _Unknown(f"there is no file {said}")
            return {label: Reference(label, File(said))}
        if not token.is_whole:
            if said.partition(".")[0] in self.names and "/" not in said:
                raise _Unknown("a reference is a name or name.attribute, and a word of its own")
            return {}
        if (numbered := _NUMBERED.fullmatch(said)) is not None:
            return self._numbered(label, numbered["what"], int(numbered["number"]))
        return {label: Reference(label, self._value(said))}

    def _numbered(self, label: str, what: str, number: int) -> dict[str, Reference]:
        outputs = self.names.get("Out", {})
        if number < 0:
            number += len(self.cells) - (what == "cell:")
        if what == "Out[":
            if number not in outputs:
                raise _Unknown(f"there is no output {number}")
            return {label: Reference(label, outputs[number])}
        if not 0 < number < len(self.cells):
            raise _Unknown(f"there is no cell {number}")
        found = {label: Reference(label, self.cells[number])}
        if what == "cell:" and number in outputs:
            of_output = f"{label}, its output"
            found[of_output] = Reference(of_output, outputs[number])
        return found

    def _value(self, said: str) -> Any:
        name, *attributes = said.split(".")
        known = own_names(self.names)
        if name in known or (_LAST.fullmatch(name) and name in self.names):
            value = self.names[name]
        elif name == "err":
            if (value := getattr(sys, "last_value", None)) is None:
                raise _Unknown("there was no error yet")
        else:
            near = get_close_matches(name, known, 1)
            raise _Unknown(f"there is no variable {name!r}{f' (did you mean @{near[0]}?)' if near else ''}")
        for number, attribute in enumerate(attributes):
            value = attribute_of(value, attribute, ".".join([name, *attributes[:number]]))
        return value


def attribute_of(value: Any, attribute: str, of: str) -> Any:
    """Return an attribute, or a column of a frame, without running code of the value's class.

    Raises `_Unknown` for one that is not there, or that its class would compute. `of` names the value.
    """
    cls = type(value)
    if attribute in columns_of(value):
        return value[attribute]
    if library(cls) in _RUN:
        try:
            return getattr(value, attribute)
        except Exception:  # noqa: BLE001 - the library may raise anything
            raise _Unknown(f"@{of} has no attribute {attribute!r}") from None
    try:
        found = inspect.getattr_static(value, attribute)
    except AttributeError:
        raise _Unknown(f"@{of} has no attribute {attribute!r}") from None
    if isinstance(found, _PLAIN):
        return found.__get__(value, cls)
    found = found.__func__ if isinstance(found, staticmethod | classmethod) else found
    if isinstance(found, FunctionType | MethodDescriptorType) or not hasattr(type(found), "__get__"):
        return found
    raise _Unknown(
        f"{attribute!r} of @{of} is computed by code of its class ({kind_of(found)}), which a mention does not run: "
        "store it in a variable and name that"
    )


def columns_of(value: Any) -> list[str]:
    """Return the names of the columns of a frame that can be attributes; none for another value."""
    cls = type(value)
    if type.__dict__["__name__"].__get__(cls) not in _FRAMES.get(library(cls), ()):
        return []
    return [name for name in list(value.columns) if type(name) is str and name.isidentifier()]


def begun(notebook: Notebook, word: str) -> list[str]:
    """Return the references that begin with `word`, which begins with `@`: names, columns and files."""
    if word.startswith(("@./", "@../")):
        return _files(word)
    name, dot, _ = word[1:].rpartition(".")
    if dot:
        try:
            value = notebook._value(name)
        except _Unknown:
            return []
        found: Iterable[str] = (f"{name}.{each}" for each in (*columns_of(value), *_attributes(value)))
    else:
        outputs = notebook.names.get("Out", {})
        special = ["err", "cell:-1", *(f"Out[{number}]" for number in list(outputs)[-5:])]
        found = (*(each for each in own_names(notebook.names) if not each.startswith("_")), *special)
    return sorted({f"@{each}" for each in found if f"@{each}".startswith(word)})


def _attributes(value: Any) -> list[str]:
    from mentra_nb.chat.references.objects import fields_of

    return [name for name in fields_of(value) if not name.startswith("_") and library(type(value)) not in _RUN]


def _files(word: str) -> list[str]:
    """Return the files and folders that a path may go on with, hidden and protected ones left out."""
    from mentra_nb.permission.protected import guard

    folder, _, fragment = word[1:].rpartition("/")
    try:
        inside = sorted(Path(folder).iterdir(), key=lambda each: each.name)
    except OSError:
        return []
    return [
        f"@{folder}/{each.name}{'/' if each.is_dir() else ''}"
        for each in inside
        if each.name.startswith(fragment)
        and (fragment or not each.name.startswith("."))
        and " " not in each.name
        and guard(each.absolute(), "read") is None
    ]

"""The walk through all that a kernel's names lead to: what can be kept of it, and what cannot, by kind.

It is bounded: of what lies beyond a bound, nothing is kept.
"""

from __future__ import annotations

import enum
import functools
import os
import random
import sys
import types
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mentra_nb.namespace import kept
from mentra_nb.namespace.kept import Kept, members, mro
from mentra_nb.namespace.outside import (
    KeptEnviron,
    KeptFolder,
    KeptModule,
    KeptParameters,
    KeptRandomState,
    WorkingFolder,
    is_outside,
)
from mentra_nb.namespace.tables import KeptArray, KeptExtensionArray, KeptFrame, KeptIndex

MAX_WALKED = 100_000
"""Elements of containers and of columns that are looked at."""
MAX_OF_PROCESS = 20_000
"""The same in the state of the process."""
MAX_KEPT = 20_000
"""Values that are kept."""
MAX_OF_LIBRARY = 500
"""Values that may lie inside an object of a library."""
MAX_COPIED = 256 * 2**20
"""Bytes of arrays that are copied."""
MAX_FRAME = 2**30
"""Bytes of a frame that is kept: once it is changed, it takes its memory twice."""

_FIXED_MODULES = frozenset({"builtins", "collections.abc", "datetime", "decimal", "fractions", "ipaddress"}) | {
    *("numpy", "pathlib", "re", "types", "typing", "uuid", "zoneinfo")
}
_FIXED_PACKAGES = ("pandas._libs.", "numpy.dtypes.", "mentra_nb.")
_OURS, _STANDARD = str(Path(__file__).parents[1]), str(Path(os.__file__).parent)
"""The folders of this package and of Python's library."""
_CONTAINERS = (list, dict, set, bytearray, deque, tuple, frozenset)
_HEAP_TYPE = 1 << 9
_OPAQUE, _FIXED = object(), object()


@dataclass(frozen=True)
class Beyond:
    """Something that could not be restored: the name that leads to it, and why, in words."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} ({self.why})"


class Walk:
    """Keeps what the names lead to. `nodes` are by the `id` of the value, `parts` say which node leads to which."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.nodes: dict[int, Kept] = {}
        self.parts: dict[int, list[int]] = {}
        self.beyond: dict[str, str] = {}
        """Name → why not all that it leads to can be restored."""
        self._kinds: dict[type, Any] = {}
        self._fixed: set[type] = set()
        self._name = ""
        self._left = 0
        self._pandas, self._numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
        self._lazy = self._pandas is not None and _copies_on_write(self._pandas)
        for bound, of_process in ((MAX_OF_PROCESS, True), (MAX_WALKED, False)):
            self._left = bound
            for name, value in names.items():
                if is_outside(name) == of_process:
                    self._name = name
                    self._follow(value, within=None)
        self._find_shared_memory()

    def frames(self) -> list[KeptFrame]:
        return [node for node in self.nodes.values() if isinstance(node, KeptFrame)]

    def arrays(self) -> list[KeptArray]:
        return [node for node in self.nodes.values() if isinstance(node, KeptArray)]

    def cannot(self, why: str) -> None:
        """Note that not all that the current name leads to can be restored."""
        self.beyond.setdefault(self._name, why)

    def _follow(self, root: Any, within: list[int] | None) -> bool:
        """Keep a value and all it leads to. `within`: ids kept for an object of a library; then false if one cannot."""
        todo = self._changeable([root])
        while todo:
            value = todo.pop()
            if id(value) in self.nodes:
                continue
            kind = self._kinds[type(value)]
            full = self._left <= 0 or len(self.nodes) >= MAX_KEPT
            if within is not None and (full or kind is _OPAQUE or len(within) > MAX_OF_LIBRARY):
                return False
            if full:
                self.cannot("too much is in it")
                return True
            if kind is _OPAQUE:
                self.cannot(f"a {described(type(value))}")
            elif kind == "library" and within is None:
                self._keep_whole(value)
            else:
                todo += self._keep(value, _SPECIAL.get(kind, kind), within)
        return True

    def _keep(self, value: Any, make: Any, within: list[int] | None) -> list[Any]:
        """Keep one value, and return the values inside that must be followed."""
        size = _length(value)
        if size > self._left:
            self._left = 0 if size < MAX_WALKED else self._left
            self.cannot(f"a {described(type(value))} of {size:,} elements")
            return []
        self._left -= size
        node: Kept = make(value)
        self.nodes[id(value)] = node
        if within is not None:
            within.append(id(value))
        inner = self._objects_in(node) if type(node) is KeptFrame else self._changeable(node.inner())
        if inner:
            self.parts[id(value)] = list(map(id, inner))
        return inner

    def _keep_whole(self, value: Any) -> None:
        """Keep an object of a library if all inside can be kept, else nothing of it: half of it would be worse."""
        added: list[int] = []
        left = self._left
        if not self._follow(value, added):
            for each in added:
                self.nodes.pop(each, None)
                self.parts.pop(each, None)
            self._left = left
            self.cannot(f"a {described(type(value))}")

    def _objects_in(self, frame: KeptFrame) -> list[Any]:
        found = self._changeable(frame.inner())
        for values in frame.object_values():
            if values.size > self._left:
                self.cannot("objects in its columns")
                continue
            self._left -= values.size
            found += self._changeable(values.ravel(order="K").tolist())
        return found

    def _changeable(self, values: Iterable[Any]) -> list[Any]:
        """Return those of the values that could change."""
        values = values if type(values) is list else list(values)
        found = set(map(type, values))
        if found <= self._fixed:
            return []
        for cls in found - self._kinds.keys():
            kind = self._kinds[cls] = self._decide(cls)
            if kind is _FIXED:
                self._fixed.add(cls)
        return [each for each in values if type(each) not in self._fixed and self._is_changeable(each)]

    def _is_changeable(self, value: Any) -> bool:
        kind = self._kinds[type(value)]
        if kind == "class":
            return _is_of_user(value)
        return bool(kind != "function" or value.__module__ == "__main__")

    def _decide(self, cls: type) -> Any:
        """Return how values of a class are kept: a function that makes what is kept, `_FIXED`, `_OPAQUE`, or a word."""
        for test, kind in (*self._tables(), *_BUILTIN):
            if issubclass(cls, test):
                return kind
        if issubclass(cls, type):
            return "class"
        if _is_fixed(cls):
            return _FIXED
        if not _is_python(cls):
            return _OPAQUE
        return kept.KeptObject if _is_of_user(cls) else "library"

    def _tables(self) -> list[tuple[Any, Any]]:
        found: list[tuple[Any, Any]] = []
        if (np := self._numpy) is not None:
            found += [(np.memmap, _OPAQUE), (np.ndarray, KeptArray), (np.void, _OPAQUE), (np.generic, _FIXED)]
            found += [(np.random.Generator, kept.KeptRandom), (np.random.RandomState, KeptRandomState)]
        if (pd := self._pandas) is not None:
            frame = functools.partial(KeptFrame, is_lazy=self._lazy)
            found += [((pd.DataFrame, pd.Series), frame), (pd.Index, KeptIndex)]
            found += [(pd.api.extensions.ExtensionArray, KeptExtensionArray)]
        if (parameters := getattr(sys.modules.get("matplotlib"), "RcParams", None)) is not None:
            found.insert(0, (parameters, KeptParameters))
        return found

    def _find_shared_memory(self) -> None:
        """Note which frames have memory in common with an array of the namespace: it can change below them."""
        arrays = {id(_root(node.value)): node for node in self.arrays()}
        for frame in self.frames() if arrays else ():
            for block in frame.value._mgr.blocks:
                node = arrays.get(id(_root(block.values)))
                if node is not None:
                    frame.shares.append(node.value)
                    self.parts.setdefault(id(frame.value), []).append(id(node.value))


_BUILTIN: tuple[tuple[Any, Any], ...] = (
    (enum.Enum, _FIXED),
    (types.ModuleType, lambda value: KeptModule(value, of_user=_is_file_of_user(value))),
    (os._Environ, KeptEnviron),
    (WorkingFolder, KeptFolder),
    ((list, deque), kept.KeptSequence),
    (dict, kept.KeptDict),
    (set, kept.KeptSet),
    (bytearray, kept.KeptBytes),
    ((tuple, frozenset), Kept),
    (types.FunctionType, "function"),
    (types.CellType, kept.KeptCell),
    (types.MethodType, lambda value: kept.KeptReferences(value, [value.__self__])),
    (functools.partial, lambda value: kept.KeptReferences(value, [value.func, value.args, value.keywords])),
    (random.SystemRandom, _FIXED),
    (random.Random, kept.KeptRandom),
    (types.SimpleNamespace, kept.KeptObject),
    (functools._lru_cache_wrapper, lambda value: kept.KeptReferences(value, [value.__wrapped__])),
    (BaseException, _OPAQUE),
)
_SPECIAL = {"class": kept.KeptClass, "function": kept.KeptFunction, "library": kept.KeptObject}


def _copies_on_write(pandas: Any) -> bool:
    """Return whether pandas copies what is written to: always since version 3, before by its option."""
    return int(pandas.__version__.split(".")[0]) >= 3 or bool(pandas.options.mode.copy_on_write)


def _length(value: Any) -> int:
    if type(value) in (list, dict, tuple, set):
        return len(value)
    for kind in _CONTAINERS:
        if issubclass(type(value), kind):
            return kind.__len__(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(type(value), numpy.ndarray) and numpy.ndarray.dtype.__get__(value).hasobject:
        return int(numpy.ndarray.size.__get__(value))
    return 1


def _root(values: Any) -> Any:
    """Return the array that owns the memory of an array."""
    base = values
    while type(getattr(base, "base", None)).__module__ == "numpy" and hasattr(base.base, "dtype"):
        base = base.base
    return base


def _is_fixed(cls: type) -> bool:
    """Return whether nothing of a value of this class can change, or only what no undo is about, as in a module."""
    module = module_of(cls)
    if cls is memoryview or {"__next__", "send"} & members(cls).keys():  # iterators and coroutines
        return False
    return module in _FIXED_MODULES or f"{module}.".startswith(_FIXED_PACKAGES)


def _is_python(cls: type) -> bool:
    """Return whether a class and its bases are written in Python, so that attributes are all there is of a value."""
    slots = 0
    for part in mro(cls)[:-1]:
        own = members(part)
        written = {"__dict__", "__weakref__", "__slots__"} & own.keys() or part.__bases__ != (object,)
        if not part.__flags__ & _HEAP_TYPE or not written:
            return False
        slots += sum(type(each) is types.MemberDescriptorType for each in own.values())
    return cls.__basicsize__ <= object.__basicsize__ + 8 * (slots + 2)


def _is_of_user(cls: type) -> bool:
    """Return whether a class was written in this notebook, or in a file of the working folder."""
    name = module_of(cls)
    if name == "__main__":
        return True
    return _is_file_of_user(sys.modules.get(name))


def _is_file_of_user(module: types.ModuleType | None) -> bool:
    """Return whether a module is a file of the working folder, or was made by code and not imported."""
    file = getattr(module, "__file__", None)
    if module is not None and file is None and getattr(module, "__spec__", None) is None:
        return module.__name__ != "__main__"
    if not isinstance(file, str) or "site-packages" in file or file.startswith((_OURS, _STANDARD)):
        return False
    try:
        return Path(file).is_relative_to(Path.cwd())
    except OSError:  # the working folder is gone
        return False


def module_of(cls: type) -> str:
    """Return the name of the module of a class, whatever its metaclass says; a type of Python itself has none."""
    found = members(cls).get("__module__")
    return found if isinstance(found, str) else "builtins"


def described(cls: type) -> str:
    """Return the name of a class as a person would write it. Calls no code of its metaclass."""
    module, name = module_of(cls), type.__dict__["__qualname__"].__get__(cls)
    return str(name) if module in ("builtins", "__main__") else f"{module}.{name}"

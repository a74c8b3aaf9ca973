"""What code changes outside the user's names, as far as it can be told and put back: modules, and the process's state.

Each piece of that state has a name that none of the user's can be, such as `os.environ`.
"""

from __future__ import annotations

import os
import pickle
import random
import sys
import warnings
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from mentra_nb.namespace.kept import Kept, KeptDict, members, same_items


class WorkingFolder:
    """Stands for the folder in which the process works."""


_FOLDER = WorkingFolder()
_OF_LIBRARIES = {
    "the state of numpy.random": ("numpy.random.mtrand", "_rand"),
    "pandas.options": ("pandas._config.config", "_global_config"),
    "matplotlib.rcParams": ("matplotlib", "rcParams"),
}
"""Name → the module, if it is loaded, and the attribute in which a library keeps it."""
_NAMES = {"os.environ", "sys.path", "the working folder", "the state of random", "warnings.filters", *_OF_LIBRARIES}
_FOLLOWS = frozenset({"backend"})
"""Parameters of matplotlib that its first figure sets."""


def outside_names() -> dict[str, Any]:
    """Return the state of the process by its names; that of a library only if it is loaded."""
    found: dict[str, Any] = {"os.environ": os.environ, "sys.path": sys.path, "the working folder": _FOLDER}
    found |= {"the state of random": random._inst, "warnings.filters": warnings.filters}
    for name, (module, attribute) in _OF_LIBRARIES.items():
        if (value := getattr(sys.modules.get(module), attribute, None)) is not None:
            found[name] = value
    return found


def is_outside(name: str) -> bool:
    """Return whether a name stands for state of the process."""
    return name in _NAMES


def bind(name: str, value: Any) -> None:
    """Make the name of some state mean an object, once that object is as it was."""
    if name == "sys.path":
        sys.path = value
    elif name == "warnings.filters":
        warnings.filters = value
        with warnings.catch_warnings():  # entering it makes Python forget what it found by the filters before
            pass


class KeptEnviron(Kept):
    """The variables of the environment."""

    __slots__ = ("saved",)
    saved: Any

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.saved = dict(value)

    def inner(self) -> Iterable[Any]:
        return ()

    def differs(self) -> bool:
        return bool(dict(self.value) != self.saved)

    def restore(self) -> None:
        for name in self.value.keys() - self.saved.keys():
            del self.value[name]
        for name, each in self.saved.items():
            if self.value.get(name) != each:
                self.value[name] = each


class KeptFolder(Kept):
    """The folder in which the process works."""

    __slots__ = ("saved",)
    saved: Any

    def __init__(self, value: WorkingFolder) -> None:
        super().__init__(value)
        self.saved = self._now()

    def _now(self) -> Any:
        try:
            return os.getcwd()  # noqa: PTH109
        except OSError:  # it is gone
            return None

    def inner(self) -> Iterable[Any]:
        return ()

    def differs(self) -> bool:
        return bool(self._now() != self.saved)

    def restore(self) -> None:
        if self.saved is None:
            raise OSError("the folder was gone before")
        os.chdir(self.saved)


class KeptRandomState(Kept):
    """A random generator of numpy of the old kind."""

    __slots__ = ("saved",)
    saved: Any

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.saved = self._now()

    def _now(self) -> bytes:
        return pickle.dumps(self.value.get_state(legacy=False))

    def inner(self) -> Iterable[Any]:
        return ()

    def differs(self) -> bool:
        return bool(self._now() != self.saved)

    def restore(self) -> None:
        self.value.set_state(pickle.loads(self.saved))  # noqa: S301 - written above

    def held(self) -> int:
        return len(self.saved)


class KeptParameters(KeptDict):
    """The parameters of matplotlib: which objects they are, not what is in them."""

    __slots__ = ()

    def _now(self) -> tuple[list[Any], list[Any], list[Any]]:
        found = {name: each for name, each in dict.items(self.value) if name not in _FOLLOWS}
        return list(found), list(found.values()), []

    def inner(self) -> Iterable[Any]:
        return ()

    def restore(self) -> None:
        left = {name: each for name, each in dict.items(self.value) if name in _FOLLOWS}
        super().restore()
        for name, each in left.items():
            dict.__setitem__(self.value, name, each)


class KeptModule(Kept):
    """A module: its attributes; of one that is not of the user only the public ones, and nothing of what is in them."""

    __slots__ = ("of_user", "saved")
    of_user: bool
    saved: dict[str, Any]

    def __init__(self, value: ModuleType, *, of_user: bool) -> None:
        super().__init__(value)
        self.of_user = of_user
        self.saved = dict(self._all())

    def _all(self) -> dict[str, Any]:
        found: dict[str, Any] = members(ModuleType)["__dict__"].__get__(self.value)
        return found

    def inner(self) -> Iterable[Any]:
        return [each for name, each in self.saved.items() if self._counts(name)] if self.of_user else ()

    def _counts(self, name: Any) -> bool:
        return isinstance(name, str) and not name.startswith("__" if self.of_user else "_")

    def _added(self) -> list[str]:
        """Return the attributes it has got, but not those that importing, and loading late, give it."""
        now = self._all()
        late = now.get("__all__") or () if "__getattr__" in now else ()
        return [
            name
            for name in now.keys() - self.saved.keys()
            if self._counts(name) and not issubclass(type(now[name]), ModuleType) and name not in late
        ]

    def _gone(self) -> list[str]:
        """Return the attributes that are others now, or missing."""
        now = self._all()
        return [
            name for name, each in self.saved.items() if self._counts(name) and now.get(name, self.saved) is not each
        ]

    def differs(self) -> bool:
        return not same_items(self.saved, self._all()) and bool(self._added() or self._gone())

    def restore(self) -> None:
        now = self._all()
        for name in self._added():
            del now[name]
        for name in self._gone():
            now[name] = self.saved[name]

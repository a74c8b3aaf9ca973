"""What is kept of one value before code runs, so that it can be told whether the code changed it, and put back.

A value is restored in place, so that every alias of it sees it as it was. No code of the user is called: containers are
read by the methods of their builtin type, whatever a subclass has made of them.
"""

from __future__ import annotations

import operator
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Sequence
from types import CellType, FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any

_MISSING = object()
_FACTORY: Any = vars(defaultdict)["default_factory"]
_PLAIN = frozenset({list, dict, set, deque, defaultdict, OrderedDict, Counter})
"""Containers whose instances have no attributes."""


def mro(cls: type) -> tuple[type, ...]:
    """Return the classes of a class, whatever its metaclass says."""
    found: tuple[type, ...] = type.__dict__["__mro__"].__get__(cls)
    return found


def members(cls: type) -> Any:
    """Return the attributes of a class itself, as a mapping, whatever its metaclass says."""
    return type.__dict__["__dict__"].__get__(cls)


def instance_dict(value: Any) -> dict[str, Any] | None:
    """Return the dictionary of an instance's attributes, if it has one. Calls no code of its class."""
    for cls in mro(type(value)):
        found = members(cls).get("__dict__")
        if type(found) is GetSetDescriptorType:
            own: dict[str, Any] = found.__get__(value)
            return own
    return None


def same(before: Sequence[Any], after: Sequence[Any]) -> bool:
    """Return whether two sequences hold the same objects."""
    return len(before) == len(after) and all(map(operator.is_, before, after))


def same_items(before: dict[Any, Any], after: dict[Any, Any]) -> bool:
    """Return whether two dictionaries hold the same objects in the same order."""
    return same(list(dict.keys(before)), list(dict.keys(after))) and same(
        list(dict.values(before)), list(dict.values(after))
    )


class Kept:
    """The base: a value that holds others and cannot change itself, such as a tuple."""

    __slots__ = ("value",)
    value: Any

    def __init__(self, value: Any) -> None:
        self.value = value

    def inner(self) -> Iterable[Any]:
        """Yield the values that it holds."""
        return self.value  # type: ignore[no-any-return]

    def differs(self) -> bool:
        """Return whether the value is another now, not counting what it holds."""
        return False

    def restore(self) -> None:
        """Make the value what it was. Raises where that fails."""

    def held(self) -> int:
        """Return the bytes that are kept beside the value as it is now."""
        return 0


class _WithAttributes(Kept):
    """A value whose instance may have attributes, as those of a subclass do."""

    __slots__ = ("own",)
    own: dict[str, Any] | None

    def __init__(self, value: Any, leaving_out: frozenset[str] = frozenset()) -> None:
        self.value = value
        own = None if type(value) in _PLAIN else instance_dict(value)
        self.own = None
        if own is not None:
            self.own = {name: each for name, each in own.items() if name not in leaving_out}

    def inner(self) -> Iterable[Any]:
        return self.own.values() if self.own else ()

    def _own_differs(self, leaving_out: frozenset[str] = frozenset()) -> bool:
        if type(self.value) in _PLAIN:
            return False
        now = instance_dict(self.value)
        if now is None or self.own is None:
            return (now is None) != (self.own is None)
        return not same_items(self.own, {name: each for name, each in now.items() if name not in leaving_out})

    def _restore_own(self, leaving_out: frozenset[str] = frozenset()) -> None:
        now = instance_dict(self.value)
        if now is not None and self.own is not None:
            left = {name: each for name, each in now.items() if name in leaving_out}
            now.clear()
            now.update(self.own)
            now.update(left)


class KeptReferences(_WithAttributes):
    """A value that leads to others and can have attributes: the parts of a method or of a `functools.partial`."""

    __slots__ = ("parts",)
    parts: tuple[Any, ...]

    def __init__(self, value: Any, parts: Iterable[Any]) -> None:
        super().__init__(value)
        self.parts = tuple(parts)

    def inner(self) -> Iterable[Any]:
        return [*self.parts, *super().inner()]

    def differs(self) -> bool:
        return self._own_differs()

    def restore(self) -> None:
        self._restore_own()


class KeptSequence(_WithAttributes):
    """A list or deque."""

    __slots__ = ("kind", "saved")
    kind: Any
    saved: Any

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.kind = list if issubclass(type(value), list) else deque
        self.saved = list.copy(value) if self.kind is list else list(deque.__iter__(value))

    def inner(self) -> Iterable[Any]:
        return self.saved if self.own is None else [*self.saved, *self.own.values()]

    def differs(self) -> bool:
        now = self.value if type(self.value) is list else list(self.kind.__iter__(self.value))
        return not same(self.saved, now) or self._own_differs()

    def restore(self) -> None:
        self.kind.clear(self.value)
        self.kind.extend(self.value, self.saved)
        self._restore_own()

    def held(self) -> int:
        return 8 * len(self.saved)


class KeptDict(_WithAttributes):
    """A dictionary of any kind."""

    __slots__ = ("kind", "saved")
    kind: Any
    saved: Any

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.kind = OrderedDict if issubclass(type(value), OrderedDict) else dict
        self.saved = self._now()

    def _now(self) -> tuple[list[Any], list[Any], list[Any]]:
        made = [_FACTORY.__get__(self.value)] if issubclass(type(self.value), defaultdict) else []
        return list(self.kind.keys(self.value)), list(self.kind.values(self.value)), made

    def inner(self) -> Iterable[Any]:
        keys, values, _ = self.saved
        return keys + values if self.own is None else [*keys, *values, *self.own.values()]

    def differs(self) -> bool:
        return not all(map(same, self.saved, self._now())) or self._own_differs()

    def restore(self) -> None:
        self.kind.clear(self.value)
        keys, values, made = self.saved
        for key, each in zip(keys, values, strict=True):
            self.kind.__setitem__(self.value, key, each)
        if made:
            _FACTORY.__set__(self.value, made[0])
        self._restore_own()

    def held(self) -> int:
        return 16 * len(self.saved[0])


class KeptSet(_WithAttributes):
    """A set."""

    __slots__ = ("saved",)
    saved: Any

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.saved = list(set.__iter__(value))

    def inner(self) -> Iterable[Any]:
        return self.saved if self.own is None else [*self.saved, *self.own.values()]

    def differs(self) -> bool:
        if len(self.saved) != set.__len__(self.value):
            return True
        now = set(map(id, set.__iter__(self.value)))
        return any(id(each) not in now for each in self.saved) or self._own_differs()

    def restore(self) -> None:
        set.clear(self.value)
        set.update(self.value, self.saved)
        self._restore_own()

    def held(self) -> int:
        return 8 * len(self.saved)


class KeptBytes(Kept):
    """A `bytearray`."""

    __slots__ = ("saved",)
    saved: Any

    def __init__(self, value: bytearray) -> None:
        super().__init__(value)
        self.saved = bytes(value)

    def inner(self) -> Iterable[Any]:
        return ()

    def differs(self) -> bool:
        return bool(self.value != self.saved)

    def restore(self) -> None:
        self.value[:] = self.saved

    def held(self) -> int:
        return len(self.saved)


class KeptObject(_WithAttributes):
    """An instance of a class that is written in Python: its class, and its attributes, also those in slots."""

    __slots__ = ("kind", "slots")
    kind: type
    slots: list[Any]

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.kind = type(value)
        self.slots = [(each, _read(each, value)) for each in _slots(type(value))]

    def inner(self) -> Iterable[Any]:
        return [*super().inner(), *(each for _, each in self.slots if each is not _MISSING)]

    def differs(self) -> bool:
        if type(self.value) is not self.kind:
            return True
        return any(_read(slot, self.value) is not each for slot, each in self.slots) or self._own_differs()

    def restore(self) -> None:
        if type(self.value) is not self.kind:
            object.__setattr__(self.value, "__class__", self.kind)
        self._restore_own()
        for slot, each in self.slots:
            if each is not _MISSING:
                slot.__set__(self.value, each)
            elif _read(slot, self.value) is not _MISSING:
                slot.__delete__(self.value)


def _slots(cls: type) -> list[MemberDescriptorType]:
    return [each for part in mro(cls) for each in members(part).values() if type(each) is MemberDescriptorType]


def _read(slot: MemberDescriptorType, value: Any) -> Any:
    try:
        return slot.__get__(value)
    except AttributeError:
        return _MISSING


class KeptClass(Kept):
    """A class of the user: its attributes."""

    __slots__ = ("saved",)
    saved: Any

    def __init__(self, value: type) -> None:
        super().__init__(value)
        self.saved = self._now()

    def _now(self) -> dict[str, Any]:
        internal = (GetSetDescriptorType, MemberDescriptorType)
        found = members(self.value).items()
        return {name: each for name, each in found if type(each) not in internal and not name.startswith("_abc_")}

    def inner(self) -> Iterable[Any]:
        return list(self.saved.values())

    def differs(self) -> bool:
        return not same_items(self.saved, self._now())

    def restore(self) -> None:
        for name in self._now().keys() - self.saved.keys():
            type.__delattr__(self.value, name)
        now = self._now()
        for name, each in self.saved.items():
            if now.get(name, _MISSING) is not each:
                type.__setattr__(self.value, name, each)


class KeptFunction(Kept):
    """A function of the user: its name, its defaults, its attributes, and the variables it has from outside."""

    __slots__ = ("saved",)
    saved: Any

    def __init__(self, value: FunctionType) -> None:
        super().__init__(value)
        self.saved = self._now()

    def _now(self) -> list[Any]:
        f = self.value
        attributes = list(f.__dict__.items())
        about = [f.__code__, f.__defaults__, f.__kwdefaults__, f.__doc__, f.__name__, f.__qualname__]
        return [*about, *[part for item in attributes for part in item]]

    def inner(self) -> Iterable[Any]:
        return [*self.saved[1:], *(self.value.__closure__ or ())]

    def differs(self) -> bool:
        return not same(self.saved, self._now())

    def restore(self) -> None:
        f, (code, defaults, keywords, doc, name, qualified, *attributes) = self.value, self.saved
        f.__code__, f.__defaults__, f.__kwdefaults__ = code, defaults, keywords
        f.__doc__, f.__name__, f.__qualname__ = doc, name, qualified
        f.__dict__.clear()
        f.__dict__.update(zip(attributes[::2], attributes[1::2], strict=True))


class KeptCell(Kept):
    """A variable that functions share."""

    __slots__ = ("saved",)
    saved: Any

    def __init__(self, value: CellType) -> None:
        super().__init__(value)
        self.saved = self._now()

    def _now(self) -> Any:
        try:
            return self.value.cell_contents
        except ValueError:  # nothing was assigned yet
            return _MISSING

    def inner(self) -> Iterable[Any]:
        return () if self.saved is _MISSING else (self.saved,)

    def differs(self) -> bool:
        return self._now() is not self.saved

    def restore(self) -> None:
        if self.saved is not _MISSING:
            self.value.cell_contents = self.saved
        elif self._now() is not _MISSING:
            del self.value.cell_contents


class KeptRandom(Kept):
    """A random generator of the standard library or of numpy."""

    __slots__ = ("saved",)
    saved: Any

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.saved = self._now()

    def _now(self) -> Any:
        generator = getattr(self.value, "bit_generator", None)
        return self.value.getstate() if generator is None else repr(generator.state), generator and generator.state

    def inner(self) -> Iterable[Any]:
        return ()

    def differs(self) -> bool:
        return bool(self._now()[0] != self.saved[0])

    def restore(self) -> None:
        if (generator := getattr(self.value, "bit_generator", None)) is None:
            self.value.setstate(self.saved[0])
        else:
            generator.state = self.saved[1]

"""What is kept of arrays, indexes, series and frames."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mentra_nb.namespace.kept import Kept, _WithAttributes, same

_NOT_KEPT = frozenset({"_mgr", "_item_cache", "_cacher", "_is_copy", "_flags"})
"""Attributes of a frame that are its data or follow from it."""


class KeptArray(_WithAttributes):
    """A numpy array: a copy of its values. `copy` may be made later than the object, once there is room for it."""

    __slots__ = ("saved", "writeable")
    saved: Any
    writeable: bool

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.saved = None
        self.writeable = self._plain().flags.writeable

    def copy(self, known: Any = None) -> None:
        """Copy the values; `known` is a copy of an earlier moment, taken if it is still right."""
        import numpy as np

        now = self._plain()
        self.saved = known if known is not None and same_values(known, now) else np.array(now, copy=True, order="K")

    def _plain(self) -> Any:
        import numpy as np

        return np.ndarray.view(self.value, np.ndarray)

    def inner(self) -> Iterable[Any]:
        plain = self._plain()
        return [*(plain.ravel(order="K").tolist() if plain.dtype.hasobject else ()), *super().inner()]

    def differs(self) -> bool:
        if self.saved is None:
            return False
        plain = self._plain()
        moved = plain.flags.writeable != self.writeable or not same_values(self.saved, plain)
        return moved or self._own_differs()

    def restore(self) -> None:
        import numpy as np

        if self.saved is None:
            return
        plain = self._plain()
        if plain.dtype != self.saved.dtype:
            self.value.dtype = self.saved.dtype
        if plain.size != self.saved.size:
            np.ndarray.resize(self.value, self.saved.shape, refcheck=False)
        elif plain.shape != self.saved.shape:
            self.value.shape = self.saved.shape
        if not self.value.flags.writeable:
            self.value.flags.writeable = True
        try:
            np.copyto(self._plain(), self.saved)
        finally:
            self.value.flags.writeable = self.writeable
        self._restore_own()

    def held(self) -> int:
        return 0 if self.saved is None else int(self.saved.nbytes)


class KeptExtensionArray(Kept):
    """An array of pandas: a copy of it."""

    __slots__ = ("saved",)
    saved: Any

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.saved = value.copy()

    def inner(self) -> Iterable[Any]:
        return ()

    def differs(self) -> bool:
        return not self.value.equals(self.saved)

    def restore(self) -> None:
        self.value[:] = self.saved

    def held(self) -> int:
        return int(self.saved.nbytes)


class KeptIndex(Kept):
    """An index: its names, the only thing of it that can change."""

    __slots__ = ("saved",)
    saved: Any

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.saved = list(value.names)

    def inner(self) -> Iterable[Any]:
        return ()

    def differs(self) -> bool:
        return not same(self.saved, list(self.value.names))

    def restore(self) -> None:
        self.value.names = self.saved


class KeptFrame(_WithAttributes):
    """A frame or series: a lazy copy, of which pandas copies what is written to; a real one without copy-on-write."""

    __slots__ = ("axes", "is_lazy", "saved", "shares")
    axes: list[Any]
    is_lazy: bool
    saved: Any
    shares: list[Any]

    def __init__(self, value: Any, *, is_lazy: bool) -> None:
        super().__init__(value, _NOT_KEPT)
        self.is_lazy = is_lazy
        self.axes = list(value._mgr.axes)
        self.saved = value._mgr.copy(deep=False) if is_lazy else None
        self.shares = []
        """Arrays of the namespace with which it has memory in common."""

    def copy(self) -> None:
        """Make the real copy."""
        self.saved = _real_copy(self.value._mgr)

    def object_values(self) -> Iterable[Any]:
        """Yield the arrays of its columns that hold Python objects."""
        for block in self.value._mgr.blocks:
            if getattr(block.values.dtype, "hasobject", False):
                yield block.values

    def inner(self) -> Iterable[Any]:
        return [*self.axes, *super().inner(), *self.shares]

    def differs(self) -> bool:
        if self.saved is None:
            return False
        now = self.value._mgr
        return (
            not same(self.axes, list(now.axes))
            or len(now.blocks) != len(self.saved.blocks)
            or any(self._moved(*pair) for pair in zip(self.saved.blocks, now.blocks, strict=True))
            or self._own_differs(_NOT_KEPT)
        )

    def _moved(self, before: Any, now: Any) -> bool:
        if not (before.mgr_locs.as_array == now.mgr_locs.as_array).all():
            return True
        if self.is_lazy:
            return before.refs is not now.refs
        return not same_values(before.values, now.values)

    def restore(self) -> None:
        if self.saved is None:
            return
        manager = self.saved.copy(deep=False) if self.is_lazy else _real_copy(self.saved)
        manager.axes = list(self.axes)
        object.__setattr__(self.value, "_mgr", manager)
        cache = getattr(self.value, "_item_cache", None)
        if isinstance(cache, dict):
            cache.clear()
        self._restore_own(_NOT_KEPT)

    def held(self) -> int:
        if self.saved is None:
            return 0
        now = {id(block.refs) for block in self.value._mgr.blocks} if self.is_lazy else set()
        return sum(int(block.values.nbytes) for block in self.saved.blocks if id(block.refs) not in now)


def _real_copy(manager: Any) -> Any:
    """Return a copy of the data of a frame, with the same blocks: `copy` of pandas would join some."""
    made = manager.apply("copy", deep=True)
    made.axes = list(manager.axes)
    return made


def same_values(before: Any, after: Any) -> bool:
    """Return whether two arrays have the same type, shape and bytes, or the same objects."""
    import numpy as np

    if not (isinstance(before, np.ndarray) and isinstance(after, np.ndarray)):
        equals = getattr(before, "equals", None)
        return type(before) is type(after) and bool(equals and equals(after))
    if before.dtype != after.dtype or before.shape != after.shape:
        return False
    if before.dtype.hasobject:
        return same(before.ravel().tolist(), after.ravel().tolist())
    if not before.nbytes:
        return True
    if before.flags.f_contiguous and after.flags.f_contiguous:
        before, after = before.T, after.T
    raw = [np.ascontiguousarray(each).ravel().view(np.uint8) for each in (before, after)]
    return bool((raw[0] == raw[1]).all())

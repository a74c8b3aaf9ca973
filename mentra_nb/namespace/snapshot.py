"""A snapshot of a kernel's names: what has changed since, and putting it back."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mentra_nb.namespace import walk
from mentra_nb.namespace.kept import Kept
from mentra_nb.namespace.outside import bind, is_outside, outside_names
from mentra_nb.namespace.tables import KeptArray, KeptFrame
from mentra_nb.namespace.walk import Beyond, Walk

_OWN = re.compile(r"_+|_\d+|_i+|_i\d+|_[iod]h|_sh|_exit_code|__\w+__|In|Out|exit|quit|open|get_ipython|_mentra")
"""Names that IPython or the notebook sets."""


@dataclass(frozen=True)
class Changes:
    """Names that code made, changed or deleted."""

    created: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.created, *self.changed, *self.deleted)


def own_names(namespace: dict[str, Any]) -> dict[str, Any]:
    """Return the user's names with their values, without IPython's."""
    return {
        name: value
        for name, value in dict(namespace).items()
        if isinstance(name, str) and not _OWN.fullmatch(name) and not is_outside(name)
    }


def _watched(namespace: dict[str, Any]) -> dict[str, Any]:
    """Return the state of the process and the user's names, with their values."""
    return outside_names() | own_names(namespace)


@dataclass
class Snapshot:
    """The names of a moment and what is kept of their values."""

    names: dict[str, Any]
    nodes: dict[int, Kept]
    parts: dict[int, list[int]]
    beyond: list[Beyond] = field(default_factory=list)

    @classmethod
    def take(
        cls,
        namespace: dict[str, Any],
        names: Iterable[str] | None = None,
        earlier: Snapshot | None = None,
        *,
        copies: bool = True,
    ) -> Snapshot:
        """Return a snapshot of all of the user's names, or of some.

        Args:
            earlier: Its copies of arrays are used again where the arrays are still the same.
            copies: Whether arrays are copied. Without, it only says what could not be restored.
        """
        own = _watched(namespace)
        chosen = own if names is None else {name: own[name] for name in names if name in own}
        walked = Walk(chosen)
        made = cls(chosen, walked.nodes, walked.parts)
        too_large = made._make_copies(earlier, really=copies)
        beyond = dict(walked.beyond)
        if too_large:
            for name in chosen:
                if name not in beyond and (lost := made._reached([name]) & too_large.keys()):
                    beyond[name] = too_large[next(iter(lost))]
        made.beyond = [Beyond(name, why) for name, why in beyond.items()]
        return made

    def _make_copies(self, earlier: Snapshot | None, *, really: bool) -> dict[int, str]:
        """Copy arrays, and frames without copy-on-write, the smallest first. Returns which are too large, and why."""
        too_large: dict[int, str] = {}
        waiting: list[tuple[int, KeptArray | KeptFrame]] = []
        for node in self.nodes.values():
            if isinstance(node, KeptArray):
                waiting.append((int(node.value.nbytes), node))
            elif isinstance(node, KeptFrame):
                size = sum(int(block.values.nbytes) for block in node.value._mgr.blocks)
                if not node.is_lazy:
                    waiting.append((size, node))
                elif size > walk.MAX_FRAME:
                    node.saved, too_large[id(node.value)] = None, f"{size / 2**20:,.0f} MiB"
        room = walk.MAX_COPIED
        for size, node in sorted(waiting, key=lambda pair: pair[0]):
            room -= size
            if room < 0:
                too_large[id(node.value)] = f"{size / 2**20:,.0f} MiB, too large to copy"
            elif really and isinstance(node, KeptArray):
                known = earlier.nodes.get(id(node.value)) if earlier is not None else None
                node.copy(known.saved if isinstance(known, KeptArray) and known.value is node.value else None)
            elif really:
                node.copy()
        return too_large

    def _reached(self, names: Iterable[str]) -> set[int]:
        """Return the ids of the nodes that names lead to."""
        todo = [id(self.names[name]) for name in names if name in self.names]
        found: set[int] = set()
        while todo:
            each = todo.pop()
            if each in self.nodes and each not in found:
                found.add(each)
                todo += self.parts.get(each, ())
        return found

    def _different(self) -> set[int]:
        """Return the ids of the nodes that have changed, and of those that lead to one that has."""
        above: dict[int, list[int]] = {}
        for each, parts in self.parts.items():
            for part in parts:
                above.setdefault(part, []).append(each)
        todo = [each for each, node in self.nodes.items() if node.differs()]
        found: set[int] = set()
        while todo:
            each = todo.pop()
            if each not in found:
                found.add(each)
                todo += above.get(each, ())
        return found

    def changes(self, namespace: dict[str, Any]) -> Changes:
        """Return which names were made, changed or deleted since. A value counts with all that it leads to."""
        now, different = _watched(namespace), self._different()
        return Changes(
            created=tuple(name for name in now if name not in self.names and not is_outside(name)),
            changed=tuple(
                name
                for name, value in self.names.items()
                if name in now and (now[name] is not value or id(value) in different)
            ),
            deleted=tuple(name for name in self.names if name not in now),
        )

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget all that these names do not lead to."""
        chosen = set(names)
        reached = self._reached(chosen)
        self.names = {name: value for name, value in self.names.items() if name in chosen}
        self.nodes = {each: node for each, node in self.nodes.items() if each in reached}
        self.parts = {each: parts for each, parts in self.parts.items() if each in reached}
        self.beyond = [each for each in self.beyond if each.name in chosen]

    def held(self) -> int:
        """Return about how many bytes are kept beside the values as they are now."""
        return sum(node.held() for node in self.nodes.values())

    def restore(self, namespace: dict[str, Any], names: Iterable[str]) -> dict[str, str]:
        """Make these names what they were, with all that they led to; delete those that were not there.

        Returns the names for which that failed, with the reason.
        """
        chosen, failed = list(names), {}
        for each in self._reached(chosen):
            node = self.nodes[each]
            try:
                if node.differs():
                    node.restore()
            except Exception as error:  # noqa: BLE001 - any library may refuse
                failed[each] = f"{type(error).__name__}: {error}"
        for name in chosen:
            if is_outside(name):
                bind(name, self.names[name])
            elif name in self.names:
                namespace[name] = self.names[name]
            else:
                namespace.pop(name, None)
        if not failed:
            return {}
        return {name: failed[next(iter(lost))] for name in chosen if (lost := self._reached([name]) & failed.keys())}

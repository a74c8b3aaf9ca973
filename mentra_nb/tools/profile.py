"""A tool profile: which of the tools that there are a model is offered."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from mentra_nb.tools.tool import Tool


def allows(profile: Sequence[str], name: str) -> bool:
    """Return whether a profile offers a tool.

    Args:
        profile: Names of tools, in which `*` stands for any run of characters. With one, only those named are offered;
            one that begins with `-` is not offered, whatever the others say. Empty: all are offered.
    """
    shown = [each for each in profile if not each.startswith("-")]
    hidden = [each[1:] for each in profile if each.startswith("-")]
    return (not shown or any(fnmatchcase(name, each) for each in shown)) and not any(
        fnmatchcase(name, each) for each in hidden
    )


def misspelt(profile: Sequence[str], names: Collection[str]) -> list[str]:
    """Return a sentence for each name of a profile that no tool has and that is near to the name of one."""
    said = []
    for each in profile:
        sign, name = each[: each.startswith("-")], each.removeprefix("-")
        if "*" in name or name in names:
            continue
        from difflib import get_close_matches

        near = {known.lower(): known for known in names}
        if found := get_close_matches(name.lower(), near, 1, 0.7):
            said.append(f"tool_profile has '{each}', and there is no such tool: did you mean '{sign}{near[found[0]]}'?")
    return said


class ProfiledTools(Mapping[str, Tool]):
    """The tools of a session that a profile offers, and all that are of the session only. Live, as what it is made of.

    `base` has the tools of the session before those of the runtime.
    """

    def __init__(self, base: ChainMap[str, Tool], profile: Sequence[str]) -> None:
        self.base, self.profile = base, profile

    def _has(self, name: object) -> bool:
        return isinstance(name, str) and (name in self.base.maps[0] or allows(self.profile, name))

    def __getitem__(self, name: str) -> Tool:
        if not self._has(name):
            raise KeyError(name)
        return self.base[name]

    def __iter__(self) -> Iterator[str]:
        return filter(self._has, self.base)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def whatever_is_offered(tools: Mapping[str, Tool]) -> Mapping[str, Tool]:
    """Return the tools that there are, those too that a profile does not offer."""
    return tools.base if isinstance(tools, ProfiledTools) else tools

"""Regular expressions that are compiled when they are first used: there are many, and most turns need few."""

from __future__ import annotations

import re
from typing import Any, cast


class _Late:
    """Stands for the compiled expression. What is used of it is kept, so that only the first use costs more."""

    def __init__(self, pattern: str, flags: int) -> None:
        self.pattern, self._given = pattern, flags

    def __getattr__(self, name: str) -> Any:
        found = getattr(re.compile(self.pattern, self._given), name)
        setattr(self, name, found)
        return found


def late(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """Return what `re.compile` would, but compile it at its first use.

    Example:
        >>> late("[a-z]+").findall("ab, c")
        ['ab', 'c']
    """
    return cast("re.Pattern[str]", _Late(pattern, flags))

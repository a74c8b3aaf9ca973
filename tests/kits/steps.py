"""An action at a given step of a block of code, between any two calls that Python makes there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


class AtStep:
    """Call a function once, at the n-th call or return in a block of code."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self.left, self.act, self.acted = step, act, False

    def __enter__(self) -> AtStep:
        sys.setprofile(self._seen)
        return self

    def _seen(self, frame: Any, event: str, argument: Any) -> None:
        self.left -= 1
        if self.left < 0 and not self.acted:
            self.acted = True
            sys.setprofile(None)
            self.act()

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(None)

"""An action at a given step of a block of code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

CHANGING = {
    *("posix.mkdir", "posix.rmdir", "posix.unlink", "posix.rename", "posix.replace", "posix.link", "posix.symlink"),
    *("posix.chmod", "posix.fchmod", "posix.truncate", "posix.ftruncate", "posix.write", "posix.fsync"),
    *("io.open", "_io.open", "_io.write", "_io.flush", "_io.close", "_io.__exit__", "fcntl.flock"),
    *("mentra_nb.effect.handles._renamed", "mentra_nb.effect.handles.create"),
}
"""What changes a file system, or makes sure that a change lasts; functions of ours where a call's own name is not
seen."""


class AtStep:
    """Call a function once, at the n-th step of a block of code, counted from 0.

    Args:
        step: The number of the step. -1: never, so that `seen` counts all steps.
        act: What is called.
        changing: Steps are before and after each call that changes a file system, instead of each call and return.
    """

    def __init__(self, step: int, act: Callable[[], None], *, changing: bool = False) -> None:
        self.step, self.act, self.changing = step, act, changing
        self.seen = 0

    def __enter__(self) -> AtStep:
        sys.setprofile(self._seen)
        return self

    @property
    def acted(self) -> bool:
        """Whether the function was called."""
        return 0 <= self.step < self.seen

    def _seen(self, frame: Any, event: str, argument: Any) -> None:
        if self.changing and _name(frame, event, argument) not in CHANGING:
            return
        self.seen += 1
        if self.seen == self.step + 1:
            sys.setprofile(None)
            self.act()

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(None)


def _name(frame: Any, event: str, argument: Any) -> str:
    """Return the name of what is called or returns, with its module."""
    if not event.startswith("c_"):
        return f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}"
    module = argument.__module__ or type(getattr(argument, "__self__", None)).__module__
    return f"{module}.{argument.__name__}"

"""Running commands fenced, in tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio

from mentra_nb.sandbox.executor import CommandRequest
from mentra_nb.sandbox.fenced import Fence, fence_problem
from mentra_nb.sandbox.waiting import FencedRun

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(Path.home())}


def needs_fence() -> None:
    """Fail where commands cannot be fenced: this is a failure and no reason to skip a test."""
    assert fence_problem() is None, f"{fence_problem()}; `make sandbox` installs what is missing"


def request(command: str, folder: Path, **options: Any) -> CommandRequest:
    return CommandRequest(command, folder, **{"timeout": 30.0, "env": ENV} | options)


@contextmanager
def fenced(command: str, workspace: Path, fence: Fence | None = None, **options: Any) -> Iterator[FencedRun]:
    """Run a command fenced, outside any loop, and delete what is kept of it afterwards."""
    run = anyio.run((fence or Fence()).run, request(command, workspace, **options), workspace)
    try:
        yield run
    finally:
        run.close()


def changed(run: FencedRun, workspace: Path) -> dict[str, str]:
    """Return the kinds of the changes, by relative path."""
    top = os.path.realpath(workspace)
    return {os.path.relpath(change.path, top): change.kind for change in run.effect.changes}

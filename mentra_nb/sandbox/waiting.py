"""What fenced commands did and what waits to be decided about: a folder for each, `<run>.<process id>`.

    content/        the new bytes of files, by their digests
    waiting.json    once it waits for an answer: what was done, whose call it was, and until when it may be kept

The process that ran the command deletes the folder when it is decided. After a kill another process can take it over to
resume the turn; once it is overdue, it is deleted by whichever process looks next.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from mentra_nb.effect.handles import state
from mentra_nb.effect.types import Effect
from mentra_nb.ids import new_id
from mentra_nb.paths import home, make_private
from mentra_nb.sandbox.executor import CommandRequest, ExecOutput

CLOCK_SLACK = 2.0
"""Seconds by which the time at which a process began may be off."""


@dataclass(frozen=True)
class FencedRun:
    """What a fenced command did. `close` deletes what is kept of it on disk."""

    output: ExecOutput
    effect: Effect
    folder: Path
    problem: str | None = None
    """Why the effect cannot be kept, if it cannot."""
    moved: tuple[str, ...] = ()
    """Paths that something else changed while the command ran."""

    def content(self, digest: str) -> BinaryIO:
        """Open the new bytes of a file, or the target of a link, by their digest. Raises `OSError`."""
        return (self.folder / "content" / digest).open("rb")

    def contents(self, path: str) -> BinaryIO:
        """Open the new bytes of a changed path. Raises `OSError`, `KeyError`."""
        after = {change.path: change.after for change in self.effect.changes}[path]
        return BytesIO() if after is None else self.content(after.digest)

    def hold(self, request: CommandRequest, *, run: str, call: str, deadline: float) -> None:
        """Note that it waits for an answer about a call of a turn, so that `taken_over` finds it after a kill.

        Args:
            request: The command.
            run: The turn's `run_id`.
            call: The call's id.
            deadline: Unix seconds after which it may be deleted.

        Raises:
            OSError: It could not be written.
        """
        said = {
            "run": run,
            "call": call,
            "request": _digest(request),
            "deadline": deadline,
            "output": asdict(self.output),
            "effect": self.effect.to_json(),
            "moved": self.moved,
        }
        part = self.folder / "waiting.tmp"
        part.write_text(json.dumps(said), encoding="ascii")
        part.replace(self.folder / "waiting.json")

    def close(self) -> None:
        """Delete what is kept of the run; does nothing a second time."""
        shutil.rmtree(self.folder, ignore_errors=True)


def waiting_folder() -> Path:
    """Return the folder of what waits, `effects/waiting` in the home."""
    return home() / "effects" / "waiting"


def new_folder(waiting: Path) -> Path:
    """Create the folder of a new run, and delete what is left of others. Raises `OSError`."""
    make_private(waiting)
    remove_left(waiting)
    folder = Path(os.path.realpath(waiting)) / f"{new_id('run')}.{os.getpid()}"
    for each in (folder, folder / "view", folder / "content"):
        each.mkdir(mode=0o700)
    return folder


def remove_left(waiting: Path) -> None:
    """Delete what processes left that are gone, unless it waits for an answer and is not overdue."""
    for folder in _left(waiting):
        if _said(folder).get("deadline", 0) <= time.time():
            shutil.rmtree(folder, ignore_errors=True)


def taken_over(waiting: Path, runs: Collection[str], call: str, request: CommandRequest) -> FencedRun | None:
    """Return what a command did in a process that is gone and that waits for an answer, which is then ours.

    It must be what this very request did for the call of one of these turns, and the files that it changed must be as
    they were when it ran; `None` otherwise.
    """
    for folder in _left(waiting):
        said = _said(folder)
        if said.get("run") not in runs or (said.get("call"), said.get("request")) != (call, _digest(request)):
            continue
        own = folder.with_name(f"{folder.stem}.{os.getpid()}")
        try:
            folder.rename(own)
        except OSError:  # another process was first
            continue
        run = _run(own, said)
        if run is not None and said.get("deadline", 0) > time.time():
            return run
        shutil.rmtree(own, ignore_errors=True)
    return None


def _run(folder: Path, said: dict[str, Any]) -> FencedRun | None:
    """Return the run that `hold` wrote; `None` if files that it changed are not as they were any more."""
    try:
        effect, output = Effect.from_json(said["effect"]), ExecOutput(**said["output"])
    except (KeyError, TypeError, ValueError):  # another version wrote it
        return None
    if any(state(change.path) != change.before for change in effect.changes):
        return None
    return FencedRun(output, effect, folder, None, tuple(said["moved"]))


def _left(waiting: Path) -> Iterator[Path]:
    """Yield the folders of processes that are gone."""
    try:
        found = list(waiting.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    for folder in found:
        pid = folder.suffix.removeprefix(".")
        if pid.isdecimal() and _is_gone(int(pid), folder):
            yield folder


def _is_gone(pid: int, folder: Path) -> bool:
    """Return whether the process that made a folder is gone; another one may have its id now."""
    import psutil

    try:
        began: float = psutil.Process(pid).create_time()
        return began > folder.stat().st_ctime + CLOCK_SLACK
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, OSError):
        return False


def _said(folder: Path) -> dict[str, Any]:
    """Return what `hold` wrote; empty if it wrote nothing."""
    try:
        said: dict[str, Any] = json.loads((folder / "waiting.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return said


def _digest(request: CommandRequest) -> str:
    """Return what tells a command with its folder, environment and limits from others, and does not show them."""
    return hashlib.sha256(repr(sorted(asdict(request).items())).encode("utf-8", "surrogateescape")).hexdigest()

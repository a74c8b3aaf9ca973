"""Run a command so that nothing it does lasts, and return what it did: its output, and its effect on the workspace."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from mentra_nb.effect.types import Effect, FileChange, FileState, Want
from mentra_nb.paths import home, own_places
from mentra_nb.sandbox import difference
from mentra_nb.sandbox.bubblewrap import View, bubblewrap, inner_arguments, memory_place, outer_command, script
from mentra_nb.sandbox.executor import CommandRequest, ExecOutput, run_program
from mentra_nb.sandbox.hidden import Hidden, covered_within
from mentra_nb.sandbox.limits import FenceLimits, control_groups, limits_problem, ran_out_of_memory, resource_limits
from mentra_nb.sandbox.syscalls import filter_program
from mentra_nb.sandbox.waiting import FencedRun, new_folder, waiting_folder
from mentra_nb.sandbox.wants import wants

MAX_HIDDEN = 500
"""Files of a workspace that are hidden at most."""
_TMP = "/tmp"  # noqa: S108
_CACHES = f"{_TMP}/.cache"
WITHOUT_CACHES: dict[str, str] = {
    "GIT_OPTIONAL_LOCKS": "0",
    "MPLCONFIGDIR": f"{_CACHES}/matplotlib",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "RUFF_CACHE_DIR": f"{_CACHES}/ruff",
}
"""What has programs that only read leave no cache in the workspace, and not look for their next version. A command's
own environment overrides it. Not here: caches that save minutes, and what has no variable that is always right.
"""


class FenceFailed(Exception):
    """The fence could not be put up, so the command did not run. The text says why."""


@dataclass
class Fence:
    """Runs commands fenced. What waits to be decided about lies in `folder`, by default `effects/waiting` in the home.

    Example:
        >>> from mentra_nb.sandbox.fenced import Fence
        >>> fence = Fence()
        >>> fence.limits.processes
        512
    """

    limits: FenceLimits = field(default_factory=FenceLimits)
    folder: Path | None = None
    _hidden: Hidden = field(default_factory=Hidden)

    async def run(
        self,
        request: CommandRequest,
        workspace: Path,
        on_line: Callable[[str], None] | None = None,
        hides: Callable[[str], bool] | None = None,
    ) -> FencedRun:
        """Run a command in a view of the workspace.

        Args:
            request: The command; its folder must be in the workspace.
            workspace: The folder that it may change.
            on_line: Called with each line of output.
            hides: Says of an absolute path in the workspace whether it is hidden too, beside secret files.

        Raises:
            FenceFailed: It did not run.
        """
        began = time.time_ns()
        folder = await anyio.to_thread.run_sync(new_folder, self.folder or waiting_folder())
        try:
            top = os.path.realpath(workspace)  # noqa: ASYNC240 - no long work
            with contextlib.ExitStack() as made:
                prepare = partial(self._prepare, request, top, folder, began, hides, made)
                argv, groups = await anyio.to_thread.run_sync(prepare)
                outside = replace(request, cwd=Path("/"), env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
                try:
                    output = await run_program(argv, outside, on_line, self.limits.memory)
                except OSError as error:
                    raise FenceFailed(f"the sandbox could not be started: {error}") from error
                output = replace(output, over_memory=output.over_memory or ran_out_of_memory(groups))
            return await anyio.to_thread.run_sync(partial(self._read, output, top, folder, request))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _prepare(
        self,
        request: CommandRequest,
        workspace: str,
        folder: Path,
        began: int,
        hides: Callable[[str], bool] | None,
        made: contextlib.ExitStack,
    ) -> tuple[list[str], list[Path]]:
        """Write what the fence reads, and return its command line and control groups. Raises `FenceFailed`.

        With the end of `made` the control groups are removed.
        """
        program, why = bubblewrap(), workspace_problem(Path(workspace))
        if program is None or why is not None:
            raise FenceFailed(fence_problem() or why or "")
        try:
            hidden = self._to_hide(workspace, hides)
            view = View(workspace, os.path.realpath(request.cwd), hidden, _environment(request.env))
            groups = made.enter_context(control_groups(self.limits))
            mode = Path(workspace).stat().st_mode & 0o7777
            (folder / "filter").write_bytes(filter_program())
            place = memory_place(str(folder), workspace)
            arguments = "\0".join(inner_arguments(view, place))
            (folder / "arguments").write_bytes(os.fsencode(arguments) + b"\0")
        except OSError as error:
            raise FenceFailed(f"the sandbox could not be prepared: {error}") from error
        bounds = map(str, (began, self.limits.changed, self.limits.written))
        read = [sys.executable, "-ISB", difference.__file__, f"{place}/upper", workspace, *bounds, str(folder)]
        within = resource_limits(self.limits, request.timeout)
        inside = script(str(folder), mode, request.command, groups, within, read)
        return outer_command(program, place, self.limits.written, mode, inside), groups

    def _to_hide(self, workspace: str, hides: Callable[[str], bool] | None) -> list[str]:
        found = self._hidden.within(workspace) + (covered_within(workspace, hides) if hides is not None else [])
        if len(found) > MAX_HIDDEN:
            raise FenceFailed(
                f"the workspace has more than {MAX_HIDDEN} secret or denied files, sockets and pipes to hide"
            )
        own = (os.path.realpath(path) for path in own_places())
        found += [path for path in own if path.startswith(f"{workspace}/") and os.path.lexists(path)]
        outermost: list[str] = []  # what is in a hidden folder is not there to be hidden
        for path in sorted(found, key=lambda path: path.split("/")):
            if not outermost or not f"{path}/".startswith(f"{outermost[-1]}/"):
                outermost.append(path)
        return outermost

    def _read(self, output: ExecOutput, workspace: str, folder: Path, request: CommandRequest) -> FencedRun:
        """Return what the command did, from what the fence wrote. Raises `FenceFailed`."""
        if output.timed_out:
            return FencedRun(output, Effect(), folder, "it was stopped before its end, so its effect is not whole")
        if output.over_memory:
            used = f"it used up the memory it may have, {self.limits.memory >> 20:,} MiB"
            return FencedRun(output, Effect(), folder, f"{used}, and was killed, so its effect is not whole")
        if '"exit-code"' not in _text(folder / "status"):
            raise FenceFailed(f"the sandbox could not be put up: {output.stderr.strip()[-500:] or 'it gave no reason'}")
        output = replace(output, left_running=bool(_text(folder / "left").strip()))
        if _text(folder / "whole").strip() == "whole":
            said: dict[str, Any] = json.loads(_text(folder / "difference.json") or "{}")
        else:
            why = _text(folder / "errors").strip()[-500:] or "there may be no room on the disk"
            said = {"problem": f"its changes cannot be read: {why}"}
        changes = tuple(_change(workspace, each) for each in said.get("changes", ()))
        wanted = wants(output, _text(folder / "network"), _text(folder / "space"), said, workspace, request)
        problem, moved = said.get("problem"), tuple(said.get("moved", ()))
        if lost := said.get("lost"):
            problem = f"{lost[0]!r} could not be brought back, since it cannot be read or is no file, folder or link"
        effect = Effect(() if problem else changes, tuple(Want(*each) for each in wanted))
        return FencedRun(output, effect, folder, problem, moved)


def _change(workspace: str, said: dict[str, Any]) -> FileChange:
    before, after = (FileState(**said[name]) if said[name] else None for name in ("before", "after"))
    path = f"{workspace}/{said['path']}" if said["path"] else workspace
    return FileChange(path, before, after)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _environment(env: dict[str, str]) -> dict[str, str]:
    """Return the environment of a fenced command: its own, with the temporary folder that it has."""
    return {**WITHOUT_CACHES, **env, "TMPDIR": _TMP, "XDG_CACHE_HOME": _CACHES}


def workspace_problem(workspace: Path) -> str | None:
    """Return why a folder cannot be the workspace of a fenced command, in one sentence, or `None`."""
    top = os.path.realpath(workspace)
    users, ours = os.path.realpath(Path.home()), os.path.realpath(home())
    if f"{users}/".startswith(f"{top.rstrip('/')}/"):
        return f"the workspace {top} is, or holds, the home folder"
    if f"{top}/".startswith(f"{ours}/"):
        return f"the workspace {top} is in the folder of mentra's own files"
    if any(point.startswith(f"{top}/") for point in _mount_points()):
        return f"another file system is mounted inside the workspace {top}"
    return None


def _mount_points() -> list[str]:
    lines = _text(Path("/proc/self/mountinfo")).splitlines()
    return [line.split(" ")[4].encode().decode("unicode_escape") for line in lines]


@cache
def fence_problem() -> str | None:
    """Return why commands cannot be fenced on this machine, in one sentence, or `None`. The first call tries it out."""
    if not sys.platform.startswith("linux"):
        return "the sandbox needs Linux"
    if bubblewrap() is None:
        return "there is no bubblewrap of version 0.11 or later: pip install 'mentra-nb[sandbox]'"
    try:
        filter_program()
    except ImportError as error:
        return f"system calls cannot be filtered ({error}): pip install 'mentra-nb[sandbox]', and libseccomp"
    except OSError as error:
        return f"system calls cannot be filtered: {error}"
    if (problem := limits_problem()) is not None:
        return problem
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder) / "workspace"
        workspace.mkdir()
        (workspace / "old").write_text("old")
        request = CommandRequest("rm old && echo new >new", cwd=workspace, timeout=20.0, env={"PATH": os.defpath})
        fence = Fence(folder=Path(folder) / "waiting")
        try:
            with ThreadPoolExecutor(1) as apart:  # this thread may have a loop already
                run = apart.submit(lambda: anyio.run(fence.run, request, workspace)).result()
        except FenceFailed as error:
            return str(error)
        kinds = {Path(change.path).name: change.kind for change in run.effect.changes}
    worked = kinds == {"old": "deleted", "new": "created"} and (run.output.success and not run.problem)
    return None if worked else f"a trial of the sandbox failed: {run.problem or run.output.stderr.strip() or kinds}"

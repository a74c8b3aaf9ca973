"""Run a shell command within limits of time and output, and kill all that it started when it ends or is stopped.

How far that reaches depends on the system:

- Linux: every descendant is killed, also one that left the process group (`setsid`) or lost its parent (a daemon), and
  also when this process is killed itself. What the command asked another program to start (`cron`, `systemd-run`,
  `docker`) is none of its descendants, and a process of another user (`sudo`) may not be killed.
- macOS: the process group is killed, also when this process is killed itself; what left the group survives.
- Windows: what is still a descendant when the command is stopped is killed; nothing is when this process is killed.

A command that works against its supervisors is not held by this: that is what `fenced.py` is for. Policy and permission
were checked before; this module knows neither.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import anyio

from mentra_nb.browser import IN_BROWSER
from mentra_nb.sandbox.capture import LEFT_OUT as LEFT_OUT
from mentra_nb.sandbox.capture import Capture, Captured, Transcript

if TYPE_CHECKING:
    from mentra_nb.sandbox.supervised import Ended

TIMED_OUT = 124
"""The status code after a timeout, as of timeout(1)."""
DRAIN_SECONDS = 2.0
"""Seconds to read on after the command is gone: a process that could not be killed may still hold its streams."""


@dataclass(frozen=True)
class CommandRequest:
    """A shell line to run in `cwd` with `env` as its whole environment, for at most `timeout` seconds.

    Example:
        >>> from pathlib import Path
        >>> mn.CommandRequest("make test", cwd=Path("project"), timeout=60.0).max_output_bytes_per_stream
        65536
    """

    command: str
    cwd: Path
    timeout: float
    env: dict[str, str] = field(default_factory=dict)
    max_output_bytes_per_stream: int = 65_536
    transcript: Path | None = None
    """A new file for all that both streams write, in the order it arrives, of at most `transcript_bytes`."""
    transcript_bytes: int = 64 << 20
    target: str | None = None
    """The machine to run it on, by a name that the application's executor knows; `None` is this one."""


@dataclass(frozen=True)
class ExecOutput:
    """What a command returned. `status_code` is `None` after a signal and 124 after a timeout.

    Of a truncated stream the beginning and the end are kept; `…_bytes` and `…_lines` count all that was written.

    Example:
        >>> mn.ExecOutput(stdout="", stderr="not found", status_code=127).success
        False
    """

    stdout: str
    stderr: str
    status_code: int | None
    timed_out: bool = False
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    left_running: bool = field(default=False, compare=False)
    """Whether the command had returned and left processes in the background, which were killed."""
    over_memory: bool = field(default=False, compare=False)
    """Whether the command was killed since all its processes together used more memory than they may."""
    stdout_bytes: int = field(default=0, compare=False)
    stderr_bytes: int = field(default=0, compare=False)
    stdout_lines: int = field(default=0, compare=False)
    stderr_lines: int = field(default=0, compare=False)

    @property
    def success(self) -> bool:
        """Whether the command ended with status 0."""
        return self.status_code == 0

    @property
    def ending(self) -> str:
        """How the command ended, if not with status 0, such as `exit status 3`, `killed by a signal` or `timed out`."""
        if self.timed_out:
            return "timed out"
        if self.over_memory:
            return "killed, as it used more memory than it may"
        if self.status_code is None:
            return "killed by a signal"
        return f"exit status {self.status_code}" if self.status_code else ""


class RuntimeExecutor(Protocol):
    async def run(self, request: CommandRequest, on_line: Callable[[str], None] | None = None) -> ExecOutput:
        """Run a command to its end and return its output.

        Args:
            request: The command and its limits.
            on_line: Called with each line as `stdout: …` or `stderr: …` while the command runs. The state of a line
                that is redrawn, such as that of a progress bar, ends in a carriage return.

        Raises:
            OSError: The command could not be started, for example because `cwd` does not exist.
        """
        ...


class LocalExecutor:
    """Run commands on this machine, by `/bin/sh -c` or `cmd.exe /C`. What a command started is killed when it ends.

    A command runs with all that its user may do.

    Example:
        >>> from pathlib import Path
        >>> command = mn.CommandRequest("echo hello", cwd=Path(), timeout=5.0)
        >>> output = await mn.LocalExecutor().run(command)
        >>> output.stdout.strip(), output.status_code
        ('hello', 0)
    """

    async def run(self, request: CommandRequest, on_line: Callable[[str], None] | None = None) -> ExecOutput:
        """Run a command until it ends or its time is over; `on_line` is called with each line of its output.

        Of a stream over its limit only the last line is reported, ten times a second.
        """
        shell = ["cmd.exe", "/C"] if sys.platform == "win32" else ["/bin/sh", "-c"]
        return await run_program([*shell, request.command], request, on_line)


async def run_program(
    argv: Sequence[str],
    request: CommandRequest,
    on_line: Callable[[str], None] | None = None,
    memory: int | None = None,
) -> ExecOutput:
    """Run a program as `LocalExecutor` runs the shell: with the folder, environment and limits of a request.

    For executors that start the command of a request by a program of theirs. On Linux all its processes together may
    use `memory` bytes, of which what several share counts once.

    Raises:
        OSError: The program could not be started, or its transcript not be created; or it is for another machine.
    """
    if request.target is not None:
        raise OSError(f"a command for '{request.target}' cannot run here: this executor knows this machine only")
    if IN_BROWSER:
        raise OSError("a browser can start no program")
    if sys.platform == "win32":
        from mentra_nb.sandbox.unsupervised import start
    else:
        from mentra_nb.sandbox.supervised import start

    with contextlib.ExitStack() as files:
        copy = None
        if request.transcript is not None:
            copy = Transcript(request.transcript, request.transcript_bytes)
            files.callback(copy.close)
        out, err = (Capture(n, request.max_output_bytes_per_stream, on_line, copy) for n in ("stdout", "stderr"))
        process, timed_out = await start(argv, request.cwd, request.env, memory), False
        files.callback(process.close)
        try:
            async with anyio.create_task_group() as readers:
                readers.start_soon(out.read, process.stdout)
                readers.start_soon(err.read, process.stderr)
                with anyio.move_on_after(request.timeout) as limit:
                    await process.wait()
                timed_out = limit.cancelled_caught
                ended = await process.kill()
                readers.cancel_scope.deadline = anyio.current_time() + DRAIN_SECONDS
        finally:
            ended = await process.kill()
    return _output(ended, out.captured(), err.captured(), timed_out=timed_out)


def _output(ended: Ended, stdout: Captured, stderr: Captured, *, timed_out: bool) -> ExecOutput:
    return ExecOutput(
        stdout=stdout.text,
        stderr=stderr.text,
        status_code=TIMED_OUT if timed_out else ended.status if ended.status >= 0 else None,
        timed_out=timed_out,
        stdout_truncated=stdout.truncated,
        stderr_truncated=stderr.truncated,
        left_running=ended.left_running and not timed_out,
        over_memory=ended.over_memory,
        stdout_bytes=stdout.bytes,
        stderr_bytes=stderr.bytes,
        stdout_lines=stdout.lines,
        stderr_lines=stderr.lines,
    )

"""Run a shell command as its own process group, within limits of time and output, and kill what is left of the group.

A process that left the group (`setsid`, a daemon) is not killed. When this process itself is killed the command runs on
to its end. Policy and permission were checked before; this module knows neither.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import anyio
from anyio.abc import ByteReceiveStream, Process

TIMED_OUT = 124
"""The status code after a timeout, as of timeout(1)."""
DRAIN_SECONDS = 2.0
"""Seconds to read on after the process group is gone."""
LEFT_OUT = "[… the middle is left out …]"
"""The line between the beginning and the end of a stream that was over its limit."""


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
    stdout_bytes: int = field(default=0, compare=False)
    stderr_bytes: int = field(default=0, compare=False)
    stdout_lines: int = field(default=0, compare=False)
    stderr_lines: int = field(default=0, compare=False)

    @property
    def success(self) -> bool:
        """Whether the command ended with status 0."""
        return self.status_code == 0


class RuntimeExecutor(Protocol):
    async def run(self, request: CommandRequest, on_line: Callable[[str], None] | None = None) -> ExecOutput:
        """Run a command to its end and return its output.

        Args:
            request: The command and its limits.
            on_line: Called with each line as `stdout: …` or `stderr: …` while the command runs.

        Raises:
            OSError: The command could not be started, for example because `cwd` does not exist.
        """
        ...


class LocalExecutor:
    """Run commands on this machine, by `/bin/sh -c` or `cmd.exe /C`. Its process group is killed on every way out.

    Processes that left the group may survive: a command runs with all that its user may do.

    Example:
        >>> from pathlib import Path
        >>> command = mn.CommandRequest("echo hello", cwd=Path(), timeout=5.0)
        >>> output = await mn.LocalExecutor().run(command)
        >>> output.stdout.strip(), output.status_code
        ('hello', 0)
    """

    async def run(self, request: CommandRequest, on_line: Callable[[str], None] | None = None) -> ExecOutput:
        """Run a command until it ends or its time is over; `on_line` is called with each line of its output."""
        process = await _start(request)
        streams = [_Capture("stdout", request, on_line), _Capture("stderr", request, on_line)]
        timed_out = left_running = False
        try:
            async with anyio.create_task_group() as readers:
                for capture, pipe in zip(streams, (process.stdout, process.stderr), strict=True):
                    assert pipe is not None
                    readers.start_soon(capture.read, pipe)
                with anyio.move_on_after(request.timeout) as limit:
                    await process.wait()
                timed_out = limit.cancelled_caught
                left_running = not timed_out and _group_is_alive(process)
                _kill_group(process)  # background processes of the command would hold the pipes open
                # a process that left the group still may hold them: read for a while, then stop
                readers.cancel_scope.deadline = anyio.current_time() + DRAIN_SECONDS
        finally:
            _kill_group(process)
            with anyio.CancelScope(shield=True), anyio.move_on_after(DRAIN_SECONDS):
                await process.wait()
            with anyio.CancelScope(shield=True):
                await process.aclose()
        code = process.returncode
        return ExecOutput(
            stdout=streams[0].text(),
            stderr=streams[1].text(),
            status_code=TIMED_OUT if timed_out else code if code is not None and code >= 0 else None,
            timed_out=timed_out,
            stdout_truncated=streams[0].truncated,
            stderr_truncated=streams[1].truncated,
            left_running=left_running,
            stdout_bytes=streams[0].total,
            stderr_bytes=streams[1].total,
            stdout_lines=streams[0].lines,
            stderr_lines=streams[1].lines,
        )


async def _start(request: CommandRequest) -> Process:
    """Start the shell of a command in a process group of its own. Raises `OSError`."""
    shell = ["cmd.exe", "/C", request.command] if sys.platform == "win32" else ["/bin/sh", "-c", request.command]
    with anyio.CancelScope(shield=True):  # a stop in the middle would end the shell alone, and not its group
        return await anyio.open_process(
            shell,
            cwd=request.cwd,
            env=request.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=sys.platform != "win32",
        )
    raise AssertionError("a shielded scope is not cancelled")


class _Capture:
    """The first and last bytes of a stream, and its size. Reports the lines of its beginning as they arrive."""

    def __init__(self, name: str, request: CommandRequest, on_line: Callable[[str], None] | None) -> None:
        self.name, self.limit, self.on_line = name, request.max_output_bytes_per_stream, on_line
        self.kept, self.line, self.ends_line = bytearray(), bytearray(), True
        self.total = self.newlines = 0

    async def read(self, pipe: ByteReceiveStream) -> None:
        async for chunk in pipe:
            room = max(self.limit - self.total, 0)
            self._keep(chunk)
            if self.on_line is None or room <= 0:
                continue
            self.line += chunk[:room]
            *lines, rest = bytes(self.line).split(b"\n")
            self.line = bytearray(rest)
            for line in lines:
                self._report(line)
        if self.line:
            self._report(bytes(self.line))

    def _keep(self, chunk: bytes) -> None:
        self.total += len(chunk)
        self.newlines += chunk.count(b"\n")
        self.ends_line = chunk.endswith(b"\n")
        self.kept += chunk
        if len(self.kept) > 2 * self.limit:
            del self.kept[self._head : len(self.kept) - self._tail]

    @property
    def _tail(self) -> int:
        return self.limit // 3

    @property
    def _head(self) -> int:
        return self.limit - self._tail

    @property
    def truncated(self) -> bool:
        return self.total > self.limit

    @property
    def lines(self) -> int:
        """How many lines were written, counting a last one without its end."""
        return self.newlines + (not self.ends_line)

    def _report(self, line: bytes) -> None:
        if self.on_line is not None:
            self.on_line(f"{self.name}: {line.decode('utf-8', 'replace')}")

    def text(self) -> str:
        if not self.truncated:
            return self.kept.decode("utf-8", "replace")
        head = codecs.getincrementaldecoder("utf-8")("replace").decode(self.kept[: self._head])
        tail = bytes(self.kept[len(self.kept) - self._tail :])
        while tail and tail[0] & 0xC0 == 0x80:  # the rest of a character
            tail = tail[1:]
        return f"{head}\n{LEFT_OUT}\n{tail.decode('utf-8', 'replace')}"


def _group_is_alive(process: Process) -> bool:
    """Return whether a process of the command's group still runs; always false on Windows, which has no groups."""
    if sys.platform == "win32":
        return False
    import psutil

    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getpgid(pid) == process.pid and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def _kill_group(process: Process) -> None:
    """Kill the command and what it started. Does nothing when they are gone."""
    if sys.platform == "win32":
        if process.returncode is None:
            kill_tree(process.pid)
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def kill_tree(pid: int) -> None:
    """Kill a process and its descendants. For systems without process groups."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        root = psutil.Process(pid)
        for found in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                found.kill()

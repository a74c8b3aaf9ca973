"""Runs a command as its own process group, within its time and output limits, and leaves nothing behind.

Whether it may run was decided before; nothing here knows of policy or permission.
"""

from __future__ import annotations

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
DRAIN_SECONDS = 2.0


@dataclass(frozen=True)
class CommandRequest:
    """A shell line to run in `cwd` with exactly `env`, for at most `timeout` seconds."""

    command: str
    cwd: Path
    timeout: float
    env: dict[str, str] = field(default_factory=dict)
    max_output_bytes_per_stream: int = 65_536


@dataclass(frozen=True)
class ExecOutput:
    """`status_code` is `None` when a signal ended the command, 124 when its time was up."""

    stdout: str
    stderr: str
    status_code: int | None
    timed_out: bool = False
    stdout_truncated: bool = False
    stderr_truncated: bool = False

    @property
    def success(self) -> bool:
        return self.status_code == 0


class RuntimeExecutor(Protocol):
    async def run(self, request: CommandRequest, on_line: Callable[[str], None] | None = None) -> ExecOutput:
        """Run to the end. `on_line` gets `stdout: …` and `stderr: …` while it runs. Raises `OSError`."""
        ...


class LocalExecutor:
    """`/bin/sh -c` (on Windows `cmd.exe /C`) on this machine. The whole group dies on every way out."""

    async def run(self, request: CommandRequest, on_line: Callable[[str], None] | None = None) -> ExecOutput:
        shell = ["cmd.exe", "/C", request.command] if sys.platform == "win32" else ["/bin/sh", "-c", request.command]
        process = await anyio.open_process(
            shell,
            cwd=request.cwd,
            env=request.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=sys.platform != "win32",
        )
        streams = [_Capture("stdout", request, on_line), _Capture("stderr", request, on_line)]
        timed_out = False
        try:
            async with anyio.create_task_group() as readers:
                for capture, pipe in zip(streams, (process.stdout, process.stderr), strict=True):
                    assert pipe is not None
                    readers.start_soon(capture.read, pipe)
                with anyio.move_on_after(request.timeout) as limit:
                    await process.wait()
                timed_out = limit.cancelled_caught
                _kill_group(process)  # what the command left running keeps the pipes open, and would keep us here
                # something that left the group still may: read what there is, then stop reading
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
        )


class _Capture:
    """Keeps the first bytes of a stream and reports whole lines as they come."""

    def __init__(self, name: str, request: CommandRequest, on_line: Callable[[str], None] | None) -> None:
        self.name, self.limit, self.on_line = name, request.max_output_bytes_per_stream, on_line
        self.kept, self.line, self.truncated = bytearray(), bytearray(), False

    async def read(self, pipe: ByteReceiveStream) -> None:
        async for chunk in pipe:
            room = self.limit - len(self.kept)
            self.kept += chunk[:room]
            self.truncated = self.truncated or len(chunk) > room
            if self.on_line is None or room <= 0:
                continue
            self.line += chunk[:room]
            *lines, rest = bytes(self.line).split(b"\n")
            self.line = bytearray(rest)
            for line in lines:
                self._report(line)
        if self.line:
            self._report(bytes(self.line))

    def _report(self, line: bytes) -> None:
        if self.on_line is not None:
            self.on_line(f"{self.name}: {line.decode('utf-8', 'replace')}")

    def text(self) -> str:
        return self.kept.decode("utf-8", "replace")


def _kill_group(process: Process) -> None:
    try:
        if sys.platform == "win32":
            if process.returncode is None:
                subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], check=False)  # noqa: S603, S607
        else:
            os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return

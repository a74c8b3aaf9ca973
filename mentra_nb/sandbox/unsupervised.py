"""Commands on Windows, which has no supervisors: what is still a descendant when a command ends is killed."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import anyio
from anyio.abc import ByteReceiveStream, Process

from mentra_nb.sandbox.supervised import Ended

WAIT_SECONDS = 2.0
"""Seconds to wait for a process that was killed."""


class Unsupervised:
    """As `Supervised`. A process whose parent has ended is not found, and survives."""

    def __init__(self, process: Process) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self.stdout: AsyncIterator[bytes] = _pieces(process.stdout)
        self.stderr: AsyncIterator[bytes] = _pieces(process.stderr)

    async def wait(self) -> Ended:
        """Wait for the end of the command."""
        return Ended(await self._process.wait())

    async def kill(self) -> Ended:
        """Kill the command and its descendants, if it still runs, and return how it ended."""
        if self._process.returncode is None:
            kill_tree(self._process.pid)
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(WAIT_SECONDS):
                await self._process.wait()
            await self._process.aclose()
        return Ended(self._process.returncode if self._process.returncode is not None else -1)

    def close(self) -> None:
        """Do nothing: `kill` closes the files."""


async def start(argv: Sequence[str], cwd: Path, env: Mapping[str, str], memory: int | None = None) -> Unsupervised:
    """Start a program; its memory is not limited here. Raises `OSError`."""
    with anyio.CancelScope(shield=True):  # a stop in the middle would end the shell alone, and not its descendants
        process = await anyio.open_process(
            list(argv), cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        return Unsupervised(process)
    raise AssertionError("a shielded scope is not cancelled")


async def _pieces(pipe: ByteReceiveStream) -> AsyncIterator[bytes]:
    async for piece in pipe:
        yield piece


def kill_tree(pid: int) -> None:
    """Kill a process and its descendants."""
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        root = psutil.Process(pid)
        for found in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                found.kill()

"""Commands under supervision, as seen by the process that asks for them: see `supervisor.py`. POSIX only."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from mentra_nb.sandbox import supervisor

ANSWER_SECONDS = supervisor.KILL_SECONDS + 0.5
"""Seconds in which a supervisor must have said that the tree of a command is gone."""
START_SECONDS = 30.0
"""Seconds after which a supervisor that does not answer is replaced."""
_NEEDED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONHOME")
"""The variables without which this Python may not start. Supervisors get no others: a command can read theirs."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, minus the number of the signal if one ended it, and what it left running."""

    status: int
    left_running: bool = False
    over_memory: bool = False
    """Whether it was killed since it used more memory than it may."""


class Supervised:
    """A command that runs, the pieces of its two streams, and its end."""

    def __init__(self, control: socket.socket, pipes: tuple[int, int]) -> None:
        self._control, self._pipes = control, pipes
        self.stdout: AsyncIterator[bytes] = _pieces(pipes[0])
        self.stderr: AsyncIterator[bytes] = _pieces(pipes[1])
        self._received = bytearray()
        self._begun: dict[str, Any] = {}
        self._ended: Ended | None = None

    async def begin(self, request: Mapping[str, Any]) -> bool:
        """Send the request, and return once the command has begun; `False` if there is no supervisor.

        Raises:
            OSError: The command could not be started.
        """
        left = memoryview(json.dumps(request).encode() + b"\n")
        try:
            while left:
                try:
                    left = left[self._control.send(left) :]
                except BlockingIOError:
                    await anyio.wait_writable(self._control)
        except (BrokenPipeError, ConnectionResetError):
            return False
        said = await self._next()
        if said is not None and "error" in said:
            raise OSError(*said["error"][:2], *filter(None, said["error"][2:]))
        self._begun = said or {}
        return said is not None

    async def wait(self) -> Ended:
        """Wait for the end of the command and of all that it started."""
        while self._ended is None:
            said = await self._next()
            if said is None:  # the supervisor was killed
                self._kill_the_rest()
                self._ended = Ended(-signal.SIGKILL)
            elif "status" in said:
                self._ended = Ended(**said)
            else:
                self._begun = said
        return self._ended

    async def kill(self) -> Ended:
        """Kill the command and all that it started, if it still runs, and return how it ended."""
        if self._ended is None:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_WR)
            with anyio.CancelScope(shield=True), anyio.move_on_after(ANSWER_SECONDS):
                return await self.wait()
            self._kill_the_rest()  # the supervisor does not answer, for example because it was stopped
            self._ended = Ended(-signal.SIGKILL)
        return self._ended

    def close(self) -> None:
        """Close the files. The command must have ended."""
        self._control.close()
        for pipe in self._pipes:
            os.close(pipe)

    def _kill_the_rest(self) -> None:
        """Kill the supervisor, whose own parent then kills what is left, and the command's process group."""
        for kill, who in ((os.kill, "supervisor"), (os.killpg, "pid")):
            with contextlib.suppress(KeyError, OSError):
                kill(self._begun[who], signal.SIGKILL)

    async def _next(self) -> dict[str, Any] | None:
        """Return the next message of the supervisor; `None` if it is gone."""
        while b"\n" not in self._received:
            await anyio.wait_readable(self._control)
            try:
                piece = self._control.recv(1 << 16)
            except ConnectionResetError:
                piece = b""
            if not piece:
                return None
            self._received += piece
        message, _, self._received = self._received.partition(b"\n")
        said: dict[str, Any] = json.loads(message)
        return said


async def _pieces(pipe: int) -> AsyncIterator[bytes]:
    """Yield what is written into a pipe, until it is closed."""
    while True:
        await anyio.wait_readable(pipe)  # also lets others run, however fast the pipe is filled
        piece = os.read(pipe, 1 << 16)
        if not piece:
            return
        yield piece


async def start(argv: Sequence[str], cwd: Path, env: Mapping[str, str], memory: int | None = None) -> Supervised:
    """Start a program with `env` as its whole environment, and return once it has begun.

    On Linux it is killed when it and all that it started use more than `memory` bytes together.
    The caller must `kill` it, if it has not ended, and `close` it. It also dies with this process.

    Raises:
        OSError: The program could not be started, or the supervisor.
    """
    folder = os.path.abspath(cwd)  # noqa: ASYNC240, PTH100 - no I/O
    request = {"argv": list(argv), "cwd": folder, "env": dict(env), "memory": memory}
    for _ in range(2):  # a second time if the supervisor has been killed
        ours, pipes = _asked()
        made = Supervised(ours, pipes)
        try:
            with anyio.move_on_after(START_SECONDS):
                if await made.begin(request):
                    return made
        except BaseException:
            with anyio.CancelScope(shield=True):
                await made.kill()
            made.close()
            raise
        made.close()
        with _lock:
            _end_door()
    raise OSError(f"the process that supervises commands could not be started by {sys.executable or 'this program'}")


def _asked() -> tuple[socket.socket, tuple[int, int]]:
    """Ask for a supervisor. Returns our ends of its control socket and of the two pipes for output."""
    with contextlib.ExitStack() as kept, contextlib.ExitStack() as passed:
        ours, theirs = socket.socketpair()
        kept.callback(ours.close)
        passed.callback(theirs.close)
        ours.setblocking(False)
        outputs, ends = list[int](), list[int]()
        for _ in ("stdout", "stderr"):
            output, end = os.pipe()
            kept.callback(os.close, output)
            passed.callback(os.close, end)
            outputs.append(output)
            ends.append(end)
        with _lock:
            try:
                socket.send_fds(_door(), [b"\0"], [*ends, theirs.fileno()])
            except OSError:  # the process behind it was killed
                _end_door()
                socket.send_fds(_door(), [b"\0"], [*ends, theirs.fileno()])
        kept.pop_all()
        return ours, (outputs[0], outputs[1])


_lock = threading.Lock()
_opened: tuple[socket.socket, subprocess.Popen[bytes]] | None = None
"""The socket of the supervisors' parent, and that process."""


def _door() -> socket.socket:
    """Return the socket that takes requests; the first call starts the process behind it. Raises `OSError`."""
    global _opened
    if _opened is None:
        ours, theirs = socket.socketpair()
        ours.settimeout(START_SECONDS)  # a process that was stopped takes no requests
        argv = [sys.executable, "-sSP", "-X", "utf8", supervisor.__file__, str(os.getpid())]
        with theirs:
            try:
                process = subprocess.Popen(  # noqa: S603 - our own program
                    argv,
                    cwd="/",
                    env={name: os.environ[name] for name in _NEEDED if name in os.environ},
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # neither an interrupt from the keyboard nor one of the kernel reaches it
                )
            except BaseException:
                ours.close()
                raise
        _opened = ours, process
    return _opened[0]


def _close_door() -> None:
    """Close the socket. The process behind it ends with its last command."""
    global _opened
    if _opened is not None:
        opened, process = _opened
        _opened = None
        opened.close()
        process.returncode = process.poll() or 0  # it is not waited for


def _end_door() -> None:
    """Kill the process behind the socket, which does not work. The commands that run keep their own supervisors."""
    if _opened is not None:
        _opened[1].kill()
        _opened[1].wait()
        _close_door()


def _forked() -> None:
    """Make the child of a fork use its own supervisors: those of its parent kill commands when the parent ends."""
    global _lock
    _lock = threading.Lock()
    _close_door()


atexit.register(_close_door)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

"""A process that starts commands and kills all that a command started when it is over, is stopped, or nobody waits.

Run as a program by `supervised.py`, with a socket, the door, as its standard input; it imports nothing but the standard
library. A byte on the door, with the ends of two pipes and of a control socket, asks for a command. For each there is a
supervisor, forked beforehand: it reads the request from the control socket, runs the command as its child, and says how
it ended. It kills the command and all its descendants when the control socket closes or the process that asked is gone.
On Linux descendants that left the process group or lost their parent fall to their supervisor; elsewhere only the
process group is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

KILL_SECONDS = 2.0
"""Seconds in which a supervisor tries to kill what is left of a tree."""
PASSES = 50
"""How often new processes of a tree are looked for while those that were found are stopped."""
LOOK_EVERY = 0.1
"""Seconds between two looks at the memory of a tree, at least."""
LOOKING_SHARE = 10
"""How many times longer than a look takes the next one is waited for."""
_SET_CHILD_SUBREAPER = 36
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Children:
    """The children of this process: a file that is readable when one has ended, and their states."""

    def __init__(self) -> None:
        pipe: tuple[int, int] = os.pipe()
        changed, changes = pipe
        self.changed: int = changed
        for end in pipe:
            os.set_blocking(end, False)
        signal.set_wakeup_fd(changes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.any_left: bool = True

    def ended(self) -> dict[int, int]:
        """Return the exit codes of the children that have ended since the last call; minus the signal if one ended it.

        Sets `any_left` to whether there are others.
        """
        with contextlib.suppress(BlockingIOError):
            os.read(self.changed, 4096)
        found = dict[int, int]()
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.any_left = False
                return found
            if pid == 0:
                self.any_left = True
                return found
            found[pid] = os.waitstatus_to_exitcode(status)


def wait_for(files: Collection[int], seconds: float | None = None, closing: Collection[int] = ()) -> set[int]:
    """Wait until one of the files is readable, or one in `closing` is closed at its other end. Returns which."""
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    for file in closing:
        poll.register(file, 0)
    return {file for file, _ in poll.poll(None if seconds is None else max(int(seconds * 1000), 0))}


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends. Does nothing on other systems than Linux."""
    if sys.platform == "linux":
        _libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


_libc = ctypes.CDLL(None)


def descendants(spared: Collection[int] = ()) -> set[int]:
    """Return the processes below this one, without those in `spared` and below them. Empty on other systems than Linux.

    Dead ones that were not waited for are among them: one of their threads may still live.
    """
    if sys.platform != "linux":
        return set()
    children = children_of if os.path.exists("/proc/thread-self/children") else all_children().__getitem__  # noqa: PTH110
    found, open_ends = set[int](), [os.getpid()]
    while open_ends:
        for child in children(open_ends.pop()):
            if child not in spared:
                found.add(child)
                open_ends.append(child)
    return found


def children_of(pid: int) -> list[int]:
    """Return the children of a process, from the files that most kernels have."""
    found = list[int]()
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - faster
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_bytes().split())
    return found


def all_children() -> defaultdict[int, list[int]]:
    """Return the children of each process, from the parents of all processes."""
    found = defaultdict[int, list[int]](list)
    for name in os.listdir("/proc"):  # noqa: PTH208 - faster
        if name.isdigit():
            with contextlib.suppress(OSError):
                parent = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()[1]
                found[int(parent)].append(int(name))
    return found


class Memory:
    """Looks from time to time whether the descendants of this process use more memory together than they may."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.due: float = time.monotonic() + LOOK_EVERY

    @property
    def pause(self) -> float | None:
        """Seconds until the next look; `None` if there is no limit."""
        return None if self.limit is None else max(0.0, self.due - time.monotonic())

    def is_over(self) -> bool:
        """Return whether they use more, if it is time to look."""
        began = time.monotonic()
        if self.limit is None or began < self.due:
            return False
        found = descendants()
        is_over = used_memory(found, "statm") > self.limit and used_memory(found, "smaps_rollup") > self.limit
        ended = time.monotonic()
        self.due = ended + max(LOOK_EVERY, LOOKING_SHARE * (ended - began))
        return is_over


def used_memory(processes: Collection[int], file: str) -> int:
    """Return the bytes of memory that processes use together.

    By `statm`, what several share counts for each of them; by `smaps_rollup`, which takes longer, once in all.
    """
    total = 0
    for pid in processes:
        with contextlib.suppress(OSError, IndexError, ValueError):  # it has ended
            if file == "smaps_rollup":
                try:
                    lines = Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines()
                    total += next(int(line.split()[1]) << 10 for line in lines if line.startswith(b"Pss:"))
                    continue
                except PermissionError:
                    pass
                except StopIteration:
                    continue
            total += int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * _PAGE
    return total


def end_tree(children: Children, group: int | None = None, spared: Collection[int] = ()) -> dict[int, int]:
    """Kill the descendants of this process and those of its process `group`. Returns the exit codes of its children.

    All are stopped before the first is killed, so that none can start others meanwhile. Gives up after `KILL_SECONDS`,
    for example on a process of another user.
    """
    ended, deadline = dict[int, int](), time.monotonic() + KILL_SECONDS
    while True:
        found = set[int]()
        for _ in range(PASSES):
            fresh = descendants(spared) - found
            if not fresh:
                break
            for pid in fresh:
                send(pid, signal.SIGSTOP)
            found |= fresh
        for pid in found:
            send(pid, signal.SIGKILL)
        if group is not None:
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)
        ended |= children.ended()
        nothing_left = not (descendants(spared) if spared else children.any_left)
        if nothing_left or time.monotonic() > deadline:
            return ended
        wait_for([children.changed], 0.01)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal, if the process is there and may be sent one."""
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def read_request(control: socket.socket) -> Any:
    """Return the JSON object that ends with a line end; `None` if the socket closes before."""
    received = bytearray()
    while not received.endswith(b"\n"):
        piece = control.recv(1 << 16)
        if not piece:
            return None
        received += piece
    return json.loads(received)


def supervise_next(door: socket.socket, taken: int, owner: list[int]) -> None:
    """Wait for a request, write a byte to `taken`, and run its command. Returns when it has ended, or nobody asks."""
    children = Children()
    adopt_orphans()
    if wait_for([door.fileno(), *owner]) != {door.fileno()}:
        return
    asked, files, _, _ = socket.recv_fds(door, 1, 3)
    door.close()
    if asked:
        os.write(taken, b"\0")
    if len(files) == 3:
        supervise(children, socket.socket(fileno=files[2]), (files[0], files[1]), owner)


def supervise(children: Children, control: socket.socket, streams: tuple[int, int], owner: list[int]) -> None:
    """Run one command, and say over the control socket that it has begun and how it ended.

    `owner` has a file that is readable when the process that asked is gone, where the system has such files.
    """
    request = read_request(control)
    if request is None:
        return
    try:
        command = subprocess.Popen(  # noqa: S603 - what was asked for
            request["argv"],
            cwd=request["cwd"],
            env=request["env"],
            stdin=subprocess.DEVNULL,
            stdout=streams[0],
            stderr=streams[1],
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        where = getattr(error, "filename", None)
        say(control, error=[getattr(error, "errno", None) or 22, getattr(error, "strerror", None) or str(error), where])
        return
    for stream in streams:
        os.close(stream)
    say(control, supervisor=os.getpid(), pid=command.pid)
    ended, memory = dict[int, int](), Memory(request.get("memory"))
    over_memory = False
    while command.pid not in ended:
        if wait_for([children.changed, control.fileno(), *owner], memory.pause) - {children.changed}:
            break
        if over_memory := memory.is_over():
            break
        ended |= children.ended()
    left_running = command.pid in ended and is_left(children, command.pid)
    if command.pid not in ended or left_running:
        ended |= end_tree(children, command.pid)
    command.returncode = ended.get(command.pid, -signal.SIGKILL)
    say(control, status=command.returncode, left_running=left_running, over_memory=over_memory)


def is_left(children: Children, group: int) -> bool:
    """Return whether a process still runs that a command started which has ended itself."""
    if sys.platform == "linux":
        return children.any_left  # those that it started are children of this process now
    with contextlib.suppress(OSError):
        os.killpg(group, 0)
        return True
    return False


def say(control: socket.socket, **what: Any) -> None:
    """Send one JSON object, if the other end is still there."""
    with contextlib.suppress(OSError):
        control.sendall(json.dumps(what).encode() + b"\n")


def watch(pid: int) -> list[int]:
    """Return a file that is readable when the parent of this process, `pid`, is gone; none where there are no such."""
    if not hasattr(os, "pidfd_open"):
        return []
    try:
        file = os.pidfd_open(pid)
    except OSError:
        sys.exit()  # it is gone already
    if os.getppid() != pid:
        sys.exit()
    return [file]


def serve(door: socket.socket, owner: list[int]) -> None:
    """Keep a supervisor waiting at the door, until it is closed and the last supervisor has ended.

    What a supervisor leaves that was killed itself falls to this process, which kills it.
    """
    children, (taken, take) = Children(), os.pipe()
    supervisors, spare, is_open = set[int](), 0, True
    deadline: float | None = None
    adopt_orphans()
    while is_open or supervisors:
        if is_open and not spare and (spare := fork_supervisor(door, take, owner)):
            supervisors.add(spare)
        files = [children.changed, taken, *(owner if deadline is None else ())]
        left = None if deadline is None else deadline - time.monotonic()
        ready = wait_for(files, left, [door.fileno()] if is_open else ())
        ended = children.ended()
        if taken in ready:
            os.read(taken, 1)
            spare = 0
        spare = 0 if spare in ended else spare
        supervisors -= set(ended)
        if any(ended.values()):
            end_tree(children, spared=supervisors)
        is_open = is_open and not ready & {*owner, door.fileno()}
        if ready & set(owner):
            deadline = time.monotonic() + KILL_SECONDS
        elif deadline is not None and time.monotonic() > deadline:  # a supervisor does nothing: it was stopped
            end_tree(children)
            return


def fork_supervisor(door: socket.socket, taken: int, owner: list[int]) -> int:
    """Return the id of a new process that waits for the next request; 0 if no more processes are allowed now."""
    try:
        pid = os.fork()
    except OSError:
        return 0
    if pid == 0:
        try:
            supervise_next(door, taken, owner)
            os._exit(0)
        finally:
            os._exit(1)
    return pid


if __name__ == "__main__":
    serve(socket.socket(fileno=os.dup(0)), watch(int(sys.argv[1])))

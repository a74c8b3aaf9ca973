"""How much of the machine a fenced command may use, and the kernel's means that hold it to that."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
_NAME = re.compile(r"mentra-(\d+)(-\d+)?")
_KILLS = re.compile(r"^oom_kill [1-9]", re.MULTILINE)
_numbers = count()


@dataclass(frozen=True)
class FenceLimits:
    """What a fenced command may use. Its time is that of the request, of the processor too.

    Example:
        >>> from mentra_nb.sandbox.limits import FenceLimits
        >>> FenceLimits().processes
        512
    """

    memory: int = 4 << 30
    """Bytes for all its processes together, which are killed when they use more; and for each of them."""
    processes: int = 512
    written: int = 1 << 30
    """Bytes of all files it writes, the temporary ones too."""
    files: int = 100_000
    """Files it may have made or changed at a time, the temporary ones too."""
    changed: int = 10_000
    """Files of the workspace it may change, to be kept."""


def resource_limits(limits: FenceLimits, seconds: float) -> list[str]:
    """Return the beginning of a command line that runs another within these limits, and those of this process."""
    import resource

    bounds = {
        "data": (resource.RLIMIT_DATA, limits.memory),
        "nproc": (resource.RLIMIT_NPROC, limits.processes),
        "cpu": (resource.RLIMIT_CPU, int(seconds) + 1),
        "fsize": (resource.RLIMIT_FSIZE, limits.written),
        "core": (resource.RLIMIT_CORE, 0),
        "memlock": (resource.RLIMIT_MEMLOCK, 0),
    }
    words = [_prlimit() or "prlimit"]
    for name, (kind, value) in bounds.items():
        hardest = resource.getrlimit(kind)[1]
        bound = value if hardest == resource.RLIM_INFINITY else min(value, hardest)
        words.append(f"--{name}={bound}:{bound}")
    return words


@cache
def _prlimit() -> str | None:
    return shutil.which("prlimit", path="/usr/bin:/bin:/usr/local/bin")


def limits_problem() -> str | None:
    """Return why a command cannot be held to its limits, or `None`."""
    if _prlimit() is None:
        return "there is no prlimit (of util-linux)"
    if os.geteuid() == 0 and not _controllers():
        return "for root, the number of processes is only limited by a control group, and none can be made here"
    return None


@cache
def _controllers() -> tuple[Path, ...]:
    """Return the folders in which root can make control groups that limit processes and memory; empty if it cannot."""
    if os.access(CGROUPS / "cgroup.procs", os.W_OK):
        with contextlib.suppress(OSError):
            if {"pids", "memory"} <= set((CGROUPS / "cgroup.subtree_control").read_text().split()):
                return (CGROUPS,)
        return ()
    apart = (CGROUPS / "pids", CGROUPS / "memory")
    return apart if all(os.access(each / "cgroup.procs", os.W_OK) for each in apart) else ()


@contextlib.contextmanager
def control_groups(limits: FenceLimits) -> Iterator[list[Path]]:
    """Make control groups to be joined by one fenced command, and remove them afterwards; none if this is not root.

    Raises:
        OSError: They could not be made.
    """
    made: list[Path] = []
    try:
        for above in _controllers() if os.geteuid() == 0 else ():
            _remove_old(above)
            group = above / f"mentra-{os.getpid()}-{next(_numbers)}"
            group.mkdir()
            made.append(group)
            for name, value in (
                ("pids.max", limits.processes),
                ("memory.max", limits.memory),
                ("memory.swap.max", 0),
                ("memory.limit_in_bytes", limits.memory),
            ):
                if (group / name).exists():
                    (group / name).write_text(str(value))
        yield made
    finally:
        for group in made:
            if not _removed(group):
                atexit.register(_removed, group)


def ran_out_of_memory(groups: Sequence[Path]) -> bool:
    """Return whether the kernel killed a process of these control groups for want of memory."""
    files = [group / name for group in groups for name in ("memory.events", "memory.oom_control")]
    return any(_KILLS.search(each.read_text()) for each in files if each.exists())


@cache
def _remove_old(above: Path) -> None:
    """Remove the groups of processes that are gone."""
    for each in above.glob("mentra-*"):
        named = _NAME.fullmatch(each.name)
        if named and int(named[1]) != os.getpid():
            import psutil

            if not psutil.pid_exists(int(named[1])):
                _removed(each)


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):
        group.rmdir()
        return True
    return False

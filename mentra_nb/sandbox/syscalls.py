"""The system calls that a fenced command may not make, as a filter for the kernel."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from functools import cache

REFUSED = (
    # other processes, and their memory
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_getfd"),
    # what the kernel keeps for all: keys, programs, modules, the clock, the log, accounting
    *("add_key", "keyctl", "request_key", "bpf", "perf_event_open", "init_module", "finit_module", "delete_module"),
    *("kexec_load", "kexec_file_load", "reboot", "syslog", "acct", "swapon", "swapoff", "settimeofday", "adjtimex"),
    *("clock_settime", "clock_adjtime", "quotactl", "quotactl_fd", "nfsservctl", "vhangup", "lookup_dcookie"),
    # namespaces, mounts, and files by number instead of by name
    *("unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig"),
    *("fsmount", "fspick", "mount_setattr", "name_to_handle_at", "open_by_handle_at", "fanotify_init"),
    # ways around this filter, and parts of the kernel that ordinary commands do not need
    *("io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd", "iopl", "ioperm", "modify_ldt", "vm86"),
    *("set_mempolicy", "mbind", "move_pages", "migrate_pages"),
)
_NEW_NAMESPACES = (0x00020000, 0x00000080, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
"""The flags of `clone` that make a namespace."""
_TYPES_INTO_TERMINALS = (0x5412, 0x541C)
"""`TIOCSTI` and `TIOCLINUX`."""


@cache
def filter_program() -> bytes:
    """Return the filter in the kernel's form, for this machine's processor.

    Of the kinds of sockets only those of this machine's own network, which has nobody in it, may be made.

    Raises:
        ImportError: The library is not installed, or it does not find `libseccomp`.
        OSError: The library refused.
    """
    import pyseccomp

    refuse = pyseccomp.ERRNO(errno.EPERM)
    made = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for name in REFUSED:
        _add(made, refuse, name)
    _add(made, pyseccomp.ERRNO(errno.ENOSYS), "clone3")  # its flags are in memory; libraries then use clone
    for flag in _NEW_NAMESPACES:
        _add(made, refuse, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, flag, flag))
    for request in _TYPES_INTO_TERMINALS:
        _add(made, refuse, "ioctl", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, 0xFFFFFFFF, request))
    no_such_family = pyseccomp.ERRNO(errno.EAFNOSUPPORT)
    allowed = {int(socket.AF_UNIX), int(socket.AF_INET), int(socket.AF_INET6)}
    for family in set(range(max(allowed))) - allowed:
        _add(made, no_such_family, "socket", pyseccomp.Arg(0, pyseccomp.EQ, family))
    _add(made, no_such_family, "socket", pyseccomp.Arg(0, pyseccomp.GT, max(allowed)))
    with tempfile.TemporaryFile() as file:
        made.export_bpf(file)
        file.seek(0)
        return file.read()


def _add(made: object, action: object, name: str, *arguments: object) -> None:
    """Add a rule; a system call that this processor does not have needs none."""
    import pyseccomp

    try:
        pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    except ValueError:
        return
    made.add_rule(action, name, *arguments)  # type: ignore[attr-defined]


def write_filter(path: str) -> None:
    """Write the filter to a new file. Raises as `filter_program`."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(filter_program())

"""The runtime's hard limits on files and commands, which no rule or person can lift. Nothing is run here.

Checking a path and using it are two steps, so this guards against a careless model, not against a hostile program that
runs beside it. A shell command, once allowed, can touch anything its user can.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

from mentra_nb.errors import OperationDenied
from mentra_nb.permission.protected import Access, guard_of
from mentra_nb.permission.splitting import simple_commands, why_not_split

DEFAULT_ENV = ("PATH",) if sys.platform != "win32" else ("PATH", "PATHEXT", "SystemRoot", "COMSPEC", "TEMP", "TMP")
_DONE = {"read": "read", "write": "written"}


class PolicyViolation(OperationDenied):
    """The policy forbids a call. `action` is the name of what was refused, as in `authorization_denied`."""

    def __init__(self, action: str, detail: str) -> None:
        super().__init__(detail)
        self.action = action
        self.detail = detail


@dataclass(frozen=True, repr=False)
class RuntimePolicy:
    """What tools may do at all. Shell and background commands are off unless switched on.

    Roots are folders; the agent's base folder is always readable, and writable unless `read_only`. What is in
    `denied_write_roots` is not writable, also inside another root. Mentra's own files can be neither read nor written.
    With `allowed_programs` a command line may name no others, and must be one whose programs can be told; what they run
    themselves is not seen. With `sandboxed_only` commands run in the sandbox of a session, or by an executor that the
    application gives, and never in the background; with `read_only` too, they may run there and change nothing.

    `shell_validation` judges command lines by the names in them, which is a hint and no boundary: with `warn` a line
    that seems dangerous is asked about, whatever wildcard covers it; with `enforce` one that seems to change something
    is also refused under a policy that is read-only.
    Times are in seconds; `max_output_bytes_per_stream` is kept of each of a command's streams;
    `background_task_limit` background commands of an agent may run at once.

    Example:
        >>> policy = mn.RuntimePolicy(allow_shell_commands=True, allowed_env_vars=("PATH", "HOME"))
        >>> policy
        RuntimePolicy(allow_shell_commands=True, allowed_env_vars=('PATH', 'HOME'))
        >>> mn.Runtime(policy=mn.RuntimePolicy(read_only=True)).policy.read_only
        True
    """

    allow_shell_commands: bool = False
    allow_background_commands: bool = False
    read_only: bool = False
    allowed_working_roots: tuple[Path, ...] = ()
    allowed_read_roots: tuple[Path, ...] = ()
    allowed_write_roots: tuple[Path, ...] = ()
    denied_write_roots: tuple[Path, ...] = ()
    allowed_env_vars: tuple[str, ...] = DEFAULT_ENV
    default_command_timeout: float = 30.0
    max_command_timeout: float = 30.0
    background_timeout: float = 86_400.0
    background_task_limit: int = 8
    max_output_bytes_per_stream: int = 65_536
    allowed_programs: tuple[str, ...] | None = None
    sandboxed_only: bool = False
    shell_validation: Literal["off", "warn", "enforce"] = "off"

    def __repr__(self) -> str:
        """Only what differs from the default policy."""
        said = ((each.name, getattr(self, each.name), each.default) for each in fields(self))
        return f"RuntimePolicy({', '.join(f'{name}={value!r}' for name, value, default in said if value != default)})"

    @classmethod
    def workspace_bounded(cls, folder: Path | str) -> RuntimePolicy:
        """Return a policy for work inside one folder: commands are off, and run in the sandbox only where switched on.

        Example:
            >>> policy = mn.RuntimePolicy.workspace_bounded("/srv/app")
            >>> policy.allow_shell_commands, policy.sandboxed_only, policy.max_command_timeout
            (False, True, 600.0)
            >>> import dataclasses
            >>> dataclasses.replace(policy, allow_shell_commands=True).allowed_write_roots
            (PosixPath('/srv/app'),)
        """
        roots = (Path(folder).expanduser().resolve(),)
        return cls(
            allowed_working_roots=roots,
            allowed_read_roots=roots,
            allowed_write_roots=roots,
            default_command_timeout=120.0,
            max_command_timeout=600.0,
            sandboxed_only=True,
        )

    @classmethod
    def permissive(cls) -> RuntimePolicy:
        """Return the default policy with shell and background commands on.

        Example:
            >>> mn.RuntimePolicy.permissive().allow_shell_commands
            True
        """
        return cls(allow_shell_commands=True, allow_background_commands=True)

    @classmethod
    def for_notebook(cls) -> RuntimePolicy:
        """Return the notebook's policy: shell on, common environment variables, up to ten minutes a command.

        Example:
            >>> mn.RuntimePolicy.for_notebook().max_command_timeout
            600.0
        """
        return replace(
            cls.permissive(),
            allowed_env_vars=(*DEFAULT_ENV, "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "CONDA_PREFIX"),
            default_command_timeout=120.0,
            max_command_timeout=600.0,
        )

    def environment(self) -> dict[str, str]:
        """Return the variables a command gets: the allowed names that are set.

        Example:
            >>> mn.RuntimePolicy(allowed_env_vars=("NO_SUCH_VARIABLE",)).environment()
            {}
        """
        return {name: os.environ[name] for name in self.allowed_env_vars if name in os.environ}

    def command_timeout(self, requested: float | None) -> float:
        """Return the seconds a command may take, given the seconds it asks for.

        Example:
            >>> mn.RuntimePolicy().command_timeout(90.0)
            30.0
        """
        return min(requested or self.default_command_timeout, self.max_command_timeout)

    def check_command(self, base: Path, cwd: Path) -> None:
        """Raise `PolicyViolation` when a shell command may not run in `cwd`.

        Example:
            >>> from pathlib import Path
            >>> mn.RuntimePolicy().check_command(Path.cwd(), Path.cwd())
            Traceback (most recent call last):
            ...
            mentra_nb.permission.policy.PolicyViolation: shell commands are disabled by the runtime policy
        """
        if not self.allow_shell_commands:
            raise PolicyViolation("shell_command", "shell commands are disabled by the runtime policy")
        if self.read_only and not self.sandboxed_only:
            raise PolicyViolation("shell_command", "shell commands are disabled by the runtime policy: it is read-only")
        if not _inside(cwd.resolve(), (base, *self.allowed_working_roots)):
            raise PolicyViolation("shell_command", f"'{cwd}' is outside the runtime policy roots")

    def check_programs(self, line: str) -> None:
        """Raise `PolicyViolation` when a command line names a program that is not one of `allowed_programs`.

        Example:
            >>> policy = mn.RuntimePolicy(allow_shell_commands=True, allowed_programs=("git", "ls"))
            >>> policy.check_programs("git log | ls")
            >>> policy.check_programs("git log > /tmp/log")
            Traceback (most recent call last):
            ...
            mentra_nb.permission.policy.PolicyViolation: the policy allows git, ls only, and what this line runs ...
        """
        if self.allowed_programs is None:
            return
        commands, only = (
            simple_commands(line),
            f"the policy allows {', '.join(self.allowed_programs) or 'no program'} only",
        )
        if commands is None:
            raise PolicyViolation(
                "shell_command", f"{only}, and what this line runs cannot be told: {why_not_split(line)}"
            )
        for program in (command.split()[0] for command in commands):
            if program not in self.allowed_programs:
                raise PolicyViolation("shell_command", f"{only}, not {program}")

    def check_background(self, base: Path, cwd: Path) -> None:
        """Raise `PolicyViolation` when a command may not run in the background in `cwd`.

        Example:
            >>> from pathlib import Path
            >>> mn.RuntimePolicy(allow_shell_commands=True).check_background(Path.cwd(), Path.cwd())
            Traceback (most recent call last):
            ...
            mentra_nb.permission.policy.PolicyViolation: Background command execution is disabled by the runtime policy
        """
        self.check_command(base, cwd)
        if self.sandboxed_only:
            raise PolicyViolation(
                "background_command", "the policy has commands run in the sandbox only, not in the background"
            )
        if not self.allow_background_commands:
            what = "Background command execution is disabled by the runtime policy"
            raise PolicyViolation("background_command", what)

    def readable(self, base: Path, path: str, action: str = "files_read") -> Path:
        """Return `path` with symlinks resolved. Raises `PolicyViolation`, of this action, when it may not be read.

        Example:
            >>> from pathlib import Path
            >>> mn.RuntimePolicy().readable(Path.cwd(), "data.csv").name
            'data.csv'
        """
        target = _resolve(base, path, action)
        _check_own(base, path, target, "read")
        if not _inside(target, (base, *self.allowed_read_roots, *self.allowed_write_roots)):
            raise PolicyViolation(action, f"'{path}' is outside the runtime policy read roots")
        return target

    def writable(self, base: Path, path: str) -> Path:
        """Return `path` with symlinks resolved. Raises `PolicyViolation` when it may not be written.

        Example:
            >>> from pathlib import Path
            >>> mn.RuntimePolicy().writable(Path.cwd(), "data.csv").name
            'data.csv'
        """
        if self.read_only:
            raise PolicyViolation("files_write", f"'{path}' cannot be written: the runtime policy is read-only")
        target = _resolve(base, path, "files_write")
        _check_own(base, path, target, "write")
        if _inside(target, self.denied_write_roots):
            raise PolicyViolation("files_write", f"'{path}' is inside the runtime policy denied write roots")
        if not _inside(target, (base, *self.allowed_write_roots)):
            raise PolicyViolation("files_write", f"'{path}' is outside the runtime policy write roots")
        return target


def resolved(base: Path, path: str) -> Path:
    """Return the file that `path` names, relative to `base`, with symlinks resolved. Raises `OSError`, `ValueError`.

    `..` is removed before links are followed, so that `link/..` is `base` and not the parent of the link's target.
    """
    return as_given(base, path).resolve()


def as_given(base: Path, path: str) -> Path:
    """Return the file that `path` names, relative to `base`, with its links as they are."""
    return Path(os.path.normpath(base / Path(path).expanduser()))


def _check_own(base: Path, path: str, target: Path, access: Access) -> None:
    found = guard_of((as_given(base, path), target), access)
    if found is not None and found.refused:
        raise PolicyViolation(f"files_{access}", f"'{path}' cannot be {_DONE[access]}: {found.why}")


def _resolve(base: Path, path: str, action: str) -> Path:
    if "\0" in path:
        raise PolicyViolation(action, "a path may not contain a NUL character")
    try:
        return resolved(base, path)
    except (OSError, RuntimeError) as error:
        raise PolicyViolation(action, f"'{path}' cannot be resolved: {error}") from error


def _inside(path: Path, roots: tuple[Path, ...]) -> bool:
    return any(path.is_relative_to(root.resolve()) for root in roots)

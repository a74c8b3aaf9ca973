"""What a shell line seems to be for, by the names of its programs: a hint for people and policies, and no boundary.

A line is read as the shell splits it, and each of its commands is judged; wrappers such as `env`, `sudo` and `sh -c`
are seen through. What a program does by itself is not seen: where it matters, run it in the sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mentra_nb.permission.splitting import MAX_LINE, commands_in

Intent = Literal[
    "read_only",
    "unknown",
    "write",
    "network",
    "process_management",
    "package_management",
    "system_admin",
    "destructive",
]
MAX_NESTED = 20
"""Lines within lines that are read; what is deeper is unknown."""
Outcome = Literal["allow", "prompt", "deny"]


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_PROGRAMS: dict[Intent, str] = {
    "read_only": """cat ls head tail less more grep egrep fgrep rg wc sort uniq cut tr diff cmp comm file stat du df pwd
        cd echo printf which type whoami id date uname hostname ps top tree basename dirname realpath readlink nl od
        sha256sum sha1sum md5sum cksum jq true false test seq sleep printenv locale find sed awk git""",
    "write": "cp mv mkdir rmdir touch chmod chown chgrp ln install tee truncate mkfifo mknod dd",
    "network": "curl wget ssh scp sftp rsync nc ncat netcat telnet ftp ping dig nslookup host traceroute",
    "process_management": "kill pkill killall renice",
    "package_management": """apt apt-get dpkg yum dnf rpm pacman apk zypper brew port snap pip pip3 pipx uv conda mamba
        npm yarn pnpm cargo gem""",
    "system_admin": """docker podman systemctl service mount umount reboot shutdown halt poweroff useradd userdel
        usermod groupadd groupdel crontab at iptables sysctl su""",
    "destructive": "rm shred wipefs",
}
_INTENTS: dict[str, Intent] = {name: intent for intent, names in _PROGRAMS.items() for name in names.split()}
_ORDER: tuple[Intent, ...] = get_args(Intent)
_CHANGING = frozenset(_PROGRAMS) - {"read_only", "network"}
_GIT_READS = _set("status log diff show ls-files ls-tree cat-file rev-parse describe shortlog blame reflog fetch grep")
_FIND_CHANGES = _set("-delete -exec -execdir -ok -okdir -fprint -fprintf -fls")
_GIT_LISTS = {
    "branch": ("-a", "-r", "-v", "-vv", "--list", "--all", "--show-current"),
    "tag": ("-l", "--list", "-n"),
    "stash": ("list", "show"),
    "remote": ("-v", "show", "get-url"),
    "config": ("--get", "--list", "-l", "--get-all"),
    "bisect": ("log",),
}
_SYSTEM = ("/etc/", "/usr/", "/var/", "/boot/", "/sys/", "/proc/", "/dev/", "/sbin/", "/bin/", "/lib/", "/opt/")
_OPTION = re.compile(r"-|[\d.]+[smhd]?$")
_REDIRECTION = re.compile(r"(?<![-=])>")
_DEVICE = re.compile(r">\s*/dev/(sd|hd|nvme|vd|disk)")
_BOMB = re.compile(r":\s*\(\s*\)\s*\{")
_HOME = re.compile(r"(^|[\s=:])~/|\$HOME\b|\$\{HOME\}")


@dataclass(frozen=True)
class Verdict:
    """What a line seems to be for, and whether a policy would let it pass, have it asked about, or refuse it."""

    outcome: Outcome
    intent: Intent
    reason: str | None = None


def judged(line: str, workspace: Path, *, read_only: bool = False) -> Verdict:
    """Return what a shell line seems to be for. With `read_only` it is denied if it seems to change something."""
    commands = list(_programs(line))
    found: list[Intent] = [_intent(words) for words in commands]
    intent: Intent = max(found, key=_ORDER.index) if found else "unknown"
    if read_only and (reason := _change(line, commands)) is not None:
        return Verdict("deny", intent, f"{reason}, and the policy is read-only")
    each = (check(words) for check in (_in_place, _destroys, _escape) for words in commands)
    checks = (*each, _line_destroys(line), _path(line, workspace))
    reason = next(filter(None, checks), None)
    if read_only and reason is None and "unknown" in found:
        reason = "it is not known what it does, and the policy is read-only"
    return Verdict("allow" if reason is None else "prompt", intent, reason)


def _programs(line: str, depth: int = 0) -> Iterator[list[str]]:
    """Yield the words of each command of a line from its program on: without assignments and wrappers."""
    if depth > MAX_NESTED:
        yield ["?"]
        return
    from mentra_nb.permission.programs import ASSIGNMENT, SHELLS

    for words in commands_in(line[:MAX_LINE].replace("`", ";")):
        for word in words:
            if "$(" in word and " " in word:  # within quotes
                yield from _programs(word.partition("$(")[2], depth + 1)
        left, wrapped = list(words), False
        while left and (ASSIGNMENT.match(left[0]) or _wraps(left[0]) or (wrapped and _OPTION.match(left[0]))):
            wrapped = wrapped or _wraps(left[0])
            left = left[1:]
        script = next((at for at, word in enumerate(left) if re.fullmatch("-[a-z]*c", word)), None)
        if left and _name(left[0]) in SHELLS and script is not None:
            yield from _programs(" ".join(left[script + 1 : script + 2]), depth + 1)
        elif left:
            yield left


def _wraps(word: str) -> bool:
    from mentra_nb.permission.programs import WRAPPERS

    how = WRAPPERS.get(name := _name(word))
    return how is not None and not how.only and name not in _INTENTS


def _name(word: str) -> str:
    return word.rpartition("/")[2]


def _intent(words: Sequence[str]) -> Intent:
    name = _name(words[0])
    if name.startswith("mkfs"):
        return "destructive"
    intent = _INTENTS.get(name, "unknown")
    return "write" if intent == "read_only" and _writes(words) else intent


def _writes(words: Sequence[str]) -> str | None:
    """Return how a program that usually only reads is told to change something."""
    name, rest = _name(words[0]), words[1:]
    if name == "sed" and any(word.startswith(("-i", "--in-place")) for word in rest):
        return "sed -i"
    if name == "find":
        return next((f"find {word}" for word in rest if word in _FIND_CHANGES), None)
    if name != "git":
        return None
    said = [word for word in rest if not word.startswith("-")]
    command = said[0] if said else "status"
    after = rest[rest.index(command) + 1 :] if said else ()
    lists = _GIT_LISTS.get(command)
    asks = lists is not None and (any(word in lists for word in after) or (not after and command != "stash"))
    return None if asks or command in _GIT_READS else f"git {command}"


def _change(line: str, commands: Sequence[Sequence[str]]) -> str | None:
    """Return what a line seems to change, in words; `None` if it seems to read only."""
    for words in commands:
        intent = _intent(words)
        if intent in _CHANGING:
            return f"{_writes(words) or _name(words[0])} may change something"
    if _REDIRECTION.search(re.sub(r"'[^']*'|\"[^\"]*\"", "", line)):
        return "its output goes to a file"
    if "`" in line or "$(" in line:
        return "what is in its substitutions cannot be told"
    return None


def _in_place(words: Sequence[str]) -> str | None:
    return "sed -i changes files in place" if _name(words[0]) == "sed" and _writes(words) else None


def _destroys(words: Sequence[str]) -> str | None:
    name, rest = _name(words[0]), list(words[1:])
    letters = "".join(word[1:] for word in rest if re.fullmatch(r"-[A-Za-z]+", word))
    long = {word for word in rest if word.startswith("--")}
    deep, forced = {*letters} & {"r", "R"} or "--recursive" in long, "f" in letters or "--force" in long
    if name == "rm" and deep and forced:
        return "rm -rf deletes folders without asking"
    if name in ("shred", "wipefs") or name.startswith("mkfs"):
        return f"{name} destroys what it is given"
    if name == "dd" and any(word.startswith(("if=", "of=/dev/")) for word in rest):
        return "dd writes raw data"
    if name == "chmod" and {"R"} & set(letters) and {"777", "000", "0777", "0000"} & set(rest):
        return "chmod -R opens or closes everything"
    return None


def _line_destroys(line: str) -> str | None:
    if _DEVICE.search(line):
        return "it writes to a disk"
    return "it starts processes without end" if _BOMB.search(line) else None


def _escape(words: Sequence[str]) -> str | None:
    named = [word for word in words[1:] if word.startswith(_SYSTEM) or f"{word}/" in _SYSTEM]
    if named and _intent(words) in _CHANGING:
        return f"{_name(words[0])} names {named[0]}, which belongs to the system"
    return None


def _path(line: str, workspace: Path) -> str | None:
    if "../" in line and str(workspace) not in line:
        return "../ leads out of the folder"
    return "it names your home folder" if _HOME.search(line) else None

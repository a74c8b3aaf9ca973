"""Whether a rule covers a call: functions over frozen rules. Every function is linear in the text it is given.

Allowances for a shell line are matched command by command, and a line that cannot be split with certainty is covered
only by its exact pattern. Denials judge what the line would run (`denials.py`). Patterns on paths are normalised as
the paths are: `~`, `./` and `..` are resolved, and a path is matched both relative to the working folder and absolute.
The denial of a folder is one of all that is in it, and holds for the other tools for files as well. A protected file is
allowed only by its own name.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mentra_nb.authorization import PermissionRule, Subject
from mentra_nb.permission.patterns import WILD, as_path_pattern, exactly, has_wildcard, matches
from mentra_nb.permission.splitting import simple_commands, without_redirections

if TYPE_CHECKING:
    from mentra_nb.permission.denials import Verdict

IN_CMD = sys.platform == "win32"
"""Whether commands run in a shell whose lines cannot be split here, so that a wildcard covers none of them."""
DENIED_WITH = {"files": ("read", "write"), "read": ("files",), "write": ("files",)}
"""By tool for files: the others whose denials of a path hold for it as well, that of `write` for what it changes."""
CODE = frozenset({"python"})
"""The tools whose text is code, of which no pattern can tell what it runs: beside a denial no wildcard covers any."""


def find_rule(
    rules: Iterable[PermissionRule], tool: str, subject: Subject, *, on_effects: bool = False
) -> PermissionRule | None:
    """Return the rule that decides a call, or `None`.

    A denial that matches any part wins. Otherwise every part must be covered by an allowance, the longest pattern
    first; the one that covers the first part is returned. A rule on effects allows no call; with `on_effects`, only
    those rules allow, and they cover a command whatever files its redirections name: what it did to them is judged.
    """
    held = (tool, *(DENIED_WITH.get(tool, ()) if subject.kind == "path" else ()))
    own = sorted((rule for rule in rules if rule.tool in held), key=lambda rule: -len(rule.pattern))
    denying, own = [rule for rule in own if not rule.allow], [rule for rule in own if rule.tool == tool]
    allowing = [rule for rule in own if rule.allow and (rule.folders is not None) == on_effects]
    if subject.kind == "shell":
        return _shell_rule(allowing, denying, subject, on_effects=on_effects)
    parts = subject.forms() or (("",),)  # a call without a subject is covered by `*` only
    for rule in denying:
        patterns = _denials(rule, subject.kind)
        only_read = subject.only_read if rule.tool == "write" else ()
        acted_on = [part for part in parts if part[0] not in only_read]
        if any(_covers(each, text, subject.kind) for each in patterns for part in acted_on for text in part):
            return rule
    exact = [rule for rule in allowing if not has_wildcard(rule.pattern)]
    if denying and tool in CODE:
        allowing = exact
    covering = [_covering(exact if part[0] in subject.protected else allowing, part, subject.kind) for part in parts]
    return covering[0] if all(covering) else None


def _covers(pattern: str, text: str, kind: str) -> bool:
    if kind != "path":
        return matches(pattern, text)
    if pattern.startswith(".") and Path(text).is_absolute():  # `./*` is what is in the working folder
        return False
    return matches(as_path_pattern(pattern), text)


def _denials(rule: PermissionRule, kind: str) -> list[str]:
    """Return the patterns of a denial: a path also with all that is in it, and where links lead."""
    if kind == "path":
        return [each for path in _led_to(as_path_pattern(rule.pattern)) for each in (path, f"{path.rstrip('/')}/*")]
    return [rule.pattern]


def _led_to(pattern: str) -> list[str]:
    """Return a pattern on paths, and if it is absolute also with the links in its fixed part resolved."""
    wild = WILD.search(pattern)
    fixed = pattern[: wild.start()].rpartition("/")[0] if wild else pattern
    if not Path(fixed).is_absolute():
        return [pattern]
    real = exactly(os.path.realpath(fixed).replace(os.sep, "/"))
    return list(dict.fromkeys([pattern, real.rstrip("/") + pattern[len(fixed) :]]))


def _covering(allowing: list[PermissionRule], part: Sequence[str], kind: str) -> PermissionRule | None:
    return next((rule for rule in allowing if any(_covers(rule.pattern, text, kind) for text in part)), None)


# ---- shell lines ----------------------------------------------------------------------------------------------------


def _shell_rule(
    allowing: list[PermissionRule], denying: list[PermissionRule], subject: Subject, *, on_effects: bool
) -> PermissionRule | None:
    lines = subject.parts or ("",)
    verdicts = [verdict_on(denying, line) for line in lines]
    if (denial := next((verdict.denied for verdict in verdicts if verdict and verdict.denied), None)) is not None:
        return denial
    covering = [
        None
        if verdict is not None and verdict.unread
        else _allowance(allowing, denying, line, subject.protected, on_effects=on_effects)
        for line, verdict in zip(lines, verdicts, strict=True)
    ]
    return covering[0] if all(covering) else None


def _allowance(
    allowing: list[PermissionRule],
    denying: list[PermissionRule],
    line: str,
    protected: Sequence[str],
    *,
    on_effects: bool,
) -> PermissionRule | None:
    """Return an allowance for a shell line: one of its exact text, or one for each of its simple commands."""
    whole = _exact(allowing, line)
    commands = simple_commands(without_redirections(line) if on_effects else line)
    if whole is not None or commands is None or line in protected or IN_CMD:
        return whole
    covering = [_command_allowance(allowing, denying, command) for command in dict.fromkeys(commands)]
    return covering[0] if all(covering) else None


def _command_allowance(
    allowing: list[PermissionRule], denying: list[PermissionRule], command: str
) -> PermissionRule | None:
    """Return an allowance for a simple command: only its exact one if a denial may cover what it runs."""
    verdict = verdict_on(denying, command)
    if verdict is not None and verdict.possible is not None:
        return _exact(allowing, command)
    return next((rule for rule in allowing if matches(rule.pattern, command)), None)


def _exact(allowing: list[PermissionRule], text: str) -> PermissionRule | None:
    return next((rule for rule in allowing if rule.pattern == exactly(text)), None)


def verdict_on(denying: Sequence[PermissionRule], line: str) -> Verdict | None:
    """Return what denials say of a shell line; `None` if there are none. Only then is the grammar of bash imported."""
    if not denying:
        return None
    from mentra_nb.permission.denials import judge

    return judge(denying, line)


def pattern_problem(pattern: str, kind: str, *, allow: bool) -> str | None:
    """Return why a rule with this pattern could never apply to a subject of this kind, in one sentence; else `None`."""
    if not pattern:
        return "the pattern is empty: write * for every call"
    if kind == "path" and pattern.endswith("/") and not WILD.search(pattern):
        return f"'{pattern}' is a folder and matches no file: write '{pattern}*'"
    if kind == "path" and as_path_pattern(pattern).startswith("../"):
        return f"'{pattern}' can never match: what is outside the working folder is matched by its absolute path"
    if kind == "path" and re.match(r"\$\{?\w+\}?/", pattern):
        return f"'{pattern}' is never matched, since variables are not replaced in it: write ~ or the path itself"
    if kind == "shell" and allow and has_wildcard(pattern):
        commands = simple_commands(WILD.sub("x", pattern))
        if set(pattern) != {"*"} and commands is not None and len(commands) > 1:
            return (
                f"'{pattern}' can never match: an allowance is matched against each simple command of a line; "
                "allow each command by itself"
            )
    return None

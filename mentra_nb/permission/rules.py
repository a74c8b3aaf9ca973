"""Whether a rule covers a call: functions over frozen rules. Every function is linear in the text it is given.

A pattern is matched against the whole subject: `*` is any run of characters, `?` is one, `[*]` and `[?]` are those
characters themselves, everything else is literal. Allowances for a shell line are matched command by command, and a
line that cannot be split with certainty is covered only by its exact pattern. Denials are matched against the line,
each of its commands as written, and each as the shell splits it into words. Where the words of a denial occur
otherwise, such as behind `env` or an option, the command is covered only by its exact pattern. Patterns on paths are
normalised as the paths are: `~`, `./` and `..` are resolved, and a path is matched both relative to the working folder
and absolute. The denial of a folder is one of all that is in it. A protected file is allowed only by its own name.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

from mentra_nb.authorization import PermissionRule, Subject

MAX_LINE = 65_536
"""Characters of a shell line that is taken apart; a longer one is treated as one that cannot be split."""

_PATTERN = re.compile(r"\[[*?]\]|.", re.DOTALL)
_WILD = re.compile(r"\[[*?]\]|[*?]")

# A word that is a command's name and nothing else: no quotes, globs, assignments or words of the shell's own grammar.
_NAME = re.compile(r"[\w./~+:@%,-]+(?=[ \t]|$)")
_GRAMMAR = re.compile(r"if|then|elif|else|fi|for|while|until|do|done|case|esac|in|function|select|time")
_OPERATOR = re.compile(r"[;&|()<>]+")
_PART = re.compile(r"[\w./~+:@%*?\[\]!-]+")
_QUOTING = str.maketrans("", "", "'\"\\")


# ---- patterns -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _segments(pattern: str) -> tuple[tuple[re.Pattern[str], int], ...]:
    """Split a pattern at its `*`: the expression of each piece, and the length of what it matches."""
    pieces: list[list[str]] = [[]]
    for sign in _PATTERN.findall(pattern):
        if sign == "*":
            pieces.append([])
        else:
            pieces[-1].append("." if sign == "?" else re.escape(sign[1] if len(sign) == 3 else sign))
    return tuple((re.compile("".join(piece), re.DOTALL), len(piece)) for piece in pieces)


def exactly(subject: str) -> str:
    """Return the pattern that covers this text and no other."""
    return re.sub(r"[*?]", r"[\g<0>]", subject)


def matches(pattern: str, subject: str) -> bool:
    """Return whether `pattern` covers the whole of `subject`. Takes time linear in the subject."""
    (first, length), *rest = _segments(pattern)
    if not rest:
        return len(subject) == length and first.match(subject) is not None
    *middle, (last, tail) = rest
    at, end = length, len(subject) - tail
    if at > end or first.match(subject) is None or last.match(subject, end) is None:
        return False
    for piece, size in middle:  # the earliest place is never worse: a later piece has more room then
        found = piece.search(subject, at, end) if size else None
        if size and found is None:
            return False
        at = found.end() if found is not None else at
    return True


def as_path_pattern(pattern: str) -> str:
    """Return a pattern on paths in the form that paths have: `~` expanded, `./` and `..` resolved."""
    if not pattern.startswith(("~", ".")) and "/./" not in pattern and "/../" not in pattern and "//" not in pattern:
        return pattern
    return os.path.normpath(Path(pattern).expanduser()).replace(os.sep, "/")


# ---- shell lines ----------------------------------------------------------------------------------------------------


def simple_commands(line: str) -> list[str] | None:
    """Return the simple commands of a shell line, each as written, or `None` when it cannot be split with certainty.

    Splits at `;`, `&`, `&&`, `|` and `||` outside quotes. Substitutions, variables, escapes, redirections, groups,
    comments, line breaks, open quotes, assignments, shell keywords and names that are quoted or globbed are not
    split: what such a line runs cannot be read off it.
    """
    if len(line) > MAX_LINE:
        return None
    commands, start, quote, i = [], 0, "", 0
    while i < len(line):
        char = line[i]
        if char in "\n\r\0" or (quote != "'" and char in "$`\\"):
            return None
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "()<>{}!#":
            return None
        elif char in ";&|":
            commands.append(line[start:i].strip())
            i += line[i : i + 2] in ("&&", "||")
            start = i + 1
        i += 1
    last = line[start:].strip()
    if last or not commands:  # nothing needs to follow a closing `;` or `&`
        commands.append(last)
    return None if quote or not all(map(_is_plain, commands)) else commands


def _is_plain(command: str) -> bool:
    name = _NAME.match(command)
    return name is not None and not _GRAMMAR.fullmatch(name.group())


def why_not_split(line: str) -> str | None:
    """Return what keeps a shell line from being split, as words for a person; `None` if it can be split."""
    if simple_commands(line) is not None:
        return None
    if len(line) > MAX_LINE:
        return f"it is longer than {MAX_LINE} characters"
    signs = [sign for sign in ("$", "`", "\\", ">", "<", "(", "{", "!", "#") if sign in line]
    signs += ["a line break"] if "\n" in line or "\r" in line else []
    return f"it has {' and '.join(signs)}" if signs else "its commands cannot be told apart"


def command_words(line: str) -> list[str]:
    """Return each command of a shell line as the shell splits it into words, joined by single blanks.

    For denials only: where the line cannot be split with certainty this is the best reading of it.
    """
    return [" ".join(words) for words in commands_in(line)]


def commands_in(line: str) -> list[list[str]]:
    """Return the words of each command of a shell line, as `command_words` reads them."""
    if len(line) > MAX_LINE:
        return [line.split()]
    found: list[list[str]] = [[]]
    for text in re.split(r"[\n\r]+", line):
        for token in [*_tokens(text), ";"]:
            if _OPERATOR.fullmatch(token):
                found.append([])
            else:
                found[-1].append(token)
    return [words for words in found if words]


def _tokens(text: str) -> Sequence[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        return list(lexer)
    except ValueError:  # an open quote or a trailing backslash
        return text.replace("'", "").replace('"', "").split()


def _readings(command: str) -> tuple[list[str], list[list[str]]]:
    """Return the words of a simple command with their parts, and its words without what may be options.

    A part of a word may be a command for another shell, which removes quotes once more. An option may take the word
    after it.
    """
    words = list(_tokens(command))
    parts = [part for word in words for part in (word, *_parts(word))]
    after = [True, *(not word.startswith("-") for word in words)]
    plain = [word for word in words if not word.startswith("-")]
    plainer = [word for word, stays in zip(words, after, strict=False) if stays and not word.startswith("-")]
    return parts, [words, plain, plainer]


def _parts(word: str) -> list[str]:
    unquoted = word.translate(_QUOTING)
    return _PART.findall(word) + (_PART.findall(unquoted) if unquoted != word else [])


@lru_cache(maxsize=1024)
def _denied_words(pattern: str) -> tuple[str, ...]:
    """Return the words of a denial's pattern, without those that are any text."""
    return tuple(word for word in _tokens(pattern) if set(word) != {"*"})


def _words_occur(pattern: str, parts: list[str], plain: list[list[str]]) -> bool:
    """Return whether the words of a denial's pattern are among the parts in their order, wherever they stand.

    A word may be a path to the denied one, or a glob that may become it; `*` alone only in the place of an argument.
    """
    wanted = _denied_words(pattern)
    rest = iter(parts)
    in_order = all(any(_may_be(word, each) for word in rest) for each in wanted)
    return bool(wanted) and (in_order or any(_in_place(wanted, words) for words in plain))


def _in_place(wanted: tuple[str, ...], words: list[str]) -> bool:
    return len(words) >= len(wanted) and all(
        _may_be(word, each) or not _fixed(word) for word, each in zip(words, wanted, strict=False)
    )


def _may_be(word: str, wanted: str) -> bool:
    """Return whether a word is the denied one, a path or option with it, or has wildcards and may become it."""
    if any(matches(wanted, each) for each in (word, word.rpartition("/")[2])):
        return True
    if word.startswith("-") and len(word) > len("-S") and matches(wanted, word[len("-S") :]):
        return True
    pieces = _fixed(word)
    if not pieces or pieces == [word]:
        return False
    text, at = _WILD.sub("", wanted), 0
    for piece in pieces:
        at = text.find(piece, at) + len(piece)
        if at < len(piece):
            return False
    return True


def _fixed(word: str) -> list[str]:
    """Return the pieces of a word between its wildcards. What stands from its first `[` to its last `]` is one."""
    begin, end = word.find("["), word.rfind("]")
    if 0 <= begin < end:
        word = f"{word[:begin]}*{word[end + 1 :]}"
    return [piece for piece in re.split("[*?]", word) if piece]


# ---- rules ----------------------------------------------------------------------------------------------------------


def find_rule(rules: Iterable[PermissionRule], tool: str, subject: Subject) -> PermissionRule | None:
    """Return the rule that decides a call, or `None`.

    A denial that matches any part wins. Otherwise every part must be covered by an allowance, the longest pattern
    first; the one that covers the first part is returned. A rule on effects allows no call.
    """
    own = sorted((rule for rule in rules if rule.tool == tool), key=lambda rule: -len(rule.pattern))
    denying = [rule for rule in own if not rule.allow]
    allowing = [rule for rule in own if rule.allow and rule.folders is None]
    parts = subject.forms() or (("",),)  # a call without a subject is covered by `*` only
    if denying:
        texts = [text for part in parts for text in _denial_texts(part, subject.kind)]
        for rule in denying:
            if any(_covers(each, text, subject.kind) for each in _denials(rule, subject.kind) for text in texts):
                return rule
    named = [rule for rule in allowing if not has_wildcard(rule.pattern)] if subject.protected else allowing
    covering = [
        _covering(named if part[0] in subject.protected else allowing, denying, part, subject.kind) for part in parts
    ]
    return covering[0] if all(covering) else None


def _covers(pattern: str, text: str, kind: str) -> bool:
    if kind != "path":
        return matches(pattern, text)
    if pattern.startswith(".") and Path(text).is_absolute():  # `./*` is what is in the working folder
        return False
    return matches(as_path_pattern(pattern), text)


def _denials(rule: PermissionRule, kind: str) -> list[str]:
    """Return the patterns of a denial: as written, and as it is meant.

    One shell command also as the shell splits it into words; a path also with all that is in it, and where links lead.
    """
    if kind == "path":
        return [each for path in _led_to(as_path_pattern(rule.pattern)) for each in (path, f"{path.rstrip('/')}/*")]
    words = command_words(rule.pattern) if kind == "shell" else []
    return [rule.pattern, *(words if len(words) == 1 else ())]


def _led_to(pattern: str) -> list[str]:
    """Return a pattern on paths, and if it is absolute also with the links in its fixed part resolved."""
    wild = _WILD.search(pattern)
    fixed = pattern[: wild.start()].rpartition("/")[0] if wild else pattern
    if not Path(fixed).is_absolute():
        return [pattern]
    real = exactly(os.path.realpath(fixed).replace(os.sep, "/"))
    return list(dict.fromkeys([pattern, real.rstrip("/") + pattern[len(fixed) :]]))


def _denial_texts(part: Sequence[str], kind: str) -> list[str]:
    """Return what a denial is matched against: each form of a part, and the commands of a shell line."""
    if kind != "shell":
        return [*part]
    line = part[0]
    return list(dict.fromkeys([line, *(simple_commands(line) or ()), *command_words(line)]))


def _covering(
    allowing: list[PermissionRule], denying: list[PermissionRule], part: Sequence[str], kind: str
) -> PermissionRule | None:
    """Return an allowance for one part of a subject. Each simple command of a shell line needs one."""
    if kind != "shell":
        return next((rule for rule in allowing if any(_covers(rule.pattern, text, kind) for text in part)), None)
    line = part[0]
    whole = next((rule for rule in allowing if rule.pattern == exactly(line)), None)
    commands = simple_commands(line)
    if whole is not None or commands is None:  # a line that cannot be split is covered only by its exact pattern
        return whole
    covering = [_allowance(allowing, denying, command) for command in dict.fromkeys(commands)]
    return covering[0] if all(covering) else None


def _allowance(allowing: list[PermissionRule], denying: list[PermissionRule], command: str) -> PermissionRule | None:
    """Return an allowance for a simple command: only its exact one if the words of a denial occur in it."""
    parts, plain = _readings(command) if denying else ([], [])
    if any(_words_occur(rule.pattern, parts, plain) for rule in denying):
        return next((rule for rule in allowing if rule.pattern == exactly(command)), None)
    return next((rule for rule in allowing if matches(rule.pattern, command)), None)


def denial_within(rules: Iterable[PermissionRule], tool: str, line: str) -> PermissionRule | None:
    """Return the denial whose words occur in a command of a shell line, so that no wildcard covers it; else `None`."""
    denying = [rule for rule in rules if rule.tool == tool and not rule.allow]
    found = [_readings(command) for command in simple_commands(line) or ()] if denying else []
    return next((rule for rule in denying if any(_words_occur(rule.pattern, *read) for read in found)), None)


def pattern_problem(pattern: str, kind: str, *, allow: bool) -> str | None:
    """Return why a rule with this pattern could never apply to a subject of this kind, in one sentence; else `None`."""
    if not pattern:
        return "the pattern is empty: write * for every call"
    if kind == "path" and pattern.endswith("/") and not _WILD.search(pattern):
        return f"'{pattern}' is a folder and matches no file: write '{pattern}*'"
    if kind == "path" and as_path_pattern(pattern).startswith("../"):
        return f"'{pattern}' can never match: what is outside the working folder is matched by its absolute path"
    if kind == "path" and re.match(r"\$\{?\w+\}?/", pattern):
        return f"'{pattern}' is never matched, since variables are not replaced in it: write ~ or the path itself"
    if kind == "shell" and allow and has_wildcard(pattern):
        commands = simple_commands(_WILD.sub("x", pattern))
        if set(pattern) != {"*"} and commands is not None and len(commands) > 1:
            return (
                f"'{pattern}' can never match: an allowance is matched against each simple command of a line; "
                "allow each command by itself"
            )
    return None


def has_wildcard(pattern: str) -> bool:
    """Return whether a pattern covers more than one text."""
    return any(sign in "*?" for sign in _WILD.findall(pattern))

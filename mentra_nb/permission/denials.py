"""What the denials among the rules say of a shell line: they judge what it would run, however it is written.

A denial is compared with every command of the line and with what each of them runs by its words: behind wrappers, in
lines for another shell, with the options before a subcommand left out, and with options written otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from mentra_nb.authorization import PermissionRule
from mentra_nb.permission.lines import parsed
from mentra_nb.permission.patterns import WILD, exactly, matches, overlap
from mentra_nb.permission.programs import (
    ANY,
    FEEDS,
    SAME_OPTIONS,
    Line,
    is_plain,
    program,
    reads_commands,
    runs_known,
    within,
    without_options,
)
from mentra_nb.permission.splitting import MAX_LINE, command_words, simple_commands, tokens
from mentra_nb.permission.unjudged import is_known, is_unjudged

MAX_DEPTH = 12
"""Commands within commands that are looked into; a line with more is not read."""
MAX_COMMANDS = 2_000
"""Commands of a line that are compared; a line with more is not read."""

_PART = re.compile(r"[\w./~+:@%*?\[\]!-]+")
_QUOTING = str.maketrans("", "", "'\"\\")
_CLUSTER = re.compile(r"-[A-Za-z]{1,3}")


@dataclass(frozen=True)
class Verdict:
    """What denials say of a line. With none of them, it may be allowed as if there were no denial."""

    denied: PermissionRule | None = None
    """The denial that covers what the line would run."""
    possible: PermissionRule | None = None
    """One that may cover it, so that only the exact text of the line is covered by an allowance."""
    unread: bool = False
    """Whether it cannot be told what the line would run, so that no allowance covers it."""


@dataclass(frozen=True)
class _Reading:
    """Every command that a line would run, and whether it also runs some that are not on the line."""

    commands: tuple[tuple[str, ...], ...]
    guessed: tuple[tuple[str, ...], ...] = ()
    """Those that a program which is not known may run, by its words."""
    more: bool = False
    """Whether a command runs what it reads from its input."""
    fed: frozenset[tuple[str, ...]] = frozenset()
    """Those that are given the words of their input at their end, most of them names of files."""

    def is_unjudged(self) -> bool:
        """Return whether a command may run something that cannot be told from its words."""
        for words in (*self.commands, *self.guessed):
            own = list(words)
            while words in self.fed and own[1:] and own[-1] == ANY:
                del own[-1]
            if is_unjudged(own):
                return True
        return False


class _UnreadError(Exception):
    """A line, or one within it, cannot be read."""


def judge(denying: Sequence[PermissionRule], line: str) -> Verdict:
    """Return what these denials say of a shell line. The first of them that covers it counts."""
    if not denying:
        return Verdict()
    splits = simple_commands(line)
    reading = _read(line, splits)
    texts = list(dict.fromkeys([line, *(splits or ())]))
    if reading is None:
        texts += dict.fromkeys(command_words(line))  # the best reading that there is
        commands: tuple[tuple[str, ...], ...] = ()
    else:
        commands = reading.commands
    for rule in denying:
        if any(matches(each, text) for each in _patterns(rule.pattern) for text in texts):
            return Verdict(denied=rule)
        if any(_runs(rule.pattern, command) for command in commands):
            return Verdict(denied=rule)
    if reading is None:
        return Verdict(unread=True)
    if reading.is_unjudged():
        return Verdict(possible=denying[0])
    every = (*commands, *reading.guessed)
    plain = not reading.more and all(map(is_plain, commands))
    readings = [] if plain else [_readings(command) for command in dict.fromkeys(splits or ())]
    for rule in denying:
        if reading.more or any(_may_run(rule.pattern, command) for command in every):
            return Verdict(possible=rule)
        if any(_is_another(rule.pattern, command) for command in every):
            return Verdict(possible=rule)
        if any(_runs(rule.pattern, command) for command in reading.guessed):
            return Verdict(possible=rule)
        if any(_words_occur(rule.pattern, *each) for each in readings):
            return Verdict(possible=rule)
    return Verdict()


# ---- reading a line -------------------------------------------------------------------------------------------------


def _read(line: str, splits: list[str] | None) -> _Reading | None:
    try:
        return _reading(line, splits)
    except _UnreadError:
        return None


def _reading(line: str, splits: list[str] | None) -> _Reading:
    found: dict[tuple[str, ...], None] = {}
    guessed: dict[tuple[str, ...], None] = {}
    more, inputs, fed = False, list[str](), set[tuple[str, ...]]()
    left = [(command, 0, True) for command in _commands(line, splits, inputs)]
    while left:
        words, depth, sure = left.pop()
        if words in found or (not sure and words in guessed):
            continue
        if len(found) + len(guessed) >= MAX_COMMANDS or depth > MAX_DEPTH:
            raise _UnreadError
        (found if sure else guessed)[words] = None
        more = more or (sure and reads_commands(words))
        for each in within(words):
            inner = _commands(each.text, None, inputs) if isinstance(each, Line) else [tuple(each)]
            fed |= set(inner) if program(words[0]) in FEEDS else set()
            left += [(command, depth + 1, sure) for command in inner]
        if not runs_known(words):
            left += [(words[at:], depth + 1, False) for at in range(1, len(words)) if runs_known(words[at:])]
    if more:
        spoken = [" ".join(words[1:]) for words in found if program(words[0]) in ("echo", "printf")]
        for text in [*inputs, *spoken]:
            read = parsed(text) if len(text) <= MAX_LINE else None
            found |= dict.fromkeys(read.commands if read is not None else ())
    return _Reading(tuple(found), tuple(guessed), more, frozenset(fed))


def _commands(line: str, splits: list[str] | None, inputs: list[str]) -> list[tuple[str, ...]]:
    """Return the words of each command of a line, and add what it feeds to its commands to `inputs`."""
    read = parsed(line) if len(line) <= MAX_LINE else None
    if read is not None:
        inputs += read.inputs
        return list(read.commands)
    splits = simple_commands(line) if splits is None else splits
    if splits is None:
        raise _UnreadError
    return [tuple(tokens(command)) for command in splits]


# ---- what surely is denied ------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _patterns(pattern: str) -> tuple[str, ...]:
    """Return a denial's pattern as written and, if it is one command, as the shell splits it into words."""
    words = command_words(pattern)
    return tuple(dict.fromkeys([pattern, *(words if len(words) == 1 else ())]))


def _by_name(words: Sequence[str]) -> list[str]:
    """Return the words of a command with its program by name, whatever its path."""
    return [program(words[0]) or words[0], *words[1:]]


def _runs(pattern: str, command: Sequence[str]) -> bool:
    """Return whether a command is the denied one."""
    named = _by_name(command)
    plain = without_options(named)
    texts = {" ".join(words) for words in (command, named, plain)}
    for each in _by_names(pattern):
        if any(
            matches(each, text) and (ANY not in text or matches(each, text.replace(ANY, ANY * 2))) for text in texts
        ):
            return True  # a `*` covers what is not known, a `?` does not
    return _with_options(pattern, plain)


@lru_cache(maxsize=1024)
def _by_names(pattern: str) -> tuple[str, ...]:
    """Return the patterns that a denial stands for: as written, as words, and with its program by name."""
    found = _patterns(pattern)
    first, blank, rest = found[-1].partition(" ")
    return tuple(dict.fromkeys([*found, f"{program(first) or first}{blank}{rest}"]))


def _with_options(pattern: str, command: Sequence[str]) -> bool:
    """Return whether a command is the denied one with its options written otherwise or elsewhere."""
    wanted = _by_name(_denied_words(pattern) or [pattern])
    options = [word for word in wanted if word.startswith("-")]
    if not options:
        return False
    given, rest = _apart(command)
    places = [word for word in wanted if not word.startswith("-")]
    if len(rest) < len(places) or not all(map(matches, places, rest)):
        return False
    letters = _letters(given)
    return all(
        any(matches(option, word) for word in given)
        or (_CLUSTER.fullmatch(option.rstrip("*")) is not None and _letters([option.rstrip("*")]) <= letters)
        or SAME_OPTIONS.get(option.lstrip("-").rstrip("*"), "-") in letters
        for option in options
    )


def _apart(command: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the options of a command, and its other words."""
    end = command.index("--") if "--" in command else len(command)
    given = [word for word in command[:end] if word.startswith("-") and ANY not in word]
    return given, [word for word in command[:end] if not word.startswith("-")] + list(command[end + 1 :])


def _letters(options: Iterable[str]) -> set[str]:
    found = set[str]()
    for option in options:
        if option.startswith("--"):
            found |= {SAME_OPTIONS[option[2:]]} if option[2:] in SAME_OPTIONS else set()
        elif _CLUSTER.match(option):
            found |= {SAME_OPTIONS.get(letter, letter) for letter in option[1:]}
    return found


# ---- what may be denied ---------------------------------------------------------------------------------------------


def _may_run(pattern: str, command: Sequence[str]) -> bool:
    """Return whether a command may become the denied one by what is not known of its words."""
    named = without_options(_by_name(command))
    if _abbreviated(pattern, named):
        return True
    if not any(ANY in word for word in named):
        return False
    each = _by_names(pattern)[-1]
    first = each.partition(" ")[0]
    if ANY not in named[0] and (WILD.match(first) or not matches(first, named[0])):
        return False
    text = exactly(" ".join(named)).replace(ANY, "*")
    return overlap(each, text) or overlap(each, text.rstrip("* "))


def _is_another(pattern: str, command: Sequence[str]) -> bool:
    """Return whether a program that is not known is given what the denial names after its program: it may be a copy."""
    name, *rest = _denied_words(pattern) or [""]
    return bool(rest) and not is_known(command[0]) and _runs(pattern, (name, *command[1:]))


def _abbreviated(pattern: str, command: Sequence[str]) -> bool:
    """Return whether a command is the denied one if its long options are cut short, as many programs take them."""
    if not any(word.startswith("--") for word in command):
        return False
    denied = [word.rstrip("*") for word in _denied_words(pattern) if word.startswith("--")]
    long = [*denied, *(f"--{name}" for name in SAME_OPTIONS if len(name) > 1)]
    whole = [next((each for each in long if len(word) > len("--") and each.startswith(word)), word) for word in command]
    return whole != list(command) and _with_options(pattern, whole)


def _readings(command: str) -> tuple[list[str], list[list[str]]]:
    """Return the words of a simple command with their parts, and its words without what may be options.

    A part of a word may be a command for another shell, which removes quotes once more. An option may take the word
    after it.
    """
    words = list(tokens(command))
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
    return tuple(word for word in tokens(pattern) if set(word) != {"*"})


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
    text, at = WILD.sub("", wanted), 0
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

"""Rules that would have saved a person's own answers: patterns that cover what was allowed and nothing that was denied.

A pattern is as narrow as what was allowed. Its wildcards stand for numbers of the same length, for names of files with
the same ending in the same folder, and for quoted texts; and they do so only for programs that are known to read or to
check (`typical`). Everything else is covered word for word. Nothing is stored here.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from mentra_nb.authorization import PermissionRule, Subject
from mentra_nb.permission.patterns import exactly, has_wildcard, matches
from mentra_nb.permission.rules import find_rule, pattern_problem
from mentra_nb.permission.splitting import simple_commands
from mentra_nb.permission.typical import CHECKS, HARMFUL, HARMLESS, READS, SCRIPTS

LEAST = 2
"""How often something must have been allowed."""
_WORD = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""")
_NUMBER = re.compile(r"\d+(?:[-:.]\d+)*")
_ENDING = re.compile(r"[^/.]+(\.[A-Za-z][\w]{0,9})$")


@dataclass(frozen=True)
class Decided:
    """A call that a person was asked about, or that was refused."""

    tool: str
    subject: Subject
    allowed: bool
    folders: tuple[str, ...] | None = None
    """The folders that it changed in the sandbox, if what was allowed is to keep that."""


@dataclass(frozen=True)
class Suggestion:
    """A rule that could be made. `saved` are the places of the calls that it covers, together with the others."""

    tool: str
    pattern: str
    folders: tuple[str, ...] | None = None
    saved: tuple[int, ...] = field(default=(), compare=False)

    def covers(self, subject: Subject) -> bool:
        """Return whether it covers a part of what a call acts on, such as a command of a line."""
        return any(_covers(self.pattern, unit, subject.kind) for unit in _units(subject))

    def rule(self) -> PermissionRule:
        """Return it as a rule that is not stored."""
        return PermissionRule(id=f"{self.tool} {self.pattern}", tool=self.tool, pattern=self.pattern, allow=True)


def suggest(calls: Sequence[Decided], rules: Sequence[PermissionRule] = ()) -> list[Suggestion]:
    """Return the narrowest rules that cover what was allowed at least twice and nothing that was denied.

    Args:
        calls: What was decided.
        rules: Those that hold. What they already decide is not suggested.
    """
    plain = [rule for rule in rules if rule.folders is None]
    asked = [n for n, call in enumerate(calls) if call.allowed and find_rule(plain, call.tool, call.subject) is None]
    units: dict[tuple[str, tuple[str, ...] | None, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for n in asked:
        call = calls[n]
        for unit in dict.fromkeys(_units(call.subject)):
            units[call.tool, call.folders, call.subject.kind][unit].append(n)
    denied = [call for call in calls if not call.allowed]
    found = [
        Suggestion(tool, pattern, folders)
        for (tool, folders, kind), texts in units.items()
        for pattern in _patterns(texts, kind, _refuses(denied, tool, kind))
    ]
    return _saving(_without_denied(found, plain, denied), plain, calls, asked)


def _units(subject: Subject) -> list[str]:
    """Return the texts that each need a pattern: the simple commands of a line, the paths, or the whole."""
    if subject.kind != "shell":
        return list(subject.parts)
    return [command for line in subject.parts for command in simple_commands(line) or (line,)]


def _refuses(denied: Sequence[Decided], tool: str, kind: str) -> Callable[[str], bool]:
    """Return a function that says whether a pattern covers something denied, or something typical that does harm.

    A line of several commands is not looked at here: one of them alone may be harmless.
    """
    own = [_units(call.subject) for call in denied if call.tool == tool]
    texts = [units[0] for units in own if len(units) == 1]

    def refuses(pattern: str) -> bool:
        harmful = HARMFUL if kind == "shell" and has_wildcard(pattern) else ()
        problem = kind == "text" or pattern_problem(pattern, kind, allow=True) is None
        return not problem or any(_covers(pattern, text, kind) for text in (*texts, *harmful))

    return refuses


def _patterns(texts: Mapping[str, list[int]], kind: str, refuses: Callable[[str], bool]) -> Iterator[str]:
    """Yield the patterns for texts that were allowed, each with the places of the calls it was in."""
    general: list[str] = []
    if kind != "text":
        shapes: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for text in texts:
            if (shape := _shape(text, kind)) is not None:
                shapes[shape].append(text)
        general = [
            pattern for same in shapes.values() if len(same) >= LEAST and not refuses(pattern := _common(same, kind))
        ]
        yield from general
    for text, places in texts.items():
        covered = any(_covers(pattern, text, kind) for pattern in general)
        if len(places) >= LEAST and not covered and not refuses(exactly(text)):
            yield exactly(text)


def _covers(pattern: str, text: str, kind: str) -> bool:
    return matches(pattern.removeprefix("./") if kind == "path" else pattern, text)


# ---- what is alike --------------------------------------------------------------------------------------------------


def _shape(text: str, kind: str) -> tuple[str, ...] | None:
    """Return what texts have in common that one pattern may cover; `None` if only its own text may be covered."""
    if kind == "path":
        folder, _, _ = text.rpartition("/")
        ending = _ENDING.search(text)
        return (folder, ending[1]) if ending and not text.startswith(".") and "/." not in text else None
    words = _WORD.findall(text)
    if simple_commands(text) != [text] or " ".join(words) != text:
        return None
    fixed = _fixed_words(words)
    return None if fixed is None else (*words[:fixed], *(_kind(word, words[0] in SCRIPTS) for word in words[fixed:]))


def _fixed_words(words: Sequence[str]) -> int | None:
    """Return how many words of a command stay as they are; `None` if all do."""
    program, second = words[0], words[1] if len(words) > 1 else ""
    for known in (READS, CHECKS):
        if program in known and (not known[program] or second in known[program]):
            return 2 if known[program] else 1
    if program in SCRIPTS and "." in second and not second.startswith("-"):
        return 2
    return None


def _kind(word: str, only_numbers: bool) -> str:
    """Return what stands for a word in the shape: itself, or the kind of words that a wildcard may stand for."""
    digits = _NUMBER.sub(lambda found: re.sub(r"\d", "0", found[0]), word)
    if digits != word and not re.search(r"[A-Za-z]", word.lstrip("-")):
        return f"number {digits}"
    if only_numbers:
        return f"number {digits}" if _NUMBER.search(word) and not word.startswith(("/", "~")) else word
    if word[0] in "'\"" and word[-1] == word[0] and len(word) > 1:
        return f"quoted {word[0]}"
    if word.startswith("-") or "=" in word or set(word) & set("*?[~"):
        return word
    if (ending := _ENDING.search(word)) is not None and not word.startswith((".", "/")) and "/." not in word:
        return f"file {word.rpartition('/')[0]} {ending[1]}"
    return word


def _common(texts: Sequence[str], kind: str) -> str:
    """Return the pattern for texts of one shape."""
    if kind == "path":
        return _wild(texts) if "/" in texts[0] else f"./{_wild(texts)}"
    rows = zip(*(_WORD.findall(text) for text in texts), strict=True)
    return " ".join(_slot(row) for row in rows)


def _slot(words: Sequence[str]) -> str:
    """Return the pattern for the words in one place: `?` for each digit of numbers, `*` in names and quoted texts."""
    if len(set(words)) == 1:
        return exactly(words[0])
    pieces = [re.split(r"(\d+)", word) for word in words]
    if len({re.sub(r"\d", "0", word) for word in words}) == 1:
        return "".join(
            exactly(run[0]) if len(set(run)) == 1 else "?" * len(run[0]) for run in zip(*pieces, strict=True)
        )
    if words[0][0] in "'\"":
        return f"{words[0][0]}*{words[0][0]}"
    return _wild(words)


def _wild(paths: Sequence[str]) -> str:
    """Return the pattern for names of files in one folder with one ending."""
    folder, slash, _ = paths[0].rpartition("/")
    ending = _ENDING.search(paths[0])
    assert ending is not None  # the shape has one
    names = [path[len(folder) + len(slash) : -len(ending[1])] for path in paths]
    alike = "".join(signs[0] for signs in takewhile(lambda signs: len(set(signs)) == 1, zip(*names, strict=False)))
    begin = re.sub(r"[^-_ .]*$", "", alike)
    return f"{exactly(folder + slash + begin)}*{exactly(ending[1])}"


# ---- the whole set --------------------------------------------------------------------------------------------------


def _without_denied(
    found: list[Suggestion], rules: Sequence[PermissionRule], denied: Iterable[Decided]
) -> list[Suggestion]:
    """Leave out what would let a denied call run, alone or together."""
    for call in denied:
        own = [each for each in found if each.tool == call.tool]
        made = find_rule([*rules, *(each.rule() for each in own)], call.tool, call.subject)
        if made is not None and made.allow and made.id in {each.rule().id for each in own}:
            bad = [each for each in own if each.covers(call.subject)]
            found = [each for each in found if each not in bad]
    return found


def _saving(
    found: list[Suggestion], rules: Sequence[PermissionRule], calls: Sequence[Decided], asked: Sequence[int]
) -> list[Suggestion]:
    """Return the suggestions with the calls that they save, the most useful first; not those that save less than two.

    A line of several commands is saved only if each of them is covered.
    """
    saved: dict[Suggestion, list[int]] = defaultdict(list)
    for n in asked:
        call = calls[n]
        own = [each for each in found if (each.tool, each.folders) == (call.tool, call.folders)]
        if find_rule([*rules, *(each.rule() for each in own)], call.tool, call.subject) is None:
            continue
        for unit in _units(call.subject):
            covering = [each for each in own if _covers(each.pattern, unit, call.subject.kind)]
            for each in covering[:1]:
                saved[each].append(n)
    counted = Counter({each: len(set(places)) for each, places in saved.items()})
    return [
        Suggestion(each.tool, each.pattern, each.folders, tuple(sorted(set(saved[each]))))
        for each, times in counted.most_common()
        if times >= LEAST
    ]


def also_covers(pattern: str, texts: Iterable[str]) -> list[str]:
    """Return the typical lines of known programs that a pattern for `shell` covers beside those texts.

    Example:
        >>> from mentra_nb.permission.suggesting import also_covers
        >>> also_covers("wc -l *.csv", ["wc -l sales.csv"])
        ['wc -l data.csv']
    """
    own = set(texts)
    return [line for line in (*HARMLESS, *HARMFUL) if line not in own and matches(pattern, line)]

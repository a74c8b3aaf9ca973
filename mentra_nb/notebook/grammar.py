"""Parsing and completion of a `%mentra` line, by the table of `commands/table.py`."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches

from mentra_nb.amounts import amounts
from mentra_nb.errors import ConfigurationError
from mentra_nb.notebook.commands.command import Command, Names, Option, Words
from mentra_nb.notebook.commands.table import BY_NAME, COMMANDS, FLAGS, SQL_BEGINS, STATUS

VISIBLE = tuple(command.name for command in COMMANDS)
"""The subcommands that help, completion and suggestions name."""


@dataclass
class Parsed:
    """A parsed line: either a `command` with its `words`, or a prompt with its options."""

    prompt: str = ""
    command: Command | None = None
    words: Words = field(default_factory=dict)
    model: str | None = None
    session: str | None = None
    tool: list[str] = field(default_factory=list)
    no_tools: bool = False
    out: str | None = None
    budget: str | None = None
    quiet: bool = False
    verbose: bool = False
    bg: bool = False
    code: bool = False
    as_: str | None = None
    include: list[str] = field(default_factory=list)
    dry: bool = False
    keep: bool = False
    fresh: bool = False
    more: bool = False
    new: bool = False
    fork: bool = False
    at: str | None = None
    map: str | None = None
    plan: bool = False


def parse(line: str, cell: str | None = None) -> Parsed:
    """Parse a line and, for `%%mentra`, the cell below it.

    Raises:
        ConfigurationError: an unknown option, an option without its value or with a wrong one, an empty prompt, or a
            mistyped subcommand.
    """
    if cell is None and (found := find_command(line)) is not None and _holds(*found):
        return Parsed(command=found[0], words=found[1])
    if cell is None:
        _refuse_mistyped_sql(line)
        if why := why_refused(line):
            raise ConfigurationError(why)
    parsed = Parsed()
    rest = _options(line.strip(), parsed)
    if cell is None and not rest:
        if line.strip():
            raise ConfigurationError("there is nothing to ask: write the question after the options")
        return Parsed(command=STATUS)
    if parsed.code and parsed.bg:
        raise ConfigurationError("--code waits for the answer: leave --bg out, or type %mentra code once it is there")
    if parsed.keep and (parsed.fresh or parsed.new):
        raise ConfigurationError(f"--keep and {'--fresh' if parsed.fresh else '--new'} say opposite things: give one")
    if parsed.no_tools and (parsed.tool or parsed.plan):
        raise ConfigurationError(f"--no-tools offers none: leave {'-t' if parsed.tool else '--plan'} out")
    if parsed.plan and parsed.as_ is not None:
        raise ConfigurationError("--plan ends in a plan, and what is done after it: leave --as out")
    if parsed.at is not None and (parsed.new or parsed.fork or parsed.keep or parsed.more):
        raise ConfigurationError("--at says where the question goes: leave --new, --fork, --keep and --more out")
    if parsed.dry and (parsed.new or parsed.fork or parsed.at is not None):
        option = "--new" if parsed.new else "--fork" if parsed.fork else "--at"
        raise ConfigurationError(f"--dry changes nothing: leave {option} out")
    if parsed.budget is not None:
        amounts(parsed.budget)
    if parsed.out is not None and (not parsed.out.isidentifier() or keyword.iskeyword(parsed.out)):
        raise ConfigurationError(f"-o needs a Python name, not '{parsed.out}'")
    parsed.prompt = rest if cell is None else f"{rest}\n{cell}".strip()
    if not parsed.prompt:
        raise ConfigurationError("there is nothing to ask: write the question below %%mentra")
    if cell is None and rest == line.strip() and (meant := _meant(rest)):
        raise ConfigurationError(
            f"'{rest}' is not a subcommand: did you mean %mentra {meant}? To ask it anyway: %mentra -- {rest}"
        )
    return parsed


def find_command(line: str) -> tuple[Command, Words] | None:
    """Return the subcommand that the whole of `line` fits, and its words. A trailing ` # comment` is dropped."""
    text = line.strip()
    command = BY_NAME.get(re.split(r"\s", text, maxsplit=1)[0])
    words = command.words(text) if command is not None else None
    if command is None or words is None or (command.problem is not None and command.problem(words)):
        return None
    return command, words


def why_refused(line: str) -> str | None:
    """Return why a line that looks like a subcommand is neither carried out nor asked; `None` for other lines."""
    name = line.split(maxsplit=1)[0].lower() if line.strip() else ""
    command = BY_NAME.get(name)
    why = command.why_refused(line) if command is not None else None
    return f"{why}. To ask it anyway: %mentra -- {' '.join(line.split())}" if why else None


def _holds(command: Command, words: Words) -> bool:
    return command.holds is None or command.holds(words)


def _meant(text: str) -> str | None:
    """Return the subcommand that is meant by one mistyped word, alone or before a number; `None` for other texts."""
    word, space, number = text.partition(" ")
    near = get_close_matches(word.lower(), VISIBLE, 1, 0.7)
    if not near or not (number.isdecimal() if space else True):
        return None
    meant = f"{near[0]}{space}{number}"
    return meant if not space or find_command(meant) else None


def _refuse_mistyped_sql(line: str) -> None:
    """Raise `ConfigurationError` for `log` with a query whose first word is mistyped: no model is to be asked that."""
    name, _, rest = line.strip().partition(" ")
    word = rest.split(maxsplit=1)[0].lower() if rest.strip() else ""
    if name == "log" and word not in SQL_BEGINS and (near := get_close_matches(word, SQL_BEGINS, 1, 0.9)):
        raise ConfigurationError(f"'{word}' begins no query: did you mean %mentra log {near[0]} …?")


def _options(text: str, parsed: Parsed) -> str:
    """Read the options at the front into `parsed`. Returns the rest of the line as it was typed."""
    while text.startswith("-"):
        word, _, rest = text.partition(" ")
        text = rest.lstrip()
        if word == "--":
            return text
        flag, equals, value = word.partition("=")
        option = FLAGS.get(flag)
        if option is None:
            near = get_close_matches(flag, FLAGS, 1)
            hint = f"did you mean {near[0]}?" if near else "%mentra help lists them."
            raise ConfigurationError(f"there is no option {flag}: {hint} Prose that begins with a dash goes after --")
        if option.value is None:
            setattr(parsed, option.name, True)
            continue
        if not equals:
            value, text = _value(text, flag, option)
        if option.many:
            getattr(parsed, option.name).append(value)
            continue
        setattr(parsed, option.name, value)
    return text


def _value(text: str, flag: str, option: Option) -> tuple[str, str]:
    """Return the value of `option` at the front of `text`, and the rest."""
    if not text or text.startswith("-"):
        raise ConfigurationError(f"{flag} needs a value: {flag} {option.value}")
    if text[0] in "'\"":
        value, quote, rest = text[1:].partition(text[0])
        if not quote:
            raise ConfigurationError(f"{flag} has an open quote")
        return value, rest.lstrip()
    value, _, rest = text.partition(" ")
    return value, rest.lstrip()


def completions(text_before_cursor: str, names: Names) -> tuple[list[str], str]:
    """Return what may follow on a `%mentra` or `%%mentra` line, and the fragment it completes."""
    magic, *before, fragment = text_before_cursor.split(" ")
    command = BY_NAME.get(before[0]) if before and magic == "%mentra" else None
    at = len(before) - 1
    found: Iterable[str] = ()
    if before and (option := FLAGS.get(before[-1])) is not None and option.complete is not None:
        found = option.complete(names)
    elif command is not None and at < len(command.complete):
        found = command.complete[at](names)
    elif fragment.startswith("-"):
        found = FLAGS
    elif not before and magic == "%mentra":
        found = VISIBLE
    return [name for name in found if name.startswith(fragment)], fragment

"""The grammar of `%mentra`: its options and subcommands as tables, from which parsing, help and completion all come."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from mentra_nb.errors import ConfigurationError


@dataclass(frozen=True)
class Option:
    """`value` names what follows it; `many` takes every word up to the next option."""

    flags: tuple[str, ...]
    help: str
    value: str | None = None
    many: bool = False

    @property
    def name(self) -> str:
        return self.flags[-1].removeprefix("--").replace("-", "_")


OPTIONS = (
    Option(("-m", "--model"), "model for this turn, as provider/model", "NAME"),
    Option(("-s", "--session"), "named conversation (default: the notebook's own)", "NAME"),
    Option(("-t", "--tool"), "functions of this notebook the model may call", "NAME", many=True),
    Option(("-o", "--out"), "store the reply under this name", "NAME"),
    Option(("-q", "--quiet"), "show only the answer"),
    Option(("-v", "--verbose"), "also show tool results and thinking"),
)
_BY_FLAG = {flag: option for option in OPTIONS for flag in option.flags}


@dataclass(frozen=True)
class Command:
    """A subcommand. A line is one only if the whole of it fits `pattern`; anything else is a question."""

    name: str
    pattern: str
    usage: str
    help: str


COMMANDS = (
    Command("help", r"help(?: (?P<word>\w+))?", "help [WORD]", "what you can type"),
    Command("model", r"model(?: (?P<name>\S+))?", "model [NAME]", "show or set the model"),
    Command(
        "models",
        r"models(?: (?P<text>(?!--)\S+))?(?P<all> --all)?",
        "models [TEXT] [--all]",
        "models you have keys for, and local servers",
    ),
    Command(
        "alias",
        r"alias(?: (?P<name>\S+)(?: (?P<target>\S+))?)?",
        "alias [NAME [TARGET]]",
        "show or set short names for models",
    ),
    Command("tools", r"tools", "tools", "what the model may call, and whether it asks"),
    Command("rules", r"rules(?: revoke (?P<id>rule-[\w-]+))?", "rules [revoke ID]", "remembered answers"),
    Command("allow", r"allow(?: (?:once|always))?", "allow [always]", "answer the open question: yes"),
    Command("deny", r"deny(?: because .+)?", "deny [because …]", "answer the open question: no"),
    Command("stop", r"stop", "stop", "stop the turn that is running"),
    Command(
        "resume",
        r"resume(?: (?P<name>\S+))?",
        "resume [NAME]",
        "go on with the turn that was interrupted, also after a restart",
    ),
    Command("last", r"last", "last", "show the last answer again"),
    Command(
        "usage",
        r"usage(?: (?:--by|by) (?P<by>\w+))?",
        "usage [--by model|day|session|provider]",
        "tokens, cost and time",
    ),
    Command("log", r"log(?: (?P<sql>(?i:select|with|from|explain)\b.+))?", "log [SQL]", "the record, as a table"),
    Command("check", r"check", "check", "what works here, and how to mend what does not"),
    Command("config", r"config", "config", "the settings and where each comes from"),
)
_BY_NAME = {command.name: command for command in COMMANDS}


@dataclass
class Parsed:
    """A line taken apart: either a `command` with its `words`, or a question with its options."""

    prompt: str = ""
    command: str | None = None
    words: dict[str, str | None] = field(default_factory=dict)
    model: str | None = None
    session: str | None = None
    tool: list[str] = field(default_factory=list)
    out: str | None = None
    quiet: bool = False
    verbose: bool = False


def parse(line: str, cell: str | None = None) -> Parsed:
    """Take a line (and for `%%mentra` the cell below it) apart.

    Raises:
        ConfigurationError: an unknown option, one without its value, nothing to ask, or a mistyped subcommand.
    """
    if cell is None and (found := _command(line)) is not None:
        return found
    parsed = Parsed()
    rest = _options(line.strip(), parsed)
    if cell is None and not rest:
        if line.strip():
            raise ConfigurationError("there is nothing to ask: write the question after the options")
        parsed.command = "status"
        return parsed
    parsed.prompt = rest if cell is None else f"{rest}\n{cell}".strip()
    if not parsed.prompt:
        raise ConfigurationError("there is nothing to ask: write the question below %%mentra")
    if cell is None and " " not in rest and rest == line.strip():
        near = get_close_matches(rest.lower(), _BY_NAME, 1, 0.7)
        if near:
            raise ConfigurationError(
                f"'{rest}' is not a subcommand: did you mean %mentra {near[0]}? To ask it anyway: %mentra -- {rest}"
            )
    return parsed


def _command(line: str) -> Parsed | None:
    text = re.sub(r"\s+#\s.*$", "", line).strip()
    command = _BY_NAME.get(text.split(" ", 1)[0])
    found = re.fullmatch(command.pattern, text) if command is not None else None
    if command is None or found is None:
        return None
    return Parsed(command=command.name, words=found.groupdict())


def _options(text: str, parsed: Parsed) -> str:
    """Read options off the front, up to the first word that is none. Returns what is left, as it was typed."""
    while text.startswith("-"):
        word, _, rest = text.partition(" ")
        text = rest.lstrip()
        if word == "--":
            return text
        flag, equals, value = word.partition("=")
        option = _BY_FLAG.get(flag)
        if option is None:
            near = get_close_matches(flag, _BY_FLAG, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(_BY_FLAG)}"
            raise ConfigurationError(f"there is no option {flag}: {hint} Prose that begins with a dash goes after --")
        if option.value is None:
            setattr(parsed, option.name, True)
            continue
        if not equals:
            value, text = _word(text, flag, option)
        if option.many:
            getattr(parsed, option.name).append(value)
            continue
        setattr(parsed, option.name, value)
    return text


def _word(text: str, flag: str, option: Option) -> tuple[str, str]:
    if not text or text.startswith("-"):
        raise ConfigurationError(f"{flag} needs a value: {flag} {option.value}")
    if text[0] in "'\"":
        value, quote, rest = text[1:].partition(text[0])
        if not quote:
            raise ConfigurationError(f"{flag} has an open quote")
        return value, rest.lstrip()
    value, _, rest = text.partition(" ")
    return value, rest.lstrip()


def help_text(word: str | None = None) -> str:
    """Examples first, then every option and subcommand there is."""
    if word in _BY_NAME:
        command = _BY_NAME[word]
        return f"%mentra {command.usage}\n    {command.help}"
    flags = [(", ".join(o.flags) + (f" {o.value}" if o.value else ""), o.help) for o in OPTIONS]
    commands = [(c.usage, c.help) for c in COMMANDS]
    width = max(len(left) for left, _ in flags + commands)
    return (
        "%mentra what can you do here?          ask\n"
        "%%mentra -m ollama/qwen3 -t revenue    ask at length, in the cell below\n"
        "%mentra allow                          answer a question from another cell\n\n"
        f"Options, before the question (-- ends them):\n{_rows(flags, width)}\n\n"
        f"Subcommands of %mentra:\n{_rows(commands, width)}\n\n"
        "Anything else after %mentra is a question, taken literally."
    )


def _rows(pairs: list[tuple[str, str]], width: int) -> str:
    return "\n".join(f"    {left:<{width}}  {right}" for left, right in pairs)


def completions(
    text_before_cursor: str, functions: Sequence[str] = (), models: Sequence[str] = ()
) -> tuple[list[str], str]:
    """What may follow on a `%mentra` or `%%mentra` line, and the fragment it completes.

    `functions` are what `-t` can name, `models` what `-m` can.
    """
    words = text_before_cursor.split(" ")
    fragment, before = words[-1], words[1:-1]
    if fragment.startswith("-"):
        return [flag for flag in _BY_FLAG if flag.startswith(fragment)], fragment
    if not before and not text_before_cursor.startswith("%%"):
        return [name for name in _BY_NAME if name.startswith(fragment)], fragment
    if before and before[-1] in ("-t", "--tool"):
        return [name for name in functions if name.startswith(fragment)], fragment
    if (before and before[-1] in ("-m", "--model")) or before == ["model"]:
        return [name for name in models if name.startswith(fragment)], fragment
    if before == ["help"]:
        return [name for name in _BY_NAME if name.startswith(fragment)], fragment
    if before[:1] == ["usage"]:
        return [by for by in ("model", "day", "session", "provider") if by.startswith(fragment)], fragment
    return [], fragment

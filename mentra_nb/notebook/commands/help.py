"""The text of `%mentra help`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from difflib import get_close_matches

from mentra_nb.errors import ConfigurationError
from mentra_nb.notebook.commands.command import Command, Option

_EXAMPLES = """\
%mentra what can you do here?          ask
%%mentra -m ollama/qwen3 -t revenue    ask at length, in the cell below
%mentra allow                          answer a question from another cell
"""


def help_text(commands: Sequence[Command], options: Sequence[Option], word: str | None = None) -> str:
    """Return examples, then every option and subcommand; for the name of one, only its own lines.

    Raises:
        ConfigurationError: there is no such subcommand or option.
    """
    if word is not None:
        return _help_on(word, commands, options)
    flags = [(", ".join(o.flags) + (f" {o.value}" if o.value else ""), o.help) for o in options]
    subcommands = [(command.usage, command.help) for command in commands]
    return (
        f"{_EXAMPLES}\n"
        f"Options, before the question (-- ends them):\n{_rows(flags)}\n\n"
        f"Subcommands of %mentra:\n{_rows(subcommands)}\n\n"
        "Anything else after %mentra is a question, taken literally."
    )


def _help_on(word: str, commands: Sequence[Command], options: Sequence[Option]) -> str:
    for command in commands:
        if command.name == word:
            return f"%mentra {command.usage}\n    {command.help}"
    names = {name: option for option in options for name in (*option.flags, option.name)}
    if (option := names.get(word)) is not None:
        return f"%mentra {', '.join(option.flags)} {option.value or ''}".rstrip() + f"\n    {option.help}"
    near = get_close_matches(word.lower(), [*(c.name for c in commands), *names], 1)
    hint = f"did you mean %mentra help {near[0]}?" if near else "%mentra help lists all"
    raise ConfigurationError(f"there is no subcommand or option '{word}': {hint}")


def _rows(pairs: list[tuple[str, str]]) -> str:
    """Return two columns in 80 characters; a long left one has its line to itself."""
    margin = " " * 31
    lines = []
    for left, right in pairs:
        begin = f"    {left:<25}  "
        if len(begin) > len(margin):
            lines.append(begin.rstrip())
            begin = margin
        lines.append(textwrap.fill(right, 80, initial_indent=begin, subsequent_indent=margin))
    return "\n".join(lines)

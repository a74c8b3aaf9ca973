"""The text of `%mentra help`."""

from __future__ import annotations

from collections.abc import Sequence

from mentra_nb.notebook.commands.command import Command, Option

_EXAMPLES = """\
%mentra what can you do here?          ask
%%mentra -m ollama/qwen3 -t revenue    ask at length, in the cell below
%mentra allow                          answer a question from another cell
"""


def help_text(commands: Sequence[Command], options: Sequence[Option], word: str | None = None) -> str:
    """Return examples, then every option and subcommand; for a subcommand's name, only its own lines."""
    shown = [command for command in commands if not command.planned]
    for command in shown:
        if command.name == word:
            return f"%mentra {command.usage}\n    {command.help}"
    flags = [(", ".join(o.flags) + (f" {o.value}" if o.value else ""), o.help) for o in options]
    subcommands = [(command.usage, command.help) for command in shown]
    width = max(len(left) for left, _ in flags + subcommands)
    return (
        f"{_EXAMPLES}\n"
        f"Options, before the question (-- ends them):\n{_rows(flags, width)}\n\n"
        f"Subcommands of %mentra:\n{_rows(subcommands, width)}\n\n"
        "Anything else after %mentra is a question, taken literally."
    )


def _rows(pairs: list[tuple[str, str]], width: int) -> str:
    return "\n".join(f"    {left:<{width}}  {right}" for left, right in pairs)

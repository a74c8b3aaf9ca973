"""The answer to a question as a person types it: in a cell, in an input box, at a terminal."""

from __future__ import annotations

import contextlib
import re
import sys
from typing import Any

from mentra_nb.authorization import PermissionDecision, PermissionQuestion
from mentra_nb.errors import OperationDenied
from mentra_nb.forms import Form
from mentra_nb.notebook.asking import choices, question_text
from mentra_nb.notebook.commands.command import Answer
from mentra_nb.notebook.commands.table import COMMANDS
from mentra_nb.notebook.grammar import find_command
from mentra_nb.page.escaping import visible

NOT_AN_ANSWER = "That is not an answer. Type a, w, d or s, or: deny because REASON"
"""Said before a person is asked again."""

_CELL = re.compile(r"\s*%mentra[ \t]+([^\n]+?)\s*")
_LOOK = re.compile(r"\s*%mentra(?:[ \t]+last)?[ \t]*(?:#.*)?\s*")
_SHORT = {typed: line for command in COMMANDS for typed, line in command.short.items()}


def parse_answer(code: str) -> Answer | None:
    """Return the answer in a cell that holds only `%mentra allow`, `deny` or `stop` in full; else `None`.

    One with a number is for a question of a list, as `parse_numbered` reads it.
    """
    answer, which = _typed(code)
    return answer if which is None else None


def parse_numbered(code: str) -> tuple[int, PermissionDecision] | None:
    """Return the number of a question and its answer in a cell that holds only `%mentra allow N` or `deny N`."""
    answer, which = _typed(code)
    return None if which is None or not isinstance(answer, PermissionDecision) else (int(which), answer)


def _typed(code: str) -> tuple[Answer | None, str | None]:
    cell = _CELL.fullmatch(code)
    found = find_command(cell[1]) if cell is not None else None
    if found is None:
        return None, None
    command, words = found
    return (command.answer(words) if command.answer is not None else None), words.get("which")


def parse_said(code: str) -> str | None:
    """Return what a cell that holds only `%mentra say TEXT` says to the turn that runs."""
    cell = _CELL.fullmatch(code)
    found = find_command(cell[1]) if cell is not None else None
    return found[1]["text"] if found is not None and found[0].name == "say" else None


def looks_at_turn(code: str) -> bool:
    """Return whether a cell holds only `%mentra` or `%mentra last`, which show what runs while a turn runs."""
    return _LOOK.fullmatch(code) is not None


def parse_reply(text: str) -> Answer | None:
    """Return the answer typed at a prompt: as in a cell but without `%mentra`, or with a letter for its first word."""
    first, space, rest = text.strip().partition(" ")
    return parse_answer(f"%mentra {_SHORT.get(first.lower(), first)}{space}{rest}")


def ask(question: PermissionQuestion) -> Answer:
    """Ask at a terminal until the answer is valid. The end of input is a denial; Ctrl-C raises `KeyboardInterrupt`."""
    print(question_text(question), flush=True)  # noqa: T201
    _drop_typed_ahead()
    while True:
        try:
            answer = parse_reply(input(f"{choices(question)}: "))
        except EOFError:
            return PermissionDecision(allow=False, by="headless", reason="nobody could be asked")
        if answer is not None and question.form is not None and not isinstance(answer, str) and answer.allow:
            answer = _filled_in(question.form)
        if answer is not None:
            return answer
        print(NOT_AN_ANSWER, flush=True)  # noqa: T201


def _filled_in(form: Form) -> PermissionDecision | None:
    """Ask for each value of a form at a terminal. Returns the answer, or `None` if what was typed does not fit."""
    values: dict[str, Any] = {}
    for field in form.fields:
        options = f" ({', '.join(dict(field.choices))})" if field.choices else ""
        typed = input(f"{visible(field.title)}{visible(options)}: ").strip()
        if typed:
            values[field.name] = [each.strip() for each in typed.split(",")] if field.kind == "choices" else typed
    try:
        return PermissionDecision(allow=True, values=form.filled(values))
    except OperationDenied as error:
        print(visible(str(error)), flush=True)  # noqa: T201
        return None


def _drop_typed_ahead() -> None:
    """Drop what was typed at the terminal before the question was there to read."""
    try:
        import termios
    except ImportError:  # Windows
        return
    with contextlib.suppress(OSError, ValueError, termios.error):
        if sys.stdin.isatty():
            termios.tcflush(sys.stdin, termios.TCIFLUSH)

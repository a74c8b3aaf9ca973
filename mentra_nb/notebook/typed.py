"""The answer to a question as a person types it in one line: in a cell, in an input box, at a terminal."""

from __future__ import annotations

import re

from mentra_nb.authorization import PermissionDecision
from mentra_nb.forms import Form
from mentra_nb.notebook.commands.command import Answer
from mentra_nb.notebook.commands.table import COMMANDS
from mentra_nb.notebook.grammar import find_command, why_refused

_CELL = re.compile(r"\s*%mentra[ \t]+([^\n]+?)\s*")
_LOOK = re.compile(r"\s*%mentra(?:[ \t]+last)?[ \t]*(?:#.*)?\s*")
_SHORT = {typed: line for command in COMMANDS for typed, line in command.short.items()}
_ANSWERS = frozenset(command.name for command in COMMANDS if command.answer is not None)


def parse_answer(code: str) -> Answer | None:
    """Return the answer in a cell that holds only `%mentra allow`, `deny` or `stop` in full; else `None`.

    One with a number is for a question of a list, as `parse_numbered` reads it.
    """
    answer, which = _typed(code)
    return answer if which is None else None


def parse_numbered(code: str) -> tuple[int, PermissionDecision] | None:
    """Return the number of a question and its answer in a cell with only `%mentra allow N`, `deny N` or `answer N`."""
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


def refused_answer(code: str) -> str | None:
    """Return why a cell that looks like `%mentra allow`, `deny` or `answer` answers nothing; `None` for others."""
    cell = _CELL.fullmatch(code)
    if cell is None or cell[1].split()[0].lower() not in _ANSWERS:
        return None
    return why_refused(cell[1])


def looks_at_turn(code: str) -> bool:
    """Return whether a cell holds only `%mentra` or `%mentra last`, which show what runs while a turn runs."""
    return _LOOK.fullmatch(code) is not None


def parse_reply(text: str, form: Form | None = None) -> Answer | None:
    """Return the answer typed at a prompt: as in a cell but without `%mentra`, or with a letter for its first word.

    For a form, values alone are an answer: `days=3 city=Oslo`.
    """
    first, space, rest = text.strip().partition(" ")
    if form is not None and form.fields and (answer := parse_answer(f"%mentra answer {text.strip()}")) is not None:
        return answer
    return parse_answer(f"%mentra {_SHORT.get(first.lower(), first)}{space}{rest}")


def is_always(text: str) -> bool:
    """Return whether what was typed at a prompt is to remember an allowance, without a word about how."""
    return _SHORT.get(text.strip().lower(), text.strip()) == "allow always"


def says_yes(answer: Answer) -> bool:
    """Return whether an answer is only a yes, without values."""
    return isinstance(answer, PermissionDecision) and answer.allow and not answer.values and answer.remember is None

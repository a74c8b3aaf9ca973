"""Subcommands of later versions. Their names are reserved: typed as a command they are refused, not sent to a model."""

from __future__ import annotations

from typing import NoReturn

from mentra_nb.errors import OperationDenied
from mentra_nb.notebook.commands.command import Command, Context, Words

_PATTERNS = {
    "team": "team",
}


def _planned(name: str, pattern: str) -> Command:
    def refuse(_context: Context, _words: Words) -> NoReturn:
        raise OperationDenied(f"%mentra {name} is not available yet. To ask the model: %mentra -- {name}")

    return Command(name, pattern, name, "", refuse, planned=True)


PLANNED = tuple(_planned(name, pattern) for name, pattern in _PATTERNS.items())

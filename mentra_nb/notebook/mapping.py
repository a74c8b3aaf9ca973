"""`--map FRAME`: a question about each row of a frame of the notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mentra_nb.errors import ConfigurationError
from mentra_nb.notebook.typed_as import named_type

if TYPE_CHECKING:
    from mentra_nb.notebook.grammar import Parsed

_OF_A_TURN = (
    *("session", "tool", "no_tools", "include", "quiet", "verbose", "bg", "code"),
    *("keep", "fresh", "more", "new", "fork", "at", "plan"),
)
"""The options that a map has no use for."""


def map_rows(parsed: Parsed, names: dict[str, Any]) -> Any:
    """Ask about each row, and return the frame with the answers as columns. With `-o`, store it and return `None`.

    Raises:
        ConfigurationError: there is no such variable, or an option is only for a turn; else as `mn.map`.
    """
    from mentra_nb.rows.api import map as ask_each

    name = parsed.map or ""
    if (wrong := [option for option in _OF_A_TURN if getattr(parsed, option)]) != []:
        raise ConfigurationError(f"--map asks each row by itself: leave --{wrong[0].replace('_', '-')} out")
    if name not in names:
        raise ConfigurationError(f"there is no '{name}' in this notebook to map over: make the frame first")
    how: dict[str, Any] = {} if parsed.as_ is None else {"as_": named_type(parsed.as_, names)}
    found = ask_each(parsed.prompt, names[name], model=parsed.model, budget=parsed.budget, dry=parsed.dry, **how)
    if parsed.out is None or parsed.dry:
        return found
    names[parsed.out] = found
    return None

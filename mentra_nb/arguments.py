"""Checks of the arguments a person gave, for one sentence in place of an error from deep inside."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mentra_nb.errors import ConfigurationError


def check_text(example: str, optional: Mapping[str, object] | None = None, **words: object) -> None:
    """Raise `ConfigurationError` if one of `words` (what it is → its value) is not text.

    Those in `optional` may be `None` as well. `example` shows how it is called.
    """
    given = {what: value for what, value in (optional or {}).items() if value is not None}
    for what, value in (words | given).items():
        if not isinstance(value, str):
            raise ConfigurationError(f"the {what} must be text, not {type(value).__name__}: {example}")


def check_path(example: str, path: object) -> None:
    """Raise `ConfigurationError` if `path` is not text or a path. `example` shows how it is called."""
    if not isinstance(path, str | os.PathLike):
        raise ConfigurationError(f"the path must be text or a Path, not {type(path).__name__}: {example}")


def check_words(prompt: object, model: object, session: object) -> None:
    """Raise `ConfigurationError` if there is no prompt, or if one of these is not text."""
    check_text("mn.ask('What is …?')", {"model": model, "name of a conversation": session}, prompt=prompt)
    if not str(prompt).strip():
        raise ConfigurationError("there is nothing to ask: write a prompt")

"""A user's own expressions for what the record must not keep, each held to a time.

An expression that takes too long for a text cannot say what in it is to be hidden, so the whole text is withheld.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mentra_nb.errors import ConfigurationError
from mentra_nb.secrets.mask import REDACTED

if TYPE_CHECKING:
    import regex

log: logging.Logger = logging.getLogger(__name__)

WITHHELD = "[withheld: an expression of the setting redact took too long]"
SECONDS = 0.05
"""What all expressions together may take for one event; the texts that are left then are withheld."""


class OwnExpressions:
    """Expressions whose matches are replaced. Raises `ConfigurationError` for one that is invalid."""

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self.patterns: tuple[str, ...] = tuple(patterns)
        self._compiled = [_compiled(pattern) for pattern in self.patterns]
        self._slow: set[str] = set()
        self._until = 0.0

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def begin(self) -> None:
        """Begin another event."""
        self._until = time.monotonic() + SECONDS

    def applied(self, text: str) -> str:
        """Return the text with `[redacted]` for each match that is not empty, or `WITHHELD` if that takes too long."""
        for expression in self._compiled:
            left = self._until - time.monotonic()
            try:
                if left <= 0:
                    return WITHHELD
                text = expression.sub(_hidden, text, timeout=left)
            except TimeoutError:
                self._tell(expression.pattern)
                return WITHHELD
        return text

    def _tell(self, pattern: str) -> None:
        if pattern not in self._slow:
            self._slow.add(pattern)
            log.warning("redact: %r takes over %g s, so the record withholds the text; simplify it", pattern, SECONDS)


def _hidden(found: regex.Match[str]) -> str:
    return REDACTED if found[0] else ""


def _compiled(pattern: str) -> regex.Pattern[str]:
    import regex

    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError) as error:
        raise ConfigurationError(f"redact: {pattern!r} is not a regular expression: {error}") from None

"""What a row of the table holds: a subcommand or an option, and what its functions are given."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mentra_nb.authorization import PermissionDecision

if TYPE_CHECKING:
    from mentra_nb.chat.chat import Chat
    from mentra_nb.chat.reply import Reply
    from mentra_nb.chat.turn import RunningTurn

Answer = PermissionDecision | Literal["stop", "stop all"]
"""The answer to a permission question; `stop` ends the turn that asked, `stop all` also all background commands."""

Words = Mapping[str, str | None]
"""The named groups of a subcommand's pattern: `None` where the user typed nothing."""


class Names(Protocol):
    """The names completion can offer. Each method is called only when its names are needed."""

    def functions(self) -> Iterable[str]: ...

    def models(self) -> Iterable[str]: ...

    def references(self) -> Iterable[str]: ...

    def commands(self) -> Iterable[str]: ...

    def rules(self) -> Iterable[str]: ...

    def sessions(self, *, unnamed: bool) -> Iterable[str]: ...

    def session_ids(self) -> Iterable[str]: ...


Completion = Callable[[Names], Iterable[str]]


def one_of(*words: str) -> Completion:
    """Complete one of these words."""
    return lambda _names: words


@dataclass(frozen=True)
class Context:
    """What a subcommand works on."""

    namespace: dict[str, Any]
    """The user's variables."""
    show: Callable[[RunningTurn], Reply]
    """Show a turn in the running cell until it ends, and store its reply as `_mentra`."""

    def conversation(self, name: str | None = None) -> Chat:
        """Return the conversation of that name; without one, the notebook's own."""
        from mentra_nb.chat.api import conversation

        return conversation(name)


@dataclass(frozen=True)
class Option:
    """An option before a question. `value` names its value, and `many` lets it be given more than once."""

    flags: tuple[str, ...]
    help: str
    value: str | None = None
    many: bool = False
    complete: Completion | None = None

    @property
    def name(self) -> str:
        name = self.flags[-1].removeprefix("--").replace("-", "_")
        return f"{name}_" if iskeyword(name) else name


@dataclass(frozen=True)
class Command:
    """A subcommand. A line is one only if the whole of it fits `pattern`; anything else is a question.

    A blank in `pattern` stands for any blanks. `complete` has an entry for each word after the name.
    """

    name: str
    pattern: str
    usage: str
    help: str
    run: Callable[[Context, Words], Any]
    """Returns the value of the cell, or `None`."""
    complete: tuple[Completion, ...] = ()
    answer: Callable[[Words], Answer] | None = None
    """For a subcommand that answers an open question: the answer."""
    short: Mapping[str, str] = field(default_factory=dict)
    """What may be typed at a prompt for an answer → the line it stands for."""
    holds: Callable[[Words], bool] | None = None
    """Whether a line that fits is the subcommand now; else it is a question. Without it, it always is."""

    def words(self, line: str) -> Words | None:
        """Return the groups of `pattern` in `line`, or `None` where the line does not fit."""
        found = self._expression.fullmatch(line)
        return None if found is None else found.groupdict()

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return re.compile(self.pattern.replace(" ", r"[ \t]+"))


def say(text: str) -> None:
    """Print the output of a subcommand."""
    print(text)  # noqa: T201

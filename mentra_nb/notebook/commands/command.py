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
    prose: str = ""
    """The group that is the person's own words: what follows a `#` in it is no comment."""
    meant: str = ""
    """What else may follow the name only where the subcommand is meant: such a line is refused if it does not fit."""
    problem: Callable[[Words], str | None] | None = None
    """Why a line that fits is refused all the same."""
    hint: str = ""
    """What is said in addition where a line is refused."""

    def words(self, line: str) -> Words | None:
        """Return the groups of `pattern` in `line` without its ` # comment`; `None` where the line does not fit."""
        found, sign = self._expression.fullmatch(line), _comment(line)
        if sign is not None and not (found is not None and self.prose and 0 <= found.start(self.prose) <= sign):
            found = self._expression.fullmatch(line[:sign].rstrip())
        return None if found is None else found.groupdict()

    def why_refused(self, line: str) -> str | None:
        """Return why a line that begins with the name, and looks like the subcommand, is not carried out.

        `None` for one that is carried out, and for prose.
        """
        line = " ".join(line.split())
        words, hint = self.words(line), self.hint
        if words is not None:
            found = self.problem(words) if self.problem is not None else None
            if found is None:
                return None
            hint = found
        elif not self._is_meant(line.partition(" ")[2]):
            return None
        return f"'{line}' is not carried out: write %mentra {self.usage}{f'; {hint}' if hint else ''}"

    def _is_meant(self, rest: str) -> bool:
        if self.meant and re.match(self.meant, rest, re.IGNORECASE):
            return True
        words, own = _WORD.findall(rest), {*re.findall("[a-z]+", self.usage), "once", "and", "or"}
        has_id = bool(words) and _ID.fullmatch(words[0]) is not None
        return has_id or all(word.lower() in own or _NO_PROSE.fullmatch(word) for word in words)

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        return re.compile(self.pattern.replace(" ", r"[ \t]+"))


_WORD = re.compile(r"""(?:"[^"]*"|'[^']*'|[^\s"']|["'])+""")
_ID = re.compile(r"(?:run|undo|session|bg|turn)-\w*\d[\w-]*")
_NO_PROSE = re.compile(rf"""[#-].*|\d[\d.,:;/-]*|{_ID.pattern}|[^=]+=.*|"[^"]*"|'[^']*'|[\W_]+""")
"""A word that is none of a sentence: a number, an option, an id, a value, one in quotes, a sign."""
_SIGN = re.compile(r"""(?<![^\s=])(?:"[^"]*"|'[^']*')|(?<!\S)(?P<sign>#)(?=\s|$)""")


def _comment(line: str) -> int | None:
    """Return where the `#` of a comment stands in a line: between blanks, and not in quotes."""
    return next((found.start() for found in _SIGN.finditer(line) if found["sign"]), None)


def say(text: str) -> None:
    """Print the output of a subcommand."""
    print(text)  # noqa: T201

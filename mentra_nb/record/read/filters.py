"""The filters that the record's functions take as keywords, declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any, TypedDict, TypeVar, get_args, get_type_hints

from mentra_nb.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])

One = str | Sequence[str] | None
"""A value, or several of which one must match. `None` matches everything."""
When = str | date | datetime | timedelta | None
"""A date or time, or a time span before now. ISO text and dates are UTC unless they name another zone; a `datetime`
without a zone is local time."""


_this: list[Callable[[], str]] = []


def set_this_session(find: Callable[[], str]) -> None:
    """Set the function that returns the id of the notebook's conversation."""
    _this[:] = [find]


def this_session() -> str:
    """Return the id of the notebook's conversation, which is `session="this"`.

    Raises:
        ConfigurationError: there is none in this process yet.
    """
    if not _this:
        raise ConfigurationError("session='this' is this notebook's conversation, and it has none yet: ask something")
    return _this[0]()


class Filters(TypedDict, total=False):
    """The filters that every function takes."""

    session: One
    """Session ids or names; `this` is the notebook's conversation, or that of `mn.ask` in a script."""
    since: When
    """The earliest time, inclusive."""
    until: When
    """The latest time, exclusive."""
    folder: str | Path | None
    """The record's folder, by default `paths.record_folder()`."""


class PeopleFilters(Filters, total=False):
    """The filters of frames that say who: in a shared record there are rows of several people and machines."""

    os_user: One
    """Users of the operating system."""
    host: One
    """Names of machines."""


class EventFilters(PeopleFilters, total=False):
    kind: One
    run: One
    tool: One


class SessionFilters(PeopleFilters, total=False):
    model: One
    notebook: One
    project: One


class TurnFilters(PeopleFilters, total=False):
    model: One
    notebook: One
    cell: One


class ModelCallFilters(PeopleFilters, total=False):
    model: One
    outcome: One


class ToolFilters(PeopleFilters, total=False):
    tool: One


class ToolCallFilters(ToolFilters, total=False):
    outcome: One


class DecisionFilters(ToolFilters, total=False):
    outcome: One
    decided_by: One
    rule_id: One


class RuleFilters(ToolFilters, total=False):
    rule_id: One


class EffectFilters(ToolFilters, total=False):
    path: One
    change: One
    run: One


class AdviceFilters(ToolFilters, total=False):
    model: One


class FeedbackFilters(PeopleFilters, total=False):
    verdict: One
    model: One
    notebook: One


class UsageFilters(PeopleFilters, total=False):
    model: One
    notebook: One


_SHOWN_LAST = ("since", "until", "folder")


def filtered(function: F) -> F:
    """Give a function with `**filters: Unpack[…]` a signature that names each filter, and refuse other keywords."""
    hints = get_type_hints(function)
    parameters = list(inspect.signature(function).parameters.values())
    (filters,) = get_args(hints[parameters[-1].name])
    known = [each.replace(annotation=hints[each.name]) for each in parameters[:-1]]
    names = sorted(get_type_hints(filters).items(), key=lambda item: (item[0] != "session", item[0] in _SHOWN_LAST))
    signature = inspect.Signature(
        [
            *known,
            *(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=type_)
                for name, type_ in names
            ),
        ],
        return_annotation=hints["return"],
    )

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{function.__name__}() {error}") from None
        given = {name: _checked(name, kwargs[name], type_) for name, type_ in names if name in kwargs}
        return function(*args, **kwargs | given)

    checked.__signature__ = signature  # type: ignore[attr-defined]
    checked.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
    checked.__annotations__["return"] = hints["return"]
    return checked  # type: ignore[return-value]


def _checked(name: str, value: Any, type_: Any) -> Any:
    """Return the value of a filter, several as a list. Raises `ConfigurationError` for one of another type."""
    if type_ == When and not isinstance(value, When):
        raise ConfigurationError(
            f"{name} must be a time, not {type(value).__name__}: write it as '2026-03-01' or timedelta(days=1)"
        )
    if type_ != One or value is None or isinstance(value, str):
        return value
    several = list(value) if isinstance(value, Iterable) else [value]
    for each in several:
        if not isinstance(each, str):
            raise ConfigurationError(f"{name} must be text or a list of texts, not {type(each).__name__}")
    return several

"""The port through which a blocking turn is shown. The notebook fills it; without it a turn is only waited for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Presenter:
    """`show` follows a turn to its end and returns the reply; `can_ask` says whether a person is there to answer."""

    show: Callable[[Any], Any]
    can_ask: Callable[[], bool]


presenter: Presenter | None = None


def present_with(new: Presenter | None) -> None:
    """From now on, show turns this way; `None` for not at all."""
    global presenter
    presenter = new

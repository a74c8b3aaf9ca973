"""The port through which a blocking turn is shown and answered. The notebook fills it; without it a turn is only
waited for, and nobody can be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mentra_nb.event_types import RunOrigin


@dataclass
class Presenter:
    """`show` follows a turn to its end, answers its questions and returns the reply.

    `origin` is where a prompt comes from, and `notebook` the notebook that is open.
    """

    show: Callable[[Any], Any]
    origin: Callable[[str], RunOrigin]
    notebook: Callable[[], str | None]


presenter: Presenter | None = None


def present_with(new: Presenter | None) -> None:
    """From now on, show turns this way; `None` for not at all."""
    global presenter
    presenter = new

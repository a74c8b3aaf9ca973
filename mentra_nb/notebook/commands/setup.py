"""`check` and `config`: what works here, and what is set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from mentra_nb.notebook import kernel
from mentra_nb.notebook.commands.command import Context, Words
from mentra_nb.notebook.pump import clicks_are_served

if TYPE_CHECKING:
    import pandas as pd

    from mentra_nb.chat.doctor import Finding

MARKS = {True: "✓", False: "✗", None: "·"}
"""The signs of what works, what does not, and what is only said."""


def check(_context: Context, _words: Words) -> pd.DataFrame:
    """Return the findings about the kernel, the front end and the engine."""
    import pandas as pd

    from mentra_nb.chat.doctor import findings
    from mentra_nb.chat.engine import engine
    from mentra_nb.notebook.commands.listing import listing

    found = (*_kernel_findings(), *findings(engine()))
    frame = pd.DataFrame([{"mark": MARKS[each.ok], **vars(each)} for each in found])
    return listing(frame, {"mark": "", "check": "check", "detail": "found", "fix": "what to do"}, "")


def config(_context: Context, _words: Words) -> pd.DataFrame:
    """Return the settings and their sources."""
    import pandas as pd

    from mentra_nb.chat.engine import engine
    from mentra_nb.notebook.commands.listing import listing

    settings = engine().settings
    rows = [
        (name, value := getattr(settings, name), settings.source(name), _said(value), field.description)
        for name, field in type(settings).model_fields.items()
    ]
    frame = pd.DataFrame(rows, columns=["setting", "value", "source", "said", "description"])
    return listing(frame, {"setting": "setting", "said": "value", "source": "set by", "description": "meaning"}, "")


def _said(value: Any) -> str:
    """Return the value of a setting as a person reads it."""
    match value:
        case None:
            return "not set"
        case tuple() | dict() if not value:
            return "none"
        case bool():
            return "on" if value else "off"
        case tuple():
            return "\n".join(value)
        case dict():
            return "\n".join(
                f"{name}: {_without_secrets(str(getattr(each, 'address', each)))}" for name, each in value.items()
            )
    return f"{value:g}" if isinstance(value, float) else str(value)


def _without_secrets(address: str) -> str:
    """Return an address without its query and password; other text as it is."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="")) if parts.netloc else address


def _kernel_findings() -> Iterator[Finding]:
    """Check this kernel and its front end."""
    from importlib.metadata import version

    from mentra_nb.chat.doctor import Finding

    if kernel.ipykernel_kernel() is None:
        where = "a terminal: questions are asked as text" if kernel.in_terminal() else "no kernel and no terminal"
        yield Finding("front end", kernel.in_terminal() or None, where)
        return
    answers = kernel.front_end_answers()
    yield Finding(
        "front end",
        True if answers else None,
        "a person can be asked" if answers else "nobody can be asked: an automatic run",
        "" if answers else "allow beforehand with mn.allow(…)",
    )
    served = clicks_are_served()
    yield Finding(
        "clicks while a cell runs",
        served,
        f"ipykernel {version('ipykernel')}",
        "" if served else "questions are asked as text; ipykernel 6.29 to 7.4 is known to work",
    )
    yield Finding("widgets", True, f"ipywidgets {version('ipywidgets')}, anywidget {version('anywidget')}")

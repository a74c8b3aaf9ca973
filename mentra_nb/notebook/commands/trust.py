"""`trust`: what came with the project's folder, as a diff against what was trusted before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING

from mentra_nb import paths, trust
from mentra_nb.errors import ConfigurationError, OperationDenied
from mentra_nb.notebook import kernel
from mentra_nb.notebook.commands.command import Context, Words, say
from mentra_nb.page.escaping import visible
from mentra_nb.trust import Content

if TYPE_CHECKING:
    import pandas as pd

MAX_LINES = 1_000
"""Lines of a diff that are shown; a longer content cannot be trusted here."""
MAX_NOTEBOOK = 20 << 20
"""Bytes of a notebook whose metadata are looked at."""
_shown: dict[tuple[Path, str], str] = {}
"""The digests of what was shown in this kernel: only that can be trusted."""


def trust_command(_context: Context, words: Words) -> pd.DataFrame | None:
    """Show what waits for trust, or trust some of it, or withdraw trust."""
    waiting, trusted, _ = _found()
    if words["revoke"] is not None:
        gone = _chosen([*waiting, *trusted], words["number"] or "")
        trust.withdraw(gone.root, gone.name)
        say(f"{gone.name} is trusted no longer. What it has set up in this kernel stays until the kernel restarts.")
        return None
    if (which := words["which"]) is None:
        return _show(waiting, trusted)
    chosen = waiting if which == "all" else [_chosen(waiting, which)]
    if not chosen:
        raise OperationDenied("nothing here waits to be trusted")
    unseen = [each for each in chosen if _shown.get((each.root, each.name)) != each.digest]
    if unseen:
        _show_diffs(unseen)
        say(f"This was not shown before, or has changed. Look at it, then: %mentra trust {which}")
        return None
    from mentra_nb.chat.engine import engine

    for content in chosen:
        trust.grant(content)
        say(f"Trusted: {content.name}, as long as it stays as it is now.")
    engine().reload_settings()
    return None


def lines() -> list[str]:
    """Return a line for each thing that came with the folder and does not hold."""
    waiting, _, problems = _found()
    return [*(content.line() for content in waiting), *problems]


def _found() -> tuple[list[Content], list[Content], list[str]]:
    """Return what waits, what is trusted, and lines about what can never hold."""
    from mentra_nb.chat.engine import engine
    from mentra_nb.chat.instructions import find_notes
    from mentra_nb.setting_files import load

    used, found = engine(), load()
    waiting, trusted, problems = found.waiting, found.trusted, found.problems
    try:
        notes = find_notes(used.settings.instructions)
        if notes is not None:
            (trusted if trust.is_trusted(notes) else waiting).append(notes)
    except ConfigurationError as error:
        problems.append(str(error))
    return waiting, trusted, [*problems, *used.not_offered(), *_metadata()]


def _metadata() -> Iterator[str]:
    """Yield a line if the open notebook's metadata has settings, which are never read."""
    file = paths.project_root() / kernel.notebook_name()
    if file.suffix != ".ipynb":
        return
    try:
        large = file.stat().st_size > MAX_NOTEBOOK
        metadata = {} if large else json.loads(file.read_bytes()).get("metadata", {})
        found = [name for name in metadata if name.partition("_")[0].partition("-")[0].lower() == "mentra"]
    except (OSError, ValueError, AttributeError, RecursionError):
        return
    if found:
        yield f"{file.name}: what its metadata says under {', '.join(map(repr, found))} is ignored: it is never read"


def _chosen(contents: list[Content], number: str) -> Content:
    if not number.isdecimal() or not 0 < int(number) <= len(contents):
        raise OperationDenied(f"there is no {number or 'number'} in the list of %mentra trust")
    return contents[int(number) - 1]


def _show(waiting: list[Content], trusted: list[Content]) -> pd.DataFrame:
    """Print the diffs of what waits, and return the table of all."""
    import pandas as pd

    from mentra_nb.notebook.commands.listing import listing

    _show_diffs(waiting)
    *_, problems = _found()
    for problem in problems:
        say(visible(problem))
    if waiting:
        numbers = "%mentra trust 1" if len(waiting) == 1 else f"%mentra trust 1 … {len(waiting)}, or %mentra trust all"
        say(f"To trust: {numbers}. Where nobody can be asked: {trust.VARIABLE}='{_variable(waiting)}'\n")
    rows = [
        (n, content.name, content.wants if content in waiting else "trusted", content.digest, str(content.root))
        for n, content in enumerate([*waiting, *trusted], 1)
    ]
    frame = pd.DataFrame(rows, columns=["n", "file", "state", "sha256", "project"])
    frame.attrs["mentra_nb"] = True
    shown = {"n": "", "file": "came with the folder", "state": "state"}
    return listing(frame, shown, f"Nothing that came with {paths.project_root()} needs to be trusted.")


def _variable(contents: list[Content]) -> str:
    return " ".join(f"{content.name}@{content.digest}" for content in contents)


def _show_diffs(contents: list[Content]) -> None:
    """Print each content as a diff against what was trusted before, with secrets masked."""
    for content in contents:
        lines = _diff(content)
        for line in lines[:MAX_LINES]:
            say(visible(line))
        if len(lines) > MAX_LINES:
            say(f"… {len(lines) - MAX_LINES} more lines: it is too long to be trusted here, so make it shorter\n")
            continue
        say("")
        _shown[content.root, content.name] = content.digest


def _diff(content: Content) -> list[str]:
    from mentra_nb.secrets.mask import mask_secrets  # loads expressions

    old, new = (mask_secrets(text).splitlines() for text in (trust.before(content), content.text))
    if not old:
        return [f"{content.name}: {content.wants}. It was never trusted here, and says:", *(f"+{line}" for line in new)]
    changes = list(unified_diff(old, new, "trusted before", "now", lineterm=""))
    return [f"{content.name}: {content.wants}. Since you trusted it, it has changed:", *(changes or [" only secrets"])]

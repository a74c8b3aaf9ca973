"""`model`, `models` and `alias`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mentra_nb.errors import ConfigurationError
from mentra_nb.notebook.commands.command import Context, Words, say

if TYPE_CHECKING:
    import pandas as pd


def model(_context: Context, words: Words) -> None:
    """Show or set the model of later turns."""
    from mentra_nb.chat.doctor import model_finding
    from mentra_nb.chat.engine import engine

    used, name = engine(), words["name"]
    if name is not None:
        used.set_model(name, "%mentra model")
    say(used.settings.model or f"none is set, so it is {model_finding(used).detail}")


def models(_context: Context, words: Words) -> pd.DataFrame:
    """Return the table of models."""
    from mentra_nb.chat import api
    from mentra_nb.notebook.commands.listing import listing

    found = api.models(words["text"], all=words["all"] is not None)
    shown = {"model": "model", "display_name": "name", "context_window": "context", "created_at": "released"}
    return listing(found, shown, "No model has that in its name: %mentra models lists those made for conversation.")


def alias(_context: Context, words: Words) -> None:
    """Show the aliases, or set one."""
    from mentra_nb.chat.engine import engine
    from mentra_nb.chat.models import with_alias

    used, name, target = engine(), words["name"], words["target"]
    if name is not None and target is not None:
        aliases = with_alias(name, target, used.settings, used.registered())
        used.settings.change("aliases", aliases, "%mentra alias")
    shown = {key: value for key, value in used.settings.aliases.items() if name in (None, key)}
    if name is not None and not shown:
        raise ConfigurationError(f"there is no alias '{name}': %mentra alias {name} provider/model makes it")
    say("\n".join(f"{key} → {value}" for key, value in sorted(shown.items())) or "there are no aliases")

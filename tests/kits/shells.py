"""IPython shells with the extension loaded, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from mentra_nb.chat.engine import engine
from mentra_nb.notebook import extension
from mentra_nb.providers.scripted import ScriptedAnswer, ScriptedProvider

Mentra = Callable[[str], Any]
"""`%mentra`, called with the rest of its line."""


@contextmanager
def loaded_shell() -> Iterator[Any]:
    """Yield a shell that is not the instance of the process."""
    shell: Any = InteractiveShell(cache_size=0)
    extension.load(shell)
    try:
        yield shell
    finally:
        extension.unload(shell)
        shell.history_manager.end_session()


def answers(*given: ScriptedAnswer) -> ScriptedProvider:
    """Let the engine of this process answer from a script, and return the model that does."""
    provider = ScriptedProvider(given)
    engine().use(provider, "scripted")
    return provider

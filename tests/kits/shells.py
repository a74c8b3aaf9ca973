"""IPython shells with the extension loaded, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from IPython.core.interactiveshell import InteractiveShell

from mentra_nb.notebook import extension


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

"""Facts about the kernel, its front end, the running cell and the notebook."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mentra_nb.event.types import TurnOrigin
    from mentra_nb.notebook.output import Screen


def ipykernel_kernel() -> Any:
    """Return the running ipykernel; `None` in terminal IPython, plain Python and other kernels."""
    if "ipykernel" not in sys.modules:
        return None
    kernel = getattr(_shell(), "kernel", None)
    return kernel if hasattr(kernel, "comm_manager") and hasattr(kernel, "session") else None


def _shell() -> Any:
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    return get_ipython()


def cell_request() -> dict[str, Any]:
    """Return the message that asked for the running cell; empty outside a kernel."""
    kernel = ipykernel_kernel()
    return (kernel.get_parent("shell") or {}) if kernel is not None else {}


def front_end_answers() -> bool:
    """Return whether a user can be asked. Automatic runs (nbclient, nbval, papermill) do not send `allow_stdin`.

    Where code is run by a widget, such as a button, a page is open.
    """
    return bool(cell_request().get("content", {}).get("allow_stdin")) or not runs_in_a_cell()


def runs_in_a_cell() -> bool:
    """Return whether the code runs in a cell, not in the message of a widget."""
    return bool(cell_request().get("header", {}).get("msg_type") != "comm_msg")


def is_captured() -> bool:
    """Return whether the output is collected, as by `%%capture`, not shown."""
    from IPython.core.displaypub import CapturingDisplayPublisher

    return isinstance(getattr(_shell(), "display_pub", None), CapturingDisplayPublisher)


def is_watched() -> bool:
    """Return whether a person is at the running cell."""
    return front_end_answers() or in_terminal()


def in_terminal() -> bool:
    """Return whether this is a terminal: IPython or plain Python, not a kernel."""
    return ipykernel_kernel() is None and sys.stdin is not None and sys.stdin.isatty()


def screen() -> Screen:
    """Return where the running cell shows its output."""
    return "page" if front_end_answers() else "terminal" if in_terminal() else "automatic"


def cell_id() -> str | None:
    """Return the front end's id of the running cell, or `None` if it sends none."""
    found = (cell_request().get("metadata") or {}).get("cellId")
    return found if isinstance(found, str) else None


def running_cell() -> TurnOrigin:
    """Return the running cell as the origin of a turn. A hash of its code stands in for an id the front end lacks."""
    from mentra_nb.event.types import TurnOrigin

    code, count = cell_request().get("content", {}).get("code"), execution_count()
    if code is None and count is not None:  # a terminal
        code = _shell().history_manager.input_hist_raw[-1]
    stand_in = hashlib.sha256(code.encode()).hexdigest()[:16] if code is not None else None
    return TurnOrigin(cell_id=cell_id() or stand_in, execution_count=count)


def execution_count() -> int | None:
    """Return the `n` of `In[n]` of the running cell, or `None` outside IPython."""
    history = getattr(_shell(), "history_manager", None)
    # Not `shell.execution_count`, which is the number of the next cell in some releases of IPython.
    return len(history.input_hist_parsed) - 1 if history is not None else None


def cells() -> list[str]:
    """Return the source of the cells as they were written, by their number; the running one is the last."""
    history = getattr(_shell(), "history_manager", None)
    return list(history.input_hist_raw) if history is not None else []


def notebook_name() -> str:
    """Return the notebook's path from the front end, else the working directory."""
    names = getattr(_shell(), "user_ns", {})
    return os.environ.get("JPY_SESSION_NAME") or names.get("__vsc_ipynb_file__") or str(Path.cwd())

"""Making the changes of a call to files, as a whole, so that they are recorded and can be undone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import BinaryIO

import anyio.to_thread

from mentra_nb.effect.journal import Journal, JournalEntry
from mentra_nb.effect.types import Conflict, FileChange
from mentra_nb.tools.schema import ToolError
from mentra_nb.tools.tool import ToolContext


async def keep(context: ToolContext, changes: Sequence[FileChange], content: Callable[[str], BinaryIO]) -> None:
    """Make the changes of a call, all or none. Raises `ToolError`, and then nothing was written."""

    def apply() -> JournalEntry:
        return Journal().apply(changes, content, turn=context.run_id, call=context.tool_call_id, tool=context.tool_name)

    if not changes:
        return
    try:
        # not abandoned on a stop: it is short and ends whole
        entry = await anyio.to_thread.run_sync(apply)
    except Conflict as error:
        raise ToolError(str(error)) from error
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise ToolError(f"nothing was written: {error.strerror or error}{where}") from error
    context.changed(entry)

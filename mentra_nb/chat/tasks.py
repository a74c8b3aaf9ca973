"""The task board of a conversation, for a person: a table of its tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mentra_nb.arguments import check_text
from mentra_nb.chat.api import conversation
from mentra_nb.chat.engine import engine

if TYPE_CHECKING:
    import pandas as pd

    from mentra_nb.store.records import TaskItem

WHY_EMPTY = "There are no tasks in this conversation. %config Mentra.tasks = True offers the model a task board."


def tasks(session: str | None = None) -> pd.DataFrame:
    """Return the tasks of a session's board, by id; by default those of this notebook's conversation.

    Args:
        session: The name or id of a session.

    Columns: id (int), status (`pending`, `in_progress`, `completed`), subject, owner (str), blocked_by, blocks (lists
    of ids), description (str), working_directory (str or `None`).

    Example:
        >>> len(mn.tasks())
        0
    """
    import pandas as pd

    from mentra_nb.record.empty import or_why

    check_text("mn.tasks('sales')", {"session": session})
    wanted, store = session or conversation().id, engine().runtime.store

    async def read() -> list[TaskItem]:
        stored = await store.load_conversation(wanted)
        if stored is None:
            return []
        return await store.load_tasks(stored.agent.config.get("task_board") or stored.agent.id)

    rows = [
        {**task.model_dump(), "blocked_by": list(task.blocked_by), "blocks": list(task.blocks)}
        for task in engine().call(read)
    ]
    columns = ["id", "status", "subject", "owner", "blocked_by", "blocks", "description", "working_directory"]
    frame = pd.DataFrame(rows, columns=columns)
    frame.attrs["mentra_nb"] = True
    return or_why(frame, WHY_EMPTY)

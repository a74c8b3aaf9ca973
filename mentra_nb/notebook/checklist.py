"""The task board of a turn on the page: a line for each task, folded once all are done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mentra_nb.page.render import Bundle, line

MOST = 50
"""Tasks that are shown, those that are open first to be kept."""
_MARKS = {"pending": "☐", "in_progress": "◐", "completed": "☑"}


class Checklist:
    """The tasks as they were last seen, and whether they were shown so."""

    def __init__(self) -> None:
        self._tasks: Sequence[dict[str, Any]] = ()
        self.changed: bool = False
        self.display: str | None = None
        """Where it is shown."""

    def take(self, tasks: Sequence[dict[str, Any]]) -> None:
        """Take the tasks of a `tasks_updated`."""
        self._tasks, self.changed = tasks, True

    def bundle(self) -> Bundle:
        """Return what shows the tasks as they are now."""
        self.changed = False
        done = sum(task["status"] == "completed" for task in self._tasks)
        is_open = done < len(self._tasks)
        rows = self._rows()
        data = line(
            f"tasks: {done} of {len(self._tasks)} done",
            "▸" if is_open else "✓",
            detail="\n".join(rows),
            is_open=is_open,
        )
        if is_open:
            data["text/plain"] = "\n".join([data["text/plain"], *(f"  {row}" for row in rows)])
        return data

    def _rows(self) -> list[str]:
        left = [task for task in self._tasks if task["status"] != "completed"]
        shown = self._tasks if len(self._tasks) <= MOST else left[:MOST]
        rows = [_row(task) for task in shown]
        return [*rows, f"… and {len(self._tasks) - len(rows)} more"] if len(rows) < len(self._tasks) else rows


def _row(task: dict[str, Any]) -> str:
    """Return a task as one line, without secrets and without anything that could break the line."""
    waits = ", ".join(map(str, task["blockedBy"]))
    notes = [f"waits for {waits}" if waits else "", task["owner"]]
    text = line(f"{task['id']} {task['subject']}", _MARKS[task["status"]], note=" · ".join(filter(None, notes)))
    return str(text["text/plain"])

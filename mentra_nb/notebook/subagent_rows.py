"""The subagents of a turn on the page: a line for each, which says what it does and how it ended."""

from __future__ import annotations

from mentra_nb.event.screen import TaskUpdated
from mentra_nb.page.render import Bundle, line


class SubagentRow:
    """One subagent, as the page shows it."""

    def __init__(self, spawned: TaskUpdated) -> None:
        self.title: str = spawned.title
        self.display: str | None = None
        """Where it is shown."""
        self.changed: bool = True
        self._task = (spawned.detail or "").strip()
        self._last = spawned
        self._calls = 0

    def take(self, event: TaskUpdated) -> None:
        """Take what the subagent did next."""
        self._calls += event.status == "running" and event.kind == "subagent"
        self._last, self.changed = event, True

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._last.status in ("finished", "failed")

    def bundle(self) -> Bundle:
        """Return the line as it is now."""
        self.changed = False
        status, doing = self._last.status, self._last.detail or ""
        calls = f"{self._calls} call{'s' * (self._calls != 1)}" if self._calls else ""
        if status == "failed":
            notes, mark = ["failed", calls, doing], "✗"
        elif status == "finished":
            notes, mark = ["finished", calls], "✓"
        else:
            notes, mark = [doing if status == "running" else "started"], "▸"
        return line(self.title, mark, note=" · ".join(filter(None, notes)), detail=self._task)

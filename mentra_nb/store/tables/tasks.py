"""The table of task boards. A board changes in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mentra_nb.store import records as r
from mentra_nb.store.transactions import Database, Transaction, insert, to_json

T = TypeVar("T")


class TaskTable(Database):
    async def load_tasks(self, namespace: str) -> list[r.TaskItem]:
        return list((await self.read(lambda db: _load(db, namespace))).values())

    async def mutate_tasks(self, namespace: str, change: Callable[[list[r.TaskItem]], T]) -> T:
        def work(db: Transaction) -> T:
            before = _load(db, namespace)
            tasks = list(before.values())
            result = change(tasks)
            after = {task.id: task for task in tasks}
            for gone in before.keys() - after.keys():
                db.execute("DELETE FROM tasks WHERE namespace = ? AND id = ?", (namespace, gone))
            for task in after.values():
                if task != before.get(task.id):
                    row = {"namespace": namespace, "id": task.id, "payload": to_json(task)}
                    insert(db, "tasks", row, replace="namespace, id")
            return result

        return await self.write(work)


def _load(db: Transaction, namespace: str) -> dict[int, r.TaskItem]:
    rows = db.execute("SELECT payload FROM tasks WHERE namespace = ? ORDER BY id", (namespace,)).fetchall()
    tasks = [r.TaskItem.model_validate_json(row["payload"]) for row in rows]
    return {task.id: task for task in tasks}

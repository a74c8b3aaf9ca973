"""Deliver rows once: they are taken for a turn, then acknowledged, or put back because the turn failed.

pending → in_flight → acknowledged
   └──────────┘
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from mentra_nb.store.transactions import Transaction, marks


@dataclass(eq=False, repr=False)
class Mailbox:
    """The mail of one recipient: the rows of `table` whose `columns` have these `values`."""

    table: str
    columns: tuple[str, ...]
    values: tuple[str, ...]

    def _where(self) -> str:
        return " AND ".join(f"{column} = ?" for column in self.columns)

    def count(self, db: Transaction) -> int:
        """Return the number of pending rows."""
        statement = f"SELECT count(*) AS pending FROM {self.table} WHERE {self._where()} AND delivery = 'pending'"
        return int(db.execute(statement, self.values).fetchone()["pending"])

    def take(self, db: Transaction) -> list[dict[str, Any]]:
        """Mark the pending rows as in flight and return them, in no order."""
        statement = (
            f"UPDATE {self.table} SET delivery = 'in_flight' WHERE {self._where()} AND delivery = 'pending' RETURNING *"
        )
        return [dict(row) for row in db.execute(statement, self.values).fetchall()]

    def settle(
        self, db: Transaction, state: Literal["pending", "acknowledged"], ids: Collection[str] | None = None
    ) -> int:
        """Set the state of the rows in flight (only of those with these `ids`, if given). Return how many."""
        statement = f"UPDATE {self.table} SET delivery = ? WHERE {self._where()} AND delivery = 'in_flight'"
        parameters: list[str] = [state, *self.values]
        if ids is not None:
            statement += f" AND id IN ({marks([*ids])})" if ids else " AND 1 = 0"
            parameters += ids
        return db.execute(statement, parameters).rowcount
